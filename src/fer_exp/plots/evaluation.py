"""The plots of an evaluation: metrics of each class, reliability diagram.

They are as narrow as a phone, so that a report can show them at their own size on every screen.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fer_exp.plots.style import new_figure, percent_axis, theme, use_theme, wrap

WIDTH = 3.55  # inches: 341 CSS pixels
_NAME_WIDTH = 0.95  # inches of a class name


@dataclass(frozen=True)
class Reliability:
    """Accuracy against confidence in bins.

    Attributes:
        label: for example ``as trained``.
        confidence: mean confidence of each bin that has images, (B,).
        accuracy: (B,).
        low: lower end of the accuracy's interval, (B,).
        high: its upper end, (B,).
        ece: expected calibration error.
    """

    label: str
    confidence: NDArray[np.floating]
    accuracy: NDArray[np.floating]
    low: NDArray[np.floating]
    high: NDArray[np.floating]
    ece: float


def per_class_figure(
    metrics: Mapping[str, Sequence[tuple[float, float, float]]],
    classes: Sequence[str],
    support: Sequence[int],
    title: str,
    subtitle: str = "",
) -> Figure:
    """Draw a point with its 95 % interval for each metric of each class.

    Args:
        metrics: name -> (value, low, high) of each of C classes, in [0, 1]; undefined metrics are NaN.
        classes: C names.
        support: number of images of each class.
        title: heading.
        subtitle: smaller, below the title.
    """
    row = 0.15 * (len(metrics) + 1)
    figure = new_figure(WIDTH, row * len(classes) + 0.8, title, subtitle)
    axes = figure.add_subplot(xlim=(-0.02, 1.02), ylim=(len(classes) - 0.5, -0.5))
    step = 1 / (len(metrics) + 1)
    handles = []
    for place, (name, estimates) in enumerate(metrics.items()):
        value, low, high = np.array(estimates, float).T
        y = np.arange(len(classes)) + (place - (len(metrics) - 1) / 2) * step
        look: dict[str, Any] = {"fmt": "o", "markersize": 5, "color": f"C{place}", "label": name}
        handles.append(axes.errorbar(value, y, xerr=(value - low, high - value), **look))
        for undefined in y[np.isnan(value)]:
            axes.text(0, undefined, "undefined", size=8, color=theme().muted, va="center")
    names = [f"{wrap(name, _NAME_WIDTH, 9, max_lines=2)}\nn = {n:,}" for name, n in zip(classes, support, strict=True)]
    axes.set_yticks(range(len(classes)), names)
    axes.tick_params(axis="y", length=0)
    axes.set_yticks(np.arange(len(classes) - 1) + 0.5, minor=True)
    axes.grid(axis="y", which="minor")
    axes.tick_params(axis="y", which="minor", length=0)
    axes.grid(axis="x")
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    percent_axis(axes.xaxis)
    axes.spines[:].set_visible(False)
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), handletextpad=0.3)
    return figure


def reliability_figure(
    curves: Sequence[Reliability], confidence: NDArray[np.floating], title: str, subtitle: str = ""
) -> Figure:
    """Draw accuracy against confidence with 95 % intervals, and below it how often each confidence occurs.

    Below the diagonal the network is overconfident.

    Args:
        curves: for example as trained, and after temperature scaling.
        confidence: of each image, (N,), as trained.
        title: heading.
        subtitle: smaller, below the title.
    """
    figure = new_figure(WIDTH, 4.2 + 0.2 * len(curves), title, subtitle)
    diagram, histogram = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    perfect = diagram.plot((0, 1), (0, 1), color=theme().muted, ls="--", linewidth=1, label="perfect calibration")
    handles: list[Any] = [*perfect]
    for place, curve in enumerate(curves):
        errors = (curve.accuracy - curve.low, curve.high - curve.accuracy)
        look: dict[str, Any] = {"color": f"C{place}", "marker": "os"[place], "markersize": 4, "linewidth": 1}
        label = f"{curve.label}: ECE {100 * curve.ece:.1f} %"
        handles.append(diagram.errorbar(curve.confidence, curve.accuracy, yerr=errors, label=label, **look))
    weights = np.full(len(confidence), 1 / len(confidence))
    histogram.hist(confidence, bins=np.linspace(0, 1, 16), color="C0", weights=weights)
    histogram.margins(y=0.4)  # its highest tick label must not touch the diagram
    histogram.locator_params(axis="y", nbins=2)
    diagram.set(xlim=(0, 1), ylim=(0, 1), ylabel="Accuracy")
    histogram.set(xlabel="Confidence", ylabel="Images")
    for axes in (diagram, histogram):
        axes.grid()
        percent_axis(axes.yaxis)
    percent_axis(histogram.xaxis)
    figure.align_ylabels()
    figure.legend(handles=handles, loc="outside lower left")
    return figure


def inline_svg(draw: Callable[[], Figure], label: str) -> str:
    """The SVG of a figure for an HTML page that defines the colors of ``report_base``.

    Args:
        draw: returns the figure.
        label: what the figure shows, for screen readers.
    """
    buffer = io.StringIO()
    with use_theme("light") as colors, rc_context({"svg.hashsalt": label}):
        figure = draw()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[a-z]+[0-9a-z]*_[0-9]+"', "", svg)  # of groups; another figure on the page has the same
    variables = {name: getattr(colors, name) for name in ("ink", "muted", "faint", "paper")}
    for name, color in (variables | {"accent": colors.palette[0].lower()}).items():
        svg = svg.replace(color, f"var(--{name})")
    return svg
