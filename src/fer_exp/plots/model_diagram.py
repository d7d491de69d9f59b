"""A network's layers as a diagram: boxes in calling order, with shapes and parameter counts."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch
from matplotlib.path import Path

from fer_exp.plots.sheet import shortened

if TYPE_CHECKING:  # the module imports torch, which a figure has no use for
    from fer_exp.models.layers import Layer

# Inches.
BOX_WIDTH, BOX_HEIGHT = 3.1, 0.48
GUTTER, GAP = 0.7, 0.22
MARGIN, HEADER, LEGEND_ROW, FOOTER = 0.4, 0.95, 0.28, 0.6

# The colour of each family of layers, and what the kind of its members contains: the first match decides.
FAMILIES = {
    "Convolution": ("#81b1d2", "Conv"),
    "Normalization": ("#bfbbd9", "Norm"),
    "Activation": ("#fa8174", "LU|Activation|[Ss]igmoid|[Tt]anh|[Ss]oft(max|min|plus|sign)|[Ss]wish|Mish"),
    "Pooling": ("#8dd3c7", "Pool"),
    "Dropout": ("#9aa0a6", "Drop|StochasticDepth"),
    "Reshape": ("#feffb3", "[Ff]latten|[Ff]old|Shuffle|Upsample|Pad"),
    "Dense": ("#fdb462", "[Ll]inear"),
    "Other": ("#ccebc4", ""),
}
TIMES = " \N{MULTIPLICATION SIGN} "

Box = tuple[str, str, tuple[int, ...], str, str]  # kind, name, shape, weights, color


@style.context("dark_background")
def model_figure(layers: Sequence[Layer], input_shape: tuple[int, int, int], title: str) -> Figure:
    """Draw a network from its input at the top left, down each column, to its output.

    Args:
        layers: leaf layers in calling order, as ``fer_exp.models.layers.list_layers`` gives them.
        input_shape: (channels, height, width) of one image.
        title: heading of the diagram.

    Returns:
        The figure; it grows with the number of layers, in as many columns as keep it about as wide as high.
        A box counts parameters as "trainable + non-trainable"; the totals are at the bottom.
    """
    boxes: list[Box] = [("Input", TIMES.join(("channels", "height", "width")), input_shape, "", "white")]
    boxes += [
        (layer.kind, layer.name, layer.output_shape, _weights(layer), FAMILIES[_family(layer.kind)][0])
        for layer in layers
    ]
    columns = max(1, round(math.sqrt(0.22 * len(boxes))))
    rows = math.ceil(len(boxes) / columns)
    columns = math.ceil(len(boxes) / rows)

    present = {_family(layer.kind) for layer in layers}
    families = [family for family in FAMILIES if family in present]
    inner = columns * (BOX_WIDTH + GUTTER) - GUTTER
    width = 2 * MARGIN + max(inner, 5.6)
    legend_columns = int((width - MARGIN) / 1.45)
    legend_height = LEGEND_ROW * math.ceil(len(families) / legend_columns)
    height = HEADER + rows * (BOX_HEIGHT + GAP) + legend_height + FOOTER

    figure = Figure(figsize=(width, height), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    axes.text(width / 2, MARGIN, title, size=16, weight="bold", ha="center", va="center", parse_math=False)

    corners = [
        ((width - inner) / 2 + (i // rows) * (BOX_WIDTH + GUTTER), HEADER + (i % rows) * (BOX_HEIGHT + GAP))
        for i in range(len(boxes))
    ]
    for corner, box in zip(corners, boxes, strict=True):
        _draw_box(axes, corner, *box)
    for start, end in pairwise(corners):
        _draw_arrow(axes, start, end)

    figure.legend(
        handles=[Patch(color=FAMILIES[family][0], label=family) for family in families],
        loc="lower center",
        bbox_to_anchor=(0.5, FOOTER / height),
        ncols=legend_columns,
        frameon=False,
        fontsize=9,
        handlelength=1,
    )
    # A layer that is called twice is listed twice, but has its weights once.
    owners = {layer.name: layer for layer in layers}.values()
    trainable, fixed = (sum(getattr(layer, key) for layer in owners) for key in ("parameters", "buffers"))
    totals = f"{trainable + fixed:,} parameters  =  {trainable:,} trainable + {fixed:,} non-trainable"
    axes.text(width / 2, height - FOOTER / 2, totals, size=11, ha="center", va="center")
    return figure


def _family(kind: str) -> str:
    return next(family for family, (_, pattern) in FAMILIES.items() if re.search(pattern, kind))


def _weights(layer: Layer) -> str:
    if layer.buffers:
        return f"{layer.parameters:,} + {layer.buffers:,} params"
    return f"{layer.parameters:,} params" if layer.parameters else ""


def _draw_box(
    axes: Axes,
    corner: tuple[float, float],
    kind: str,
    name: str,
    shape: tuple[int, ...],
    weights: str,
    color: str,
) -> None:
    x, y = corner
    axes.add_patch(
        FancyBboxPatch(
            (x, y),
            BOX_WIDTH,
            BOX_HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.07",
            facecolor=(color, 0.16),
            edgecolor=color,
            linewidth=1.2,
        )
    )
    left, right = x + 0.1, x + BOX_WIDTH - 0.1
    upper, lower = y + 0.17, y + 0.36
    size = TIMES.join(map(str, shape))
    axes.text(left, upper, _last(kind, 30 - len(size)), size=10, weight="bold", color=color, va="center")
    axes.text(right, upper, size, size=10, ha="right", va="center")
    name = _last(name, 41 - len(weights))
    axes.text(left, lower, name, size=8, color="0.6", va="center", parse_math=False)
    axes.text(right, lower, weights, size=8, color="0.75", ha="right", va="center")


def _last(text: str, letters: int) -> str:
    return shortened(text, lambda short: len(short) <= letters, kept_end=1)


def _draw_arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    if start[0] == end[0]:
        x = start[0] + BOX_WIDTH / 2
        path = Path([(x, start[1] + BOX_HEIGHT), (x, end[1])])
    else:
        # From the foot of a column, up through the gutter, to the head of the next.
        foot, head = start[1] + BOX_HEIGHT / 2, end[1] + BOX_HEIGHT / 2
        left, right, middle = start[0] + BOX_WIDTH, end[0], end[0] - GUTTER / 2
        bend = 0.12
        path = Path(
            [
                (left, foot),
                (middle - bend, foot),
                (middle, foot),
                (middle, foot - bend),
                (middle, head + bend),
                (middle, head),
                (middle + bend, head),
                (right, head),
            ],
            [Path.MOVETO, *(Path.LINETO, Path.CURVE3, Path.CURVE3) * 2, Path.LINETO],
        )
    axes.add_patch(FancyArrowPatch(path=path, arrowstyle="-|>", mutation_scale=9, color="0.7", linewidth=1.2))
