"""What a record says about the data and the machine of a run."""

import hashlib
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_exp.files import expand_path

if TYPE_CHECKING:
    from fer_exp.data.datamodule import ImageDataModule

_PACKAGES = ("fer_exp", "torch", "torchvision", "lightning", "hydra-core", "numpy")


def describe_data(config: Mapping[str, Any], datamodule: "ImageDataModule") -> dict[str, Any]:
    """The ``data`` entry of the summary.

    Args:
        config: the resolved ``data`` group.
        datamodule: its images.
    """
    train, validation = datamodule.train_set, datamodule.val_set
    soft_labels, root = train.soft_labels, config.get("root")
    return {
        "root": None if root is None else str(expand_path(root).absolute()),
        "source": config.get("_target_"),
        "classes": list(train.classes),
        "train": len(train),
        "validation": len(validation),
        "counts": {
            "train": [int(count) for count in train.counts],
            "validation": [int(count) for count in validation.counts],
        },
        "skipped": {split: dict(counts) for split, counts in datamodule.skipped.items()},
        "fingerprint": {"train": train.fingerprint, "validation": validation.fingerprint},
        "soft_labels": None if soft_labels is None else hashlib.sha256(soft_labels.numpy().tobytes()).hexdigest(),
    }


def describe_environment(device: str, precision: str) -> dict[str, Any]:
    """The ``environment`` entry of the summary: versions, host, device, precision, threads and git commit."""
    import torch

    return {
        "versions": {name: version(name) for name in _PACKAGES},
        "host": platform.node(),
        "device": device,
        "threads": torch.get_num_threads(),
        "precision": precision,
        "git_commit": git_commit(Path(__file__)),
    }


def git_commit(source: Path) -> str | None:
    """The commit of the checkout that ``source`` belongs to, with "-dirty" after a change; None outside a checkout."""
    source = source.resolve()

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(source.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", source.name)  # an environment may lie inside another project's repository
        return git("describe", "--always", "--abbrev=40", "--dirty", "--exclude=*") or None
    except (OSError, subprocess.SubprocessError):
        return None
