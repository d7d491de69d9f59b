"""The figures of a comparison: each a function from a Comparison to a matplotlib Figure.

They are drawn one column wide with large letters, so that they can be read on a phone and in print.
"""

import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from fer_exp.comparison.analysis import MEASURES, Comparison, Group
from fer_exp.comparison.runs import Measure, Run
from fer_exp.comparison.tuning import Tuning, score

MOST_CURVES = 8  # groups in one panel of curves
MOST_ROWS = 40  # groups below one another
MOST_LINES = 30  # single runs of a group
# A loss above is cut off, unless all groups' losses are high: twice what guessing among seven classes costs (ln 7).
LOSS_CEILING = 4.0

# Okabe & Ito's colours, told apart by the colour-blind too, with grey for their yellow: it is too pale on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "<", ">")  # none like the x of a diverged run
INK, MUTED, PALE = "#1b1f24", "#57606a", "#d0d7de"

WIDTH, DPI = 7.2, 150  # inches; dots an inch
TEXT, SMALL = 13, 11.5  # points
STYLE: list[str | Path | dict[str, Any]] = [
    "default",
    {"font.size": TEXT, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": MUTED, "axes.axisbelow": True},
]


@style.context(STYLE)
def curves_figure(comparison: Comparison) -> Figure:
    """Draw loss and accuracy over epochs, a colour a group.

    Solid is validation and dashed is training, each the mean over the counted runs, as far as all of them go: a
    mean over those that early stopping left would be another mean. The band goes from the lowest run to the highest.
    Beyond, and where a run diverged, runs are thin lines of their own; a diverged run ends in an x, and is in no
    mean. Of more than ``MOST_CURVES`` groups, those with the best median of the best val_acc are drawn, and the
    title says so.

    Raises:
        ValueError: no run of any group counts.
    """
    groups = _best(comparison, MOST_CURVES)
    colors = _colors(comparison)
    looks = {group.label: (colors[group.label], MARKERS[place]) for place, group in enumerate(groups)}
    names = [
        Line2D([], [], color=color, marker=marker, linewidth=2.2, label=_name(group))
        for group, (color, marker) in zip(groups, looks.values(), strict=True)
    ]
    lines = sum(str(name.get_label()).count("\n") + 1 for name in names)
    figure = _figure(8.2 + 0.23 * max(lines, 5), "Loss and accuracy over epochs", comparison, groups)
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
        _finish(axes, "y")
    panels[1].yaxis.set_major_formatter(FuncFormatter(_percent))
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
    if any(_diverged(group.counted) for group in groups):
        key.append(Line2D([], [], color=MUTED, linewidth=0.8, marker="x", label="diverged run, in no mean"))
    _legend(figure, names, key)
    return figure


@style.context(STYLE)
def accuracy_figure(comparison: Comparison) -> Figure:
    """Draw the val_acc of every counted run, a row a group, at its best epoch (filled) and at its last (open).

    Each seed has a height of its own in the row. A bar is the median of the group, with the figure beside it, and an
    x a run that diverged. Rows are in the order of the best median; of more than ``MOST_ROWS`` groups the best are
    drawn, and the title says so.

    Raises:
        ValueError: no run of any group counts.
    """
    groups = _ranked(comparison, MOST_ROWS)
    colors = _colors(comparison)
    figure = _figure(_height(groups), "val_acc of every run", comparison, groups)
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
    axes.xaxis.set_major_formatter(FuncFormatter(_percent))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.set_xlabel("val_acc")
    _finish(axes, "x")
    key = [_mark("o", "a run's best epoch"), _mark("o", "its last epoch", fill="white")]
    _legend(figure, key, _key_of_rows(groups))
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
    groups = _ranked(comparison, MOST_ROWS, by_time=True)
    colors = _colors(comparison)
    title = f"Training until val_acc is {_percent(comparison.target)}"
    figure = _figure(_height(groups), title, comparison, groups)
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
        _finish(axes, "x")
    _name_rows(panels[0], groups)
    _divide_rows(panels[1], groups)
    panels[1].tick_params(axis="y", left=False, labelleft=False)
    for row, group in enumerate(groups):
        _beside(panels[1], row, f"{group.reached} of {len(group.counted)}" if group.counted else "no result")
    _legend(figure, [_mark("o", "a run")], _key_of_rows(groups))
    return figure


@dataclass(frozen=True)
class _Sweep:
    """Runs that differ in the learning rate, and perhaps in more."""

    label: str
    runs: list[Run]
    tuning: Tuning | None = None

    def medians(self, measure: Measure) -> tuple[list[float], list[float]]:
        """Learning rates and the figure at each: the median over seeds, of the best of the other settings.

        Empty where other settings changed with the learning rate: a line would be drawn through both.
        """
        values: dict[float, dict[frozenset[object], list[float]]] = {}
        for run in self.runs:
            others = frozenset(item for item in run.settings.items() if item[0] != "optimizer.lr")
            values.setdefault(_rate(run), {}).setdefault(others, []).append(score(run, measure))
        is_grid = any(len(by_others) > 1 for by_others in values.values())
        if not is_grid and len({others for by_others in values.values() for others in by_others}) > 1:
            return [], []
        rates = sorted(values)
        return rates, [max(float(np.median(some)) for some in values[rate].values()) for rate in rates]


@style.context(STYLE)
def learning_rate_figure(comparison: Comparison) -> Figure | None:
    """Draw val_acc over the learning rate, a dot a run and an x where it diverged.

    Runs are the trials where settings were chosen by trials, and the counted runs otherwise. A line joins the medians
    over seeds (of the best of the other settings, where those were varied too); where other settings changed with
    every learning rate there is none. A star is the trial that was chosen, and the legend says where its learning
    rate is the lowest or highest that was tried. Of more than ``MOST_CURVES`` lines the best are drawn.

    Returns:
        The figure; None where no optimizer ran with more than one learning rate.
    """
    sweeps = _sweeps(comparison)
    if not sweeps:
        return None
    measure = comparison.trials[0].measure if comparison.trials else comparison.measure
    best = sorted(sweeps, key=lambda sweep: -max(score(run, measure) for run in sweep.runs))[:MOST_CURVES]
    drawn = [sweep for sweep in sweeps if any(sweep is one for one in best)]
    colors = _colors(comparison)
    if not all(sweep.label in colors for sweep in drawn):
        colors = {sweep.label: PALETTE[place] for place, sweep in enumerate(drawn)}
    title = "Trials: val_acc over learning rate" if comparison.trials else "val_acc over learning rate"
    figure = _bare_figure(5.6 + 0.3 * len(drawn), title + _share(len(drawn), len(sweeps), "lines"))
    axes = figure.subplots()
    names: list[Artist] = []
    for place, sweep in enumerate(drawn):
        color, marker = colors[sweep.label], MARKERS[place % len(MARKERS)]
        axes.plot(*sweep.medians(measure), color=color, linewidth=2)
        for diverged, look in ((False, marker), (True, "x")):
            some = [run for run in sweep.runs if (run.status == "diverged") == diverged]
            axes.plot(
                [_rate(run) for run in some],
                [score(run, measure) for run in some],
                color=color,
                linestyle="none",
                marker=look,
                markersize=_dot_size(len(some)),
                markeredgewidth=1.8 if diverged else 0,
                alpha=0.85,
            )
        label = sweep.label
        if sweep.tuning and sweep.tuning.winner:
            winner = sweep.tuning.winner
            label += f": {_rate(winner):g} chosen"
            if "optimizer.lr" in sweep.tuning.edges:
                label += ", at the end of what was tried"
            axes.plot(
                _rate(winner),
                score(winner, measure),
                linestyle="none",
                marker="*",
                markersize=17,
                markerfacecolor=color,
                markeredgecolor=INK,
                markeredgewidth=0.8,
                zorder=4,
            )
        names.append(Line2D([], [], color=color, marker=marker, linewidth=2, label=_legend_text(label, 52)))
    axes.set_xscale("log")
    _tick_rates(axes, sorted({_rate(run) for sweep in drawn for run in sweep.runs}))
    axes.set_xlabel("Learning rate")
    axes.set_ylabel(f"{measure} val_acc")
    axes.yaxis.set_major_formatter(FuncFormatter(_percent))
    axes.margins(x=0.08, y=0.1)
    _finish(axes, "both")
    if any(sweep.tuning and sweep.tuning.winner for sweep in drawn):
        names.append(_mark("*", "chosen trial", size=15))
    if any(_diverged(sweep.runs) for sweep in drawn):
        names.append(_mark("x", "diverged run"))
    _legend(figure, names)
    return figure


def _sweeps(comparison: Comparison) -> list[_Sweep]:
    """The runs that tell what a learning rate does; empty where it was not varied."""
    if comparison.trials:
        found = [_Sweep(t.label, [run for run in t.trials if _is_on_axis(run)], t) for t in comparison.trials]
    else:
        by_label: dict[str, list[Run]] = {}
        for group in comparison.groups:
            for run in filter(_is_on_axis, group.counted):
                by_label.setdefault(_without_rate(group.label, run, comparison.group_by), []).append(run)
        found = [_Sweep(label, runs) for label, runs in by_label.items()]
    rates: dict[object, set[float]] = {}
    for sweep in found:
        for run in sweep.runs:
            rates.setdefault(run.value("optimizer"), set()).add(_rate(run))
    return [sweep for sweep in found if sweep.runs] if any(len(some) > 1 for some in rates.values()) else []


def _without_rate(label: str, run: Run, group_by: Sequence[str]) -> str:
    """The name of a group, less its learning rate."""
    parts = re.sub(r" \(variant \d+\)$", "", label).split(", ")
    if group_by[0] == "optimizer.lr":
        parts = parts[1:]
    return ", ".join(part for part in parts if not part.startswith("optimizer.lr=")) or str(run.value("optimizer"))


def _is_on_axis(run: Run) -> bool:
    rate = run.value("optimizer.lr")
    return run.counts and isinstance(rate, int | float) and 0 < rate < math.inf


def _rate(run: Run) -> float:
    return float(run.value("optimizer.lr") or 0)


def _tick_rates(axes: Axes, rates: Sequence[float]) -> None:
    """Name the learning rates themselves, where there is room."""
    if len(rates) <= 7 and all(b / a > (rates[-1] / rates[0]) ** 0.11 for a, b in pairwise(rates)):
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.minorticks_off()


def _ranked(comparison: Comparison, most: int, by_time: bool = False) -> list[Group]:
    """The first groups by their median, those without a result last."""

    def place(group: Group) -> tuple[float, float]:
        accuracy = -group.spreads["best", "val_acc"].median if group.counted else math.inf
        time = group.to_target["epochs"].median if group.counted else math.inf
        return (time, accuracy) if by_time else (accuracy, 0)

    if not any(group.counted for group in comparison.groups):
        raise ValueError("no run of any group came to a result: there is nothing to draw")
    return sorted(comparison.groups, key=lambda group: (not group.counted, place(group)))[:most]


def _best(comparison: Comparison, most: int) -> list[Group]:
    """The groups with the best median among those with a result, in the comparison's order."""
    best = {group.label for group in _ranked(comparison, most) if group.counted}
    return [group for group in comparison.groups if group.label in best]


def _colors(comparison: Comparison) -> dict[str, str]:
    """The colour of each group, the same in all figures; the palette is for the groups that the curves show."""
    labels = [group.label for group in comparison.groups]
    first = labels
    if len(labels) > len(PALETTE) and any(group.counted for group in comparison.groups):
        first = [group.label for group in _best(comparison, len(PALETTE))]
    others = [label for label in labels if label not in set(first)]
    shades = colormaps["viridis"](np.linspace(0.1, 0.85, len(others)))
    more = dict(zip(others, map(to_hex, shades), strict=True))
    return dict(zip(first, PALETTE, strict=False)) | more


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
    _draw_thin(axes, [run for run in whole if run.epochs > shared][:MOST_LINES], shared - 1, f"val_{quantity}", color)


def _draw_lost(axes: Axes, group: Group, quantity: str, color: str) -> None:
    """Draw the runs that diverged, each up to an x at its last figure."""
    lost, name = _diverged(group.counted)[:MOST_LINES], f"val_{quantity}"
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


def _diverged(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.status == "diverged"]


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
    size = _dot_size(len(runs))
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


def _dot_size(runs: int) -> float:
    return 7 if runs <= 10 else 5 if runs <= 60 else 3


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
    bar = _mark("|", "median of the group", size=15, edge=INK)
    return [bar, _mark("x", "a run that diverged")] if any(_diverged(group.counted) for group in groups) else [bar]


def _mark(marker: str, label: str, size: float = 7, edge: str = MUTED, fill: str = MUTED) -> Artist:
    """An entry of a legend."""
    line = Line2D([], [], color="none", marker=marker, markersize=size, markeredgecolor=edge, markerfacecolor=fill)
    line.set(label=label, markeredgewidth={"|": 2.4, "x": 1.8}.get(marker, 1))
    return line


def _row_names(groups: Sequence[Group]) -> list[str]:
    return [_fitted(group.label, 24, 3 if len(groups) <= 15 else 2) for group in groups]


def _fitted(name: str, width: int, lines: int) -> str:
    """A name in so many lines of a width; one that is longer loses its middle, for names differ at their ends."""
    for kept in range(width * lines, 1, -1):
        short = name if len(name) <= kept else f"{name[: kept // 2]}…{name[-(kept - kept // 2) :]}"
        wrapped = textwrap.wrap(short, width, break_on_hyphens=False)
        if len(wrapped) <= lines:
            return "\n".join(wrapped)
    return name[:width]


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


def _figure(height: float, title: str, comparison: Comparison, drawn: Sequence[Group]) -> Figure:
    return _bare_figure(height, title + _share(len(drawn), len(comparison.groups), "groups"))


def _share(drawn: int, there: int, what: str) -> str:
    return f" ({drawn} of {there} {what})" if drawn < there else ""


def _bare_figure(height: float, title: str) -> Figure:
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    figure.suptitle(title, size=TEXT + 2, weight="bold", x=0.02, ha="left")
    return figure


def _finish(axes: Axes, grid: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color=PALE, linewidth=0.8)  # type: ignore[arg-type]
    # Ticks are made when the figure is drawn, outside the style of these figures.
    axes.tick_params(labelsize=SMALL, colors=MUTED, labelcolor=INK)


def _legend(figure: Figure, *columns: Sequence[Artist]) -> None:
    """Put the legend below the axes, where it covers nothing; a list of entries a column."""
    longest = max(map(len, columns))
    blanks = [[Line2D([], [], color="none", label=" ")] * (longest - len(column)) for column in columns]
    handles = [handle for column, blank in zip(columns, blanks, strict=True) for handle in (*column, *blank)]
    legend = figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(columns),
        frameon=False,
        fontsize=SMALL,
        handlelength=2.2,
        columnspacing=1.5,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _name(group: Group) -> str:
    lost = len(_diverged(group.counted))
    return _legend_text(group.label + (f" ({lost} diverged)" if lost else ""), 30)


def _legend_text(text: str, width: int) -> str:
    fitted = _fitted(text, width, 2)
    return f" {fitted}" if fitted.startswith("_") else fitted or " "  # matplotlib leaves out names with "_" first


def _percent(fraction: float, position: int | None = None) -> str:
    """As matplotlib calls it for a tick, and without the tick's position for a text."""
    return f"{100 * fraction:g} %"


def _time_unit(longest: float) -> tuple[float, str]:
    """Seconds in the unit that suits ``longest``, and its name."""
    if longest < 180:
        return 1.0, "seconds"
    return (60.0, "minutes") if longest < 3 * 3600 else (3600.0, "hours")
