"""What the log says about loaded data: formats, classes, duplicates."""

import logging
from collections import Counter
from collections.abc import Iterable

import numpy as np
from torch import Tensor

from fer_exp.data.audit import group_equal, is_constant
from fer_exp.data.dataset import ImageDataset
from fer_exp.data.decode import ImageFormat, Original
from fer_exp.errors import are, join_first

log = logging.getLogger(__name__)

_described: dict[tuple[str, str, str], str] = {}  # by fingerprint: the jobs of a sweep share the data


def log_formats(originals: Iterable[Original], image_format: ImageFormat) -> None:
    """Log the original sizes and color modes, and what they become; warn about enlarged images.

    Args:
        originals: of all images.
        image_format: of the decoded images.
    """
    counts = Counter(originals)
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
        name, *counts = row
        log.info("%-*s%10s%12s", width, name, *(f"{count:,}" for count in counts))


def warn_about_duplicates(train: ImageDataset, validation: ImageDataset, name: str, command: str) -> None:
    """Warn about duplicates and constant images; skip images on disk, which would take long.

    Args:
        train: training images.
        validation: validation images.
        name: of the validation images in the warning.
        command: lists the duplicates.
    """
    data = (train.fingerprint, validation.fingerprint, name)
    if not (isinstance(train.images, Tensor) and isinstance(validation.images, Tensor)):
        return
    if data not in _described:
        _described[data] = describe_duplicates(train, validation, name)
    if found := _described[data]:
        log.warning("Warning: %s. This command lists them, and writes a list for data.exclude: %s", found, command)


def describe_duplicates(train: ImageDataset, validation: ImageDataset, name: str) -> str:
    """Describe exact duplicates and constant images that spoil a training; empty if there are none."""
    parts, n_train = (train, validation), len(train)
    labels = [label for part in parts for label in part.labels.tolist()]
    constant = np.concatenate([is_constant(part.images[:].numpy()) for part in parts])
    leaked = mislabeled = contradictory = 0
    for group in group_equal(bytes(digest) for part in parts for digest in part.digests):
        if constant[group[0]] or len(group) == 1:
            continue
        in_train = [i for i in group if i < n_train]
        validation_labels = {labels[i] for i in group[len(in_train) :]}
        if validation_labels:
            leaked += len(in_train)
            mislabeled += sum(validation_labels != {labels[i]} for i in in_train)
        if len({labels[i] for i in in_train}) > 1:
            contradictory += len(in_train)
    found = []
    if leaked:
        others = f", {mislabeled:,} of them with another label" if mislabeled else ""
        found.append(f"{are(leaked, 'training image')} also in {name}{others}")
    if contradictory:
        found.append(f"{contradictory:,} training images have the same pixels as another one with another label")
    if constant.any():
        found.append(f"{are(int(constant.sum()), 'image')} constant")
    return "; ".join(found)
