"""The keys that hold paths. Light imports: commands read this module before torch is imported."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from fer_exp.errors import UserError
from fer_exp.files import expand_path

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


def make_paths_absolute(cfg: DictConfig) -> None:
    """Replace the relative paths in ``cfg``, so that the record of a run is valid in any working directory.

    Raises:
        UserError: a path is a number: YAML reads ``1.10`` as 1.1, so the file's name is lost.
    """
    for key in RECORDED_PATHS:
        value = OmegaConf.select(cfg, key)
        if value and (key, value) != ("resume", "auto"):
            OmegaConf.update(cfg, key, _absolute(key, value), merge=False)


def _absolute(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: part and _absolute(key, part) for name, part in value.items()}
    if isinstance(value, ListConfig):
        return [_absolute(key, part) for part in value]
    if isinstance(value, int | float):
        raise UserError(f"{key}={value}: expected a path; put it in quotes in the YAML file, as in '1.10'")
    return str(expand_path(value).absolute())
