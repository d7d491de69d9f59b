"""Loss and confusion matrix of an epoch, accumulated on the training device."""

import torch
from torch import Tensor


class EpochMetrics:
    """Sum of losses and confusion matrix over the batches of an epoch.

    ``update`` launches work on the device and waits for nothing; what is read from the tally waits.

    Args:
        num_classes: C.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.reset()

    def reset(self, device: torch.device | str = "cpu") -> None:
        """Start an epoch on ``device``."""
        self._loss_sum = torch.zeros((), device=device)
        self._confusion = torch.zeros(self.num_classes**2, dtype=torch.int64, device=device)
        self._is_finite = torch.ones((), dtype=torch.bool, device=device)
        self._finite_batches = torch.zeros((), dtype=torch.int64, device=device)

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Args:
            loss: scalar, the batch's mean loss.
            logits: (B, C).
            labels: (B,) int64.
        """
        loss = loss.detach()
        self._loss_sum += loss * len(labels)
        self._is_finite &= loss.isfinite()
        self._finite_batches += self._is_finite
        cells = labels * self.num_classes + logits.detach().argmax(dim=1)
        self._confusion.scatter_add_(0, cells, torch.ones_like(cells))

    @property
    def confusion(self) -> Tensor:
        """(C, C) int64 on the CPU: rows are true classes, columns predicted ones."""
        return self._confusion.view(self.num_classes, self.num_classes).cpu()

    @property
    def finite_batches(self) -> int:
        """Number of batches before the first one whose loss was not finite."""
        return int(self._finite_batches)

    @property
    def loss(self) -> float:
        """Mean loss over the images."""
        return float(self._loss_sum) / max(1, int(self._confusion.sum()))

    @property
    def accuracy(self) -> float:
        """Share of images whose class was predicted."""
        confusion = self.confusion
        # Python's division: torch divides whole numbers in float32, in which equal differences come out unequal.
        return int(confusion.diagonal().sum()) / max(1, int(confusion.sum()))

    @property
    def macro_f1(self) -> float:
        """Unweighted mean over the classes of F1 = 2 TP / (2 TP + FP + FN), 0 for a class never seen nor predicted."""
        confusion = self.confusion.double()
        seen_or_predicted = confusion.sum(0) + confusion.sum(1)
        return float((2 * confusion.diagonal() / seen_or_predicted.clamp(min=1)).mean())
