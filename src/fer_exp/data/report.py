"""What the log says about loaded data: formats, classes, duplicates."""

import logging
from collections import Counter
from collections.abc import Iterable

import numpy as np
from torch import Tensor

from fer_exp.data.audit import describe_duplicates, is_constant
from fer_exp.data.dataset import ImageDataset
from fer_exp.data.decode import ImageFormat
from fer_exp.errors import join_first

log = logging.getLogger(__name__)

_checked: set[tuple[str, str]] = set()  # fingerprints of the data that was checked in this process


def log_formats(originals: Iterable[Counter[tuple[int, int, str]]], image_format: ImageFormat) -> None:
    """Log the original sizes and color modes, and what they become; warn about enlarged images.

    Args:
        originals: number of images of each original (width, height, Pillow mode), for each split.
        image_format: of the decoded images.
    """
    counts = sum(originals, Counter[tuple[int, int, str]]())
    total = sum(counts.values())
    kinds = [f"{w}x{h} {'gray' if mode == 'L' else mode}" for (w, h, mode), _ in counts.most_common()]
    change = "" if kinds == [str(image_format)] else f" become {image_format} ({image_format.resize})"
    log.info("%s images of %s%s.", f"{total:,}", join_first(kinds, 2, ", ", " and {} other formats"), change)
    small = sum(n for (w, h, _), n in counts.items() if min(w, h) < image_format.size)
    if small:
        log.warning(
            "Warning: %s of %s images are smaller than data.image_size=%d and are enlarged.",
            f"{small:,}",
            f"{total:,}",
            image_format.size,
        )


def log_class_counts(train: ImageDataset, validation: ImageDataset) -> None:
    """Log a table of the number of images of each class."""
    width = max(map(len, train.classes), default=0) + 2
    log.info("%-*s%10s%12s", width, "class", "train", "validation")
    for row in zip(train.classes, train.counts, validation.counts, strict=True):
        log.info("%-*s%10d%12d", width, *row)


def warn_about_duplicates(train: ImageDataset, validation: ImageDataset, name: str, command: str) -> None:
    """Warn once per data set about duplicates and constant images; skip images on disk, which would take long.

    Args:
        train: training images.
        validation: validation images.
        name: of the validation images in the warning.
        command: lists the duplicates.
    """
    parts, data = (train, validation), (train.fingerprint, validation.fingerprint)
    if data in _checked:
        return
    _checked.add(data)
    pixels = [part.images.numpy() for part in parts if isinstance(part.images, Tensor)]
    if len(pixels) < len(parts):
        return
    found = describe_duplicates(
        np.concatenate([part.digests for part in parts]),
        np.concatenate([part.labels.numpy() for part in parts]),
        np.concatenate([is_constant(images) for images in pixels]),
        len(train),
        name,
    )
    if found:
        log.warning("Warning: %s. This command lists them, and writes a list for data.exclude: %s", found, command)
