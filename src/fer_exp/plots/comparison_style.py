"""What the figures of a comparison share: colours and marks, legends, and the choice of groups where there are many.

They are drawn one column wide with large letters, so that they can be read on a phone and in print.
"""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from fer_exp.comparison.analysis import Comparison, Group
from fer_exp.comparison.load import Run

# Okabe & Ito's colours, told apart by the colour-blind too, with grey for their yellow: it is too pale on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "<", ">")  # none like the x of a diverged run
MOST_DRAWN = len(PALETTE)  # that are told apart in one panel
INK, MUTED, PALE = "#1b1f24", "#57606a", "#d0d7de"

WIDTH, DPI = 7.2, 150  # inches; dots an inch
TEXT, SMALL = 13, 11.5  # points
STYLE: list[str | Path | dict[str, Any]] = [
    "default",
    {"font.size": TEXT, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": MUTED, "axes.axisbelow": True},
]


def ranked(comparison: Comparison, most: int, by_time: bool = False) -> list[Group]:
    """The first groups by their median, those without a result last."""

    def place(group: Group) -> tuple[float, float]:
        accuracy = -group.spreads["best", "val_acc"].median if group.counted else math.inf
        time = group.to_target["epochs"].median if group.counted else math.inf
        return (time, accuracy) if by_time else (accuracy, 0)

    if not any(group.counted for group in comparison.groups):
        raise ValueError("no run of any group came to a result: there is nothing to draw")
    return sorted(comparison.groups, key=lambda group: (not group.counted, place(group)))[:most]


def best_groups(comparison: Comparison, most: int) -> list[Group]:
    """The groups with the best median among those with a result, in the comparison's order."""
    best = {group.label for group in ranked(comparison, most) if group.counted}
    return [group for group in comparison.groups if group.label in best]


def group_colors(comparison: Comparison) -> dict[str, str]:
    """The colour of each group, the same in all figures; the palette is for the groups that the curves show."""
    labels = [group.label for group in comparison.groups]
    first = labels
    if len(labels) > len(PALETTE) and any(group.counted for group in comparison.groups):
        first = [group.label for group in best_groups(comparison, len(PALETTE))]
    others = [label for label in labels if label not in set(first)]
    shades = colormaps["viridis"](np.linspace(0.1, 0.85, len(others)))
    more = dict(zip(others, map(to_hex, shades), strict=True))
    return dict(zip(first, PALETTE, strict=False)) | more


def diverged_runs(runs: Sequence[Run]) -> list[Run]:
    """Those that diverged."""
    return [run for run in runs if run.status == "diverged"]


def dot_size(runs: int) -> float:
    """In points: the more runs, the smaller."""
    return 7 if runs <= 10 else 5 if runs <= 60 else 3


def mark(marker: str, label: str, size: float = 7, edge: str = MUTED, fill: str = MUTED) -> Artist:
    """An entry of a legend."""
    line = Line2D([], [], color="none", marker=marker, markersize=size, markeredgecolor=edge, markerfacecolor=fill)
    line.set(label=label, markeredgewidth={"|": 2.4, "x": 1.8}.get(marker, 1))
    return line


def fitted(name: str, width: int, lines: int) -> str:
    """A name in so many lines of a width; one that is longer loses its middle, for names differ at their ends."""
    for kept in range(width * lines, 1, -1):
        short = name if len(name) <= kept else f"{name[: kept // 2]}…{name[-(kept - kept // 2) :]}"
        wrapped = textwrap.wrap(short, width, break_on_hyphens=False)
        if len(wrapped) <= lines:
            return "\n".join(wrapped)
    return name[:width]


def titled_figure(height: float, title: str, drawn: int, there: int, what: str = "groups") -> Figure:
    """A figure of a height in inches, whose title says if not all that there is is ``drawn``."""
    title += f" ({drawn} of {there} {what})" if drawn < there else ""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    figure.suptitle(title, size=TEXT + 2, weight="bold", x=0.02, ha="left")
    return figure


def finish(axes: Axes, grid: str) -> None:
    """Leave axes with the lines of a grid, ``x``, ``y`` or ``both``, and without a frame."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color=PALE, linewidth=0.8)  # type: ignore[arg-type]
    # Ticks are made when the figure is drawn, outside the style of these figures.
    axes.tick_params(labelsize=SMALL, colors=MUTED, labelcolor=INK)


def draw_legend(figure: Figure, *columns: Sequence[Artist]) -> None:
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


def legend_text(text: str, width: int) -> str:
    """A name in two lines of a width, as matplotlib shows it."""
    name = fitted(text, width, 2)
    return f" {name}" if name.startswith("_") else name or " "  # matplotlib leaves out names with "_" first


def percent(fraction: float, position: int | None = None) -> str:
    """As matplotlib calls it for a tick, and without the tick's position for a text."""
    return f"{100 * fraction:g} %"
