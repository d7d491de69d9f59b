"""Precision, recall and F1 of every class, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from fer_exp.plots.sheet import MARGIN, break_name, headed_figure, text_width, white_ticks

if TYPE_CHECKING:  # the module imports torch, which a figure has no use for
    from fer_exp.evaluation.scores import Interval

# Pixels of the figure at its own resolution.
WIDTH, BAR, SPACE = 920, 18, 20
NAME_SIZE, NAME_LINE = 10, 17  # of a class: points, height of a line
ABOVE, BELOW = 34, 56  # the legend, and the axis
COLORS = ("#3f9aa0", "#8a7fc0", "#c4843d", "#a65f73")  # white whiskers stand out from each, and from black
INTERVAL = "95 % interval"
RIGHTMOST = 1.12  # of the axis, which ends at 1: the figure at a bar's end needs room


@style.context("dark_background")
def per_class_figure(
    scores: Mapping[str, Sequence[Interval]],
    classes: Sequence[str],
    support: Sequence[int],
    title: str,
    subtitle: str,
) -> Figure:
    """Draw a group of bars for each class, one for each score, with whiskers over its 95 % interval.

    Args:
        scores: by the name to be shown, e.g. ``precision``: an interval for each of C classes, in [0, 1]. One whose
            value is NaN is not defined, and has n/a in place of a bar.
        classes: C class names.
        support: number of images of each class.
        title: first line of the heading.
        subtitle: second line of the heading; either is broken into more lines where it is too long.

    Returns:
        The figure. Its last group are the means over the classes that have a value, without intervals, which do not
        follow from those of the classes.

    Raises:
        ValueError: there is no class, more scores than colours, or not as many intervals or supports as classes.
    """
    if not classes or not 0 < len(scores) <= len(COLORS):
        raise ValueError(f"expected classes and one to {len(COLORS)} scores, got {len(classes)} and {len(scores)}")
    for name, given in (*scores.items(), ("support", support)):
        if len(given) != len(classes):
            raise ValueError(f"{len(classes)} classes need as many values of {name}, got {len(given)}")

    names = [f"{break_name(name)}\nn = {images:,}" for name, images in zip(classes, support, strict=True)]
    names.append("macro average")
    bars = len(scores) * BAR
    step = max(bars, NAME_LINE * max(name.count("\n") + 1 for name in names)) + SPACE
    left = MARGIN + max(text_width(name, NAME_SIZE) for name in names) + 16
    height = ABOVE + len(names) * step + BELOW
    figure, below = headed_figure(WIDTH, height, title, subtitle)
    axes = figure.add_axes(
        (
            left / WIDTH,
            below * BELOW / height,
            1 - (left + MARGIN) / WIDTH,
            below * len(names) * step / height,
        ),
        xlim=(0, RIGHTMOST),
        ylim=(len(names) * step, 0),  # one unit is one pixel, from the top
    )
    for place, ((name, intervals), color) in enumerate(zip(scores.items(), COLORS, strict=False)):
        values, lows, highs = np.array(intervals, float).T
        tops = step * np.arange(len(names)) + (step - bars) / 2 + place * BAR
        middles = tops + BAR / 2 - 1
        axes.hlines(middles[:-1], lows, highs, color="white", linewidth=1.5, label="" if place else INTERVAL)
        defined = values[~np.isnan(values)]
        values = np.append(values, defined.mean() if len(defined) else math.nan)
        axes.barh(tops, np.nan_to_num(values), BAR - 2, align="edge", color=color, label=name)
        ends = np.nan_to_num(np.fmax(values, np.append(highs, math.nan)))
        for value, end, middle in zip(values, ends, middles, strict=True):
            text, ink = ("n/a", "0.65") if math.isnan(value) else (f"{100 * value:.1f} %", "white")
            axes.annotate(text, (end, middle), (6, 0), textcoords="offset points", va="center", size=8.5, color=ink)
    axes.axhline(step * len(classes), color="0.45", linewidth=1)
    axes.set_yticks(step * (np.arange(len(names)) + 0.5), names, parse_math=False)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axes.grid(axis="x", alpha=0.15)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    white_ticks(axes, length=0, labelsize=NAME_SIZE)
    whiskers, *handles = axes.get_legend_handles_labels()[0]
    axes.legend(
        handles=[*handles, whiskers],
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.3,
        ncols=len(scores) + 1,
        frameon=False,
        fontsize=10,
        handlelength=1,
    )
    return figure
