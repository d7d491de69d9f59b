"""Loss and accuracy, epoch by epoch."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from fer_exp.plots.sheet import white_ticks

Row = Mapping[str, float]

_SINGLE_CUTS = 2  # in epochs that follow one another; a rate that moves in more is falling or rising

TRAINING, VALIDATION, BEST, RESTORED = "#8dd3c7", "#feffb3", "#fa8174", "#bfbbd9"


@style.context("dark_background")
def curves_figure(
    history: Sequence[Row],
    optimizer: str,
    best_epoch: int | None = None,
    restored_epoch: int | None = None,
) -> Figure:
    """Draw training and validation loss, and beside them training and validation accuracy.

    Args:
        history: one row for each epoch, with ``epoch`` (from 1), ``lr``, ``train_loss``, ``train_acc``,
            ``val_loss`` and ``val_acc``; accuracies are fractions. NaN leaves a gap in a curve.
        optimizer: the optimizer's name as it is to be shown, e.g. ``Adam``.
        best_epoch: epoch with the best validation accuracy; marked on both validation curves.
        restored_epoch: epoch whose weights the run ended with; marked where it is not ``best_epoch``.

    Returns:
        The figure. A dashed line stands between two epochs where the learning rate was cut, or began to fall.

    Raises:
        ValueError: if ``history`` is empty, or lacks a row for an epoch that is to be marked.
    """
    if not history:
        raise ValueError("the history has no rows: there is nothing to draw before the first epoch ends")

    figure = Figure(figsize=(14, 6.2), dpi=100, layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.15))
    figure.suptitle(f"Optimizer : {optimizer}", size=15)
    cuts = _rate_cuts(history)
    for axes, quantity, name in zip(figure.subplots(1, 2), ("loss", "acc"), ("Loss", "Accuracy"), strict=True):
        _draw_curves(axes, history, quantity, name)
        _draw_cuts(axes, cuts)
        if best_epoch is not None:
            _mark(axes, history, best_epoch, f"val_{quantity}", "best accuracy", color=BEST, marker="o")
        if restored_epoch is not None and restored_epoch != best_epoch:
            _mark(axes, history, restored_epoch, f"val_{quantity}", "restored", color=RESTORED, marker="D")
        # Below the panel: inside, it would cover a curve in one run or another.
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False, fontsize=11)
    return figure


def _draw_curves(axes: Axes, history: Sequence[Row], quantity: str, name: str) -> None:
    epochs = [row["epoch"] for row in history]
    # Markers keep an epoch visible that has no neighbour to draw a line to.
    size = 5 if len(history) <= 60 else 2.5
    for key, split, color in (("train", "Training", TRAINING), ("val", "Validation", VALIDATION)):
        axes.plot(
            epochs,
            [row[f"{key}_{quantity}"] for row in history],
            color=color,
            linewidth=1.6,
            marker="o",
            markersize=size,
            markeredgewidth=0,
            label=f"{split} {name}",
        )
    margin = max(0.5, 0.015 * (epochs[-1] - epochs[0]))
    axes.set_xlim(epochs[0] - margin, epochs[-1] + margin)
    axes.margins(y=0.1)
    places = MaxNLocator(nbins=18, steps=[1, 2, 5, 10], integer=True).tick_values(epochs[0], epochs[-1])
    # There is no epoch 0: the axis begins with the first epoch, whatever the round numbers after it.
    axes.set_xticks(sorted({max(int(place), int(epochs[0])) for place in places if place <= epochs[-1]}))
    axes.set_xlabel("Epoch", size=12)
    axes.set_ylabel(name, size=16)
    axes.grid(alpha=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    white_ticks(axes)


def _rate_cuts(history: Sequence[Row]) -> list[tuple[float, str]]:
    """Return place on the epoch axis and label of each cut, and of each fall over several epochs, where it begins.

    None for a schedule that moves all the time.
    """
    known = [row for row in history if math.isfinite(row["lr"])]
    stretches = groupby(pairwise(known), lambda pair: pair[0]["lr"] != pair[1]["lr"])
    moves = [list(pairs) for is_moving, pairs in stretches if is_moving]
    if len(moves) > len(history) / 3:
        return []
    found = []
    for move in moves:
        if len(move) <= _SINGLE_CUTS:
            told = [(pair, f"lr {pair[1]['lr']:.2g}") for pair in move if pair[1]["lr"] < 0.99 * pair[0]["lr"]]
        else:
            start, end = move[0][0], move[-1][1]
            falls = end["lr"] < 0.99 * start["lr"] and start is not known[0]
            told = [(move[0], f"lr {start['lr']:.2g} falls to {end['lr']:.2g}")] if falls else []
        found += [((before["epoch"] + after["epoch"]) / 2, label) for (before, after), label in told]
    return found


def _draw_cuts(axes: Axes, cuts: Sequence[tuple[float, str]]) -> None:
    left, right = axes.get_xlim()
    closest = min((b - a for (a, _), (b, _) in pairwise(cuts)), default=math.inf)
    rotation = 0 if closest > 0.12 * (right - left) else 90
    for place, label in cuts:
        axes.axvline(place, color="0.55", linestyle="--", linewidth=1, zorder=1)
        axes.annotate(
            label,
            (place, 1),
            (0, 4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            va="bottom",
            size=9,
            color="0.75",
            rotation=rotation,
        )


def _mark(axes: Axes, history: Sequence[Row], epoch: int, key: str, meaning: str, *, color: str, marker: str) -> None:
    value = next((row[key] for row in history if row["epoch"] == epoch), None)
    if value is None:
        raise ValueError(f"epoch {epoch} is to be marked, but the history has no such row")
    axes.plot(
        epoch,
        value,
        color=color,
        marker=marker,
        markersize=9,
        markeredgecolor="black",
        linestyle="none",
        zorder=4,
        # The value stands in the legend: beside the mark, it would cover the curves or the other mark.
        label=f"{value:.4f} at epoch {epoch} ({meaning})",
    )
