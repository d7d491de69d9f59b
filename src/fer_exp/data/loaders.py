"""Batches by index: from a set that lies whole on the training device, or from one that stays on disk."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from fer_exp.data.dataset import ImageDataset, MemmapImages
from fer_exp.data.seeding import DATA_ORDER, derive_seed

_READERS = 4  # threads; more than a few wait for the disk
_AHEAD = 8  # batches


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


class BalancedOrder(ShuffledOrder):
    """As many indices, with each class as often as any other: small classes come again, large ones not wholly.

    Each class has a new permutation for each time that it is gone through, so that all its images come equally often.

    Args:
        labels: (n,) int64.
        seed: as of ``ShuffledOrder``.
    """

    def __init__(self, labels: Tensor, seed: int) -> None:
        super().__init__(len(labels), seed)
        self.labels = labels

    def indices(self) -> Tensor:
        """(n,) int64: the order of this epoch."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, DATA_ORDER, self.epoch))
        classes = self.labels.unique()
        # What does not divide evenly falls to classes that are drawn anew each time.
        favoured = torch.randperm(len(classes), generator=generator)[: self.n % len(classes)].tolist()
        drawn = []
        for i, label in enumerate(classes):
            members = torch.nonzero(self.labels == label).squeeze(1)
            wanted = self.n // len(classes) + (i in favoured)
            times = -(-wanted // len(members))
            rounds = [members[torch.randperm(len(members), generator=generator)] for _ in range(times)]
            drawn.append(torch.cat(rounds)[:wanted])
        return torch.cat(drawn)[torch.randperm(self.n, generator=generator)]


class TrainingBatches:
    """The training set in a new order each epoch, with the tail that fills no batch dropped.

    Yields images (B, 1, 48, 48) uint8, with their labels (B,) int64, or their soft labels (B, C) float32 where there
    are such: on ``device``, or in memory those that stay on disk.

    Args:
        images: the set.
        batch_size: B.
        seed: of the order.
        device: where the images are kept.
        balanced: show each class equally often.
    """

    def __init__(
        self, images: ImageDataset, batch_size: int, seed: int, device: torch.device, balanced: bool = False
    ) -> None:
        self.batch_size = batch_size
        # Under this name Lightning finds set_epoch.
        self.sampler = BalancedOrder(images.labels, seed) if balanced else ShuffledOrder(len(images), seed)
        self.images = _on_device(images, device)
        targets = images.labels if images.soft_labels is None else images.soft_labels
        self.targets = targets.to(self.images.labels.device)

    def __len__(self) -> int:
        return len(self.images) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self.sampler.indices()[: len(self) * self.batch_size]
        if isinstance(self.images.images, MemmapImages):
            yield from _read_ahead(self.images.images, self.targets, order.split(self.batch_size))
            return
        for batch in order.to(self.targets.device).split(self.batch_size):
            yield self.images.images[batch], self.targets[batch]


class ValidationBatches:
    """The validation set in its own order, whole: the last batch may be short.

    Yields (images (B, 1, 48, 48) uint8, labels (B,) int64): on ``device``, or in memory those that stay on disk.
    """

    def __init__(self, images: ImageDataset, batch_size: int, device: torch.device) -> None:
        self.batch_size = batch_size
        self.images = _on_device(images, device)

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        images, labels = self.images.images, self.images.labels
        if isinstance(images, MemmapImages):
            return _read_ahead(images, labels, torch.arange(len(images)).split(self.batch_size))
        return zip(images.split(self.batch_size), labels.split(self.batch_size), strict=True)


def _on_device(images: ImageDataset, device: torch.device) -> ImageDataset:
    """The set on ``device``; one that stays on disk is left there."""
    if isinstance(images.images, MemmapImages):
        return images
    return replace(images, images=images.images.to(device), labels=images.labels.to(device))


def _read_ahead(images: MemmapImages, targets: Tensor, batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches from disk by their indices (B,) int64, in order, read by threads while the network trains.

    Threads, not processes: torch reads without Python's lock, nothing is copied between processes, and it works
    where processes may not be started (in the workers of a launcher) or share no memory (in small containers).
    """

    def read(indices: Tensor) -> tuple[Tensor, Tensor]:
        return images[indices], targets[indices]

    with ThreadPoolExecutor(_READERS) as pool:
        pending: deque[Future[tuple[Tensor, Tensor]]] = deque()
        for indices in batches:
            pending.append(pool.submit(read, indices))
            if len(pending) > _AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
