"""Batches by index from a set that lies whole on the training device."""

from collections.abc import Iterator

import torch
from torch import Tensor

from fer_exp.data.imageset import ImageSet
from fer_exp.seeding import DATA_ORDER, derive_seed


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
        self.batch_size = batch_size
        self.images, self.labels = images.images.to(device), images.labels.to(device)

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.images.split(self.batch_size), self.labels.split(self.batch_size), strict=True)
