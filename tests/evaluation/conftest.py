"""Predictions and an evaluation of a small random network."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fer_exp.data.dataset import ImageDataset, hash_images
from fer_exp.evaluation.content import Evaluation
from fer_exp.evaluation.protocol import EvalSplit, Provenance
from fer_exp.evaluation.scores import score
from fer_exp.runs.checkpoint import LoadedModel

CLASSES = ("_x_|<b>", "=1+1", "[happy](javascript:alert(1))", "快乐")
PROVENANCE = Provenance(Path("best.ckpt"), Path("runs/a"), "best", 4, 9, "val_loss", 0.0, train="T", selection="S")
ENVIRONMENT = {"device": "cpu", "precision": "32-true", "git_commit": None, "versions": {"fer_exp": "0.1.0"}}
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


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))
    return LoadedModel(Path("best.ckpt"), network.eval(), 4, {"classes": list(CLASSES), "config": {}})


@pytest.fixture(scope="module")
def evaluation(predictions):
    """RGB images of three of four classes with names that no format may interpret."""
    log_probabilities, labels = predictions(60, classes=3)
    never = torch.full((60, 1), -30.0, dtype=torch.float64)
    log_probabilities = torch.cat([log_probabilities, never], dim=1).log_softmax(1)
    pixels = torch.randint(0, 256, (60, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    names = tuple(f"@{i}\x1b[31m.png" for i in range(60))
    images = ImageDataset(pixels, labels, tuple(CLASSES), names, hash_images(pixels))
    return Evaluation(
        provenance=PROVENANCE,
        protocol="folders",
        statement="Protocol folders.",
        notes=["A caveat with <b> and _x_."],
        split=EvalSplit("validation", "S", "validation"),
        images=images,
        copies={},
        log_probabilities={"none": log_probabilities},
        scores={"none": score(log_probabilities, labels, 1.5, resamples=100)},
        resamples=100,
        seed=0,
        environment=ENVIRONMENT,
        time="2026-01-02T03:04:05+00:00",
    )
