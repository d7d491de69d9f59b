"""What the learning rate does to each group of a comparison."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from fer_exp.comparison.analysis import Comparison
from fer_exp.comparison.load import Measure, Run
from fer_exp.comparison.tuning import Tuning, score
from fer_exp.plots.comparison_style import (
    INK,
    MARKERS,
    MOST_DRAWN,
    PALETTE,
    STYLE,
    diverged_runs,
    dot_size,
    draw_legend,
    finish,
    group_colors,
    legend_text,
    mark,
    percent,
    titled_figure,
)


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
    rate is the lowest or highest that was tried. Of more than ``MOST_DRAWN`` lines the best are drawn.

    Returns:
        The figure; None where no optimizer ran with more than one learning rate.
    """
    sweeps = _sweeps(comparison)
    if not sweeps:
        return None
    measure = comparison.trials[0].measure if comparison.trials else comparison.measure
    best = sorted(sweeps, key=lambda sweep: -max(score(run, measure) for run in sweep.runs))[:MOST_DRAWN]
    drawn = [sweep for sweep in sweeps if any(sweep is one for one in best)]
    colors = group_colors(comparison)
    if not all(sweep.label in colors for sweep in drawn):
        colors = {sweep.label: PALETTE[place] for place, sweep in enumerate(drawn)}
    title = "Trials: val_acc over learning rate" if comparison.trials else "val_acc over learning rate"
    figure = titled_figure(5.6 + 0.3 * len(drawn), title, len(drawn), len(sweeps), "lines")
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
                markersize=dot_size(len(some)),
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
        names.append(Line2D([], [], color=color, marker=marker, linewidth=2, label=legend_text(label, 52)))
    axes.set_xscale("log")
    _tick_rates(axes, sorted({_rate(run) for sweep in drawn for run in sweep.runs}))
    axes.set_xlabel("Learning rate")
    axes.set_ylabel(f"{measure} val_acc")
    axes.yaxis.set_major_formatter(FuncFormatter(percent))
    axes.margins(x=0.08, y=0.1)
    finish(axes, "both")
    if any(sweep.tuning and sweep.tuning.winner for sweep in drawn):
        names.append(mark("*", "chosen trial", size=15))
    if any(diverged_runs(sweep.runs) for sweep in drawn):
        names.append(mark("x", "diverged run"))
    draw_legend(figure, names)
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
