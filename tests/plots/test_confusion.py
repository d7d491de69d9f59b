import re
import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from fer_exp.plots.confusion import confusion_figure

CLASSES = ["angry", "disgust", "happy", "sad"]


def cells(figure):
    """Return {(row, column): (percent, count)} of the texts in the cells."""
    found = {}
    for text in figure.axes[0].texts:
        column, row = (int(place) for place in text.xy)
        found.setdefault((row, column), []).append(text.get_text())
    return {place: tuple(texts) for place, texts in found.items()}


def subtitle(figure):
    pattern = r"Accuracy (.+)%  ·  Macro-F1 (.+)  ·  (.+) images"
    (match,) = filter(None, (re.fullmatch(pattern, text.get_text()) for text in figure.texts))
    return tuple(float(number.replace(",", "")) for number in match.groups())


@pytest.mark.parametrize("absent", ["none", "never true", "never true nor predicted"])
def test_scores_are_those_of_sklearn(absent):
    rng = np.random.default_rng(0)
    true = rng.integers(0, 4, 2000)
    predicted = np.where(rng.random(2000) < 0.6, true, rng.integers(0, 4, 2000))
    kept = np.full(2000, True) if absent == "none" else true != 1
    if absent == "never true nor predicted":
        kept &= predicted != 1
    true, predicted = true[kept], predicted[kept]
    labels = list(range(4))

    figure = confusion_figure(confusion_matrix(true, predicted, labels=labels), CLASSES, "Adam")

    accuracy, macro_f1, images = subtitle(figure)
    assert accuracy == pytest.approx(100 * accuracy_score(true, predicted), abs=0.00501)
    expected = f1_score(true, predicted, labels=labels, average="macro", zero_division=0)
    assert macro_f1 == pytest.approx(expected, abs=0.0000501)
    assert images == len(true)


def test_cells_hold_the_share_of_the_true_class_and_the_count():
    figure = confusion_figure(np.array([[3, 1], [500, 1500]]), ["a", "b"], "Adam")
    assert cells(figure) == {
        (0, 0): ("75.0%", "3"),
        (0, 1): ("25.0%", "1"),
        (1, 0): ("25.0%", "500"),
        (1, 1): ("75.0%", "1,500"),
    }
    (mesh,) = figure.axes[0].collections
    np.testing.assert_allclose(np.asarray(mesh.get_array()).reshape(2, 2), [[0.75, 0.25], [0.25, 0.75]])
    assert mesh.get_clim() == (0, 1)


def test_true_classes_run_down_and_predicted_ones_across():
    figure = confusion_figure(np.diag([1, 20, 300, 4000]), CLASSES, "RMSprop, validation")
    axes = figure.axes[0]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("True class", "Predicted class")
    assert axes.yaxis_inverted()
    rows = ["angry\nn = 1", "disgust\nn = 20", "happy\nn = 300", "sad\nn = 4,000"]
    assert [label.get_text() for label in axes.get_yticklabels()] == rows
    assert [label.get_text() for label in axes.get_xticklabels()] == CLASSES
    assert figure.get_suptitle() == "RMSprop, validation"


@pytest.mark.parametrize("confusion", [np.array([[5, 5], [0, 0]]), np.zeros((2, 2), int)])
def test_a_class_without_images_divides_nothing_by_zero(confusion):
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        figure = confusion_figure(confusion, ["a", "b"], "Adam")
        FigureCanvasAgg(figure).draw()
    assert cells(figure)[1, 0] == cells(figure)[1, 1] == ("n/a", "0")
    assert np.isfinite(subtitle(figure)).all()


def test_text_stands_out_from_every_shade():
    """WCAG asks for a contrast ratio of 4.5 between text and what is behind it."""

    def luminance(color):
        channels = np.array(matplotlib.colors.to_rgb(color))
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    # Of twelve classes only two are ever predicted: with shares of 0, 2, 4, ... 100 percent.
    for start in (0, 12, 14):
        confusion = np.zeros((12, 12), int)
        confusion[:, 0] = 2 * (start + np.arange(12))
        confusion[:, 1] = 100 - confusion[:, 0]
        axes = confusion_figure(confusion, [str(i) for i in range(12)], "").axes[0]
        (mesh,) = axes.collections
        shades = mesh.to_rgba(mesh.get_array()).reshape(12, 12, 4)
        for text in axes.texts:
            column, row = (int(place) for place in text.xy)
            dark, light = sorted((luminance(text.get_color()), luminance(shades[row, column, :3])))
            assert (light + 0.05) / (dark + 0.05) >= 4.5


@pytest.mark.parametrize(
    "classes",
    [["yes", "no"], ["not at all smiling", "smiling $broadly$"], [f"expression {i}" for i in range(12)]],
)
def test_no_label_leaves_the_picture(classes):
    figure = confusion_figure(np.full((len(classes), len(classes)), 1234), classes, "A title")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    axes, renderer = figure.axes[0], canvas.get_renderer()
    headings = [text.get_window_extent(renderer) for text in figure.texts]
    labels = [
        label.get_window_extent(renderer)
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label)
    ]
    for box in headings + labels:
        assert box.x0 >= 0 <= box.y0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
    assert not any(heading.overlaps(label) for heading in headings for label in labels)


def test_ticks_stay_light_when_the_figure_is_drawn_later():
    axes = confusion_figure(np.eye(4, dtype=int), CLASSES, "Adam").axes[0]
    assert {label.get_color() for label in (*axes.get_xticklabels(), *axes.get_yticklabels())} == {"white"}


@pytest.mark.parametrize("shape", [(4, 3), (3, 3), (4,)])
def test_a_matrix_that_does_not_fit_the_classes_is_refused(shape):
    with pytest.raises(ValueError, match="4 classes need a square matrix"):
        confusion_figure(np.zeros(shape, int), CLASSES, "Adam")


def test_leaves_no_trace():
    before = dict(matplotlib.rcParams)
    confusion_figure(np.eye(4, dtype=int), CLASSES, "Adam")
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == []
