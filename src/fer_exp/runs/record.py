"""The run record: what a run writes about itself, and the interface between training and comparison.

A record is a folder with ``history.csv``, one row per epoch, and ``summary.json``. Both files are always replaced as a
whole, so a reader never sees half a file. A run that was killed still has the status ``running`` and holds every
epoch that it finished.
"""

import copy
import csv
import hashlib
import io
import json
import math
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from fer_exp.files import replacing
from fer_exp.metrics import METRICS, describe

SCHEMA = 3
SUMMARY = "summary.json"
HISTORY = "history.csv"

LEADING_COLUMNS = ("epoch", "step", "lr")  # epoch: from 1; step: optimizer steps so far; lr: of the epoch's last step
TRAILING_COLUMNS = ("train_seconds", "val_seconds")
_INTEGERS = ("epoch", "step")
Row = dict[str, int | float]

STATUSES = ("running", "completed", "diverged", "failed", "interrupted")
FINISHED = ("completed", "diverged")  # the run has a result

# The keys of summary.json: the types that readers accept, and the value before training.
_FIELDS: Mapping[str, tuple[Any, Any]] = {
    "schema": (int, SCHEMA),
    "run_id": (str, ""),
    "status": (str, "running"),
    "started": (str | None, None),
    "updated": (str | None, None),  # time of the last write
    "config": (dict, {}),
    "choices": (dict[str, str], {}),
    "seed": (int | None, None),
    "params": (dict | None, None),
    "data": (dict | None, None),
    "environment": (dict | None, None),
    "epochs": (int, 0),
    "history": (str | None, None),  # digest of the history.csv that belongs to this file
    "monitor": (str, "val_loss"),
    "best": (dict[str, int | float | None] | None, None),
    "last": (dict[str, int | float | None] | None, None),
    "confusion": (list | None, None),
    "stopped_by": (str | None, None),
    "seconds": (dict[str, int | float], {"train": 0.0, "validation": 0.0, "total": 0.0}),
    "warnings": (list[str], []),
    "missing": (list[str], []),
    "error": (str | None, None),
}


class SchemaError(ValueError):
    """A record of another version of fer_exp."""


class RunRecord:
    """Writes the record of one run. Nothing is written before the first call of a method.

    Args:
        folder: the run's folder.
        facts: what is known before training: ``config`` (resolved), ``choices``, ``seed``, ``params``, ``data``,
            ``environment``, ``monitor``; ``run_id`` if the run continues an earlier record in the same folder.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self.folder = folder
        empty = copy.deepcopy({key: value for key, (_, value) in _FIELDS.items()})
        self.summary: dict[str, Any] = {**empty, "run_id": uuid.uuid4().hex, "started": _now(), **facts}

    @property
    def optimizer(self) -> str:
        """The class of the optimizer: ``Adam``."""
        return str(self.summary["config"]["optimizer"]["_target_"]).rpartition(".")[2]

    def write_epochs(self, rows: Sequence[Row], skip: int = 0) -> None:
        """Replace the history by ``rows``, one per epoch, and update the summary.

        The best epoch is not among the first ``skip``: their weights were not saved for this run.
        """
        self.summary |= {"epochs": len(rows), "history": digest(rows)}
        best = best_row(rows[skip:], self.summary["monitor"])
        self.summary |= {"best": best, "last": rows[-1] if rows else None}
        self.summary["seconds"] |= {
            "train": round(sum(row["train_seconds"] for row in rows), 3),
            "validation": round(sum(row["val_seconds"] for row in rows), 3),
        }
        self._make_folder()
        with replacing(self.folder / HISTORY) as draft:
            draft.write_text(_history_text(rows), encoding="utf-8")
        self._write_summary()

    def finish(self, status: str, seconds: float, **facts: Any) -> None:
        """Write the final status.

        Args:
            status: one of ``STATUSES``.
            seconds: from the start of the run to its end.
            facts: other keys of the summary: ``stopped_by``, ``confusion``, ``error``.
        """
        assert status in STATUSES
        self.summary |= {"status": status, **facts}
        self.summary["seconds"]["total"] = round(seconds, 3)
        self._write_summary()

    def add(self, key: str, text: str) -> None:
        """Append a text to ``warnings`` or ``missing``, once; the next write saves it."""
        if text not in self.summary[key]:
            self.summary[key].append(text)

    def _make_folder(self) -> None:
        if self.summary["updated"] is None:  # once: a folder that is removed during the run is not created again
            self.folder.mkdir(parents=True, exist_ok=True)

    def _write_summary(self) -> None:
        self._make_folder()
        self.summary["updated"] = _now()
        write_json(self.folder / SUMMARY, self.summary)


def mark_failed(folder: Path, facts: Mapping[str, Any], error: str) -> None:
    """Set the status of the record in ``folder`` to ``failed``; write a new record of ``facts`` if there is none."""
    record = RunRecord(folder, facts)
    if (folder / SUMMARY).exists():
        record.summary = read_summary(folder)
    record.finish("failed", record.summary["seconds"]["total"], error=error)


def best_row(rows: Sequence[Row], monitor: str) -> Row | None:
    """The first row with the best ``monitor`` among those with finite losses: the epoch of ``best.ckpt``."""
    sign = describe(monitor).sign
    candidates = [row for row in rows if is_finite(row) and math.isfinite(row.get(monitor, math.nan))]
    return max(candidates, key=lambda row: sign * row[monitor], default=None)


def is_finite(metrics: Mapping[str, Any]) -> bool:
    """Whether the losses of an epoch are finite. The accuracy of a diverged network is that of a constant guess."""
    return math.isfinite(metrics["train_loss"]) and math.isfinite(metrics["val_loss"])


def read_summary(folder: Path) -> dict[str, Any]:
    """Read ``summary.json``.

    Raises:
        OSError: the file cannot be read.
        SchemaError: another version of fer_exp wrote it.
        ValueError: it is not the summary of a run.
    """
    summary = read_json(folder / SUMMARY)
    schema = summary.get("schema")
    if not isinstance(schema, int):
        raise ValueError(f"{SUMMARY} is not the summary of a run: it has no schema")
    if schema != SCHEMA:
        raise SchemaError(f"{SUMMARY} has schema {schema}, and this version of fer_exp reads schema {SCHEMA}")
    if summary.get("status") not in STATUSES:
        raise ValueError(f"{SUMMARY}: status={summary.get('status')!r:.60}: expected one of {', '.join(STATUSES)}")
    check_types(summary, _FIELDS)
    return summary


def read_history(folder: Path) -> list[Row]:
    """Read ``history.csv``: one dict per epoch.

    ``epoch`` and ``step`` are int, everything else is float. Columns that were not recorded are missing from the rows;
    an empty cell is NaN.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a history, or only a part of one.
    """
    text = (folder / HISTORY).read_bytes().decode("utf-8")
    if not text.endswith("\n"):
        raise ValueError(f"{HISTORY} ends in the middle of a line")
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        rows = [{name: _value(name, cell) for name, cell in line.items()} for line in reader]
    except (csv.Error, TypeError) as error:
        raise ValueError(f"{HISTORY} is damaged: {error}") from error
    if missing := {"epoch", "train_loss", "val_loss", *TRAILING_COLUMNS} - set(reader.fieldnames or ()):
        raise ValueError(f"{HISTORY} lacks the columns {', '.join(sorted(missing))}")
    return rows


def _value(name: str, cell: str) -> int | float:
    if name in _INTEGERS:
        return int(cell)
    return float(cell) if cell != "" else math.nan


def digest(rows: Sequence[Row]) -> str:
    """SHA-256 of a history's values in hexadecimal. It does not depend on line endings."""
    columns = history_columns(rows)
    plain = [columns, *([_number(name, row) for name in columns] for row in rows)]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


def history_columns(rows: Sequence[Row]) -> list[str]:
    """The columns of a history: epoch, step, lr, those of ``METRICS``, other metrics, seconds."""
    used = dict.fromkeys(name for row in rows for name in row) if rows else dict.fromkeys(METRICS)
    metrics = [*(name for name in METRICS if name in used), *(name for name in used if name not in METRICS)]
    own = {*LEADING_COLUMNS, *TRAILING_COLUMNS}
    return [*LEADING_COLUMNS, *(name for name in metrics if name not in own), *TRAILING_COLUMNS]


def _history_text(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    columns = history_columns(rows)
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _number(name, row) for name in columns} for row in rows)
    return text.getvalue()


def _number(name: str, row: Row) -> int | float:
    value = row.get(name, math.nan)
    return int(value) if name in _INTEGERS else float(value)


def record_folders(place: Path, onerror: Callable[[OSError], object] | None = None) -> Iterator[Path]:
    """Run folders in and below ``place``, sorted by name. Folders inside a run folder are not searched.

    Links are followed, each folder once. ``onerror`` gets the error of each folder that cannot be read.
    """
    seen: set[str] = set()
    for folder, subfolders, names in os.walk(place, onerror=onerror, followlinks=True):
        subfolders.sort(key=natural)
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        if SUMMARY in names:
            subfolders.clear()
            yield Path(folder)


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key that puts 2 before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds a mapping.

    Raises:
        OSError: the file cannot be read.
        ValueError: it does not hold a mapping.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(f"{path.name} is nested too deeply") from error
    except json.JSONDecodeError as error:  # of a file that a crash left empty, for example
        raise ValueError(f"{path.name} is not JSON") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path.name}: expected a mapping")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a JSON file. NaN and infinity are written as null."""
    with replacing(path) as draft:
        draft.write_text(json.dumps(for_json(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def check_types(values: Mapping[str, Any], fields: Mapping[str, tuple[Any, Any]]) -> None:
    """Raise ValueError if a key is missing or its value does not have the type of ``fields[key][0]``."""
    if missing := sorted(set(fields) - set(values)):
        raise ValueError(f"missing: {', '.join(missing)}")
    for key, (expected, _) in fields.items():
        if not _has_type(values[key], expected):
            raise ValueError(f"{key}={values[key]!r:.60} has the wrong type")


def _has_type(value: Any, expected: Any) -> bool:
    """``isinstance``, also for the items of ``list[str]`` or ``dict[str, int]``. True is no integer."""
    if isinstance(expected, UnionType):
        return any(_has_type(value, each) for each in get_args(expected))
    if not get_args(expected):
        return isinstance(value, expected) and not isinstance(value, bool)
    items = value.values() if isinstance(value, dict) else value
    return isinstance(value, get_origin(expected)) and all(_has_type(item, get_args(expected)[-1]) for item in items)


def for_json(value: Any) -> Any:
    """The value as JSON can hold it: NaN and infinity become null, tuples lists, and keys text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): for_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [for_json(item) for item in value]
    return value


def _now() -> str:
    """The time in UTC, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
