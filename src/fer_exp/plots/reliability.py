"""How often a network is right when it is so sure: the reliability diagram."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from fer_exp.plots.sheet import fill_lines, headed_figure, white_ticks

# Pixels of the figure at its own resolution.
PANEL, SPACE = 440, 60  # width of a panel, and between two
LEFT, RIGHT, BOTTOM, LINE = 92, 28, 106, 20
DIAGRAM, BETWEEN, HISTOGRAM = 420, 16, 110  # heights
ACCURACY, GAP, SHARE = "#3f9aa0", "#fa8174", "#bfbbd9"


@dataclass(frozen=True)
class Panel:
    """Predictions on N images, and what the figure says of them.

    Attributes:
        heading: e.g. ``as trained``, ``temperature 1.62``.
        confidence: probability of the class that was named, shape (N,), in [0, 1].
        correct: whether it was the right one, shape (N,).
        ece: expected calibration error in [0, 1], as it is reported elsewhere; NaN where there is none.
    """

    heading: str
    confidence: NDArray[np.floating]
    correct: NDArray[np.bool_]
    ece: float


@style.context("dark_background")
def reliability_figure(panels: Sequence[Panel], title: str, bins: int = 15) -> Figure:
    """Draw accuracy over confidence, and below it how often each confidence occurs (Guo et al. 2017, figure 1).

    A bar is the accuracy of a bin of equal width, which holds its lower end, and the last one 1 as well. The shaded
    gap goes from there to the bin's mean confidence: their mean, weighted by images, is the expected calibration
    error. Where confidence is the higher one, the network is too sure.

    Args:
        panels: of the same images; drawn side by side, on the same scales.
        title: heading; what follows its first line break is drawn smaller. Lines that are too long are broken.
        bins: number of bins.

    Raises:
        ValueError: there is no panel, or a panel's confidences are not as many as its answers, or not in [0, 1].
    """
    if not panels:
        raise ValueError("there is no panel to draw")
    for panel in panels:
        if panel.confidence.ndim != 1 or panel.confidence.shape != panel.correct.shape:
            raise ValueError(
                f"{panel.heading}: expected confidence (N,) and correct (N,), "
                f"got {panel.confidence.shape} and {panel.correct.shape}"
            )
        if not ((panel.confidence >= 0) & (panel.confidence <= 1)).all():
            raise ValueError(f"{panel.heading}: expected confidences in [0, 1]")

    width = LEFT + len(panels) * (PANEL + SPACE) - SPACE + RIGHT
    names = [fill_lines(f"{panel.heading}  ·  ECE {_percent(panel.ece)}", PANEL, 12) for panel in panels]
    top = LINE * (max(name.count("\n") for name in names) + 1) + 8
    height = top + DIAGRAM + BETWEEN + HISTOGRAM + BOTTOM
    heading, _, subtitle = title.partition("\n")
    figure, below = headed_figure(width, height, heading, subtitle)
    grid = figure.add_gridspec(
        2,
        len(panels),
        left=LEFT / width,
        right=1 - RIGHT / width,
        bottom=BOTTOM / height * below,
        top=(1 - top / height) * below,
        wspace=SPACE / PANEL,
        hspace=2 * BETWEEN / (DIAGRAM + HISTOGRAM),
        height_ratios=(DIAGRAM, HISTOGRAM),
    )
    (diagrams, histograms) = grid.subplots(squeeze=False, sharex=True, sharey="row")
    for panel, name, diagram, histogram in zip(panels, names, diagrams, histograms, strict=True):
        _draw(diagram, histogram, panel, bins)
        diagram.set_title(name, size=12, parse_math=False)
    diagrams[0].set_ylabel("Accuracy", size=12)
    histograms[0].set_ylabel("Images", size=12)
    figure.align_ylabels()
    figure.legend(
        *diagrams[0].get_legend_handles_labels(),
        loc="lower center",
        bbox_to_anchor=(0.5, 16 / height * below),
        ncols=3,
        columnspacing=1.4,
        frameon=False,
        fontsize=10,
    )
    return figure


def _draw(diagram: Axes, histogram: Axes, panel: Panel, bins: int) -> None:
    edges = np.linspace(0, 1, bins + 1)
    places = np.clip(np.searchsorted(edges, panel.confidence, side="right") - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    used = counts > 0
    accuracy, confidence = (
        np.bincount(places, weights=values, minlength=bins)[used] / counts[used]
        for values in (panel.correct, panel.confidence)
    )
    bars: dict[str, Any] = {"width": 1 / bins, "align": "edge", "edgecolor": "black", "linewidth": 1}
    diagram.bar(edges[:-1][used], accuracy, color=ACCURACY, label="accuracy", **bars)
    bars_of_gaps = bars | {"bottom": accuracy, "color": (GAP, 0.4), "edgecolor": GAP, "hatch": "///"}
    diagram.bar(edges[:-1][used], confidence - accuracy, label="gap to mean confidence", **bars_of_gaps)
    diagram.plot((0, 1), (0, 1), color="white", linestyle="--", linewidth=1.2, label="perfect calibration")
    histogram.bar(edges[:-1], counts / max(len(places), 1), color=SHARE, **bars)
    histogram.set_xlabel("Confidence", size=12)
    diagram.set(xlim=(0, 1), ylim=(0, 1))
    for axis in (histogram.xaxis, histogram.yaxis, diagram.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    for axes in (diagram, histogram):
        axes.grid(alpha=0.15)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        white_ticks(axes)


def _percent(share: float) -> str:
    return "n/a" if math.isnan(share) else f"{100 * share:.1f} %"
