"""METRICS: the one list of metrics. History columns, directions, labels and units are derived from it.

A metric that is not in the list, logged by a callback or a module of your own, works too: see ``describe``.
No heavy imports: commands read this list before torch is loaded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor


def accuracy(confusion: "Tensor") -> float:
    """Fraction of images whose class is predicted.

    Args:
        confusion: (C, C) int64; rows are true classes, columns predicted ones. The same for all formulas here.
    """
    # Python's division: torch divides integers in float32, which rounds.
    return int(confusion.diagonal().sum()) / max(1, int(confusion.sum()))


def macro_f1(confusion: "Tensor") -> float:
    """Unweighted mean over the classes of F1 = 2 TP / (2 TP + FP + FN); 0 for a class never seen nor predicted."""
    counts = confusion.double()
    seen_or_predicted = counts.sum(0) + counts.sum(1)
    return float((2 * counts.diagonal() / seen_or_predicted.clamp(min=1)).mean())


@dataclass(frozen=True)
class Metric:
    """A metric that each epoch logs.

    Attributes:
        name: as logged: ``train_`` or ``val_`` and what is measured.
        direction: ``min`` or ``max``, whichever is better.
        label: for axes and table headers.
        unit: ``%`` for fractions that are shown as percentages, otherwise empty.
        formula: computes the metric from a split's confusion matrix; None for the mean loss and for metrics that a
            user's own code logs.
    """

    name: str
    direction: Literal["min", "max"]
    label: str
    unit: str = ""
    formula: "Callable[[Tensor], float] | None" = None

    @property
    def sign(self) -> int:
        """1 if higher is better, -1 if lower is: of two values, the better one has the larger product with it."""
        return 1 if self.direction == "max" else -1


METRICS = {
    metric.name: metric
    for metric in (
        Metric("train_loss", "min", "training loss"),
        Metric("train_acc", "max", "training accuracy", "%", accuracy),
        Metric("val_loss", "min", "validation loss"),
        Metric("val_acc", "max", "validation accuracy", "%", accuracy),
        Metric("val_macro_f1", "max", "validation macro-F1", "%", macro_f1),
    )
}


def describe(name: str) -> Metric:
    """The row of ``METRICS``, or for any other name one whose direction is read from the name.

    A name that ends in ``loss`` or ``error`` is better lower, all others higher. For another direction, a label or a
    unit, add a row to ``METRICS``.
    """
    return METRICS.get(name) or Metric(
        name, "min" if name.endswith(("loss", "error")) else "max", name.replace("_", " ")
    )


def format_value(name: str, value: float) -> str:
    """A value with the metric's unit: ``62.31 %`` for accuracies, ``1.0842`` for losses."""
    return f"{100 * value:.2f} %" if describe(name).unit == "%" else f"{value:.4f}"
