import warnings
from itertools import combinations

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torchmetrics.functional.classification import binary_calibration_error

from fer_exp.plots.reliability import Panel, reliability_figure


def predictions(count, power=1.8):
    rng = np.random.default_rng(0)
    confidence = 1 - 0.85 * rng.beta(1, 2.5, count)
    return confidence, rng.random(count) < confidence**power


def drawn_bars(figure, panel=0):
    """The bars of one panel: accuracy, gap and share of images, each {left end: height}, by the bin's left end."""
    count = len(figure.axes) // 2
    diagram, histogram = figure.axes[panel], figure.axes[count + panel]
    containers = (*diagram.containers, *histogram.containers)
    return [{round(bar.get_x(), 6): bar.get_height() for bar in bars} for bars in containers]


@pytest.mark.parametrize("bins", [15, 10])
def test_gaps_weighted_by_images_are_the_calibration_error(bins):
    confidence, correct = predictions(3000)
    _, gaps, shares = drawn_bars(reliability_figure([Panel("as trained", confidence, correct, 0.1)], "T", bins))
    error = sum(shares[left] * abs(gap) for left, gap in gaps.items())
    expected = binary_calibration_error(torch.from_numpy(confidence), torch.from_numpy(correct).int(), bins)
    assert error == pytest.approx(expected.item(), abs=1e-6)
    assert sum(shares.values()) == pytest.approx(1)


def test_bars_are_the_accuracy_of_bins_and_gaps_reach_to_their_mean_confidence():
    confidence = np.array([0.5, 0.55, 0.59, 0.61, 0.95, 1.0, 1.0, 1.0])
    correct = np.array([True, False, False, True, True, True, False, True])
    accuracy, gaps, shares = drawn_bars(reliability_figure([Panel("", confidence, correct, 0.0)], "", bins=10))
    assert accuracy == {0.5: pytest.approx(1 / 3), 0.6: 1, 0.9: 0.75}  # none where there are no images
    means = {0.5: 1.64 / 3, 0.6: 0.61, 0.9: 3.95 / 4}
    assert {left: accuracy[left] + gap for left, gap in gaps.items()} == pytest.approx(means)
    assert {left: share for left, share in shares.items() if share} == {0.5: 0.375, 0.6: 0.125, 0.9: 0.5}


def test_panels_stand_side_by_side_on_the_same_scales():
    confidence, correct = predictions(500)
    panels = [
        Panel("as trained", confidence, correct, 0.13449),
        Panel("temperature 1.6", np.ones(500), correct, 0.4),
        Panel("none", np.zeros(0), np.zeros(0, bool), float("nan")),
    ]
    figure = reliability_figure(panels, "A title\nand a subtitle")
    diagrams, histograms = figure.axes[:3], figure.axes[3:]
    titles = [axes.get_title() for axes in diagrams]
    assert titles == ["as trained  ·  ECE 13.4 %", "temperature 1.6  ·  ECE 40.0 %", "none  ·  ECE n/a"]
    assert [text.get_text() for text in figure.texts] == ["A title", "and a subtitle"]
    for axes in diagrams:
        assert axes.get_xlim() == axes.get_ylim() == (0, 1)
        (diagonal,) = axes.lines
        np.testing.assert_array_equal(diagonal.get_xydata(), [[0, 0], [1, 1]])
    assert {axes.get_ylim() for axes in histograms} == {histograms[0].get_ylim()}
    assert histograms[0].get_ylim()[0] == 0
    assert histograms[0].get_ylim()[1] > 1  # all of the second panel's images are in one bin


@pytest.mark.parametrize("panels", [1, 2])
def test_texts_stay_in_the_picture_and_clear_of_one_another(panels):
    long = Panel("temperature $1.62$, fitted on the validation images " * 2, *predictions(50), 0.1)
    figure = reliability_figure(
        [long] * panels, "A title that is long " * 6 + "\n" + "and a subtitle that is longer " * 9
    )
    FigureCanvasAgg(figure).draw()
    labels = [label for axes in figure.axes for label in (axes.title, axes.xaxis.label, axes.yaxis.label)]
    ticks = [tick for axes in figure.axes for tick in (*axes.get_xticklabels(), *axes.get_yticklabels())]
    drawn = [text for text in (*figure.texts, *labels) if text.get_text()] + [*figure.legends]
    boxes = [artist.get_window_extent() for artist in drawn]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    boxes += [tick.get_window_extent() for tick in ticks if tick.get_text() and tick.get_visible()]
    for box in boxes:
        assert min(box.x0, box.y0, figure.bbox.x1 - box.x1, figure.bbox.y1 - box.y1) >= 0


def test_ticks_stay_light_when_the_figure_is_drawn_later():
    figure = reliability_figure([Panel("", *predictions(50), 0.1)], "")
    FigureCanvasAgg(figure).draw()
    for axes in figure.axes:
        assert {label.get_color() for label in (*axes.get_xticklabels(), *axes.get_yticklabels())} == {"white"}


def test_inputs_that_do_not_fit_are_refused():
    answers = np.array([True, False])
    with pytest.raises(ValueError, match="no panel"):
        reliability_figure([], "")
    with pytest.raises(ValueError, match=r"as trained: expected confidence \(N,\) and correct \(N,\), got \(3,\)"):
        reliability_figure([Panel("as trained", np.zeros(3), answers, 0.0)], "")
    for wrong in (1.01, -0.1, np.nan):
        with pytest.raises(ValueError, match=r"expected confidences in \[0, 1\]"):
            reliability_figure([Panel("", np.array([0.5, wrong]), answers, 0.0)], "")


def test_leaves_no_trace():
    before = dict(matplotlib.rcParams)
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        empty = Panel("", np.zeros(0), np.zeros(0, bool), float("nan"))
        FigureCanvasAgg(reliability_figure([empty], "")).draw()
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == []
