"""What a network is trained to make small."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CrossEntropy(nn.Module):
    """Cross-entropy, with remedies for labels that are not certain and for classes that are rare.

    It is the loss of training alone: ``val_loss`` is the plain cross-entropy whatever is chosen here, so that runs can
    be compared by it.

    Args:
        class_counts: number of training images of each of the C classes.
        label_smoothing: share of each label that is spread over all classes alike (Szegedy et al. 2016).
        class_weights: ``balanced`` weights an image by N / (C x the images of its class), so that each class counts
            the same; None weights all images alike.
        logit_adjustment: tau of Menon et al. (2021): trains logits + tau x log(share of the class), so that the bare
            logits, which are used from then on, suit classes that are equally frequent; 0 for none, 1 as in the paper.

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
            raise ValueError(f"label_smoothing={label_smoothing}: expected a share in [0, 1)")
        if not logit_adjustment >= 0:
            raise ValueError(f"logit_adjustment={logit_adjustment}: expected 0 or more")
        self.label_smoothing = label_smoothing
        shares = torch.tensor(class_counts, dtype=torch.float64) / sum(class_counts)
        weight = (1 / (len(shares) * shares)).float() if class_weights == "balanced" else None
        adjustment = (logit_adjustment * shares.log()).float() if logit_adjustment else None
        # Made anew from the counts in each run, so that no checkpoint needs them.
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
        # Divided by N: torch divides by the sum of the weights, with labels only, and a batch full of common classes
        # would count for more than its share.
        reduction = "mean" if self.weight is None else "none"
        loss = F.cross_entropy(logits, targets, self.weight, reduction=reduction, label_smoothing=self.label_smoothing)
        return loss if self.weight is None else loss.mean()
