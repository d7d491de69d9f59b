"""The record of a sweep: ``sweep.json`` in the sweep's folder, above the folders of its runs."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from fer_exp.runs.record import check_types, read_json, record_folders, write_json

SWEEP = "sweep.json"


@dataclass(frozen=True)
class Sweep:
    """A sweep.

    Attributes:
        folder: the sweep's folder.
        overrides: those of the command, as given.
        options: what the command gave to Hydra itself: ``--config-dir``, the launcher, settings of the sweeper.
        sweeper: the settings of Hydra's sweeper.
        jobs: number of jobs; None if the sweeper decides during the sweep.
        swept: the keys that differ between jobs, without the seed.
        tuned: the keys that a study tunes for each arm.
        winners: for each arm of a study the overrides of its best trial.
        arms: for each arm of a study the numbers of its jobs.
    """

    folder: Path
    overrides: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    sweeper: dict = field(default_factory=dict)  # type: ignore[type-arg]
    jobs: int | None = None
    swept: list[str] = field(default_factory=list)
    tuned: list[str] = field(default_factory=list)
    winners: dict[str, list[str]] = field(default_factory=dict)
    arms: dict[str, list[int]] = field(default_factory=dict)

    @property
    def missing_jobs(self) -> int:
        """Number of jobs that have no record yet."""
        return max(0, (self.jobs or 0) - sum(1 for _ in record_folders(self.folder)))


_KEYS = {key.name: (key.type, None) for key in fields(Sweep) if key.name != "folder"}  # of sweep.json


def read_sweep(folder: Path) -> Sweep:
    """Read ``sweep.json``.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not the record of a sweep.
    """
    content = read_json(folder / SWEEP)
    sweep = Sweep(folder, **{key: content[key] for key in _KEYS if key in content})
    check_types(vars(sweep), _KEYS)
    return sweep


def write_sweep(folder: Path, **facts: Any) -> None:
    """Write ``sweep.json``, or replace some of its keys: the attributes of ``Sweep``."""
    folder.mkdir(parents=True, exist_ok=True)
    sweep = replace(read_sweep(folder) if (folder / SWEEP).exists() else Sweep(folder), **facts)
    write_json(folder / SWEEP, {key: getattr(sweep, key) for key in _KEYS})
