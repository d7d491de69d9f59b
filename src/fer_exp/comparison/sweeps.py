"""What the ``sweep.json`` of a sweep or a study says of the runs below it."""

from dataclasses import dataclass
from pathlib import Path

from fer_exp.runs.record import record_folders
from fer_exp.runs.sweep_record import SWEEP, read_sweep


@dataclass(frozen=True)
class Sweep:
    """A sweep.

    Attributes:
        folder: the sweep's folder.
        overrides: of its command line.
        swept: keys that it swept.
        tuned: keys that a study chose for each arm.
        arms: for each arm of a study, the numbers of its jobs; empty for other sweeps.
        jobs: number of jobs, if it is known.
    """

    folder: Path
    overrides: tuple[str, ...]
    swept: tuple[str, ...]
    tuned: tuple[str, ...]
    arms: dict[str, list[int]]
    jobs: int | None


@dataclass(frozen=True)
class Arm:
    """A run's place in a study: the study and the arm's name."""

    study: Sweep
    name: str


def find_sweep(folder: Path, known: dict[Path, Sweep | None]) -> Sweep | None:
    """Return the sweep that a folder lies in; ``known`` remembers the folders that were looked at.

    Raises:
        OSError, ValueError, TypeError, KeyError, AttributeError: the sweep's file is damaged.
    """
    for place in (folder.absolute(), *folder.absolute().parents):
        if place not in known:
            known[place] = None  # a damaged file is reported once
            if (place / SWEEP).is_file():
                known[place] = _parse(place)
        if sweep := known[place]:
            return sweep
    return None


def find_arm(folder: Path, sweep: Sweep | None) -> Arm | None:
    """Return the study's arm that a run belongs to."""
    if sweep is None or not folder.name.isdecimal():
        return None
    name = next((name for name, jobs in sweep.arms.items() if int(folder.name) in jobs), None)
    return Arm(sweep, name) if name is not None else None


def missing_jobs(sweep: Sweep) -> int:
    """Return the number of jobs that have no record yet."""
    return max(0, (sweep.jobs or 0) - sum(1 for _ in record_folders(sweep.folder)))


def _parse(folder: Path) -> Sweep:
    content = read_sweep(folder)
    overrides, swept, tuned = (tuple(content[key]) for key in ("overrides", "swept", "tuned"))
    return Sweep(folder, overrides, swept, tuned, content["arms"], content["jobs"])
