"""Read run records for comparison: which runs there are, their settings and their results."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fer_exp.comparison.settings import Setting, flat_settings, single_values
from fer_exp.errors import UserError
from fer_exp.files import quote_override
from fer_exp.metrics import describe
from fer_exp.runs.record import (
    FINISHED,
    HISTORY,
    SUMMARY,
    Row,
    digest,
    read_history,
    read_summary,
    record_folders,
)
from fer_exp.runs.sweep_record import SWEEP, Sweep, read_sweep

Measure = Literal["best", "final"]
MEASURES: tuple[Measure, Measure] = ("best", "final")
Floats = NDArray[np.float64]

# Settings whose outcome says more than the request: "auto" is bf16 on one machine and fp32 on another.
RESOLVED = {"trainer.accelerator": "environment.device", "trainer.precision": "precision"}


class UnreadableRecordError(Exception):
    """A run record or a sweep file that is damaged or of another schema."""


@dataclass(frozen=True)
class Arm:
    """A run's place in a study: the study and the arm's name."""

    study: Sweep
    name: str


@dataclass(frozen=True, eq=False)
class Run:
    """One run, read from its record.

    Attributes:
        folder: the run's folder.
        status: one of ``runs.record.STATUSES``; a killed run is still ``running``.
        seed: the seed.
        history: columns of ``history.csv`` by name, each (E,) float64 for E epochs.
        monitor: the metric that decides which epoch is the best.
        best_epoch: the epoch of ``best.ckpt``, from 1; None if no epoch has finite losses.
        choices: names of the chosen config groups, e.g. ``{"optimizer": "sgd"}``.
        settings: everything that must agree between averaged runs, as flat keys (``optimizer.lr``), with the data's
            fingerprint and the precision.
        facts: settings that do not change a result, such as ``data.root``, and every other single value of
            ``summary.json``, as flat keys (``environment.device``).
        classes: class names.
        class_counts: validation images per class, (C,), or None.
        confusion: (C, C) of the validation images, rows are true classes; with the weights of ``best.ckpt``; or None.
        warnings: what the run warned of.
        span: time of the start and of the last update.
        arm: the study's arm that the run belongs to, if any.
    """

    folder: Path
    status: str
    seed: int
    history: Mapping[str, Floats]
    monitor: str
    best_epoch: int | None
    choices: Mapping[str, str]
    settings: Mapping[str, Setting] = field(repr=False)
    facts: Mapping[str, Setting] = field(repr=False)
    classes: tuple[str, ...]
    class_counts: Floats | None
    confusion: Floats | None
    warnings: tuple[str, ...]
    span: tuple[datetime, datetime] | None
    arm: Arm | None = None

    @property
    def epochs(self) -> int:
        """Number of epochs trained."""
        return len(self.history.get("epoch", ()))

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics logged."""
        return [name for name in self.history if name not in ("epoch", "step", "lr", "train_seconds", "val_seconds")]

    @property
    def counts(self) -> bool:
        """Whether the run has a result: it ended by itself, divergence included."""
        return self.status in FINISHED and self.epochs > 0

    @property
    def held_out(self) -> bool:
        """Whether the run was validated on a part of the training images, to choose settings."""
        return bool(self.settings.get("data.val_fraction"))

    @property
    def train_seconds(self) -> Floats:
        """Seconds of training up to the end of each epoch, without validation, (E,)."""
        return np.cumsum(self.history.get("train_seconds", np.full(self.epochs, np.nan)))

    @property
    def total_seconds(self) -> float:
        """Seconds from start to end; for a killed run those of its epochs."""
        seconds = [self.facts.get(f"seconds.{part}") for part in ("total", "train", "validation")]
        total, train, validation = (float(each) if isinstance(each, int | float) else 0.0 for each in seconds)
        return max(total, train + validation)

    def value(self, key: str) -> Setting:
        """Return the run's value for ``key``: a choice, a setting, or a fact of the summary; None if it has none.

        ``folder`` is the name of the sweep's folder; ``arm`` is the name of the study's arm.
        """
        if key == "folder":
            return self.folder.absolute().parent.name
        if key == "arm":
            return self.arm.name if self.arm else None
        key = RESOLVED.get(key, key)
        sources: tuple[Mapping[str, Setting], ...] = (self.choices, self.settings, self.facts)
        return next((source[key] for source in sources if key in source), None)

    def metric(self, measure: Measure, name: str) -> float:
        """Return a metric at the best or at the last epoch; NaN if the run did not log it.

        A diverged run scores as it ended. A value that is not finite counts as the worst: infinity for a metric to
        minimize, 0 for one to maximize.
        """
        if name not in self.history or not self.epochs:
            return np.nan
        values = self.history[name]
        at_best = self.history["epoch"] == self.best_epoch
        is_best = measure == "best" and self.status != "diverged" and at_best.any()
        value = float(values[at_best.argmax()] if is_best else values[-1])
        worst = np.inf if describe(name).direction == "min" else 0.0
        return value if np.isfinite(value) else worst

    def finite(self, name: str) -> Floats:
        """Return a column of the history, (E,), with NaN for infinity."""
        column = self.history[name]
        return np.where(np.isfinite(column), column, np.nan)

    def to_target(self, name: str, target: float) -> dict[str, float]:
        """Return epochs, steps and seconds of training until the metric first reaches the target; infinity for a miss.

        A diverged run missed the target.
        """
        sign = describe(name).sign
        reached = np.flatnonzero(sign * self.history.get(name, np.empty(0)) >= sign * target)
        if self.status == "diverged" or not len(reached):
            return dict.fromkeys(("epochs", "steps", "seconds"), np.inf)
        first = reached[0]
        return {
            "epochs": float(self.history["epoch"][first]),
            "steps": float(self.history["step"][first]),
            "seconds": float(self.train_seconds[first]),
        }


@dataclass(frozen=True)
class Records:
    """What was found below some folders.

    Attributes:
        runs: in the order of their folders' names (2 before 10).
        sweeps: the sweeps among the folders.
        messages: one for each record that is excluded and each sweep that is incomplete.
    """

    runs: list[Run]
    sweeps: list[Sweep] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


def find_records(places: Iterable[Path]) -> Records:
    """Read every record in and below ``places``, each once.

    Raises:
        UserError: a place does not exist, or there is no readable record in any of them.
    """
    places = list(places)
    found = Records([])
    folders: dict[str, Path] = {}
    for place in places:
        if not place.is_dir():
            raise UserError(f"{place}: no such folder; expected the folder of a run or a sweep, or one above them")
        for folder in record_folders(place, lambda e: found.messages.append(f"{e.filename} is excluded: {e.strerror}")):
            folders.setdefault(os.path.realpath(folder), folder)
    known: dict[Path, Sweep | None] = {}
    for folder in folders.values():
        sweep = None
        try:
            sweep = _find_sweep(folder, known)
        except Exception as error:  # a damaged file can hold anything, and must not stop the others
            found.messages.append(f"{SWEEP} above {folder} is ignored: {_reason(error)}")
        try:
            found.runs.append(replace(read_run(folder), arm=_find_arm(folder, sweep)))
        except UnreadableRecordError as error:
            found.messages.append(f"{folder} is excluded: {error}")
    found.sweeps.extend({sweep.folder: sweep for sweep in known.values() if sweep}.values())
    for sweep in found.sweeps:
        if missing := sweep.missing_jobs:
            same_folder = quote_override("hydra.sweep.dir", sweep.folder)
            jobs = f"{missing} of {sweep.jobs} jobs have no record yet"
            found.messages.append(f"{sweep.folder}: {jobs}; the same command with {same_folder} runs them")
    if not found.runs:
        hint = (
            f"{', '.join(map(str, places))}: no run record ({SUMMARY}) found; expected the folder of a run or a sweep"
        )
        raise UserError("\n".join([f"{hint}, e.g. outputs/sweeps/TIME", *found.messages]))
    return found


def read_run(folder: Path) -> Run:
    """Read one record.

    Raises:
        UnreadableRecordError: the record is damaged or of another schema.
    """
    try:
        return _read_run(folder)
    except Exception as error:  # as above
        raise UnreadableRecordError(_reason(error)) from error


def _find_sweep(folder: Path, known: dict[Path, Sweep | None]) -> Sweep | None:
    """Return the sweep that a folder lies in; ``known`` remembers the folders that were looked at."""
    for place in (folder.absolute(), *folder.absolute().parents):
        if place not in known:
            known[place] = None  # a damaged file is reported once
            if (place / SWEEP).is_file():
                known[place] = read_sweep(place)
        if sweep := known[place]:
            return sweep
    return None


def _find_arm(folder: Path, sweep: Sweep | None) -> Arm | None:
    """Return the study's arm that a run belongs to."""
    if sweep is None or not folder.name.isdecimal():
        return None
    name = next((name for name, jobs in sweep.arms.items() if int(folder.name) in jobs), None)
    return Arm(sweep, name) if name is not None else None


def _read_run(folder: Path) -> Run:
    summary = read_summary(folder)
    rows = read_history(folder) if (folder / HISTORY).exists() else []
    _check_history(summary, rows)
    if summary["seed"] is None:
        raise ValueError(f"{SUMMARY} has no seed")
    data, best = summary["data"] or {}, summary["best"]
    settings, incidental = flat_settings(summary)
    classes = tuple(map(str, data.get("classes") or ()))
    confusion = _numbers(summary["confusion"], (len(classes), len(classes)))
    counts = _numbers((data.get("counts") or {}).get("validation"), (len(classes),))
    history = {name: np.array([row[name] for row in rows], np.float64) for name in (rows[0] if rows else ())}
    history.setdefault("step", np.full(len(rows), np.nan))
    own_keys = {"config", "choices", "confusion", "warnings", "history"}
    return Run(
        folder=folder,
        status=summary["status"],
        seed=summary["seed"],
        history=history,
        monitor=summary["monitor"],
        best_epoch=int(best["epoch"]) if best else None,
        choices=summary["choices"],
        settings=settings,
        facts=dict(single_values({key: value for key, value in summary.items() if key not in own_keys})) | incidental,
        classes=classes,
        class_counts=counts if confusion is None else np.asarray(confusion.sum(1)),
        confusion=confusion,
        warnings=tuple(summary["warnings"]),
        span=(_time(summary["started"]), _time(summary["updated"])) if summary["updated"] else None,
    )


def _check_history(summary: Mapping[str, Any], rows: Sequence[Row]) -> None:
    if summary["status"] in FINISHED and len(rows) != summary["epochs"]:
        raise ValueError(f"{HISTORY} has {len(rows)} epochs, {SUMMARY} {summary['epochs']}")
    # A run that was killed between writing the two files has one epoch more than its summary.
    if summary["status"] != "running" and summary["history"] not in (None, digest(rows)):
        raise ValueError(f"{HISTORY} and {SUMMARY} are not of the same run")


def _numbers(values: Any, shape: tuple[int, ...]) -> Floats | None:
    if values is None:
        return None
    array: Floats = np.asarray(values, dtype=np.float64)
    if array.shape != shape or not np.isfinite(array).all() or (array < 0).any():
        raise ValueError(f"expected {' x '.join(map(str, shape))} counts, got {json.dumps(values)[:60]}")
    return array


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _reason(error: BaseException) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error) or type(error).__name__
