"""A labelled set of faces, in memory or on disk."""

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fer_exp.data.seeding import VAL_SPLIT, derive_seed

CHUNK_SIZE = 2**16  # faces that are read or moved together where all are gone through


class MemmapImages:
    """Faces that stay in a file, and are read where they are asked for: as a (N, 1, height, width) uint8 tensor is.

    The file is opened once: another one that takes its name does not change them.

    Args:
        file: holds M faces, one after the other, from some place on.
        offset: of that place, in bytes.
        shape: (M, 1, height, width).

    Raises:
        OSError, ValueError: the file cannot be opened, or is too short.
    """

    def __init__(self, file: Path, offset: int, shape: tuple[int, ...]) -> None:
        # "c", copy on write: torch warns of memory that cannot be written, though nobody writes there.
        self._stored = torch.from_numpy(np.memmap(file, np.uint8, "c", offset, shape))
        self._rows = torch.arange(shape[0])

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> torch.Size:
        """(N, 1, height, width)."""
        return torch.Size((len(self), *self._stored.shape[1:]))

    def __getitem__(self, indices: Any) -> Tensor:
        """Read the faces at ``indices``: whatever indexes the first axis of a tensor."""
        return self._stored[self._rows[indices]]

    def select(self, indices: Tensor) -> "MemmapImages":
        """Those at ``indices`` (K,) int64, in that order; none is read."""
        selected = copy.copy(self)
        selected._rows = self._rows[indices]
        return selected


@dataclass(frozen=True)
class ImageDataset:
    """One split, decoded.

    Attributes:
        images: (N, 1, 48, 48) uint8, grey: a tensor, or what stays on disk and is indexed as one.
        labels: (N,) int64, indices into ``classes``.
        classes: class names, in the order of the labels.
        files: N paths relative to the split's folder, with forward slashes.
        fingerprint: SHA-256 over pixels, labels and classes, in hexadecimal: equal for equal data, wherever it lies.
        soft_labels: (N, C) float32, probabilities to train on in place of ``labels``; None where there are none.
    """

    images: Tensor | MemmapImages
    labels: Tensor
    classes: tuple[str, ...]
    files: tuple[str, ...]
    fingerprint: str
    soft_labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def counts(self) -> list[int]:
        """Number of images of each class."""
        counts: list[int] = torch.bincount(self.labels, minlength=len(self.classes)).tolist()
        return counts


def make_dataset(
    images: Tensor | MemmapImages, labels: Tensor, classes: Sequence[str], files: Sequence[str]
) -> ImageDataset:
    """Bundle decoded faces with their fingerprint."""
    return ImageDataset(images, labels, tuple(classes), tuple(files), fingerprint(images, labels, classes))


def fingerprint(images: Tensor | MemmapImages, labels: Tensor, classes: Sequence[str]) -> str:
    """SHA-256 over classes, labels and pixels, in hexadecimal."""
    digest = begin_fingerprint(labels, classes)
    for start in range(0, len(images), CHUNK_SIZE):
        digest.update(images[start : start + CHUNK_SIZE].contiguous().numpy().data)
    return digest.hexdigest()


def begin_fingerprint(labels: Tensor, classes: Sequence[str]) -> "hashlib._Hash":
    """The hash that only lacks the pixels."""
    digest = hashlib.sha256("\0".join(classes).encode())
    digest.update(labels.numpy().tobytes())
    return digest


def val_fraction(images: ImageDataset, share: float) -> tuple[ImageDataset, ImageDataset]:
    """Part off ``share`` of each class, rounded to whole images.

    Which images is drawn from a fixed seed: all runs on the same data hold out the same ones, whatever their seed.

    Returns:
        What is left to train on, and what is held out, each in the order of ``images``.
    """
    generator = torch.Generator().manual_seed(derive_seed(0, VAL_SPLIT))
    held = torch.zeros(len(images), dtype=torch.bool)
    for label in range(len(images.classes)):
        members = torch.nonzero(images.labels == label).squeeze(1)
        members = members[torch.randperm(len(members), generator=generator)]
        held[members[: round(share * len(members))]] = True
    kept, parted = (select(images, torch.nonzero(chosen).squeeze(1)) for chosen in (~held, held))
    return kept, parted


def select(images: ImageDataset, indices: Tensor) -> ImageDataset:
    """The images at ``indices`` (M,) int64, in that order, as a set with a fingerprint of its own."""
    files = [images.files[i] for i in indices.tolist()]
    pixels = images.images.select(indices) if isinstance(images.images, MemmapImages) else images.images[indices]
    return make_dataset(pixels, images.labels[indices], images.classes, files)


# What is done to an image before a network sees it, in words; checkpoints tell it, so that none is gone on from with
# another. The size and the grey are those of ``decode``, the scale is that of ``normalise``.
PREPROCESSING = {"size": [48, 48], "grey": True, "scale": "1/255"}


def normalise(images: Tensor) -> Tensor:
    """Map uint8 faces to float32 in [0, 1]: the one preprocessing of training, evaluation and prediction."""
    return images.to(torch.float32, copy=True).div_(255)
