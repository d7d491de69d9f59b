"""plain: the same steps in a plain PyTorch loop, without Lightning, callbacks, records or pictures."""

from itertools import islice  # noqa: I001
from pathlib import Path
from typing import Any

import lightning as L
import torch
from fer_exp.models.layers import use_im2col_weight_grad
from torch import Tensor
from torch.nn import functional as F

from benchmarks.contenders.clock import now
from benchmarks.contenders.turns import UNMEASURED, mean_step, serve
from fer_exp.data.cache import default_cache_dir, load_split
from fer_exp.data.dataset import normalise
from fer_exp.data.loaders import TrainingBatches, ValidationBatches
from fer_exp.data.seeding import TRAINING, derive_seed
from fer_exp.data.sources.class_folders import list_images
from fer_exp.metrics import EpochMetrics
from fer_exp.models.notebook_cnn import NotebookCNN
from fer_exp.training.callbacks.cuda_graph import capture
from fer_exp.training.hardware import choose_accelerator, choose_patch_gradients, choose_precision, keep_freed_memory


class Plain:
    """One step is what ``fer_exp`` does in one: the same network, batches, precision and tally, in the same order.

    Args:
        train: the folder of the training images.
        validation: the folder of the validation images.
        batch_size: images a step.
        seed: of weights, order and dropout.
        precision: as ``trainer.precision``.
        others: what other contenders need to know.
    """

    def __init__(
        self, train: str, validation: str, batch_size: int, seed: int = 0, precision: str = "auto", **others: Any
    ) -> None:
        accelerator = choose_accelerator("auto")[0]
        self.device, self.seed = torch.device(accelerator), seed
        self.precision = choose_precision(precision, accelerator)[0]
        self.im2col_weight_grad = choose_patch_gradients("auto", accelerator, self.precision)[0]
        if accelerator == "cpu":
            keep_freed_memory()
        train_set, val_set = (
            load_split(list_images(Path(split)), default_cache_dir())[0] for split in (train, validation)
        )
        self.classes = len(train_set.classes)
        self.train_batches = TrainingBatches(train_set, batch_size, seed, self.device)
        self.validation_batches = ValidationBatches(val_set, batch_size, self.device)
        self.facts = {"precision": self.precision, "threads": torch.get_num_threads(), "versions": {}}

    def turn(self, steps: int, validation: int) -> dict[str, float]:
        """Train a fresh network for an epoch."""
        L.seed_everything(self.seed, verbose=False)
        network = NotebookCNN().to(self.device, memory_format=torch.channels_last)
        if self.im2col_weight_grad:
            use_im2col_weight_grad(network)
        if self.device.type == "cuda":
            capture(network, (self.train_batches.batch_size, 1, 48, 48), self._autocast())
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, eps=1e-7, fused=True)
        tally, val_metrics = EpochMetrics(self.classes), EpochMetrics(self.classes)

        start, warm = now(), None
        torch.manual_seed(derive_seed(self.seed, TRAINING, 0))
        tally.reset(self.device)
        network.train()
        for step, (images, labels) in enumerate(islice(self.train_batches, steps), start=1):
            loss = self._loss(network, images, labels, tally)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step == UNMEASURED:
                warm = now()
        trained = now()

        val_metrics.reset(self.device)
        network.eval()
        with torch.no_grad():
            for images, labels in islice(self.validation_batches, validation):
                self._loss(network, images, labels, val_metrics)
        figures = {"train_loss": tally.loss, "val_loss": val_metrics.loss}
        _ = tally.accuracy, val_metrics.accuracy, val_metrics.macro_f1  # nobody reads them here, and they take time
        return {
            "step_seconds": mean_step(warm, trained, steps),
            "train_seconds": trained - start,
            "val_seconds": now() - trained,
            **figures,
        }

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == "bf16-mixed", cache_enabled=False
        )

    def _loss(self, network: NotebookCNN, images: Tensor, labels: Tensor, tally: EpochMetrics) -> Tensor:
        with self._autocast():
            logits = network(normalise(images).contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits, labels)
            tally.update(loss, logits, labels)
        return loss


if __name__ == "__main__":
    serve(Plain)
