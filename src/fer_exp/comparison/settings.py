"""Settings of a run as flat keys, from its summary."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fer_exp.runs.config_diff import NEUTRAL_KEYS, flatten, is_batch_count, mask_folder

Setting = str | int | float | bool | None

# What may differ between averaged runs. The fingerprint identifies images and labels, not the place of their files.
_PLACES = ("data.root", "data.file", "data.files", "data.ferplus.fer2013")
_INCIDENTAL = (*NEUTRAL_KEYS, *_PLACES, "seed", "logger", "data.seed")
# Files whose effect is in the fingerprint too. Their name is a setting, since there may be none; their folder is not.
_LISTS = ("data.exclude", "data.soft_labels", "data.ferplus.file")
# "auto" is replaced by its outcome: the device is a fact of the environment, the precision a setting.
_REQUESTS = ("trainer.accelerator", "trainer.precision")
# Among the settings of a run, those that its config does not hold.
OUTCOMES = ("data.fingerprint", "precision")


def flat_settings(summary: Mapping[str, Any]) -> tuple[dict[str, Setting], dict[str, Setting]]:
    """Return the settings that decide a run's result, and the incidental ones, both as flat keys."""
    settings: dict[str, Setting] = {}
    incidental: dict[str, Setting] = {}
    own_folder = str(summary["config"].get("output_dir"))
    for key, value in single_values(summary["config"]):
        if key in _LISTS and isinstance(value, str):
            value = Path(value).name
        is_own_path = isinstance(value, str) and mask_folder(value, own_folder) != value
        if key not in _REQUESTS and not is_own_path:
            is_incidental = any(key == name or key.startswith(f"{name}.") for name in _INCIDENTAL)
            (incidental if is_incidental else settings)[key] = value
    data = summary.get("data") or {}
    if fingerprint := data.get("fingerprint"):
        soft_labels = f"+{data['soft_labels'][:12]}" if data.get("soft_labels") else ""
        train, validation = fingerprint["train"][:12], fingerprint["validation"][:12]
        settings["data.fingerprint"] = f"{train}{soft_labels}/{validation}"
    precision = (summary.get("environment") or {}).get("precision")
    settings["precision"] = None if precision is None else str(precision)
    return settings, incidental


def single_values(node: Mapping[str, Any]) -> Iterator[tuple[str, Setting]]:
    """Yield dotted keys with their values; lists are JSON text."""
    for name, value in flatten(node).items():
        key = sys.intern(name)  # one string for all of a thousand runs
        if is_batch_count(key, value):
            yield key, f"{value} batches"  # to Python 1 and 1.0 are equal
        else:
            yield key, value if isinstance(value, Setting) else json.dumps(value)
