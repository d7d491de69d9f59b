import math
import warnings
from itertools import combinations
from typing import NamedTuple

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg

from fer_exp.plots.per_class import per_class_figure

CLASSES = ["angry", "disgust", "happy"]


class Interval(NamedTuple):
    value: float
    low: float
    high: float


UNDEFINED = Interval(math.nan, math.nan, math.nan)
SCORES = {
    "precision": [Interval(0.6, 0.55, 0.66), UNDEFINED, Interval(1.0, 1.0, 1.0)],
    "recall": [Interval(0.5, 0.41, 0.58), Interval(0.0, 0.0, 0.0), Interval(0.7, 0.2, 0.95)],
    "F1": [Interval(0.55, 0.5, 0.6), Interval(0.25, 0.1, 0.45), Interval(0.8, math.nan, math.nan)],
}


def draw(figure):
    FigureCanvasAgg(figure).draw()
    return figure.axes[0]


def test_bars_whiskers_and_figures_are_the_scores():
    axes = draw(per_class_figure(SCORES, CLASSES, [467, 56, 1895], "Scores", "validation"))
    averages = {"precision": 0.8, "recall": 0.4, "F1": (0.55 + 0.25 + 0.8) / 3}
    texts = {round(text.xy[1], 3): (text.xy[0], text.get_text()) for text in axes.texts}
    assert len(texts) == 12
    for bars, whiskers, (name, intervals) in zip(axes.containers, axes.collections, SCORES.items(), strict=True):
        assert bars.get_label() == name
        expected = [*intervals, Interval(averages[name], math.nan, math.nan)]
        for bar, interval in zip(bars, expected, strict=True):
            middle = bar.get_y() + bar.get_height() / 2
            end, text = texts[round(middle, 3)]
            if math.isnan(interval.value):
                assert (bar.get_width(), end, text) == (0, 0, "n/a")
            else:
                assert bar.get_width() == pytest.approx(interval.value)
                assert text == f"{100 * interval.value:.1f} %"
                assert end == pytest.approx(np.nanmax(interval))  # clear of bar and whisker
        drawn = [tuple(segment[:, 0]) for segment in whiskers.get_segments() if segment.size]
        assert drawn == [interval[1:] for interval in intervals if not math.isnan(interval.low)]


def test_each_group_stands_beside_its_class_and_support():
    axes = draw(per_class_figure(SCORES, CLASSES, [467, 56, 1895], "Scores", "validation"))
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["angry\nn = 467", "disgust\nn = 56", "happy\nn = 1,895", "macro average"]
    assert {label.get_color() for label in axes.get_yticklabels()} == {"white"}
    assert axes.yaxis_inverted()
    for place, tick in enumerate(axes.get_yticks()):
        bars = [container[place] for container in axes.containers]
        assert bars[0].get_y() < tick < bars[-1].get_y() + bars[-1].get_height()
        assert np.mean([bar.get_y() + bar.get_height() / 2 for bar in bars]) == pytest.approx(tick, abs=1.01)
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["precision", "recall", "F1", "95 % interval"]


def test_a_score_without_a_value_has_no_average():
    axes = draw(per_class_figure({"precision": [UNDEFINED] * 2}, ["a", "b"], [0, 0], "", ""))
    assert [text.get_text() for text in axes.texts] == ["n/a"] * 3


@pytest.mark.parametrize("count", [1, 12])
def test_texts_stay_in_the_picture_and_clear_of_one_another(count):
    names = ["contempt mixed with $disgust$ and with some more", "o" * 80, "surprise"] * 4
    scores = {name: [Interval(1.0, 0.9, 1.0)] * count for name in ("precision", "recall", "F1")}
    figure = per_class_figure(scores, names[:count], [12_345_678] * count, "A title " * 15, "a subtitle " * 30)
    axes = draw(figure)
    texts = [*figure.texts, *axes.texts, *axes.get_yticklabels(), *axes.get_xticklabels(), axes.get_legend()]
    boxes = [text.get_window_extent() for text in texts]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    for box in boxes:
        assert min(box.x0, box.y0, figure.bbox.x1 - box.x1, figure.bbox.y1 - box.y1) >= 0


@pytest.mark.parametrize(
    ("scores", "classes", "support", "message"),
    [
        ({"recall": [UNDEFINED]}, ["a", "b"], [1, 2], "2 classes need as many values of recall, got 1"),
        ({"recall": [UNDEFINED]}, ["a"], [1, 2], "1 classes need as many values of support, got 2"),
        ({}, ["a"], [1], "expected classes and one to 4 scores"),
        ({"recall": []}, [], [], "expected classes and one to 4 scores"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(scores, classes, support, message):
    with pytest.raises(ValueError, match=message):
        per_class_figure(scores, classes, support, "", "")


def test_leaves_no_trace():
    before = dict(matplotlib.rcParams)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(per_class_figure(SCORES, CLASSES, [467, 56, 1895], "Scores", ""))
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == []
