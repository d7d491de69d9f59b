"""Run records made without training."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fer_exp.comparison.load import Arm, Run, read_run
from fer_exp.runs.record import RunRecord

MakeRun = Callable[..., Run]

CONFIG = {
    "seed": 0,
    "monitor": "val_loss",
    "output_dir": "${hydra:runtime.output_dir}",
    "trainer": {"max_epochs": 5, "accelerator": "auto", "precision": "auto"},
    "data": {
        "_target_": "fer_exp.data.datamodule.ImageDataModule",
        "root": "/faces",
        "batch_size": 128,
        "seed": "${seed}",
    },
    "model": {"_target_": "fer_exp.models.notebook_cnn.NotebookCNN", "dropout": 0.25},
    "optimizer": {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.001},
    "scheduler": None,
    "callbacks": {"early_stopping": {"patience": 3}},
}


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Write a record and read it back.

    ``make_run("adam", 0, [0.3, 0.5])`` is a run of two epochs with those val_acc; ``settings`` replaces dotted keys
    of the configuration (``{"optimizer.lr": 0.1}``), ``facts`` keys of the summary; ``arm`` is that of a study that
    tunes the learning rate.
    """
    count = 0

    def make(
        optimizer="adam", seed=0, val_acc=(0.3, 0.5), status="completed", settings=None, facts=None, arm=None, **columns
    ):
        nonlocal count
        folder = tmp_path / "runs" / str(count)
        count += 1
        config = _replaced(CONFIG, {"seed": seed, **(settings or {})})
        summary = {
            "config": config,
            "choices": {"optimizer": optimizer, "model": "notebook_cnn"},
            "optimizer": {"name": optimizer.upper(), **config["optimizer"]},
            "model": {"name": "NotebookCNN", **config["model"]},
            "seed": seed,
            "data": {"train": 100, "validation": 50, "fingerprint": {"train": "a" * 64, "validation": "b" * 64}},
            "environment": {"device": "a processor", "threads": 2, "precision": "32-true", "versions": {"torch": "2"}},
            **(facts or {}),
        }
        record = RunRecord(folder, summary)
        rows = []
        for epoch, accuracy in enumerate(val_acc, 1):
            row = {
                "epoch": epoch, "step": 10 * epoch, "lr": config["optimizer"]["lr"], "train_loss": 2 - accuracy,
                "train_acc": accuracy, "val_loss": 2 - accuracy, "val_acc": accuracy, "val_macro_f1": accuracy - 0.1,
                "train_seconds": 30.0, "val_seconds": 2.0,
            }  # fmt: skip
            rows.append(row | {name: values[epoch - 1] for name, values in columns.items()})
        record.write_epochs(rows)
        record.finish(status, 40.0 * len(rows), error="out of memory" if status == "failed" else None)
        place = Arm(folder.parent, arm, ("optimizer",), ("optimizer.lr",)) if arm else None
        return replace(read_run(folder), arm=place)

    return make


def _replaced(config, settings):
    config = {key: dict(value) if isinstance(value, dict) else value for key, value in config.items()}
    for key, value in settings.items():
        *parents, name = key.split(".")
        node = config
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return config


@pytest.fixture
def three_optimizers(make_run: MakeRun) -> list[Run]:
    """Three optimizers, three seeds, five epochs of plausible figures."""
    noise = np.random.default_rng(0)
    level = {"adam": 0.55, "sgd": 0.40, "rmsprop": 0.54}
    return [
        make_run(name, seed, tuple(level[name] * (1 - 0.6 ** (e + 1)) + noise.normal(0, 0.01) for e in range(5)))
        for name in level
        for seed in range(3)
    ]
