"""Training losses."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CrossEntropy(nn.Module):
    """Cross-entropy with options for uncertain labels and rare classes.

    Only training uses it: ``val_loss`` is always the plain cross-entropy, so runs can be compared by it.

    Args:
        class_counts: number of training images of each of the C classes.
        label_smoothing: fraction of each label that is spread over all classes (Szegedy et al. 2016).
        class_weights: ``balanced`` weights an image by N / (C x images of its class), so each class has the same
            total weight; None weights all images alike.
        logit_adjustment: tau of Menon et al. (2021): trains logits + tau x log(class fraction), so the logits alone,
            which are used afterwards, suit equally frequent classes. 0 for none, 1 as in the paper.

    Raises:
        ValueError: ``label_smoothing`` is not in [0, 1), or ``logit_adjustment`` is negative.
    """

    weight: Tensor | None
    adjustment: Tensor | None

    def __init__(
        self,
        class_counts: Sequence[int],
        label_smoothing: float = 0.0,
        class_weights: Literal["balanced"] | None = None,
        logit_adjustment: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing={label_smoothing}: expected a fraction in [0, 1)")
        if not logit_adjustment >= 0:
            raise ValueError(f"logit_adjustment={logit_adjustment}: expected a number >= 0")
        self.label_smoothing = label_smoothing
        fractions = torch.tensor(class_counts, dtype=torch.float64) / sum(class_counts)
        weight = (1 / (len(fractions) * fractions)).float() if class_weights == "balanced" else None
        adjustment = (logit_adjustment * fractions.log()).float() if logit_adjustment else None
        # Computed from the counts in each run, so checkpoints do not need them.
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("adjustment", adjustment, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of a batch.

        Args:
            logits: (N, C).
            targets: (N,) int64, or (N, C) probabilities.
        """
        if self.adjustment is not None:
            logits = logits + self.adjustment
        # Divide by N: torch divides by the sum of the weights (for labels only), which gives too much weight to a batch
        # of frequent classes.
        reduction = "mean" if self.weight is None else "none"
        loss = F.cross_entropy(logits, targets, self.weight, reduction=reduction, label_smoothing=self.label_smoothing)
        return loss if self.weight is None else loss.mean()
