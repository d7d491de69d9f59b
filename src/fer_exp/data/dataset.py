"""A labeled set of images, in memory or on disk."""

import copy
import hashlib
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fer_exp.data.decode import Original
from fer_exp.data.seeding import VAL_SPLIT, derive_seed

_MAX_UNRELEASED = 2 * 2**20  # bytes read between releases; a page fault can map 2 MiB
CHUNK_SIZE = 4096  # images that are read at once when all are visited


class MemmapImages:
    """Images in a ``.npy`` file, read when they are indexed; otherwise used like a uint8 tensor (N, C, S, S).

    The file stays open: a new file of the same name does not change the images.

    Args:
        file: ``.npy`` file with (M, C, S, S) uint8.
        rows: (N,) int64 indices into the file; None for all.

    Raises:
        OSError, ValueError: the file cannot be opened, or has another content.
    """

    def __init__(self, file: Path, rows: Tensor | None = None) -> None:
        # Copy on write: torch warns about read-only memory, although nothing is written.
        self._file = np.load(file, mmap_mode="c")
        self._stored = torch.from_numpy(self._file)
        self._read = 0  # bytes since the pages were released
        self._rows = torch.arange(len(self._stored)) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> torch.Size:
        """(N, C, S, S)."""
        return torch.Size((len(self), *self._stored.shape[1:]))

    def __getitem__(self, index: Any) -> Tensor:
        """Read the images at ``index``: anything that indexes the first axis of a tensor."""
        rows = self._rows[index]
        images = self._stored.index_select(0, rows.reshape(-1)).view(*rows.shape, *self._stored.shape[1:])
        self._read += images.numel()
        if self._read > _MAX_UNRELEASED and hasattr(mmap, "MADV_DONTNEED"):
            # The pages stay in the system's cache, and no longer count as memory of this process.
            self._read = 0
            self._file._mmap.madvise(mmap.MADV_DONTNEED)
        return images

    def select(self, indices: Tensor) -> "MemmapImages":
        """Return the images at ``indices`` (K,) int64 without reading them."""
        selected = copy.copy(self)
        selected._rows = self._rows[indices]
        return selected


@dataclass(frozen=True)
class ImageDataset:
    """One split, decoded.

    Attributes:
        images: (N, C, S, S) uint8: a tensor in memory, or images on disk.
        labels: (N,) int64, indices into ``classes``.
        classes: class names; until the data module has mapped them, the labels as the source spells them.
        names: N image names: paths relative to the data root, or ``table.csv:LINE``.
        digests: (N, 32) uint8, SHA-256 of the pixels of each image.
        soft_labels: (N, C) float32 training targets that replace ``labels``, or None.
        groups: N groups of images that belong together (a subject, a video), or None.
        originals: N times width, height and Pillow mode before the decoding, or None.
        unreadable: name -> reason, of the images that are not among the N.
    """

    images: Tensor | MemmapImages
    labels: Tensor
    classes: tuple[str, ...]
    names: tuple[str, ...]
    digests: np.ndarray
    soft_labels: Tensor | None = None
    groups: tuple[str, ...] | None = None
    originals: tuple[Original, ...] | None = None
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, S, S)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def counts(self) -> list[int]:
        """Number of images of each class."""
        counts: list[int] = torch.bincount(self.labels, minlength=len(self.classes)).tolist()
        return counts

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of classes, labels and pixels: equal for equal images in any order, from any source."""
        labels = self.labels.numpy().astype(">u2").view(np.uint8).reshape(-1, 2)
        rows = np.ascontiguousarray(np.concatenate([labels, self.digests], axis=1)).view("S34")
        digest = hashlib.sha256("\0".join((*self.classes, str(self.image_shape))).encode())
        digest.update(np.sort(rows, axis=0).tobytes())
        return digest.hexdigest()

    def select(self, indices: Tensor) -> "ImageDataset":
        """Return the images at ``indices`` (K,) int64."""
        rows, images = indices.tolist(), self.images
        return replace(
            self,
            images=images.select(indices) if isinstance(images, MemmapImages) else images.index_select(0, indices),
            labels=self.labels[indices],
            names=tuple(self.names[i] for i in rows),
            digests=self.digests[indices.numpy()],
            soft_labels=None if self.soft_labels is None else self.soft_labels[indices],
            groups=None if self.groups is None else tuple(self.groups[i] for i in rows),
            originals=None if self.originals is None else tuple(self.originals[i] for i in rows),
        )


def hash_images(images: Tensor | MemmapImages) -> np.ndarray:
    """Return (N, 32) uint8: SHA-256 of the pixels of each image."""
    digests = bytearray()
    for start in range(0, len(images), CHUNK_SIZE):
        for image in images[start : start + CHUNK_SIZE].numpy():
            digests += hashlib.sha256(np.ascontiguousarray(image).data).digest()
    return np.frombuffer(digests, np.uint8).reshape(-1, 32)


def split_dataset(
    dataset: ImageDataset, fraction: float, groups: Sequence[str] | None = None
) -> tuple[ImageDataset, ImageDataset]:
    """Split off a fraction of each class for validation.

    The split is drawn from a fixed seed: all runs on the same data validate on the same images.

    Args:
        dataset: the images.
        fraction: of the images; with groups, 1/2, 1/3, 1/4, ... whichever is closest.
        groups: N groups; no group is in both parts.

    Returns:
        Training and validation images, in the order of ``dataset``.

    Raises:
        ValueError: a class has too few images, or there are too few groups.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedShuffleSplit  # slow to import

    seed = derive_seed(0, VAL_SPLIT) % 2**32
    labels = dataset.labels.numpy()
    if groups is None:
        splitter = StratifiedShuffleSplit(n_splits=1, test_size=fraction, random_state=seed)
        train, validation = next(splitter.split(labels, labels))
    else:
        folds = StratifiedGroupKFold(max(2, round(1 / fraction)), shuffle=True, random_state=seed)
        parts = list(folds.split(labels, labels, np.array(groups)))
        # The fold with the most classes, and of these the one closest to the fraction.
        size = fraction * len(labels)
        train, validation = max(parts, key=lambda part: (len({*labels[part[1]]}), -abs(len(part[1]) - size)))
    return tuple(dataset.select(torch.from_numpy(np.sort(part))) for part in (train, validation))  # type: ignore[return-value]


def normalize(images: Tensor) -> Tensor:
    """Map uint8 images to float32 in [0, 1]."""
    return images.to(torch.float32, copy=True).div_(255)
