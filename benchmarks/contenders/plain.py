"""plain: the same steps as ``fer_exp`` in a plain PyTorch loop, without Lightning, callbacks, records and plots."""

from itertools import islice
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.contenders.clock import now
from benchmarks.contenders.turns import WARMUP_STEPS, mean_step, serve
from fer_exp.data.dataset import normalize
from fer_exp.data.loaders import TrainingBatches, ValidationBatches
from fer_exp.data.seeding import TRAINING, derive_seed
from fer_exp.data.sources.class_folders import FolderDataModule
from fer_exp.models.layers import use_im2col_weight_grad
from fer_exp.models.notebook_cnn import NotebookCNN
from fer_exp.training.callbacks.cuda_graph import capture
from fer_exp.training.epoch_metrics import EpochMetrics
from fer_exp.training.hardware import choose_accelerator, choose_im2col, choose_precision, retain_memory


class Plain:
    """The network, batches, precision and metrics of ``fer_exp``, in the same order.

    Args:
        root: folder with both splits.
        batch_size: images of a batch.
        seed: of weights, order and dropout.
        precision: value of ``trainer.precision``.
        cuda_graph: capture the network's passes as CUDA graphs.
        others: settings of other contenders.
    """

    def __init__(
        self,
        root: str,
        batch_size: int,
        seed: int = 0,
        precision: str = "auto",
        cuda_graph: bool = False,
        **others: Any,
    ) -> None:
        accelerator = choose_accelerator("auto")
        self.device, self.seed, self.cuda_graph = torch.device(accelerator), seed, cuda_graph
        self.precision = choose_precision(precision, accelerator)
        self.im2col_weight_grad = choose_im2col("auto", accelerator, self.precision)
        if accelerator == "cpu":
            retain_memory()
        data = FolderDataModule(root=root, batch_size=batch_size, seed=seed)
        data.setup()
        self.classes = len(data.train_set.classes)
        self.train_batches = TrainingBatches(data.train_set, batch_size, seed, self.device)
        self.validation_batches = ValidationBatches(data.val_set, batch_size, self.device)
        self.facts = {"precision": self.precision, "threads": torch.get_num_threads(), "versions": {}}

    def turn(self, steps: int, validation: int) -> dict[str, float]:
        """Train a new network for one epoch."""
        L.seed_everything(self.seed, verbose=False)
        network = NotebookCNN().to(self.device, memory_format=torch.channels_last)
        if self.im2col_weight_grad:
            use_im2col_weight_grad(network)
        if self.cuda_graph:
            capture(network, (self.train_batches.batch_size, 1, 48, 48), self._autocast())
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, eps=1e-7, fused=True)
        metrics, val_metrics = (EpochMetrics(split, self.classes).to(self.device) for split in ("train", "val"))

        start, warm = now(), None
        torch.manual_seed(derive_seed(self.seed, TRAINING, 0))
        network.train()
        for step, (images, labels) in enumerate(islice(self.train_batches, steps), start=1):
            loss = self._loss(network, images, labels, metrics)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step == WARMUP_STEPS:
                warm = now()
        trained = now()

        network.eval()
        with torch.no_grad():
            for images, labels in islice(self.validation_batches, validation):
                self._loss(network, images, labels, val_metrics)
        values = {**metrics.compute(), **val_metrics.compute()}
        return {
            "step_seconds": mean_step(warm, trained, steps),
            "train_seconds": trained - start,
            "val_seconds": now() - trained,
            "train_loss": values["train_loss"],
            "val_loss": values["val_loss"],
        }

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == "bf16-mixed", cache_enabled=False
        )

    def _loss(self, network: NotebookCNN, images: Tensor, labels: Tensor, metrics: EpochMetrics) -> Tensor:
        with self._autocast():
            logits = network(normalize(images).contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits, labels)
            metrics.update(loss, logits, labels)
        return loss


if __name__ == "__main__":
    serve(Plain)
