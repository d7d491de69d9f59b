"""Loss and confusion matrix of an epoch, accumulated on the training device."""

from typing import Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from fer_exp.metrics import METRICS


class EpochMetrics(Metric):
    """Accumulates the batches of one split and computes its rows of ``METRICS``.

    ``update`` launches work on the device and waits for nothing. ``compute`` waits, and reduces over devices.

    Args:
        split: ``train`` or ``val``: the prefix of the metrics' names.
        num_classes: C.
    """

    full_state_update = False
    loss_sum: Tensor
    counts: Tensor
    all_finite: Tensor
    finite_batches: Tensor

    def __init__(self, split: Literal["train", "val"], num_classes: int) -> None:
        super().__init__()
        self.split = split
        self.num_classes = num_classes
        self.add_state("loss_sum", torch.zeros(()), "sum")
        self.add_state("counts", torch.zeros(num_classes**2, dtype=torch.int64), "sum")
        self.add_state("all_finite", torch.ones((), dtype=torch.int64), "min")
        self.add_state("finite_batches", torch.zeros((), dtype=torch.int64), "min")

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Args:
            loss: scalar, the batch's mean loss.
            logits: (B, C).
            labels: (B,) int64.
        """
        loss = loss.detach()
        self.loss_sum += loss * len(labels)
        self.all_finite *= loss.isfinite()
        self.finite_batches += self.all_finite  # batches before the first one whose loss is not finite
        cells = labels * self.num_classes + logits.detach().argmax(dim=1)
        self.counts.scatter_add_(0, cells, torch.ones_like(cells))

    def compute(self) -> dict[str, float]:
        """The metrics of the split by name: mean loss, and the formulas of ``METRICS``."""
        confusion = self.confusion
        loss = float(self.loss_sum) / max(1, int(confusion.sum()))
        rows = [metric for name, metric in METRICS.items() if name.startswith(f"{self.split}_")]
        return {row.name: row.formula(confusion) if row.formula else loss for row in rows}

    @property
    def confusion(self) -> Tensor:
        """(C, C) int64 on the CPU: rows are true classes, columns predicted ones."""
        return self.counts.view(self.num_classes, self.num_classes).cpu()
