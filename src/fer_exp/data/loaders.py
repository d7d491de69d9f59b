"""Batches by index: of images on the training device, or of images on disk."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from fer_exp.data.dataset import ImageDataset, MemmapImages
from fer_exp.data.seeding import DATA_ORDER, derive_seed

_READERS = 4  # threads
_PREFETCH = 8  # batches


class ShuffledOrder:
    """A permutation of ``n`` indices for each epoch, a function of seed and epoch only."""

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed, self.epoch = n, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each one."""
        self.epoch = epoch

    def indices(self) -> Tensor:
        """Return the order of this epoch, (n,) int64."""
        return torch.randperm(self.n, generator=self._generator())

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self.seed, DATA_ORDER, self.epoch))


class BalancedOrder(ShuffledOrder):
    """``n`` indices that show each class equally often: small classes repeat, large ones are not shown completely.

    Args:
        labels: (n,) int64.
        seed: as in ``ShuffledOrder``.
    """

    def __init__(self, labels: Tensor, seed: int) -> None:
        super().__init__(len(labels), seed)
        self.labels = labels

    def indices(self) -> Tensor:
        """Return the order of this epoch, (n,) int64."""
        generator = self._generator()
        classes = self.labels.unique()
        # The remainder goes to classes that are drawn in each epoch.
        extra = torch.randperm(len(classes), generator=generator)[: self.n % len(classes)].tolist()
        drawn = []
        for i, label in enumerate(classes):
            members = torch.nonzero(self.labels == label).squeeze(1)
            count = self.n // len(classes) + (i in extra)
            # One permutation for each pass over the class: all its images come equally often.
            n_passes = -(-count // len(members))
            passes = [members[torch.randperm(len(members), generator=generator)] for _ in range(n_passes)]
            drawn.append(torch.cat(passes)[:count])
        return torch.cat(drawn)[torch.randperm(self.n, generator=generator)]


def proportional_order(labels: Tensor) -> Tensor:
    """Return a fixed order, (n,) int64, in which each prefix has about the class proportions of the whole."""
    position = torch.empty(len(labels), dtype=torch.float64)
    for label in labels.unique():
        members = torch.nonzero(labels == label).squeeze(1)
        position[members] = (torch.arange(len(members)) + 0.5).double() / len(members)
    return position.argsort(stable=True)


class TrainingBatches:
    """Batches of the training images in a new order each epoch; an incomplete last batch is dropped.

    Yields (images (B, C, S, S) uint8, targets): labels (B,) int64, or soft labels (B, C) float32 if the dataset has
    them. Images in memory are on ``device``; images on disk come in CPU memory.

    Args:
        dataset: the training images.
        batch_size: B.
        seed: of the order.
        device: device for images in memory.
        balanced: whether each class is shown equally often.
    """

    def __init__(
        self, dataset: ImageDataset, batch_size: int, seed: int, device: torch.device, balanced: bool = False
    ) -> None:
        self.batch_size = batch_size
        # Lightning calls set_epoch on an attribute of this name.
        self.sampler = BalancedOrder(dataset.labels, seed) if balanced else ShuffledOrder(len(dataset), seed)
        self.dataset = _to_device(dataset, device)
        targets = dataset.labels if dataset.soft_labels is None else dataset.soft_labels
        self.targets = targets.to(self.dataset.labels.device)

    def __len__(self) -> int:
        return len(self.dataset) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # A generator: Lightning calls iter() before set_epoch() when a run is resumed.
        order = self.sampler.indices()[: len(self) * self.batch_size]
        yield from _batches(self.dataset.images, self.targets, order, self.batch_size)


class ValidationBatches:
    """Batches of all validation images; the last batch may be smaller.

    Yields (images (B, C, S, S) uint8, labels (B,) int64), on the same devices as ``TrainingBatches``.

    Args:
        dataset: the validation images.
        batch_size: B.
        device: device for images in memory.
        order: (N,) int64 indices; None for the order of the dataset.
    """

    def __init__(
        self, dataset: ImageDataset, batch_size: int, device: torch.device, order: Tensor | None = None
    ) -> None:
        self.batch_size, self.order = batch_size, order
        self.dataset = _to_device(dataset, device)

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        images, labels = self.dataset.images, self.dataset.labels
        if self.order is None and isinstance(images, Tensor):
            return zip(images.split(self.batch_size), labels.split(self.batch_size), strict=True)
        order = torch.arange(len(labels)) if self.order is None else self.order
        return _batches(images, labels, order, self.batch_size)


def _to_device(dataset: ImageDataset, device: torch.device) -> ImageDataset:
    """Move images in memory to ``device``."""
    if isinstance(dataset.images, MemmapImages):
        return dataset
    return replace(dataset, images=dataset.images.to(device), labels=dataset.labels.to(device))


def _batches(
    images: Tensor | MemmapImages, targets: Tensor, order: Tensor, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    if isinstance(images, MemmapImages):
        yield from _prefetch(images, targets, order.split(batch_size))
        return
    for batch in order.to(targets.device).split(batch_size):
        # index_select copies whole images: on a CPU, images[batch] takes five times as long.
        yield images.index_select(0, batch), targets[batch]


def _prefetch(images: MemmapImages, targets: Tensor, batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches from disk in order, read by threads while the network trains.

    Threads, not processes: torch reads without Python's lock, nothing is copied between processes, and it works where
    processes cannot be started (workers of a launcher) or share no memory (small containers).
    """

    def read(indices: Tensor) -> tuple[Tensor, Tensor]:
        return images[indices], targets[indices]

    with ThreadPoolExecutor(_READERS) as pool:
        pending: deque[Future[tuple[Tensor, Tensor]]] = deque()
        for indices in batches:
            pending.append(pool.submit(read, indices))
            if len(pending) > _PREFETCH:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
