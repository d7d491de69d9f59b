import logging
import os
import subprocess
import sys
import warnings

import matplotlib as mpl
import numpy as np
import pytest

from fer_exp.plots.style import new_figure, render, save_plot, shorten, text_width, theme, use_theme, wrap


def line_plot(title="A line"):
    figure = new_figure(4, 3, title, "with a subtitle")
    axes = figure.add_subplot()
    axes.plot([1, 2, 3], [0.5, 0.2, 0.9], label="line")
    figure.legend(handles=axes.lines, loc="outside lower center")
    return figure


@pytest.fixture(scope="module")
def plain():
    return render(line_plot, "light")


def test_background_is_the_themes(png):
    assert (png(line_plot, "light")[0, 0] == 255).all()
    assert (png(line_plot, "dark")[0, 0] == 0).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"text.usetex": True},
        {"font.family": ["no such font"], "font.size": 40},
        {"axes.prop_cycle": "cycler(color=['red'])", "figure.facecolor": "red", "savefig.facecolor": "red"},
        {"savefig.dpi": 30, "savefig.bbox": "tight", "figure.dpi": 30},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_user_settings_have_no_effect(settings, plain):
    with mpl.rc_context(settings):
        assert render(line_plot, "light") == plain


def test_matplotlibrc_has_no_effect(tmp_path):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nbackend: qtagg\nfigure.facecolor: red\nfont.size: 30\n")
    code = (
        "import sys; from fer_exp.plots.style import render, new_figure\n"
        "sys.stdout.buffer.write(render(lambda: new_figure(4, 3, 'A title'), 'light'))"
    )
    environment = {**os.environ, "MPLCONFIGDIR": str(tmp_path), "MATPLOTLIBRC": str(tmp_path)}
    drawn = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert drawn.stdout == render(lambda: new_figure(4, 3, "A title"), "light")


@pytest.mark.parametrize("name", ["愤怒", "😀 \U000e0041", "عربي", "$x_1$ \\frac", "_private", "<b>", "a\tb"])
def test_any_name_is_drawn_without_a_warning(name, plain):
    def draw():
        figure = line_plot(name)
        axes = figure.axes[0]
        axes.set_xticks([1, 2], [name, name])
        return figure

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert render(draw, "light") != plain


def test_theme_is_restored_after_a_failure():
    with pytest.raises(ZeroDivisionError), use_theme("dark"):
        raise ZeroDivisionError
    assert theme().paper == "#ffffff"


def test_plot_that_fails_is_a_warning_and_leaves_no_file(tmp_path, caplog):
    def fail():
        raise ValueError("a broken plot")

    with caplog.at_level(logging.WARNING):
        assert not save_plot(tmp_path / "curves.png", fail, "light")
        assert not save_plot(tmp_path / "absent" / "curves.png", line_plot, "light")
    assert "curves.png" in caplog.text
    assert "a broken plot" in caplog.text
    assert list(tmp_path.iterdir()) == []
    assert save_plot(tmp_path / "curves.png", line_plot, "light")


@pytest.mark.parametrize("text", ["Facial expressions " * 6, "W" * 90, "愤怒" * 30, "a"])
def test_text_fits_its_width(text):
    with use_theme("light"):
        assert text_width(wrap(text, 3, 11), 11) <= 3
        assert wrap(text, 3, 11, max_lines=2).count("\n") <= 1
        short = shorten(text, 1.5, 9)
        assert text_width(short, 9) <= 1.5
        assert short[0] == text[0]


def test_heading_stays_inside_the_figure(png):
    pixels = png(lambda: new_figure(4, 1, "A title that needs several lines " * 4, "and a subtitle " * 20))
    border = np.concatenate([pixels[:, :8].ravel(), pixels[:, -8:].ravel(), pixels[:8].ravel(), pixels[-140:].ravel()])
    assert (border == 255).all()
