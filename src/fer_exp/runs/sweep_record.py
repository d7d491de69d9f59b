"""The record of a sweep: ``sweep.json`` in the sweep's folder, above the folders of its runs."""

from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

from fer_exp.runs.record import check_types, read_json, write_json

SWEEP = "sweep.json"

# The keys of sweep.json: the types that readers accept, and the value if the key is missing.
_FIELDS: Mapping[str, tuple[Any, Any]] = {
    "overrides": (list[str], []),
    "sweeper": (dict, {}),
    "jobs": (int | None, None),
    "swept": (list[str], []),
    "tuned": (list[str], []),
    "winners": (dict[str, list[str]], {}),
    "arms": (dict[str, list[int]], {}),
}


def read_sweep(folder: Path) -> dict[str, Any]:
    """Read ``sweep.json``.

    Returns:
        overrides: those of the command, as given.
        sweeper: the settings of Hydra's sweeper.
        jobs: number of jobs; None if the sweeper decides during the sweep.
        swept: the keys that differ between jobs, without the seed.
        tuned: the keys that a study tunes for each arm.
        winners: for each arm of a study the overrides of its best trial.
        arms: for each arm of a study the numbers of its jobs.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not the record of a sweep.
    """
    sweep = {**{key: copy(value) for key, (_, value) in _FIELDS.items()}, **read_json(folder / SWEEP)}
    check_types(sweep, _FIELDS)
    return sweep


def write_sweep(folder: Path, **facts: Any) -> None:
    """Write ``sweep.json``, or replace some of its keys: see ``read_sweep``."""
    folder.mkdir(parents=True, exist_ok=True)
    before = read_sweep(folder) if (folder / SWEEP).exists() else {}
    write_json(folder / SWEEP, {**before, **facts})
