"""lightning: the notebook's network as a Lightning tutorial trains it.

torchvision's ImageFolder and transforms, a DataLoader with two workers, float32, the layers in the notebook's order,
torch's dropout, torchmetrics, and a default Trainer with progress bar, logger and checkpoint.
"""

import tempfile
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset
from torchmetrics.classification import MulticlassAccuracy
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.contenders.clock import Clock
from benchmarks.contenders.turns import serve
from fer_exp.models.notebook_cnn import NotebookCNN

WORKERS = 2


class TutorialModule(L.LightningModule):
    """Training and validation step with ``self.log``."""

    def __init__(self) -> None:
        super().__init__()
        self.network = NotebookCNN(pool_before_relu=False, fast_dropout=False)
        self.train_acc = MulticlassAccuracy(7, average="micro")
        self.val_acc = MulticlassAccuracy(7, average="micro")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch."""
        images, labels = batch
        logits = self.network(images)
        loss = F.cross_entropy(logits, labels)
        self.train_acc(logits, labels)
        self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        self.log("train_acc", self.train_acc, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss and accuracy of one batch."""
        images, labels = batch
        logits = self.network(images)
        self.val_acc(logits, labels)
        self.log("val_loss", F.cross_entropy(logits, labels), prog_bar=True)
        self.log("val_acc", self.val_acc, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class NaiveLightning:
    """A turn is a ``fit`` of one epoch.

    Args:
        train: folder of the training images.
        validation: folder of the validation images.
        batch_size: images of a batch.
        others: settings of other contenders.
    """

    def __init__(self, train: str, validation: str, batch_size: int, **others: Any) -> None:
        read = transforms.Compose([transforms.Grayscale(), transforms.Resize((48, 48)), transforms.ToTensor()])
        self.train_set, self.val_set = ImageFolder(train, read), ImageFolder(validation, read)
        self.batch_size = batch_size
        self.module = TutorialModule()
        self.facts = {"precision": "32-true", "threads": torch.get_num_threads(), "versions": {}}

    def turn(self, steps: int, validation: int) -> dict[str, float]:
        """Fit for an epoch on a subset of ``steps`` batches, so that the workers read no other images."""
        chosen = torch.randperm(len(self.train_set))[: steps * self.batch_size].tolist()
        validated = range(min(len(self.val_set), validation * self.batch_size))
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            trainer = L.Trainer(max_epochs=1, devices=1, default_root_dir=folder, callbacks=[clock])
            trainer.fit(
                self.module,
                DataLoader(
                    Subset(self.train_set, chosen), self.batch_size, shuffle=True, drop_last=True, num_workers=WORKERS
                ),
                DataLoader(Subset(self.val_set, validated), self.batch_size, num_workers=WORKERS),
            )
        return {
            "step_seconds": clock.step_seconds,
            "train_seconds": clock.trained - clock.start,
            "val_seconds": clock.end - clock.trained,
            "train_loss": float(trainer.callback_metrics["train_loss_epoch"]),
            "val_loss": float(trainer.callback_metrics["val_loss"]),
        }


if __name__ == "__main__":
    serve(NaiveLightning)
