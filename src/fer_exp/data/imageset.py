"""A labelled set of faces in memory."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fer_exp.seeding import HOLD_OUT, derive_seed


@dataclass(frozen=True)
class ImageSet:
    """One split, decoded.

    Attributes:
        images: (N, 1, 48, 48) uint8, grey.
        labels: (N,) int64, indices into ``classes``.
        classes: class names, in the order of the labels.
        files: N paths relative to the split's folder, with forward slashes.
        fingerprint: SHA-256 over pixels, labels and classes, in hexadecimal: equal for equal data, wherever it lies.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    files: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def counts(self) -> list[int]:
        """Number of images of each class."""
        counts: list[int] = torch.bincount(self.labels, minlength=len(self.classes)).tolist()
        return counts


def make_image_set(images: Tensor, labels: Tensor, classes: Sequence[str], files: Sequence[str]) -> ImageSet:
    """Bundle decoded faces with their fingerprint."""
    digest = hashlib.sha256("\0".join(classes).encode())
    digest.update(labels.numpy().tobytes())
    digest.update(images.numpy().tobytes())
    return ImageSet(images, labels, tuple(classes), tuple(files), digest.hexdigest())


def hold_out(images: ImageSet, share: float) -> tuple[ImageSet, ImageSet]:
    """Part off ``share`` of each class, rounded to whole images.

    Which images is drawn from a fixed seed: all runs on the same data hold out the same ones, whatever their seed.

    Returns:
        What is left to train on, and what is held out, each in the order of ``images``.
    """
    generator = torch.Generator().manual_seed(derive_seed(0, HOLD_OUT))
    held = torch.zeros(len(images), dtype=torch.bool)
    for label in range(len(images.classes)):
        members = torch.nonzero(images.labels == label).squeeze(1)
        members = members[torch.randperm(len(members), generator=generator)]
        held[members[: round(share * len(members))]] = True
    kept, parted = (select(images, torch.nonzero(chosen).squeeze(1)) for chosen in (~held, held))
    return kept, parted


def select(images: ImageSet, indices: Tensor) -> ImageSet:
    """The images at ``indices`` (M,) int64, in that order, as a set with a fingerprint of its own."""
    files = [images.files[i] for i in indices.tolist()]
    return make_image_set(images.images[indices], images.labels[indices], images.classes, files)


def normalise(images: Tensor) -> Tensor:
    """Map uint8 faces to float32 in [0, 1]: the one preprocessing of training, evaluation and prediction."""
    return images.to(torch.float32, copy=True).div_(255)
