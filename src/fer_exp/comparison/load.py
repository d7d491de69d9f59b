"""Run records, read for comparison: which runs there are, what each was set to, and what came of it."""

import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray

from fer_exp.errors import UserError
from fer_exp.files import quote_override
from fer_exp.metrics import describe
from fer_exp.runs.record import (
    FINISHED,
    HISTORY,
    NEUTRAL_KEYS,
    SUMMARY,
    Row,
    best_row,
    digest,
    history_columns,
    is_batch_count,
    natural,
    read_history,
    read_summary,
    record_folders,
)
from fer_exp.runs.sweep_record import SWEEP, read_sweep

Setting = str | int | float | bool | None
Measure = Literal["best", "final"]

FIGURES = ("val_acc", "val_loss", "val_macro_f1")
# What may differ between runs whose results are averaged: the fingerprint tells the data, whatever their folder.
_INCIDENTAL = (*NEUTRAL_KEYS, "seed", "logger", "data.root", "data.seed")
# Settings whose outcome says more than the wish ("auto" is bf16 here and fp32 there), and what tells the outcome.
RESOLVED = {"trainer.accelerator": "environment.device", "trainer.precision": "precision"}
# Among the settings of a run, those that its configuration does not tell.
OUTCOMES = ("data.fingerprint", "precision")
NOT_RECORDED = "not recorded"

# What reading files that are no record, or half of one, ends in.
UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
    csv.Error,
    yaml.YAMLError,
)


@dataclass(frozen=True)
class Arm:
    """A run's place in a study.

    Attributes:
        study: the study's folder.
        name: of the arm; in the record of an older study None.
        fixed: the keys that tell the study's arms apart.
        tuned: the keys that it chose for each arm by itself.
    """

    study: Path
    name: str | None
    fixed: tuple[str, ...]
    tuned: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Run:
    """One run, as its record tells it.

    Attributes:
        folder: the run's folder.
        summary: its ``summary.json``, without the configuration.
        history: the columns of its ``history.csv``, each (E,) float64 for E epochs.
        choices: the names of the groups' choices, e.g. ``{"optimizer": "sgd_nesterov"}``; empty in older records.
        settings: everything that must agree between runs that are averaged, flat: ``{"optimizer.lr": 0.001, ...}``,
            with the fingerprint of the data and the precision.
        has_config: whether ``settings`` are the whole configuration. A record that was copied without its
            ``.hydra/`` may tell network and optimizer only.
        incidental: settings that say where a run was done, not what, such as ``data.root``.
        arm: the arm of a study that it is of; None outside of studies.
    """

    folder: Path
    summary: Mapping[str, Any]
    history: Mapping[str, NDArray[np.float64]]
    choices: Mapping[str, str]
    settings: Mapping[str, Setting]
    has_config: bool
    incidental: Mapping[str, Setting] = field(default_factory=dict, repr=False)
    arm: Arm | None = None
    _best: int = field(repr=False, kw_only=True)  # row of the best epoch; -1 where none is finite

    @property
    def status(self) -> str:
        """As the record says; ``running`` is also what a killed run says of itself."""
        return str(self.summary["status"])

    @property
    def counts(self) -> bool:
        """Whether the run came to a result of its own: it ended by itself, divergence included."""
        return self.status in FINISHED and self.epochs > 0

    @property
    def seed(self) -> int:
        """The seed."""
        return int(self.summary["seed"])

    @property
    def epochs(self) -> int:
        """Number of epochs trained."""
        return len(self.history["epoch"])

    @property
    def held_out(self) -> bool:
        """Whether the run was validated on a part of the training folder, to choose settings by."""
        return bool(self.settings.get("data.val_fraction"))

    @cached_property
    def span(self) -> tuple[datetime, datetime] | None:
        """When the run started and when its record was last written; None in older records."""
        started, updated = self.summary.get("started"), self.summary.get("updated")
        return (_time(started), _time(updated)) if started and updated else None

    @cached_property
    def train_seconds(self) -> float:
        """Seconds of training, those of validation left out."""
        return float(self.history["train_seconds"].sum())

    @property
    def total_seconds(self) -> float:
        """Seconds from start to end; of a run that was killed, for which none were written, those of its epochs."""
        seconds = self.summary["seconds"]
        return float(max(seconds["total"], seconds["train"] + seconds["validation"]))

    def value(self, key: str) -> Setting:
        """What the run has for ``key``: a group's choice, a setting, or a fact of the summary; None if nothing.

        ``folder`` is the name of the folder that the run's own lies in: that of its sweep; ``arm`` names that of its
        study.
        """
        if key == "folder":
            return self.folder.absolute().parent.name
        if key == "arm":
            return self.arm.name if self.arm else None
        key = RESOLVED.get(key, key)
        if key in self.choices:
            return self.choices[key]
        if key in self.settings:
            return self.settings[key]
        if key in self.incidental:
            return self.incidental[key]
        fact: Any = self.summary
        for part in key.split("."):
            fact = fact.get(part) if isinstance(fact, Mapping) else None
        if isinstance(fact, Mapping):  # a group of an older record, named by its class
            fact = fact.get("name")
        return fact if isinstance(fact, str | int | float | None) else json.dumps(fact)

    def told(self, key: str) -> Setting:
        """``value``, or "not recorded" where the record would not tell whether there was one."""
        value = self.value(key)
        return NOT_RECORDED if value is None and not self.has_config and key not in self.settings else value

    def figure(self, measure: Measure, name: str) -> float:
        """A validation figure at the epoch of the best val_acc, or at the last epoch.

        A run that diverged is scored as it ended, by what its lost network got, whatever it had reached before. A loss
        that is not finite counts as infinity, and another figure that is not as 0.
        """
        value = float(self.history[name][self._row(measure)])
        worst = np.inf if describe(name).direction == "min" else 0.0
        return value if np.isfinite(value) else worst

    @property
    def best_epoch(self) -> int | None:
        """The epoch that ``figure("best", ...)`` is of, from 1; None where there is none."""
        return int(self.history["epoch"][self._row("best")]) if self.epochs else None

    def _row(self, measure: Measure) -> int:
        return self._best if measure == "best" and self.status != "diverged" else -1

    def to_target(self, target: float) -> dict[str, float]:
        """Epochs, steps and seconds of training until val_acc is first ``target`` or more; infinity for a miss.

        A run that diverged has missed it, whatever it had reached before.
        """
        reached = np.flatnonzero(self.history["val_acc"] >= target)
        if self.status == "diverged" or not len(reached):
            return {"epochs": np.inf, "steps": np.inf, "seconds": np.inf}
        first = reached[0]
        return {
            "epochs": float(self.history["epoch"][first]),
            "steps": float(self.history["step"][first]),
            "seconds": float(self.history["train_seconds"][: first + 1].sum()),
        }


def find_runs(places: Iterable[Path]) -> tuple[list[Run], list[str]]:
    """Read every record in and below ``places``, each once, in the order of their names (2 before 10).

    Returns:
        The runs, and a sentence for each record that cannot be read and each sweep that is not complete.

    Raises:
        UserError: a place does not exist, or there is no record in any of them.
    """
    places = list(places)
    runs: list[Run] = []
    notes: list[str] = []
    seen: set[str] = set()
    sweeps: dict[Path, dict[str, Any] | None] = {}
    for place in places:
        if not place.is_dir():
            raise UserError(f"{place}: there is no such folder; expected a run's folder, a sweep's, or one above them")
        for folder, names in _walk(place, seen, notes):
            if SUMMARY in names:
                try:
                    runs.append(replace(read_run(folder), arm=_arm(folder, sweeps)))
                except UNREADABLE as error:
                    notes.append(f"{folder}: the record cannot be read ({_reason(error)}) and is left out.")
            if SWEEP in names:
                notes += _missing_jobs(folder)
    if not runs:
        found = "\n".join(notes)
        raise UserError(
            f"{', '.join(map(str, places))}: no run is recorded there (no {SUMMARY}); expected the folder of a run, "
            f"of a sweep, or one above them, e.g. outputs/sweeps" + (f"\n{found}" if found else "")
        )
    return runs, notes


def find_swept(places: Iterable[Path]) -> list[str]:
    """The keys that the sweeps in and below ``places`` swept; what cannot be read is left to ``find_runs`` to tell."""
    swept: list[str] = []
    seen: set[str] = set()
    for place in places:
        for folder, names in _walk(place, seen, []):
            if SWEEP in names:
                with suppress(*UNREADABLE):
                    swept += read_sweep(folder).get("swept", [])
    return list(dict.fromkeys(swept))


def _arm(folder: Path, sweeps: dict[Path, dict[str, Any] | None]) -> Arm | None:
    """What the sweep that a run's folder lies in tells of it; ``sweeps`` are those that were read before, or none."""
    for above in folder.absolute().parents:
        if above not in sweeps:
            sweeps[above] = None
            with suppress(*UNREADABLE):
                sweeps[above] = read_sweep(above)
        if sweep := sweeps[above]:
            if not any(sweep.get(key) for key in ("arms", "tuned", "winners")):
                return None
            job = int(folder.name) if folder.name.isdecimal() else None
            names = (name for name, jobs in sweep.get("arms", {}).items() if job in jobs)
            return Arm(above, next(names, None), tuple(sweep.get("swept", [])), tuple(sweep.get("tuned", [])))
    return None


def read_run(folder: Path) -> Run:
    """Read one record.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, csv.Error,
            yaml.YAMLError: the files are not those of a record.
    """
    summary = read_summary(folder)
    if summary.get("seed") is None:
        raise ValueError(f"{SUMMARY} lacks seed")
    for key in ("started", "updated"):
        if summary.get(key):
            _time(summary[key])
    rows: list[Row] = read_history(folder) if (folder / HISTORY).exists() else []
    if summary["status"] in FINISHED and len(rows) != summary["epochs"]:
        raise ValueError(f"{HISTORY} has {len(rows)} epochs, and {SUMMARY} says {summary['epochs']}")
    # A run that was killed between its two files has an epoch more than the summary knows of.
    if summary["status"] != "running" and summary.get("history") not in (None, digest(rows)):
        raise ValueError(f"{HISTORY} is not the one that {SUMMARY} was written with")
    history = {name: np.array([row[name] for row in rows], dtype=np.float64) for name in history_columns(rows)}
    best = best_row(rows, "val_acc")
    config = summary.pop("config", None)
    choices = summary.pop("choices", {})
    if not all(isinstance(choice, str) for choice in choices.values()):
        raise TypeError(f"its choices are {choices!r:.60}, which is of the wrong kind")
    if config is None:
        config, choices = _hydra_files(folder)
    settings, incidental = _settings(summary, config)
    return Run(
        folder,
        summary,
        history,
        choices,
        settings,
        config is not None,
        incidental,
        _best=rows.index(best) if best else -1,
    )


def differing_keys(runs: Sequence[Run]) -> list[str]:
    """Settings that differ, as far as the records tell.

    What a record leaves out for lack of its configuration is no difference, nor is an outcome that a failed run did
    not live to see.
    """
    values: dict[str, set[Setting]] = {}
    whole = [run.settings for run in runs if run.has_config]
    for key in dict.fromkeys(key for settings in whole for key in settings):
        values[key] = {settings.get(key) for settings in whole}
    for run in runs:
        if not run.has_config:
            for key, value in run.settings.items():
                values.setdefault(key, {None} if whole else set()).add(value)
    for key in OUTCOMES:
        values.get(key, set()).discard(None)
    return sorted(key for key, of_key in values.items() if len(of_key) > 1)


def in_short(keys: Sequence[str], runs: Sequence[Run]) -> list[str]:
    """Put a group's name for those of ``keys`` that its choice decides: ``scheduler`` for ``scheduler.factor`` etc."""
    keys = list(keys)
    for group in sorted({group for run in runs for group in run.choices}):
        own = [key for key in keys if (key == group or key.startswith(f"{group}.")) and key not in OUTCOMES]
        decided = {(run.choices.get(group), tuple(run.settings.get(key) for key in own)) for run in runs}
        choices = {choice for choice, _ in decided}
        if own and None not in choices and 1 < len(choices) == len(decided):
            keys = sorted({group, *keys} - set(own) | {group})
    return keys


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _reason(error: BaseException) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _settings(
    summary: Mapping[str, Any], config: Mapping[str, Any] | None
) -> tuple[dict[str, Setting], dict[str, Setting]]:
    """``Run.settings`` and ``Run.incidental``."""
    if config is None:
        # An older record without its .hydra/: the groups that the summary tells.
        groups = {group: summary[group] for group in ("optimizer", "model") if group in summary}
        config = {g: {k: v for k, v in values.items() if k != "name"} for g, values in groups.items()}
    else:
        config = dict(config)
    incidental: dict[str, Setting] = {}
    settings: dict[str, Setting] = {}
    for key, value in _flatten(config):
        (incidental if key.startswith(_INCIDENTAL) else settings)[key] = value
    if not settings.get("data.val_fraction"):
        settings.pop("data.val_fraction", None)  # older records do not have the key
    data = summary.get("data") or {}
    fingerprint, soft_labels = data.get("fingerprint"), data.get("soft_labels")  # by content: a file may be rewritten
    softly = f"+{soft_labels[:12]}" if soft_labels else ""
    settings["data.fingerprint"] = (
        fingerprint and f"{fingerprint['train'][:12]}{softly}/{fingerprint['validation'][:12]}"
    )
    settings["precision"] = (summary.get("environment") or {}).get("precision")
    for key, value in (*settings.items(), *incidental.items()):
        if not isinstance(value, Setting):
            raise TypeError(f"its {key} is {value!r:.60}, which is of the wrong kind")
    return settings, incidental


def _flatten(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Setting]]:
    for name, value in node.items():
        key = sys.intern(f"{prefix}{name}")  # one string for all of a thousand runs
        if key in RESOLVED:
            continue
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{key}.")
        elif isinstance(value, list | tuple):
            yield key, json.dumps(value)
        elif is_batch_count(key, value):
            yield key, f"{value} batches"
        elif not (isinstance(value, str) and "${output_dir}" in value):
            yield key, value


def _hydra_files(folder: Path) -> tuple[Mapping[str, Any] | None, dict[str, str]]:
    """The configuration of a record from before it was part of the summary."""
    config = _yaml(folder / ".hydra/config.yaml")
    if config is None:
        return None, {}
    hydra = _yaml(folder / ".hydra/hydra.yaml")
    choices = hydra["hydra"]["runtime"]["choices"] if hydra else {}
    chosen = {str(g): str(name) for g, name in choices.items() if name and not g.startswith("hydra/")}
    return config, chosen


def _yaml(path: Path) -> Mapping[str, Any] | None:
    if not path.exists():
        return None
    content = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    if not isinstance(content, Mapping):
        raise ValueError(f"{path.name} holds no configuration")
    return content


def _missing_jobs(folder: Path) -> Iterator[str]:
    try:
        jobs = read_sweep(folder)["jobs"]
        missing = 0 if jobs is None else jobs - sum(1 for _ in record_folders(folder))
    except UNREADABLE as error:
        yield f"{folder / SWEEP} cannot be read ({_reason(error)}): whether jobs are missing is not known."
        return
    if missing > 0:
        yield (
            f"{folder}: {missing} of {jobs} jobs have no record yet; the same command with "
            f"{quote_override('hydra.sweep.dir', folder)} goes on."
        )


def _walk(place: Path, seen: set[str], notes: list[str]) -> Iterator[tuple[Path, set[str]]]:
    """Folders and the names of their files, each folder once; what lies inside a run's folder is not looked at.

    Args:
        place: where to begin.
        seen: real paths of the folders that were walked before; links that lead back, or round in a circle, end there.
        notes: told of folders that may not be read.
    """

    def tell(error: OSError) -> None:
        notes.append(f"{error.filename}: the folder cannot be read ({error.strerror}) and is left out.")

    for folder, subfolders, names in os.walk(place, followlinks=True, onerror=tell):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        if SUMMARY in names:
            subfolders.clear()
        subfolders.sort(key=natural)
        yield Path(folder), set(names)
