"""The plots of one run: learning curves, network diagram, confusion matrix."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fer_exp.plots.style import SMALL, new_figure, percent_axis, shorten, text_width, theme, wrap


def curves_figure(history: Sequence[Mapping[str, float]], title: str, best_epoch: int | None = None) -> Figure:
    """Draw loss and accuracy over epochs, and the learning rate where it changes.

    Args:
        history: one row per epoch with ``epoch``, ``lr``, ``train_loss``, ``train_acc``, ``val_loss`` and ``val_acc``;
            accuracies are fractions. NaN leaves a gap.
        title: heading, for example the optimizer's name.
        best_epoch: the epoch of the saved weights, marked on the validation curves.
    """
    epochs = [int(row["epoch"]) for row in history]
    rates = [row["lr"] for row in history]
    has_schedule = len({rate for rate in rates if math.isfinite(rate)}) > 1
    figure = new_figure(8.4, 4.8 if has_schedule else 3.8, title)
    panels = figure.subplot_mosaic("AB;CC" if has_schedule else "AB", height_ratios=[4, 1] if has_schedule else [1])
    for panel, metric, label in (("A", "loss", "Loss"), ("B", "acc", "Accuracy")):
        lines = _draw_curves(panels[panel], history, epochs, metric, best_epoch)
        panels[panel].set_ylabel(label)
    percent_axis(panels["B"].yaxis)
    if best_epoch is not None:
        best = history[epochs.index(best_epoch)]
        metrics = f"val_loss {best['val_loss']:.4f}, val_acc {100 * best['val_acc']:.2f} %"
        lines[2].set_label(f"best epoch {best_epoch}: {metrics}")
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines))
    if has_schedule:
        panels["C"].step(epochs, rates, where="mid", color=theme().muted)
        panels["C"].set(ylabel="lr", yscale="log")
        positive = [rate for rate in rates if 0 < rate < math.inf]
        ends = sorted({min(positive), max(positive)})  # the powers of ten of a log axis can all be outside the range
        panels["C"].set_yticks(ends, [f"{rate:.3g}" for rate in ends])
        panels["C"].minorticks_off()
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
        subtitle: above the line with accuracy and the number of images.

    Returns:
        The figure. With more than 20 classes, cells are shaded and have no numbers.
    """
    count, support = len(classes), confusion.sum(axis=1)
    fractions = confusion / np.maximum(support, 1)[:, None]
    accuracy = np.trace(confusion) / max(support.sum(), 1)
    summary = f"accuracy {100 * accuracy:.2f} %  ·  {support.sum():,} images"

    has_numbers = count <= 20
    cell = max(0.62, 3 / count) if has_numbers else 0.17
    size = SMALL if has_numbers else 6.5
    names = [wrap(name, 1.4, size, max_lines=2 if has_numbers else 1) for name in classes]
    widest = max(text_width(name, size) for name in names)
    width, height = cell * count + widest + 1.2, cell * count + 0.8 + (widest if widest > cell else 0.2)
    figure = new_figure(max(width, 6), height, title, f"{subtitle}\n{summary}".strip())
    axes = figure.add_subplot(aspect="equal")
    axes.pcolormesh(fractions, cmap=theme().shades, vmin=0, vmax=1, edgecolors=theme().paper, linewidth=cell)
    rows = names
    if has_numbers:
        rows = [f"{name}\nn = {images:,}" for name, images in zip(names, support, strict=True)]
        for (row, column), images in np.ndenumerate(confusion):
            text = f"{100 * fractions[row, column]:.1f} %\n{images:,}" if support[row] else "n/a"
            color = _contrasting(theme().shades(fractions[row, column]))
            axes.text(column + 0.5, row + 0.5, text, size=8, color=color, ha="center", va="center")
    centers = np.arange(count) + 0.5
    axes.set_xticks(centers, names, size=size, rotation=90 if widest > cell else 0)
    axes.set_yticks(centers, rows, size=size)
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


_LAYER_WIDTH, _LAYER_HEIGHT, _BAR_WIDTH = 5.3, 0.24, 2.0  # inches; the widest bar is all parameters


def model_figure(layers: Sequence[Any], input_shape: tuple[int, ...], title: str) -> Figure:
    """Draw the layers of a network in calling order, down each column, with shapes and parameter counts.

    Args:
        layers: the leaf layers in calling order, each with ``name``, ``kind``, ``output_shape``, ``trainable`` and
            ``fixed``, as ``fer_exp.models.summary.list_layers`` returns them.
        input_shape: (channels, height, width) of one image.
        title: heading, for example the network's name.

    Returns:
        The figure, which grows with the number of layers. A layer counts parameters as "trainable + fixed"; the
        length of its bar is its fraction of all of them.
    """
    unique = {layer.name: layer for layer in layers}.values()  # a layer that is called twice has its weights once
    trainable, fixed = sum(layer.trainable for layer in unique), sum(layer.fixed for layer in unique)
    totals = f"{trainable + fixed:,} parameters = {trainable:,} trainable + {fixed:,} non-trainable"

    columns = max(1, round(math.sqrt(len(layers) / 20)))
    rows = math.ceil((len(layers) + 1) / columns)
    figure = new_figure(columns * _LAYER_WIDTH + 0.3, rows * _LAYER_HEIGHT + 0.3, title, totals)
    axes = figure.add_subplot(xlim=(0, columns * _LAYER_WIDTH), ylim=(rows, 0))
    axes.axis("off")
    cells = [("Input", "image", input_shape, "", 0.0)]
    for layer in layers:
        weights = f"{layer.trainable:,} + {layer.fixed:,}" if layer.fixed else f"{layer.trainable:,}"
        fraction = (layer.trainable + layer.fixed) / max(trainable + fixed, 1)
        cells.append((layer.kind, layer.name, layer.output_shape, "" if weights == "0" else weights, fraction))
    for i, (kind, name, shape, weights, fraction) in enumerate(cells):
        left, y = i // rows * _LAYER_WIDTH, i % rows
        right = left + _LAYER_WIDTH - 0.2
        for width, color in ((right - left, theme().faint), (_BAR_WIDTH * fraction, "C0")):
            axes.add_patch(Rectangle((right - width, y + 0.06), width, 0.88, color=color, alpha=0.5, linewidth=0))
        texts: tuple[tuple[float, str, dict[str, Any]], ...] = (
            (left + 0.08, shorten(kind, 1.3, SMALL, "bold"), {"weight": "bold"}),
            (left + 1.45, shorten(name, 1.5, SMALL), {"color": theme().muted}),
            (left + 4, " \N{MULTIPLICATION SIGN} ".join(map(str, shape)), {"ha": "right"}),
            (right - 0.08, weights, {"ha": "right"}),
        )
        for x, text, look in texts:
            axes.text(x, y + 0.5, text, size=SMALL, va="center", **look)
    return figure
