"""Batches by index: from a set that lies whole on the training device, or from one that stays on disk."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fer_exp.data.imageset import ImageSet
from fer_exp.hardware import available_cores
from fer_exp.seeding import DATA_ORDER, derive_seed

Stream = DataLoader[tuple[Tensor, Tensor]]


class ShuffledOrder:
    """A new permutation of ``n`` indices for each epoch, a function of seed and epoch alone."""

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed, self.epoch = n, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch (from 0)."""
        self.epoch = epoch

    def indices(self) -> Tensor:
        """(n,) int64: the order of this epoch."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, DATA_ORDER, self.epoch))
        return torch.randperm(self.n, generator=generator)


class TrainingBatches:
    """The training set in a new order each epoch, with the tail that fills no batch dropped.

    Yields (images (B, 1, 48, 48) uint8, labels (B,) int64) on ``device``.
    """

    def __init__(self, images: ImageSet, batch_size: int, seed: int, device: torch.device) -> None:
        assert isinstance(images.images, Tensor)
        self.batch_size = batch_size
        self.sampler = ShuffledOrder(len(images), seed)  # under this name Lightning finds set_epoch
        self.images, self.labels = images.images.to(device), images.labels.to(device)

    def __len__(self) -> int:
        return len(self.labels) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self.sampler.indices().to(self.labels.device)
        for i in range(len(self)):
            batch = order[i * self.batch_size : (i + 1) * self.batch_size]
            yield self.images[batch], self.labels[batch]


class ValidationBatches:
    """The validation set in its own order, whole: the last batch may be short.

    Yields (images (B, 1, 48, 48) uint8, labels (B,) int64) on ``device``.
    """

    def __init__(self, images: ImageSet, batch_size: int, device: torch.device) -> None:
        assert isinstance(images.images, Tensor)
        self.batch_size = batch_size
        self.images, self.labels = images.images.to(device), images.labels.to(device)

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.images.split(self.batch_size), self.labels.split(self.batch_size), strict=True)


class _BatchIndices:
    """The indices of each batch, for a set that stays on disk: of the same images as ``TrainingBatches``."""

    def __init__(self, order: ShuffledOrder, batch_size: int) -> None:
        self.order, self.batch_size = order, batch_size

    def __len__(self) -> int:
        return self.order.n // self.batch_size

    def set_epoch(self, epoch: int) -> None:
        self.order.set_epoch(epoch)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.order.indices()[: len(self) * self.batch_size].split(self.batch_size))


class _Batches(Dataset[tuple[Tensor, Tensor]]):
    """Whole batches of a set, by their indices (B,) int64."""

    def __init__(self, images: ImageSet) -> None:
        self.images, self.labels = images.images, images.labels

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.images[indices], self.labels[indices]


def stream_training(images: ImageSet, batch_size: int, seed: int, device: torch.device) -> Stream:
    """The batches of ``TrainingBatches``, read from disk by worker processes while the network trains."""
    return _stream(images, _BatchIndices(ShuffledOrder(len(images), seed), batch_size), device)


def stream_validation(images: ImageSet, batch_size: int, device: torch.device) -> Stream:
    """The batches of ``ValidationBatches``, read from disk by worker processes."""
    return _stream(images, torch.arange(len(images)).split(batch_size), device)


def _stream(images: ImageSet, batches: Any, device: torch.device) -> Stream:
    return DataLoader(
        _Batches(images),
        batch_size=None,  # the dataset's items are batches
        sampler=batches,
        num_workers=min(4, available_cores()),  # they read and copy; more than a few wait for the disk
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )
