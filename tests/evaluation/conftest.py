"""Predictions of a made-up network."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

Predictions = tuple[Tensor, Tensor]


@pytest.fixture(scope="session")
def predictions() -> Callable[..., Predictions]:
    """Log-probabilities (N, C) of labels (N,), some right and some wrong: ``predictions(n, classes)``."""

    def make(n: int, classes: int = 7, sharpness: float = 2.0, seed: int = 0) -> Predictions:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(n) % classes
        logits = torch.randn(n, classes, generator=generator, dtype=torch.float64)
        logits[torch.arange(n), labels] += 1
        return (sharpness * logits).log_softmax(dim=1), labels

    return make
