"""The keys that hold paths. Light imports: commands read this module before torch is imported."""

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from fer_exp.files import expand_path, printable

# Keys that hold a path, a file name or a list of them. On the command line their values are taken as typed.
PATH_KEYS = (
    "data.root", "data.file", "data.file.train", "data.file.validation", "data.file.test", "data.exclude",
    "data.soft_labels", "data.ferplus.file", "data.ferplus.fer2013", "data.cache_dir", "data.ignore", "model.weights",
    "resume", "run", "ckpt", "images", "output", "output_dir", "split", "hydra.run.dir", "hydra.sweep.dir",
    "hydra.sweep.subdir", "hydra.output_subdir",
)  # fmt: skip
# Paths that must exist, and whether each must be a file.
INPUT_PATHS = {
    "data.root": False, "data.file": True, "data.exclude": True, "data.soft_labels": True, "data.ferplus.file": True,
    "model.weights": True, "resume": True,
}  # fmt: skip
# Keys that hold a path to what a run reads, a list of such paths, or a mapping to them.
RECORDED_PATHS = (
    "model.weights", "data.root", "data.file", "data.files", "data.exclude", "data.soft_labels", "data.cache_dir",
    "data.ferplus.file", "data.ferplus.fer2013", "resume",
)  # fmt: skip
COMMAND_PATHS = ("run", "ckpt", "images", "output", "split")  # of evaluate, predict and export


def as_typed_in_a_shell(override: str) -> str:
    """Return an override that Hydra received as the user types it: ``cli.quote_paths`` puts paths in quotes."""
    key, _, value = override.partition("=")
    if key.lstrip("+") in PATH_KEYS and re.fullmatch(r"'[^']*'", value.replace("\\'", "")):
        override = f"{key}={value[1:-1]}".replace("\\'", "'")
    return shlex.quote(override)


def config_dir_options(hydra: Any) -> list[str]:
    """Return the option ``--config-dir`` of the command, from Hydra's own config; empty without it."""
    return [f"--config-dir={each.path}" for each in hydra.runtime.config_sources if each.provider == "command-line"]


def make_paths_absolute(cfg: DictConfig) -> None:
    """Replace the relative paths in ``cfg``, so that the record of a run is valid in any working directory."""
    for key in RECORDED_PATHS:
        value = OmegaConf.select(cfg, key)
        if value and (key, value) != ("resume", "auto"):
            OmegaConf.update(cfg, key, _absolute(value), merge=False)


def check_paths(cfg: DictConfig) -> Iterator[str]:
    """Yield the paths that do not exist, and those that are numbers: YAML reads ``1.10`` as 1.1, another name."""
    for key in (*RECORDED_PATHS, *COMMAND_PATHS):
        value = OmegaConf.select(cfg, key)
        for number in (part for part in path_parts(value) if isinstance(part, int | float)):
            yield f"{key}={number}: expected a path; put it in quotes in the YAML file, as in '1.10'"
        if key not in INPUT_PATHS or not isinstance(value, str) or (key, value) == ("resume", "auto"):
            continue
        if key == "model.weights" and cfg.get("resume"):  # a resumed run does not read them again
            continue
        path, is_file = expand_path(value), INPUT_PATHS[key]
        if not (os.path.isfile if is_file else os.path.exists)(path):  # unlike Path's, they accept overlong names
            kind = "file" if is_file else "file or folder"
            yield f"{key}={printable(value)}: no such {kind} ({path.absolute()})"


def _absolute(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: part and _absolute(part) for name, part in value.items()}
    return [_absolute(part) for part in value] if isinstance(value, ListConfig) else str(expand_path(value).absolute())


def path_parts(value: Any) -> Iterator[Any]:
    """Yield the value of a key that holds paths, or the values in its mapping or list, at any depth."""
    if not isinstance(value, Mapping | ListConfig):
        yield value
        return
    for part in value.values() if isinstance(value, Mapping) else value:
        yield from path_parts(part)
