"""Whether two runs have the same settings: the one comparison of configs.

Resuming, duplicate jobs of a sweep, "finished before" and the groups of a comparison use it.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from fer_exp.config.paths import make_paths_absolute
from fer_exp.runs.record import for_json

# Keys of the config that do not change a run's result. A key stands for everything below it.
NEUTRAL_KEYS = frozenset(
    {
        "output_dir",
        "resume",
        "plots",
        "logger",
        "data.cache_dir",
        "data.in_memory",
        "optimizer.fused",
        "cuda_graph",
        "im2col_weight_grad",
        "retain_memory",
    }
)


def config_diff(before: Mapping[str, Any], now: Mapping[str, Any], ignore: Collection[str] = NEUTRAL_KEYS) -> list[str]:
    """Compare two resolved configs; ``["optimizer.lr was 0.1 and is 0.01"]``.

    Args:
        before: the config of a record.
        now: another config.
        ignore: keys that are not compared, nor is anything below them.

    Paths inside the runs' own folders count as equal, and so do null and an empty group. A relative path is one in the
    working directory: records hold absolute ones.
    """
    was, is_ = _comparable(before), _comparable(now)
    changed = [key for key in sorted({*was, *is_}) if not _same(key, was.get(key), is_.get(key))]
    return [
        f"{key} was {was.get(key)} and is {is_.get(key)}"
        for key in changed
        if not any(f"{key}.".startswith(f"{ignored}.") for ignored in ignore)
    ]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config as dotted keys: ``{"optimizer.lr": 0.1, ...}``. Empty groups are skipped."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def is_batch_count(key: str, value: Any) -> bool:
    """Whether the value of ``trainer.limit_*`` is a number of batches: Lightning reads 1 as one batch, 1.0 as all."""
    return key.startswith("trainer.limit_") and isinstance(value, int)


def _same(key: str, was: Any, is_: Any) -> bool:
    return bool(was == is_) and is_batch_count(key, was) == is_batch_count(key, is_)


def _comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as flat keys, as JSON holds it and with absolute paths."""
    nested = OmegaConf.create(for_json(config))
    make_paths_absolute(nested)
    container: Any = OmegaConf.to_container(nested)
    return flatten(_without_folder(container))


def _without_folder(config: Mapping[str, Any]) -> Any:
    """The config with ``${output_dir}`` in place of the run's own folder."""
    folder = config.get("output_dir")

    def strip(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: strip(item) for key, item in value.items()}
        if isinstance(value, list):
            return [strip(item) for item in value]
        return mask_folder(value, folder) if isinstance(value, str) and isinstance(folder, str) else value

    return strip(config)


def mask_folder(text: str, folder: str) -> str:
    """Put ``${output_dir}`` in place of the path ``folder``: ``/runs/a/logs``, but not ``/runs/ab``."""
    pattern = rf"(?<![\w.-]){re.escape(folder)}(?![^/\\])"
    return re.sub(pattern, "${output_dir}", text) if Path(folder).is_absolute() else text
