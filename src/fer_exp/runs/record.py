"""The run record: what a run writes of itself, and the contract between training and comparison.

A record is a folder with ``history.csv``, one row an epoch, and ``summary.json``. Both are replaced whole, so that a
reader never sees half a file, and both are correct at every moment: a run that was killed still says ``running``
and holds every epoch that it finished.
"""

import csv
import hashlib
import io
import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_exp.files import replacing

if TYPE_CHECKING:
    from fer_exp.data.dataset import ImageDataset

SCHEMA = 2  # 2 added config, choices, started, updated, and the environment's host and threads

HISTORY = "history.csv"
# Keys of a configuration that say where and how a run is computed, and not what: its outcome does not hang on them.
NO_SETTINGS = frozenset(
    {
        "output_dir",
        "resume",
        "data.cache_dir",
        "data.in_memory",
        "optimizer.fused",
        "cuda_graph",
        "im2col_weight_grad",
        "retain_memory",
    }
)
SUMMARY = "summary.json"
SWEEP = "sweep.json"  # in the folder of a sweep, whose runs lie in folders below it
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
FINISHED = ("completed", "diverged")  # the run came to a result of its own

Row = dict[str, int | float]

# Settings that records from before them do not tell, as they were then: of a run, and of its parts by their classes.
PLAIN_LOSS: Mapping[str, Any] = {
    "_target_": "fer_exp.training.losses.CrossEntropy",
    "_partial_": True,
    "label_smoothing": 0.0,
    "class_weights": None,
    "logit_adjustment": 0.0,
}
_NOTHING: tuple[Any, ...] = (None, {})  # of a group: none was chosen, or there was none to choose from
_EARLIER: Mapping[str, Any] = {"decay_norms_and_biases": True, "loss": PLAIN_LOSS}
_EARLIER_OF_CLASS: Mapping[str, Mapping[str, Any]] = {
    "fer_exp.data.datamodule.ImageDataModule": {"balanced_sampling": False},
    "fer_exp.data.datamodule.SyntheticDataModule": {"balanced_sampling": False},
    "fer_exp.models.resnet.ResNet18": {"width": 64, "stem_stride": 1, "dropout": 0.0},
}

# Keys of summary.json and sweep.json whose kind readers count on; where a key is absent they know what to do.
_SUMMARY_KINDS: Mapping[str, tuple[type, ...]] = {
    "seed": (int,),
    "epochs": (int,),
    "history": (str, type(None)),
    "best": (dict, type(None)),
    "seconds": (dict,),
    "config": (dict, type(None)),
    "choices": (dict,),
    "data": (dict, type(None)),
    "environment": (dict, type(None)),
}
_SWEEP_KINDS: Mapping[str, tuple[type, ...]] = {
    "overrides": (list,),
    "sweeper": (dict,),
    "jobs": (int, type(None)),
    "swept": (list,),
    "tuned": (list,),
    "winners": (dict,),
    "arms": (dict,),
}


class RunRecord:
    """Writes the record of one run.

    Args:
        folder: the run's folder.
        facts: what is known before training: config, choices, optimizer, model, seed, params, data, environment.

    Nothing is written before the first call of a method.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self.folder = folder
        self.summary: dict[str, Any] = {
            "schema": SCHEMA,
            "status": "running",
            "started": _now(),
            "updated": None,  # when this file was last written
            **facts,
            "epochs": 0,
            "history": None,  # tells whether history.csv is the one that this file was written with
            "best": None,
            "last": None,
            "restored": None,
            "stopped_by": None,
            "seconds": {"train": 0.0, "validation": 0.0, "total": 0.0},
            "error": None,
        }

    def write_epochs(self, rows: Sequence[Row]) -> None:
        """Replace the history by ``rows``, one an epoch, and bring the summary up to date."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.summary |= {"epochs": len(rows), "history": digest(rows)}
        self.summary |= {"best": best_row(rows), "last": rows[-1] if rows else None}
        self.summary["seconds"] |= {
            "train": round(sum(row["train_seconds"] for row in rows), 3),
            "validation": round(sum(row["val_seconds"] for row in rows), 3),
        }
        self._make_folder()
        with replacing(self.folder / HISTORY) as draft:
            draft.write_text(text.getvalue())
        self._write_summary()

    def finish(self, status: str, seconds: float, **facts: Any) -> None:
        """Set the final status, the total of seconds, and what else is known at the end.

        Args:
            status: one of ``STATUSES``.
            seconds: from the run's beginning to its end.
            facts: stopped_by, restored, error.
        """
        assert status in STATUSES
        self.summary |= {"status": status, **facts}
        self.summary["seconds"]["total"] = round(seconds, 3)
        self._write_summary()

    def _make_folder(self) -> None:
        if self.summary["updated"] is None:  # once: a folder that is removed under a run is not made up again
            self.folder.mkdir(parents=True, exist_ok=True)

    def _write_summary(self) -> None:
        self._make_folder()
        self.summary["updated"] = _now()
        with replacing(self.folder / SUMMARY) as draft:
            draft.write_text(json.dumps(for_json(self.summary), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def best_row(rows: Sequence[Row]) -> Row | None:
    """The first row with the highest val_acc whose loss is finite: the epoch of ``checkpoints/best.ckpt``."""
    return max(filter(is_finite, rows), key=lambda row: row["val_acc"], default=None)


def is_finite(figures: Mapping[str, Any]) -> bool:
    """Whether an epoch's losses are finite; the accuracy of a network that is lost is that of a constant guess."""
    return math.isfinite(figures["train_loss"]) and math.isfinite(figures["val_loss"])


def read_summary(folder: Path) -> dict[str, Any]:
    """Read ``summary.json``.

    Raises:
        OSError: there is none that can be read.
        ValueError: it is not that of a run; says why.
    """
    summary = _read_json(folder / SUMMARY)
    if not isinstance(summary.get("schema"), int):
        raise ValueError(f"{SUMMARY} is not that of a run")
    if summary["schema"] > SCHEMA:
        raise ValueError(f"its schema is {summary['schema']}, and this version knows up to {SCHEMA}")
    if missing := [key for key in ("status", "epochs", "seconds") if summary.get(key) is None]:
        raise ValueError(f"{SUMMARY} lacks {', '.join(missing)}")
    if summary["status"] not in STATUSES:
        raise ValueError(f"its status is {summary['status']}; expected one of {', '.join(STATUSES)}")
    _check_kinds(summary, _SUMMARY_KINDS)
    _check_kinds(summary.get("best") or {}, dict.fromkeys(COLUMNS, (int, float, type(None))))
    _check_kinds(summary["seconds"], dict.fromkeys(("train", "validation", "total"), (int, float)))
    return summary


def whole_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded configuration with the settings that were not there yet when it was recorded."""
    whole = {**_EARLIER, **config}
    for group, values in whole.items():
        if isinstance(values, Mapping):
            whole[group] = {**_EARLIER_OF_CLASS.get(str(values.get("_target_")), {}), **values}
    return whole


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In words, the settings that are not as they were; where a run is done is no setting.

    Args:
        before: a record's configuration.
        now: a configuration, plain and unresolved.
    """
    return _changed(whole_config(before), whole_config(for_json(now)), "")


def _changed(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str) -> list[str]:
    changed = []
    for key in sorted({*before, *now}):
        if f"{prefix}{key}" in NO_SETTINGS:
            continue
        was, is_ = before.get(key), now.get(key)
        if isinstance(was, Mapping) and isinstance(is_, Mapping):
            changed += _changed(was, is_, f"{prefix}{key}.")
        elif was in _NOTHING and is_ in _NOTHING:
            continue
        elif was != is_ or is_batches(f"{prefix}{key}", was) != is_batches(f"{prefix}{key}", is_):
            changed.append(f"{prefix}{key} was {was} and is {is_}")
    return changed


def read_history(folder: Path) -> list[Row]:
    """Read ``history.csv``: one dict an epoch, the keys and types of ``COLUMNS``.

    Raises:
        OSError: there is none that can be read.
        ValueError, KeyError, TypeError, csv.Error: it is not one, or only a part of one.
    """
    with (folder / HISTORY).open(newline="", encoding="utf-8") as file:
        text = file.read()
    if not text.endswith("\n"):
        raise ValueError(f"{HISTORY} ends in the middle of a line")
    return [{name: kind(row[name]) for name, kind in COLUMNS.items()} for row in csv.DictReader(io.StringIO(text))]


def digest(rows: Sequence[Row]) -> str:
    """SHA-256 of a history's rows, whatever ends their lines, in hexadecimal."""
    plain = [[kind(row[name]) for name, kind in COLUMNS.items()] for row in rows]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds a mapping; raises OSError, or ValueError that says what is wrong with it."""
    text = path.read_text(encoding="utf-8")
    if not text.strip("\0 \r\n\t"):
        raise ValueError(f"{path.name} is empty")
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{path.name} is nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds no mapping")
    return content


def _check_kinds(values: Mapping[str, Any], kinds: Mapping[str, tuple[type, ...]]) -> None:
    for key, expected in kinds.items():
        if key in values and (not isinstance(values[key], expected) or isinstance(values[key], bool)):
            raise ValueError(f"its {key} is {values[key]!r:.60}, which is of the wrong kind")


def mark_failed(folder: Path, facts: Mapping[str, Any], error: str) -> None:
    """Record that a run failed: in the record that it left, or, where it left none, in one that tells ``facts``."""
    record = RunRecord(folder, facts)
    if (folder / SUMMARY).exists():
        record.summary = read_summary(folder)
    record.finish("failed", record.summary["seconds"]["total"], error=error)


def record_folders(place: Path) -> Iterator[Path]:
    """Folders of runs in and below ``place``, in the order of their names; what lies inside one is not looked at."""
    for folder, subfolders, names in os.walk(place):
        subfolders.sort(key=natural)
        if SUMMARY in names:
            subfolders.clear()
            yield Path(folder)


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts 2 before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def read_sweep(folder: Path) -> dict[str, Any]:
    """Read ``sweep.json``.

    Returns:
        overrides: those of the command, as they were given.
        sweeper: the settings of Hydra's sweeper.
        jobs: their number; None where the sweeper decides as it goes.
        swept: the keys that tell the jobs apart, but for the seed.
        tuned: the keys that a study chose for each arm by itself.
        winners: for each arm of a study the overrides that it chose.
        arms: for each arm of a study the numbers of its jobs.

    Raises:
        OSError: there is none that can be read.
        ValueError: it is not that of a sweep; says why.
    """
    sweep = _read_json(folder / SWEEP)
    _check_kinds(sweep, _SWEEP_KINDS)
    for key in ("overrides", "swept", "tuned"):
        if not all(isinstance(item, str) for item in sweep.get(key, [])):
            raise ValueError(f"its {key} are not all text")
    if not all(isinstance(jobs, list) for jobs in sweep.get("arms", {}).values()):
        raise ValueError("its arms are no lists of jobs")
    return sweep


def write_sweep(folder: Path, **facts: Any) -> None:
    """Write ``sweep.json``, or replace some of its facts: see ``read_sweep``."""
    folder.mkdir(parents=True, exist_ok=True)
    before = read_sweep(folder) if (folder / SWEEP).exists() else {"tuned": [], "winners": {}}
    with replacing(folder / SWEEP) as draft:
        draft.write_text(json.dumps({**before, **facts}, indent=2) + "\n", encoding="utf-8")


def describe_data(
    train: "ImageDataset", validation: "ImageDataset", left_out: Mapping[str, Mapping[str, int]]
) -> dict[str, Any]:
    """Sizes, classes and fingerprints of both splits, how many files were left out, and a hash of soft labels."""
    soft_labels = train.soft_labels
    return {
        "train": len(train),
        "validation": len(validation),
        "classes": list(train.classes),
        "left_out": {split: dict(counts) for split, counts in left_out.items()},
        "fingerprint": {"train": train.fingerprint, "validation": validation.fingerprint},
        "soft_labels": None if soft_labels is None else hashlib.sha256(soft_labels.numpy().tobytes()).hexdigest(),
    }


def describe_environment(device: str, precision: str, threads: int) -> dict[str, Any]:
    """Versions, host, device, precision and git commit, for the summary."""
    packages = ("fer_exp", "torch", "torchvision", "lightning", "hydra-core", "numpy")
    return {
        "versions": {name: version(name) for name in packages},
        "host": platform.node(),
        "device": device,
        "threads": threads,
        "precision": precision,
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """The commit of the checkout that this code runs from, "-dirty" if it was changed; None where there is none."""
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # not the repository of somebody whose environment lies in it
        return git("describe", "--always", "--abbrev=40", "--dirty", "--exclude=*") or None
    except (OSError, subprocess.SubprocessError):
        return None


def _now() -> str:
    """The time, in UTC, as ISO 8601 writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def is_batches(key: str, value: Any) -> bool:
    """Whether a setting is a number of batches: to Lightning 1 is one, and 1.0 is all; to Python they are equal.

    Args:
        key: of the setting, as ``trainer.limit_train_batches``.
        value: of the setting.
    """
    return key.startswith("trainer.limit_") and isinstance(value, int)


def for_json(value: Any) -> Any:
    """What JSON can hold: NaN and infinity become null, and keys text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): for_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [for_json(item) for item in value]
    return value
