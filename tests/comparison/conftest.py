"""Run records made without training."""

import csv
import io
import json
import math

import numpy as np
import pytest

from fer_exp.comparison.load import Records, read_run
from fer_exp.runs.record import SCHEMA

CLASSES = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"]
CLASS_COUNTS = [479, 55, 512, 895, 620, 608, 420]
CONFIG = {
    "seed": 0,
    "monitor": "val_acc",
    "output_dir": "/outputs/run",
    "trainer": {"max_epochs": 5, "accelerator": "auto", "precision": "auto"},
    "data": {
        "_target_": "fer_exp.data.sources.class_folders.FolderDataModule",
        "root": "/data/fer2013",
        "batch_size": 128,
    },
    "model": {"_target_": "fer_exp.models.notebook_cnn.NotebookCNN", "dropout": 0.25},
    "optimizer": {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.001},
    "scheduler": None,
    "callbacks": {"early_stopping": None},
    "logger": {"save_dir": "/outputs"},
}
ENVIRONMENT = {
    "device": "a processor",
    "threads": 2,
    "precision": "32-true",
    "host": "here",
    "git_commit": "0123456789",
    "versions": {"torch": "2.11", "fer_exp": "0.1.0"},
}


def write_record(
    folder, optimizer="adam", seed=0, val_acc=(0.3, 0.5), status="completed", settings=None, facts=None, **columns
):
    """Write a record: ``write_record(folder, "adam", 0, [0.3, 0.5])`` is a run of two epochs with those val_acc.

    ``settings`` replaces flat keys of the config (``{"optimizer.lr": 0.1}``), ``facts`` keys of the summary, and each
    of ``columns`` a column of the history.
    """
    folder.mkdir(parents=True)
    config = _with_settings(CONFIG, {"seed": seed, "output_dir": str(folder), **(settings or {})})
    config["callbacks"] = {**config["callbacks"], "checkpoints": {"folder": f"{folder}/checkpoints"}}
    rows = []
    for i, accuracy in enumerate(val_acc):
        row = {
            "epoch": i + 1, "step": 10 * (i + 1), "lr": config["optimizer"]["lr"], "train_loss": 2 - accuracy,
            "train_acc": accuracy, "val_loss": 2 - accuracy, "val_acc": accuracy, "val_macro_f1": accuracy - 0.1,
        }  # fmt: skip
        row |= {name: values[i] for name, values in columns.items()}
        rows.append({**row, "train_seconds": 30.0, "val_seconds": 2.0})
    finite = [row for row in rows if math.isfinite(row["val_loss"])]
    best = max(finite, key=lambda row: row["val_acc"], default=None)
    summary = {
        "schema": SCHEMA,
        "run_id": str(folder),
        "status": status,
        "started": f"2026-01-01T{seed % 24:02}:00:00+00:00",
        "updated": f"2026-01-01T{seed % 24:02}:00:01+00:00",
        "config": config,
        "choices": {"optimizer": optimizer, "model": "notebook_cnn"},
        "seed": seed,
        "data": {
            "classes": CLASSES,
            "train": 28709,
            "validation": 3589,
            "fingerprint": {"train": "a" * 64, "validation": "b" * 64},
        },
        "environment": ENVIRONMENT,
        "epochs": len(rows),
        "history": None,
        "monitor": config["monitor"],
        "best": best,
        "last": rows[-1] if rows else None,
        "confusion": _confusion(val_acc[-1], seed) if rows else None,
        "seconds": {"train": 30.0 * len(rows), "validation": 2.0 * len(rows), "total": 40.0 * len(rows)},
        "params": {"trainable": 1000, "non_trainable": 0},
        "stopped_by": "max_epochs",
        "warnings": [],
        "missing": [],
        "error": "out of memory" if status == "failed" else None,
        **(facts or {}),
    }
    (folder / "summary.json").write_text(json.dumps(summary).replace("NaN", "null"))
    if rows:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        (folder / "history.csv").write_text(text.getvalue())
    return folder


def write_sweep_of(folder, groups, seeds=3, epochs=5, **record):
    """Write a sweep of ``groups`` optimizers with ``seeds`` seeds each: curves that rise to different levels."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0)
    names = [f"opt{n}" if n >= 3 else ("adam", "sgd", "rmsprop")[n] for n in range(groups)]
    for n, name in enumerate(names):
        for seed in range(seeds):
            level = 0.62 - 0.25 * n / max(groups, 4)
            bend = 1 - 0.8 ** np.arange(1, epochs + 1)
            shift = np.random.default_rng(seed).normal(0, 0.01)  # a seed moves all groups alike
            curve = level * bend + shift * bend + noise.normal(0, 0.004, epochs)
            job = folder / str(n * seeds + seed)
            write_record(job, name, seed, curve.tolist(), settings={"optimizer.lr": 0.001 * (n + 1)}, **record)
    sweep = {"overrides": [f"optimizer={','.join(names)}", "seed=range(3)"], "sweeper": {}, "jobs": groups * seeds}
    (folder / "sweep.json").write_text(json.dumps({**sweep, "swept": ["optimizer"], "tuned": [], "winners": {}}))
    return folder


def _confusion(accuracy, seed):
    noise = np.random.default_rng(seed)
    matrix = np.zeros((len(CLASSES), len(CLASSES)), int)
    for i, count in enumerate(CLASS_COUNTS):
        right = int(count * min(1, max(0, accuracy + noise.normal(0, 0.05) - 0.4 * (i == 1))))
        matrix[i] = noise.multinomial(count - right, np.full(len(CLASSES), 1 / len(CLASSES)))
        matrix[i, i] += right
    return matrix.tolist()


def _with_settings(config, settings):
    config = {key: dict(value) if isinstance(value, dict) else value for key, value in config.items()}
    for key, value in settings.items():
        *parents, name = key.split(".")
        node = config
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return config


@pytest.fixture
def make_run(tmp_path):
    """Write a record and read it: see ``write_record``."""
    count = 0

    def make(*args, **kwargs):
        nonlocal count
        count += 1
        return read_run(write_record(tmp_path / "runs" / str(count), *args, **kwargs))

    return make


@pytest.fixture
def make_records(make_run):
    """Records with the given scores: ``make_records(adam=[0.5, 0.6], sgd=[0.4, 0.3])`` has two seeds each."""

    def make(**groups):
        runs = [make_run(name, seed, [score]) for name, scores in groups.items() for seed, score in enumerate(scores)]
        return Records(runs)

    return make


@pytest.fixture
def make_sweep(tmp_path):
    """Write a sweep: ``make_sweep(9)`` has nine groups of three seeds; see ``write_sweep_of``."""
    return lambda groups, **kwargs: write_sweep_of(tmp_path / "sweep", groups, **kwargs)
