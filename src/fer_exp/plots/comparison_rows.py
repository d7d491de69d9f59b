"""Figures of a comparison that have a row for each group: accuracies, and times to a target."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fer_exp.comparison.analysis import MEASURES, Comparison, Group
from fer_exp.comparison.load import Run
from fer_exp.plots.comparison_style import (
    INK,
    MUTED,
    PALE,
    SMALL,
    STYLE,
    diverged_runs,
    dot_size,
    draw_legend,
    finish,
    fitted,
    group_colors,
    mark,
    percent,
    ranked,
    titled_figure,
)

MOST_ROWS = 40  # groups below one another


@style.context(STYLE)
def accuracy_figure(comparison: Comparison) -> Figure:
    """Draw the val_acc of every counted run, a row a group, at its best epoch (filled) and at its last (open).

    Each seed has a height of its own in the row. A bar is the median of the group, with the figure beside it, and an
    x a run that diverged. Rows are in the order of the best median; of more than ``MOST_ROWS`` groups the best are
    drawn, and the title says so.

    Raises:
        ValueError: no run of any group counts.
    """
    groups = ranked(comparison, MOST_ROWS)
    colors = group_colors(comparison)
    figure = titled_figure(_height(groups), "val_acc of every run", len(groups), len(comparison.groups))
    axes = figure.subplots()
    for row, group in enumerate(groups):
        for measure, lane in zip(MEASURES, (row - 0.21, row + 0.21), strict=True):
            values = [run.figure(measure, "val_acc") for run in group.counted]
            _draw_dots(axes, group.counted, values, lane, colors[group.label], filled=measure == "best")
            median = group.spreads[measure, "val_acc"].median
            _draw_median(axes, median, lane, f"{100 * median:.1f} %" if group.counted else "")
        if not group.counted:
            _say(axes, row, "no result")
    _name_rows(axes, groups)
    axes.xaxis.set_major_formatter(FuncFormatter(percent))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.set_xlabel("val_acc")
    finish(axes, "x")
    key = [mark("o", "a run's best epoch"), mark("o", "its last epoch", fill="white")]
    draw_legend(figure, key, _key_of_rows(groups))
    return figure


@style.context(STYLE)
def target_figure(comparison: Comparison) -> Figure:
    """Draw how long every counted run trained until its val_acc reached the target: in epochs, and in time.

    A run that missed stands in the column "never", and a bar is the median, misses included as the longest: it stands
    in that column where half of the runs missed. Beside the row is how many runs reached the target. Rows are in the
    order of the median; of more than ``MOST_ROWS`` groups the quickest are drawn, and the title says so.

    Raises:
        ValueError: no run of any group counts.
    """
    groups = ranked(comparison, MOST_ROWS, by_time=True)
    colors = group_colors(comparison)
    title = f"Training until val_acc is {percent(comparison.target)}"
    figure = titled_figure(_height(groups), title, len(groups), len(comparison.groups))
    panels = figure.subplots(1, 2, sharey=True)
    all_times = [[run.to_target(comparison.target) for run in group.counted] for group in groups]
    for axes, unit in zip(panels, ("epochs", "seconds"), strict=True):
        reached = [time[unit] for times in all_times for time in times if math.isfinite(time[unit])]
        trained = [run.epochs if unit == "epochs" else run.train_seconds for group in groups for run in group.counted]
        longest = max(reached or trained) or 1.0  # a run may take no measurable time
        scale, name = (1.0, "epochs") if unit == "epochs" else _time_unit(longest)
        longest /= scale
        never = 1.25 * longest
        for row, (group, times) in enumerate(zip(groups, all_times, strict=True)):
            places = [min(time[unit] / scale, never) for time in times]
            missed = [math.isinf(time[unit]) for time in times]
            _draw_dots(axes, group.counted, places, row, colors[group.label], filled=True, hollow=missed)
            median = group.to_target[unit].median / scale
            _draw_median(axes, min(median, never), row, "", behind=median > longest)
        ticks = [float(tick) for tick in MaxNLocator(nbins=4, integer=unit == "epochs").tick_values(0, longest)]
        labels = {tick: f"{tick:g}" for tick in ticks if 0 <= tick <= longest}
        right = 1.06 * longest
        if any(len(group.counted) > group.reached for group in groups):
            right = 1.37 * longest
            axes.axvspan(1.13 * longest, right, color=PALE, alpha=0.45, linewidth=0, zorder=0)
            # A long number so close to the column would run into its name.
            labels = {tick: text for tick, text in labels.items() if tick < 0.9 * longest or len(text) < 3}
            labels[never] = "never"
        axes.set_xticks(list(labels), list(labels.values()))
        axes.set_xlim(0, right)
        axes.set_xlabel(f"Training, {name}")
        finish(axes, "x")
    _name_rows(panels[0], groups)
    _divide_rows(panels[1], groups)
    panels[1].tick_params(axis="y", left=False, labelleft=False)
    for row, group in enumerate(groups):
        _beside(panels[1], row, f"{group.reached} of {len(group.counted)}" if group.counted else "no result")
    draw_legend(figure, [mark("o", "a run")], _key_of_rows(groups))
    return figure


def _draw_dots(
    axes: Axes,
    runs: Sequence[Run],
    values: Sequence[float],
    lane: float,
    color: str,
    *,
    filled: bool,
    hollow: Sequence[bool] = (),
) -> None:
    """Draw a dot a run, each seed at a height of its own, so that equal values do not hide one another."""
    reach = 0.11 if len(runs) > 1 else 0
    heights = lane + np.linspace(-reach, reach, len(runs))
    kinds: dict[tuple[bool, bool], list[tuple[float, float]]] = {}
    open_dots = hollow or [not filled] * len(runs)
    for run, value, height, is_open in zip(runs, values, heights, open_dots, strict=True):
        kinds.setdefault((run.status == "diverged", is_open), []).append((value, float(height)))
    size = dot_size(len(runs))
    for (diverged, is_open), places in kinds.items():
        axes.plot(
            *zip(*places, strict=True),
            linestyle="none",
            color=color,
            marker="x" if diverged else "o",
            markersize=size,
            markerfacecolor="white" if is_open else color,
            markeredgewidth=1.8 if diverged else 1.2,
            alpha=0.85 if len(runs) <= 30 else 0.5,
            clip_on=False,
            zorder=3,
        )


def _draw_median(axes: Axes, median: float, lane: float, text: str, behind: bool = False) -> None:
    """Draw a bar, ``behind`` the dots where they all stand in one place, and a text beside the row."""
    if math.isfinite(median):
        order = 2.5 if behind else 4
        axes.plot([median] * 2, [lane - 0.19, lane + 0.19], color=INK, lw=2.4, zorder=order, solid_capstyle="butt")
    if text:
        _beside(axes, lane, text)


def _beside(axes: Axes, row: float, text: str) -> None:
    place = (1.015, row)
    axes.text(*place, text, transform=axes.get_yaxis_transform(), size=SMALL, va="center", color=MUTED)


def _say(axes: Axes, row: float, text: str) -> None:
    axes.text(0.02, row, text, transform=axes.get_yaxis_transform(), size=SMALL, va="center", color=MUTED)


def _key_of_rows(groups: Sequence[Group]) -> list[Artist]:
    bar = mark("|", "median of the group", size=15, edge=INK)
    return [bar, mark("x", "a run that diverged")] if any(diverged_runs(group.counted) for group in groups) else [bar]


def _row_names(groups: Sequence[Group]) -> list[str]:
    return [fitted(group.label, 24, 3 if len(groups) <= 15 else 2) for group in groups]


def _height(groups: Sequence[Group]) -> float:
    lines = max(name.count("\n") + 1 for name in _row_names(groups))
    row = max(0.8 if len(groups) <= 8 else 0.55, 0.21 * lines + 0.14)
    return 2.3 + row * len(groups)


def _name_rows(axes: Axes, groups: Sequence[Group]) -> None:
    axes.set_yticks(range(len(groups)), _row_names(groups), parse_math=False)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    _divide_rows(axes, groups)


def _divide_rows(axes: Axes, groups: Sequence[Group]) -> None:
    for edge in range(1, len(groups)):
        axes.axhline(edge - 0.5, color=PALE, linewidth=0.8, zorder=0)


def _time_unit(longest: float) -> tuple[float, str]:
    """Seconds in the unit that suits ``longest``, and its name."""
    if longest < 180:
        return 1.0, "seconds"
    return (60.0, "minutes") if longest < 3 * 3600 else (3600.0, "hours")
