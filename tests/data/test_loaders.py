"""Which images are in which batch: a function of seed and epoch, also in Lightning's loop."""

from dataclasses import replace

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from fer_exp.data.dataset import ImageDataset
from fer_exp.data.loaders import (
    BalancedOrder,
    TrainingBatches,
    ValidationBatches,
    proportional_order,
)

CPU = torch.device("cpu")


def numbered(n: int) -> ImageDataset:
    """Images whose labels are their indices, and whose pixels are the lower bytes of the indices."""
    numbers = torch.arange(n)
    pixels = (numbers % 256).to(torch.uint8).reshape(n, 1, 1, 1).expand(n, 1, 48, 48)
    return ImageDataset(pixels, numbers, names := tuple(map(str, range(n))), names, np.zeros((n, 32), np.uint8))


def order(batches) -> list[int]:
    return [int(label) for _, labels in batches for label in labels]


def training(n=50, batch_size=8, seed=0, epoch=0) -> TrainingBatches:
    batches = TrainingBatches(numbered(n), batch_size, seed, CPU)
    batches.sampler.set_epoch(epoch)
    return batches


@pytest.mark.parametrize(
    ("n", "batch_size", "steps"), [(28_821, 128, 225), (28_709, 128, 224), (256, 128, 2), (7, 7, 1), (13, 7, 1)]
)
def test_the_tail_that_fills_no_batch_is_dropped(n, batch_size, steps):
    batches = training(n, batch_size)
    sizes = [len(labels) for _, labels in batches]
    assert len(batches) == steps
    assert sizes == [batch_size] * steps


@pytest.mark.parametrize(("n", "batch_size", "sizes"), [(7_066, 128, [128] * 55 + [26]), (16, 8, [8, 8]), (3, 8, [3])])
def test_validation_is_whole_and_in_order(n, batch_size, sizes):
    batches = ValidationBatches(numbered(n), batch_size, CPU)
    assert len(batches) == len(sizes)
    for _ in range(2):
        assert [len(labels) for _, labels in batches] == sizes
        assert order(batches) == list(range(n))


@pytest.mark.parametrize("batches", [training(300, 7), ValidationBatches(numbered(300), 7, CPU)])
def test_images_stay_bytes_and_keep_their_labels(batches):
    for images, labels in batches:
        assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
        assert images.shape == (len(labels), 1, 48, 48)
        assert torch.equal(images, (labels % 256).to(torch.uint8).reshape(-1, 1, 1, 1).expand_as(images))


def test_an_image_comes_at_most_once_in_an_epoch_and_all_come_over_the_epochs():
    epochs = [order(training(50, 8, epoch=epoch)) for epoch in range(20)]
    assert all(len(seen) == len({*seen}) == 48 for seen in epochs)
    assert {image for seen in epochs for image in seen} == {*range(50)}


def test_the_order_depends_on_seed_and_epoch_only():
    batches = training(seed=3, epoch=5)
    before = order(batches)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    order(training(seed=4, epoch=6))
    assert order(batches) == before == order(training(seed=3, epoch=5))
    assert torch.equal(torch.get_rng_state(), state)
    orders = {tuple(order(training(seed=seed, epoch=epoch))) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16
    assert order(training(64, 4, seed=2)) == order(training(64, 16, seed=2))


class Watcher(L.LightningModule):
    """Learns nothing; records which images it saw in each epoch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[int, list[int]] = {}
        self.validated: list[int] = []

    def training_step(self, batch, index):
        self.seen.setdefault(self.current_epoch, []).extend(batch[1].tolist())
        return self.weight * 1.0

    def validation_step(self, batch, index):
        self.validated.extend(batch[1].tolist())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, epochs, resume=None) -> Watcher:
    watcher = Watcher()
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        callbacks=[ModelCheckpoint(folder, "{epoch}")],
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(watcher, training(20, 6, seed=7), ValidationBatches(numbered(5), 2, CPU), ckpt_path=resume)
    return watcher


@pytest.mark.filterwarnings("ignore")  # Lightning's tips about workers and devices
def test_lightning_sets_the_epoch_also_of_a_resumed_run(tmp_path):
    expected = [order(training(20, 6, seed=7, epoch=epoch)) for epoch in range(4)]
    whole = fit(tmp_path, 2)
    assert whole.seen == {0: expected[0], 1: expected[1]}
    assert whole.validated == [0, 1, 2, 3, 4] * 2
    resumed = fit(tmp_path, 4, resume=tmp_path / "epoch=1.ckpt")
    assert resumed.seen == {2: expected[2], 3: expected[3]}


def test_balanced_batches_show_each_class_and_each_of_its_images_equally_often():
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    order = BalancedOrder(labels, seed=0)
    seen = torch.zeros(100)
    for epoch in range(3):
        order.set_epoch(epoch)
        indices = order.indices()
        assert len(indices) == 100
        assert torch.bincount(labels[indices]).tolist() in ([34, 33, 33], [33, 34, 33], [33, 33, 34])
        times = torch.bincount(indices, minlength=100)
        for label in range(3):  # each image at most once more than another of its class
            of_class = times[labels == label]
            assert of_class.max() - of_class.min() <= 1
        seen += times
    assert (seen[90:] >= 9).all()


def test_the_balanced_order_is_a_function_of_seed_and_epoch():
    labels = torch.tensor([0] * 20 + [1] * 5)

    def drawn(seed, epoch):
        order = BalancedOrder(labels, seed)
        order.set_epoch(epoch)
        return order.indices().tolist()

    assert drawn(0, 1) == drawn(0, 1)
    assert len({str(drawn(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_each_prefix_of_the_proportional_order_has_the_class_proportions():
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    order = proportional_order(labels)
    assert sorted(order.tolist()) == list(range(100))
    for n in range(10, 101, 10):
        assert (torch.bincount(labels[order[:n]], minlength=3) - n * torch.tensor([0.6, 0.3, 0.1])).abs().max() <= 1
    batches = ValidationBatches(replace(numbered(100), labels=labels), 10, CPU, order)
    assert [len({*batch.tolist()}) for _, batch in batches] == [3] * 10


def test_soft_labels_come_with_their_images():
    soft = torch.eye(7).roll(1, 0)
    for images, targets in TrainingBatches(replace(numbered(7), soft_labels=soft), 3, 0, CPU):
        assert torch.equal(targets, soft[images[:, 0, 0, 0].long()])
