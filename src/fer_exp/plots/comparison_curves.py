"""The learning curves of a comparison."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from fer_exp.comparison.analysis import Comparison, Group
from fer_exp.comparison.load import Run
from fer_exp.plots.comparison_style import (
    MARKERS,
    MOST_DRAWN,
    MUTED,
    STYLE,
    best_groups,
    diverged_runs,
    draw_legend,
    finish,
    group_colors,
    legend_text,
    percent,
    titled_figure,
)

MOST_THIN = 30  # of a group, that are drawn as lines of their own
# A loss above is cut off, unless all groups' losses are high: twice what guessing among seven classes costs (ln 7).
LOSS_CEILING = 4.0


@style.context(STYLE)
def curves_figure(comparison: Comparison) -> Figure:
    """Draw loss and accuracy over epochs, a colour a group.

    Solid is validation and dashed is training, each the mean over the counted runs, as far as all of them go: a
    mean over those that early stopping left would be another mean. The band goes from the lowest run to the highest.
    Beyond, and where a run diverged, runs are thin lines of their own; a diverged run ends in an x, and is in no
    mean. Of more than ``MOST_DRAWN`` groups, those with the best median of the best val_acc are drawn, and the
    title says so.

    Raises:
        ValueError: no run of any group counts.
    """
    groups = best_groups(comparison, MOST_DRAWN)
    colors = group_colors(comparison)
    looks = {group.label: (colors[group.label], MARKERS[place]) for place, group in enumerate(groups)}
    names = [
        Line2D([], [], color=color, marker=marker, linewidth=2.2, label=_name(group))
        for group, (color, marker) in zip(groups, looks.values(), strict=True)
    ]
    lines = sum(str(name.get_label()).count("\n") + 1 for name in names)
    figure = titled_figure(
        8.2 + 0.23 * max(lines, 5), "Loss and accuracy over epochs", len(groups), len(comparison.groups)
    )
    panels = figure.subplots(2, 1, sharex=True)
    for axes, quantity, name in zip(panels, ("loss", "acc"), ("Loss", "Accuracy"), strict=True):
        axes.set_ylabel(name)
        for group in groups:
            _draw_mean(axes, group, quantity, *looks[group.label])
            _draw_longer(axes, group, quantity, looks[group.label][0])
        if quantity == "loss":
            _cut_off(axes)
        for group in groups:
            _draw_lost(axes, group, quantity, looks[group.label][0])
        finish(axes, "y")
    panels[1].yaxis.set_major_formatter(FuncFormatter(percent))
    panels[1].set_xlabel("Epoch")
    panels[1].xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    last = max(run.epochs for group in groups for run in group.counted)
    margin = max(0.5, 0.02 * last)
    panels[1].set_xlim(1 - min(margin, 0.9), last + margin)  # there is no epoch 0

    key: list[Artist] = [
        Line2D([], [], color=MUTED, linewidth=2.2, label="validation, mean over seeds"),
        Patch(color=MUTED, alpha=0.25, linewidth=0, label="lowest to highest seed"),
        Line2D([], [], color=MUTED, linewidth=1.1, linestyle="--", label="training, mean over seeds"),
    ]
    if any(len({run.epochs for run in _whole(group)}) > 1 for group in groups):
        key.append(Line2D([], [], color=MUTED, linewidth=0.8, label="single run, past the shortest"))
    if any(diverged_runs(group.counted) for group in groups):
        key.append(Line2D([], [], color=MUTED, linewidth=0.8, marker="x", label="diverged run, in no mean"))
    draw_legend(figure, names, key)
    return figure


def _draw_mean(axes: Axes, group: Group, quantity: str, color: str, marker: str) -> None:
    """Draw what the runs of a group have in common: the means, and the band."""
    whole = _whole(group)
    if not whole:
        return
    shared = min(run.epochs for run in whole)
    epochs = whole[0].history["epoch"][:shared]
    validation = np.array([_finite(run, f"val_{quantity}")[:shared] for run in whole])
    training = np.array([_finite(run, f"train_{quantity}")[:shared] for run in whole])
    axes.fill_between(epochs, validation.min(axis=0), validation.max(axis=0), color=color, alpha=0.18, linewidth=0)
    # A single epoch has no line to be seen.
    point = marker if shared == 1 else ""
    axes.plot(
        epochs, training.mean(axis=0), color=color, linewidth=1.1, linestyle="--", marker=point, markerfacecolor="none"
    )
    axes.plot(
        epochs,
        validation.mean(axis=0),
        color=color,
        linewidth=2.2,
        marker=marker,
        markersize=6,
        markevery=max(1, math.ceil(shared / 10)),
        markeredgewidth=0,
        label=group.label,
        zorder=3,
    )


def _draw_longer(axes: Axes, group: Group, quantity: str, color: str) -> None:
    """Draw the runs that went on where the mean ends."""
    whole = _whole(group)
    shared = min((run.epochs for run in whole), default=0)
    _draw_thin(axes, [run for run in whole if run.epochs > shared][:MOST_THIN], shared - 1, f"val_{quantity}", color)


def _draw_lost(axes: Axes, group: Group, quantity: str, color: str) -> None:
    """Draw the runs that diverged, each up to an x at its last figure."""
    lost, name = diverged_runs(group.counted)[:MOST_THIN], f"val_{quantity}"
    _draw_thin(axes, lost, 0, name, color)
    for run in lost:
        known = np.flatnonzero(np.isfinite(run.history[name]))
        if len(known):
            end = float(run.history[name][known[-1]])
            if quantity == "loss":
                end = min(end, axes.get_ylim()[1])  # beyond what is shown, the mark stands at the edge
            place = run.history["epoch"][known[-1]]
            axes.plot(place, end, color=color, marker="x", markersize=8, markeredgewidth=1.8, clip_on=False)


def _draw_thin(axes: Axes, runs: Sequence[Run], start: int, name: str, color: str) -> None:
    if not runs:
        return
    # One line with gaps: a line a run would be slow.
    gap = np.array([math.nan])
    places = np.concatenate([part for run in runs for part in (run.history["epoch"][start:], gap)])
    values = np.concatenate([part for run in runs for part in (_finite(run, name)[start:], gap)])
    alpha = 0.8 if len(runs) <= 10 else 0.35
    axes.plot(places, values, color=color, linewidth=0.8, alpha=alpha, zorder=1.5)


def _cut_off(axes: Axes) -> None:
    """Fix the range to what is drawn so far, less what goes through the roof and would press all else flat."""
    curves = [np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.lines]
    curves = [curve[np.isfinite(curve)] for curve in curves if np.isfinite(curve).any()]
    if not curves:
        axes.set_ylim(0, LOSS_CEILING)
        return
    ceiling = max(LOSS_CEILING, 4 * min(float(np.median(curve)) for curve in curves))
    low, high = axes.get_ylim()
    if high > ceiling:
        low, high = 0, ceiling
        axes.set_ylabel(f"Loss (cut off above {ceiling:.1f})")
    axes.set_ylim(low, high)


def _finite(run: Run, name: str) -> NDArray[np.float64]:
    values = run.history[name]
    return np.where(np.isfinite(values), values, np.nan)


def _whole(group: Group) -> list[Run]:
    return [run for run in group.counted if run.status != "diverged"]


def _name(group: Group) -> str:
    lost = len(diverged_runs(group.counted))
    return legend_text(group.label + (f" ({lost} diverged)" if lost else ""), 30)
