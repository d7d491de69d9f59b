import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fer_exp.plots.sheet import fill_lines, text_width


def test_lines_are_as_wide_as_they_are_drawn():
    text = "Width is measured, WITH kerning: illicit 1,234 · mm"
    figure = Figure(dpi=100)
    drawn = figure.text(0, 0, text, size=15, weight="bold")
    FigureCanvasAgg(figure).draw()
    assert text_width(text, 15, "bold") == pytest.approx(drawn.get_window_extent().width, rel=0.02)
    lines = fill_lines(text, 200, 15, "bold").split("\n")
    assert " ".join(lines) == text
    assert all(text_width(line, 15, "bold") <= 200 for line in lines)
    assert fill_lines(text, 10_000, 15, "bold") == text
