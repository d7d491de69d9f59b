"""The plots of one run: learning curves, network diagram, confusion matrix."""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch
from matplotlib.ticker import MaxNLocator, NullFormatter
from numpy.typing import NDArray

from fer_exp.plots.style import (
    SMALL,
    add_legend,
    format_percent,
    new_figure,
    percent_axis,
    shorten,
    text_width,
    theme,
    wrap,
)


def curves_figure(history: Sequence[Mapping[str, float]], title: str, best_epoch: int | None = None) -> Figure:
    """Draw loss and accuracy over epochs, and the learning rate where it changes.

    Args:
        history: one row per epoch with ``epoch``, ``lr``, ``train_loss``, ``train_acc``, ``val_loss`` and ``val_acc``;
            accuracies are fractions. NaN leaves a gap.
        title: heading, for example the optimizer's name.
        best_epoch: the epoch of the saved weights, marked on the validation curves.

    Raises:
        ValueError: the history is empty, or has no row of ``best_epoch``.
    """
    if not history:
        raise ValueError("the history has no rows: there is nothing to draw before the first epoch ends")
    epochs = [int(row["epoch"]) for row in history]
    if best_epoch is not None and best_epoch not in epochs:
        raise ValueError(f"best_epoch={best_epoch}: the history has epochs {epochs[0]} to {epochs[-1]}")

    rates = [row["lr"] for row in history]
    has_schedule = len({rate for rate in rates if math.isfinite(rate)}) > 1
    figure, _ = new_figure(8.4, 4.8 if has_schedule else 3.8, title)
    mosaic = "AB;CC" if has_schedule else "AB"
    panels = figure.subplot_mosaic(mosaic, height_ratios=[4, 1] if has_schedule else [1])
    for panel, metric, label in (("A", "loss", "Loss"), ("B", "acc", "Accuracy")):
        lines = _draw_curves(panels[panel], history, epochs, metric, best_epoch)
        panels[panel].set_ylabel(label)
    percent_axis(panels["B"], "y")
    if best_epoch is not None:
        best = history[epochs.index(best_epoch)]
        accuracy = format_percent(round(best["val_acc"], 4))
        lines[2].set_label(f"best epoch {best_epoch}: val_loss {best['val_loss']:.4f}, val_acc {accuracy}")
    add_legend(figure, *[[line] for line in lines])
    if has_schedule:
        panels["C"].step(epochs, rates, where="mid", color=theme().muted)
        panels["C"].set(ylabel="lr", yscale="log")
        panels["C"].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panels["C"].yaxis.set_minor_formatter(NullFormatter())
    for axes in panels.values():
        axes.grid(alpha=0.7)
        axes.set_xlabel("Epoch")
        margin = max(0.5, 0.015 * (epochs[-1] - epochs[0]))
        axes.set_xlim(epochs[0] - margin, epochs[-1] + margin)
        axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    return figure


def _draw_curves(
    axes: Axes, history: Sequence[Mapping[str, float]], epochs: Sequence[int], metric: str, best_epoch: int | None
) -> list[Line2D]:
    size = 4 if len(epochs) <= 60 else 0 if len(epochs) > 300 else 2
    lines = []
    for split, label, color in (("train", "training", "C1"), ("val", "validation", "C0")):
        values = [row[f"{split}_{metric}"] for row in history]
        lines += axes.plot(epochs, values, color=color, marker="o", markersize=size, label=label)
    if best_epoch is not None:
        value = history[epochs.index(best_epoch)][f"val_{metric}"]
        (star,) = axes.plot(best_epoch, value, "*", markersize=14, color="C2", zorder=4)
        lines.append(star)
    return lines


def confusion_figure(confusion: NDArray[np.integer], classes: Sequence[str], title: str, subtitle: str = "") -> Figure:
    """Draw a confusion matrix, each cell shaded by its fraction of the true class.

    Args:
        confusion: counts (C, C); rows are true classes, columns are predicted ones.
        classes: C names.
        title: which weights and which split.
        subtitle: above the line with accuracy, macro F1 and the number of images.

    Returns:
        The figure. With more than 20 classes, cells are shaded and have no numbers.

    Raises:
        ValueError: the shape does not fit the number of classes.
    """
    count = len(classes)
    if confusion.shape != (count, count):
        raise ValueError(f"{count} classes need a confusion matrix ({count}, {count}), got {confusion.shape}")
    support = confusion.sum(axis=1)
    fractions = confusion / np.maximum(support, 1)[:, None]
    predicted = confusion.sum(axis=0)
    hits = np.diag(confusion)
    accuracy = hits.sum() / max(confusion.sum(), 1)
    macro_f1 = np.mean(2 * hits / np.maximum(predicted + support, 1))
    summary = f"accuracy {100 * accuracy:.2f} %  ·  macro F1 {100 * macro_f1:.2f} %  ·  {support.sum():,} images"

    has_numbers = count <= 20
    cell = 0.62 if has_numbers else 0.17
    size = SMALL if has_numbers else 6.5
    names = [wrap(name, 1.4, size, max_lines=2) for name in classes]
    widest = max(text_width(name, size) for name in names)
    side = cell * count
    width, height = max(side + widest + 1.2, 6), side + 0.8 + (widest if widest > cell else 0.2)
    figure, _ = new_figure(width, height, title, f"{subtitle}\n{summary}" if subtitle else summary)
    axes = figure.add_subplot(aspect="equal")
    axes.pcolormesh(fractions, cmap=theme().shades, vmin=0, vmax=1, edgecolors=theme().paper, linewidth=cell)
    if has_numbers:
        for (row, column), images in np.ndenumerate(confusion):
            fraction = fractions[row, column]
            text = f"{100 * fraction:.1f} %\n{images:,}" if support[row] else "n/a"
            color = _contrasting(theme().shades(fraction))
            axes.text(column + 0.5, row + 0.5, text, size=8, color=color, ha="center", va="center")
        names = [f"{name}\nn = {images:,}" for name, images in zip(names, support, strict=True)]
    centres = np.arange(count) + 0.5
    axes.set_yticks(centres, names, size=size)
    axes.set_xticks(centres, [name.split("\nn = ")[0] for name in names], size=size)
    axes.tick_params(axis="x", rotation=90 if widest > cell else 0)
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.set(xlabel="Predicted class", ylabel="True class")
    return figure


def _contrasting(color: tuple[float, float, float, float]) -> str:
    """Black or white, whichever stands out from ``color``."""
    encoded = np.array(to_rgb(color))
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    # WCAG 2's relative luminance: at 0.179 black and white have the same contrast.
    return "black" if linear @ [0.2126, 0.7152, 0.0722] > 0.179 else "white"


# A layer belongs to the first family whose pattern its class name matches; the number is its colour in the palette.
FAMILIES = {
    "convolution": (0, "Conv"),
    "normalization": (3, "Norm"),
    "activation": (1, "LU|Activation|[Ss]igmoid|[Tt]anh|[Ss]oft(max|min|plus|sign)|[Ss]wish|Mish"),
    "pooling": (2, "Pool"),
    "dropout": (7, "Drop|StochasticDepth"),
    "reshape": (5, "[Ff]latten|[Ff]old|Shuffle|Upsample|Pad"),
    "dense": (4, "[Ll]inear"),
    "other": (6, ""),
}
_TIMES = " \N{MULTIPLICATION SIGN} "
_BOX_WIDTH, _BOX_HEIGHT, _GAP, _COLUMN_GAP = 2.9, 0.42, 0.2, 0.6  # inches


def model_figure(layers: Sequence[Any], input_shape: tuple[int, ...], title: str) -> Figure:
    """Draw a network as boxes in calling order, down each column, with shapes and parameter counts.

    Args:
        layers: the leaf layers in calling order, each with ``name``, ``kind``, ``output_shape``, ``parameters`` and
            ``buffers``, as ``fer_exp.models.summary.list_layers`` returns them.
        input_shape: (channels, height, width) of one image.
        title: heading, for example the network's name.

    Returns:
        The figure, which grows with the number of layers. A box counts parameters as "trainable + buffers".
    """
    unique = {layer.name: layer for layer in layers}.values()  # a layer that is called twice has its weights once
    trainable, fixed = sum(layer.parameters for layer in unique), sum(layer.buffers for layer in unique)
    totals = f"{trainable + fixed:,} parameters = {trainable:,} trainable + {fixed:,} non-trainable"

    columns = max(1, round(math.sqrt(0.2 * (len(layers) + 1))))
    rows = math.ceil((len(layers) + 1) / columns)
    columns = math.ceil((len(layers) + 1) / rows)
    width = columns * (_BOX_WIDTH + _COLUMN_GAP)
    height = rows * (_BOX_HEIGHT + _GAP)
    figure, _ = new_figure(max(width + 0.2, 5), height + 0.9, title, totals)
    axes = figure.add_subplot(aspect="equal", anchor="N", xlim=(-_COLUMN_GAP / 2, width - _COLUMN_GAP / 2))
    axes.set_ylim(height, 0)
    axes.axis("off")
    corners = [
        (i // rows * (_BOX_WIDTH + _COLUMN_GAP), i % rows * (_BOX_HEIGHT + _GAP) + _GAP / 2)
        for i in range(len(layers) + 1)
    ]
    _draw_box(
        axes, corners[0], theme().ink, ("Input", _TIMES.join(map(str, input_shape)), "channels, height, width", "")
    )
    for corner, layer in zip(corners[1:], layers, strict=True):
        weights = f"{layer.parameters:,} + {layer.buffers:,}" if layer.buffers else f"{layer.parameters:,}"
        shape = _TIMES.join(map(str, layer.output_shape))
        text = (layer.kind, shape, layer.name, f"{weights} params" if weights != "0" else "")
        _draw_box(axes, corner, f"C{FAMILIES[_family(layer.kind)][0]}", text)
    for (x, y), (next_x, next_y) in pairwise(corners):
        if x == next_x:
            start, end = (x + _BOX_WIDTH / 2, y + _BOX_HEIGHT), (x + _BOX_WIDTH / 2, next_y)
        else:
            start, end = (x + _BOX_WIDTH, y + _BOX_HEIGHT / 2), (next_x, next_y + _BOX_HEIGHT / 2)
        arrow = {"arrowstyle": "-|>", "color": theme().muted, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", end, start, arrowprops=arrow)
    present = {_family(layer.kind) for layer in layers}
    patches = [Patch(color=f"C{color}", label=name) for name, (color, _) in FAMILIES.items() if name in present]
    add_legend(figure, *[patches[i : i + 2] for i in range(0, len(patches), 2)])
    return figure


def _family(kind: str) -> str:
    return next(family for family, (_, pattern) in FAMILIES.items() if re.search(pattern, kind))


def _draw_box(axes: Axes, corner: tuple[float, float], color: str, text: tuple[str, str, str, str]) -> None:
    """Draw a box with four texts: kind and shape, below them name and weights."""
    corners = f"round,pad=0,rounding_size={_BOX_HEIGHT / 7}"
    box = FancyBboxPatch(corner, _BOX_WIDTH, _BOX_HEIGHT, corners, facecolor=(color, 0.16), edgecolor=color)
    axes.add_patch(box)
    kind, shape, name, weights = text
    left, right = corner[0] + 0.08, corner[0] + _BOX_WIDTH - 0.08
    for y, (start, end), size, ink in (
        (corner[1] + 0.15, (kind, shape), SMALL, theme().ink),
        (corner[1] + 0.31, (name, weights), SMALL - 2, theme().muted),
    ):
        room = _BOX_WIDTH - 0.3 - text_width(end, size) if end else _BOX_WIDTH - 0.16
        weight = "bold" if start == kind else "normal"
        axes.text(left, y, shorten(start, room, size, weight), size=size, weight=weight, color=ink, va="center")
        axes.text(right, y, end, size=size, color=ink, ha="right", va="center")
