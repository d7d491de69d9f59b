import math
import re
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from fer_exp.plots.evaluation import WIDTH, Reliability, inline_svg, per_class_figure, reliability_figure
from fer_exp.plots.style import use_theme

UNDEFINED = (math.nan, math.nan, math.nan)
METRICS = {
    "precision": [(0.6, 0.55, 0.66), UNDEFINED, (1.0, 0.9, 1.0)],
    "recall": [(0.5, 0.41, 0.58), (0.0, 0.0, 0.1), (0.7, 0.2, 0.95)],
}
CLASSES = ["angry", "$disgust$ mixed with something of a long name", "快乐"]
CURVE = Reliability(
    "as trained", np.array([0.3, 0.9]), np.array([0.5, 0.8]), np.array([0.2, 0.7]), np.array([0.8, 0.9]), 0.13
)


def per_class():
    return per_class_figure(METRICS, CLASSES, [467, 56, 12_345_678], "A title " * 9, "a subtitle " * 9)


def reliability():
    return reliability_figure([CURVE, CURVE], np.array([0.2, 0.35, 0.9, 1.0]), "A title", "a subtitle")


def draw(figure_function, theme="light"):
    with use_theme(theme):
        figure = figure_function()
        FigureCanvasAgg(figure).draw()
    return figure


def segments(axes):
    """The ends of the intervals, without NaN."""
    lines = [line for container in axes.containers for line in container.lines[2]]
    return [np.asarray(part) for line in lines for part in line.get_segments() if len(part) and np.isfinite(part).all()]


def test_points_and_intervals_are_the_metrics():
    axes = draw(per_class).axes[0]
    values = [[value for value, *_ in estimates] for estimates in METRICS.values()]
    drawn = [container.lines[0].get_xdata() for container in axes.containers]
    np.testing.assert_allclose(drawn, values)
    expected = [(low, high) for estimates in METRICS.values() for _, low, high in estimates if not math.isnan(low)]
    np.testing.assert_allclose([part[:, 0] for part in segments(axes)], expected)
    assert [text.get_text() for text in axes.texts] == ["undefined"]


def test_reliability_is_accuracy_over_confidence():
    diagram, histogram = draw(reliability).axes
    for container in diagram.containers:
        line = container.lines[0]
        np.testing.assert_allclose((line.get_xdata(), line.get_ydata()), (CURVE.confidence, CURVE.accuracy))
    np.testing.assert_allclose([part[:, 1] for part in segments(diagram)], 2 * [(0.2, 0.8), (0.7, 0.9)])
    heights = [patch.get_height() for patch in histogram.patches]
    assert (len(heights), sum(heights), heights[-1]) == (15, pytest.approx(1), 0.25)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("figure_function", [per_class, reliability])
def test_texts_do_not_overlap_and_are_readable_on_a_phone(figure_function, theme):
    figure = draw(figure_function, theme)
    assert figure.get_figwidth() * 96 <= 343  # CSS pixels: 375 without the page's padding
    texts = [*figure.texts, *figure.legends[0].get_texts()]
    for axes in figure.axes:
        texts += [*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label]
    texts = [text for text in texts if text.get_text() and text.get_visible()]
    assert min(text.get_size() for text in texts) * 96 / 72 > 10.6
    boxes = [text.get_window_extent() for text in texts]
    assert not [(a, b) for a, b in combinations(boxes, 2) if a.overlaps(b)]
    for box in boxes:
        assert min(box.x0, box.y0, figure.bbox.x1 - box.x1, figure.bbox.y1 - box.y1) >= -1


def test_the_svg_takes_its_colors_from_the_page():
    svg = inline_svg(per_class, "metrics of each class")
    root = ElementTree.fromstring(svg)
    assert root.get("viewBox").split()[2] == f"{72 * WIDTH:g}"
    assert "var(--ink)" in svg
    assert not re.search("#1b1f24|#ffffff|<image|url\\(http", svg)
    assert svg == inline_svg(per_class, "metrics of each class")
