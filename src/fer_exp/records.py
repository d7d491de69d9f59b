"""The run record: what a run writes of itself, and the contract between training and comparison.

A record is a folder with ``history.csv``, one row an epoch, and ``summary.json``. Both are replaced whole, so that a
reader never sees half a file, and both are correct at every moment: a run that was killed still says ``running``
and holds every epoch that it finished.
"""

import csv
import io
import json
import math
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer_exp.data.imageset import ImageSet

SCHEMA = 1

HISTORY = "history.csv"
SUMMARY = "summary.json"
COLUMNS = {
    "epoch": int,  # from 1
    "step": int,  # optimizer steps so far
    "lr": float,  # at the epoch's last step
    "train_loss": float,
    "train_acc": float,
    "val_loss": float,
    "val_acc": float,
    "val_macro_f1": float,
    "train_seconds": float,
    "val_seconds": float,
}
# Every figure that an epoch logs under these names, and the direction that is better.
DIRECTION: Mapping[str, str] = {
    "train_loss": "min",
    "train_acc": "max",
    "val_loss": "min",
    "val_acc": "max",
    "val_macro_f1": "max",
}

STATUSES = ("running", "completed", "diverged", "failed", "interrupted")

Row = dict[str, int | float]


class RunRecord:
    """Writes the record of one run.

    Args:
        folder: the run's folder.
        facts: what is known before training: optimizer, model, seed, params, data, environment.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self.folder = folder
        self.rows: list[Row] = []
        self.summary: dict[str, Any] = {"schema": SCHEMA, "status": "running", **facts}
        self._save_summary()

    def write_epochs(self, rows: Sequence[Row]) -> None:
        """Replace the history by ``rows``, one an epoch, and bring the summary up to date."""
        self.rows = list(rows)
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        replace_file(self.folder / HISTORY, text.getvalue().encode())
        self.summary |= {
            "epochs": len(self.rows),
            "best": best_row(self.rows),
            "last": self.rows[-1] if self.rows else None,
            "seconds": {
                "train": sum(row["train_seconds"] for row in self.rows),
                "validation": sum(row["val_seconds"] for row in self.rows),
            },
        }
        self._save_summary()

    def finish(self, status: str, **facts: Any) -> None:
        """Set the final status, with what is known at the end (stopped_by, restored, seconds, error)."""
        assert status in STATUSES
        facts["seconds"] = {**self.summary.get("seconds", {}), **facts.get("seconds", {})}
        self.summary |= {"status": status, **facts}
        self._save_summary()

    def _save_summary(self) -> None:
        text = json.dumps(_without_nan(self.summary), indent=2, allow_nan=False)
        replace_file(self.folder / SUMMARY, (text + "\n").encode())


def write_refusal(folder: Path, error: str) -> None:
    """Leave the record of a sweep's job that could not begin."""
    summary = {"schema": SCHEMA, "status": "failed", "epochs": 0, "error": error}
    replace_file(folder / SUMMARY, (json.dumps(summary, indent=2) + "\n").encode())


def best_row(rows: Sequence[Row]) -> Row | None:
    """The first row with the highest val_acc: the epoch of ``checkpoints/best.ckpt``."""
    finite = [row for row in rows if math.isfinite(row["val_acc"])]
    return max(finite, key=lambda row: row["val_acc"], default=None)


def read_summary(folder: Path) -> dict[str, Any]:
    """Read ``summary.json``."""
    summary: dict[str, Any] = json.loads((folder / SUMMARY).read_text())
    return summary


def read_history(folder: Path) -> list[Row]:
    """Read ``history.csv``: one dict an epoch, the keys and types of ``COLUMNS``."""
    with (folder / HISTORY).open(newline="") as file:
        return [{name: kind(row[name]) for name, kind in COLUMNS.items()} for row in csv.DictReader(file)]


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old content or the new, and never a part."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).chmod(0o644)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def describe_data(train: "ImageSet", validation: "ImageSet") -> dict[str, Any]:
    """Sizes, classes and fingerprints of both splits, for the summary."""
    return {
        "train": len(train),
        "validation": len(validation),
        "classes": list(train.classes),
        "fingerprint": {"train": train.fingerprint, "validation": validation.fingerprint},
    }


def describe_environment(device: str, precision: str) -> dict[str, Any]:
    """Versions, device, precision and git commit, for the summary."""
    packages = ("fer_exp", "torch", "torchvision", "lightning", "hydra-core", "numpy")
    return {
        "versions": {name: version(name) for name in packages},
        "device": device,
        "precision": precision,
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """The commit of the checkout that this code runs from; None for an installed package."""
    source = Path(__file__).resolve().parent
    try:
        result = subprocess.run(
            ["git", "-C", str(source), "log", "-1", "--format=%H", "--", "."],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None


def _without_nan(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value
