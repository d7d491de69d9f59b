"""The LightningModule: one training step, one validation step, the figures of an epoch."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from fer_exp.data.imageset import normalise
from fer_exp.metrics import EpochTally

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler]


class Classifier(L.LightningModule):
    """Trains a network to name the expression of a face by cross-entropy.

    Each epoch logs ``train_loss``, ``train_acc``, ``val_loss``, ``val_acc``, ``val_macro_f1`` and ``lr``, once.

    Args:
        network: maps normalised faces (N, 1, 48, 48) to logits (N, C).
        optimizer: makes the optimizer from the network's parameters.
        scheduler: makes the learning-rate schedule from the optimizer; None for a constant rate. It steps once an
            epoch, when the epoch's figures are known.
        monitor: the figure that a plateau schedule watches.
        num_classes: C.
        channels_last: keep images and kernels in channels-last order; the same function, faster.
        settings: plain values (model, optimizer, classes, data) that are stored in checkpoints: they tell what a
            checkpoint is, without the run's folder.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None,
        monitor: str,
        num_classes: int,
        channels_last: bool = True,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        # Plain values only: a checkpoint that holds a partial or a module cannot be loaded safely.
        self.save_hyperparameters({"settings": dict(settings or {})}, logger=False)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(memory_format=self.memory_format)
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.monitor = monitor
        self.train_tally = EpochTally(num_classes)
        self.val_tally = EpochTally(num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 faces (N, 1, 48, 48) to logits (N, C)."""
        logits: Tensor = self.network(normalise(images).contiguous(memory_format=self.memory_format))
        return logits

    def on_train_epoch_start(self) -> None:
        """Start the epoch's tally."""
        self.train_tally.reset(self.device)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Loss of one batch."""
        return self._step(batch, self.train_tally)

    def on_validation_epoch_start(self) -> None:
        """Start the validation's tally."""
        self.val_tally.reset(self.device)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        """Tally one batch."""
        self._step(batch, self.val_tally)

    def _step(self, batch: tuple[Tensor, Tensor], tally: EpochTally) -> Tensor:
        images, labels = batch
        logits = self(images)
        loss = F.cross_entropy(logits, labels)
        tally.update(loss, logits, labels)
        return loss

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's figures, and let the schedule act on them.

        The schedule steps here, not where Lightning would do it, after the checkpoint is saved: a run resumed from
        a checkpoint would lag one step behind.
        """
        if self.trainer.state.fn != TrainerFn.FITTING:
            return
        figures = {
            "train_loss": self.train_tally.loss,
            "train_acc": self.train_tally.accuracy,
            "val_loss": self.val_tally.loss,
            "val_acc": self.val_tally.accuracy,
            "val_macro_f1": self.val_tally.macro_f1,
            "lr": self.trainer.optimizers[0].param_groups[0]["lr"],  # before the schedule acts
        }
        if not self.is_finite():
            # A variance of infinity, say, makes a constant network whose loss is finite: that is no result.
            figures["val_loss"] = float("nan")
        # float64, on the CPU: callbacks compare what the history shows, to the last digit.
        self.log_dict({name: torch.tensor(value, dtype=torch.float64) for name, value in figures.items()})
        schedule = self.lr_schedulers()
        if isinstance(schedule, ReduceLROnPlateau):
            schedule.step(figures[self.monitor])
        elif isinstance(schedule, LRScheduler):
            schedule.step()

    def is_finite(self) -> bool:
        """Whether all weights, and statistics such as those of batch norm, are finite."""
        values = [value for value in self.network.state_dict().values() if value.is_floating_point()]
        return bool(torch.stack([value.isfinite().all() for value in values]).all())

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Nothing: ``on_validation_epoch_end`` steps the schedule."""

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients, also where the optimizer passes over the weights once.

        Lightning refuses that under any mixed precision; only float16, which scales gradients, has a reason to.
        """
        if self.trainer.precision == "16-mixed":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            clip = nn.utils.clip_grad_value_ if gradient_clip_algorithm == "value" else nn.utils.clip_grad_norm_
            clip(self.network.parameters(), gradient_clip_val)

    def configure_optimizers(self) -> Any:
        """The optimizer, and the schedule where there is one."""
        optimizer = self.make_optimizer(self.network.parameters())
        if self.make_scheduler is None:
            return optimizer
        # Registered with Lightning so that its state is saved and restored.
        schedule = {"scheduler": self.make_scheduler(optimizer), "monitor": self.monitor, "interval": "epoch"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}
