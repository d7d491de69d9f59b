"""The LightningModule: one training step, one validation step, the figures of an epoch."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from fer_exp.data.dataset import normalise
from fer_exp.errors import UserError, one_line
from fer_exp.training.epoch_metrics import EpochMetrics

OptimizerFactory = Callable[[Iterable[Any]], Optimizer]
SchedulerFactory = Callable[..., LRScheduler]


class Classifier(L.LightningModule):
    """Trains a network to name the expression of a face.

    Each epoch logs ``train_loss``, ``train_acc``, ``val_loss``, ``val_acc``, ``val_macro_f1`` and ``lr``, once.
    ``train_loss`` and ``train_acc`` are those of the images as they were trained on, changed and mixed, under the loss
    that was trained, each image having the class with the largest part of its label; ``val_loss`` is the cross-entropy
    of the images as they are.

    Args:
        network: maps normalised faces (N, 1, 48, 48) to logits (N, C).
        optimizer: makes the optimizer from the network's parameters, or from groups of them.
        scheduler: makes the learning-rate schedule from the optimizer; None for a constant rate. One that takes
            ``total_steps`` is given the steps of the run and steps with the optimizer; any other steps once an epoch,
            when the epoch's figures are known.
        monitor: the figure that a plateau schedule watches.
        num_classes: C.
        loss: maps logits (N, C) and targets, (N,) int64 or (N, C) probabilities, to the loss to train.
        augmentation: maps normalised faces to changed ones of the same shape; None to leave them as they are.
        mixup: maps faces and their targets (N, C) to mixed ones; None to leave them apart.
        decay_norms_and_biases: whether weight decay is also of the parameters with one axis; kernels and matrices have
            more.
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
        loss: nn.Module | None = None,
        augmentation: nn.Module | None = None,
        mixup: nn.Module | None = None,
        decay_norms_and_biases: bool = True,
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
        self._steps_with_optimizer = scheduler is not None and spans_run(scheduler)
        self.monitor = monitor
        self.num_classes = num_classes
        self.loss = loss or nn.CrossEntropyLoss()
        self.augmentation, self.mixup = augmentation, mixup
        self.decay_norms_and_biases = decay_norms_and_biases
        self.train_metrics = EpochMetrics(num_classes)
        self.val_metrics = EpochMetrics(num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 faces (N, 1, 48, 48) to logits (N, C)."""
        return self._logits(normalise(images))

    def _logits(self, faces: Tensor) -> Tensor:
        logits: Tensor = self.network(faces.contiguous(memory_format=self.memory_format))
        return logits

    def on_train_epoch_start(self) -> None:
        """Start the epoch's tally."""
        self.train_metrics.reset(self.device)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Loss of one batch: images (N, 1, 48, 48) uint8, and targets, (N,) int64 or (N, C) probabilities."""
        images, targets = batch
        faces, targets = self.change(normalise(images), targets)
        logits = self._logits(faces)
        loss: Tensor = self.loss(logits, targets)
        self.train_metrics.update(loss, logits, targets if targets.dim() == 1 else targets.argmax(dim=1))
        return loss

    def change(self, faces: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Augment and mix normalised faces (N, 1, 48, 48), and their targets with them, as each step does anew."""
        if self.augmentation is not None:
            faces = self.augmentation(faces)
        if self.mixup is not None:
            if targets.dim() == 1:
                # Not F.one_hot, which looks at the values and so waits for them.
                targets = faces.new_zeros(len(targets), self.num_classes).scatter_(1, targets.unsqueeze(1), 1)
            faces, targets = self.mixup(faces, targets)
        return faces, targets

    def on_validation_epoch_start(self) -> None:
        """Start the validation's tally."""
        self.val_metrics.reset(self.device)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        """Tally one batch."""
        images, labels = batch
        logits = self(images)
        self.val_metrics.update(F.cross_entropy(logits, labels), logits, labels)

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's figures, and let a schedule that steps by epochs act on them.

        It steps here, not where Lightning would do it, after the checkpoint is saved: a run resumed from a checkpoint
        would lag one step behind.
        """
        if self.trainer.state.fn != TrainerFn.FITTING:
            return
        figures = {
            "train_loss": self.train_metrics.loss,
            "train_acc": self.train_metrics.accuracy,
            "val_loss": self.val_metrics.loss,
            "val_acc": self.val_metrics.accuracy,
            "val_macro_f1": self.val_metrics.macro_f1,
            "lr": self._last_lr(),
        }
        if not self.is_finite():
            # A variance of infinity, say, makes a constant network whose loss is finite: that is no result.
            figures["val_loss"] = float("nan")
        # float64, on the CPU: callbacks compare what the history shows, to the last digit.
        self.log_dict({name: torch.tensor(value, dtype=torch.float64) for name, value in figures.items()})
        schedule = self.lr_schedulers()
        if isinstance(schedule, ReduceLROnPlateau):
            schedule.step(figures[self.monitor])
        elif isinstance(schedule, LRScheduler) and not self._steps_with_optimizer:
            schedule.step()

    def _last_lr(self) -> float:
        """The rate of the epoch's last step: a schedule that steps with the optimizer has gone on to the next one's."""
        lr = self._lr_before if self._steps_with_optimizer else self.trainer.optimizers[0].param_groups[0]["lr"]
        return float(lr)

    def is_finite(self) -> bool:
        """Whether all weights, and statistics such as those of batch norm, are finite."""
        values = [value for value in self.network.state_dict().values() if value.is_floating_point()]
        return bool(torch.stack([value.isfinite().all() for value in values]).all())

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step a schedule that spans the run; ``on_validation_epoch_end`` steps the others."""
        if self._steps_with_optimizer:
            self._lr_before = scheduler.optimizer.param_groups[0]["lr"]
            scheduler.step()

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
        optimizer = self.make_optimizer(self._parameter_groups())
        if self.make_scheduler is None:
            return optimizer
        # Registered with Lightning so that its state is saved and restored.
        if self._steps_with_optimizer:
            steps = self._count_steps()
            try:
                schedule = self.make_scheduler(optimizer, total_steps=steps)
            except Exception as error:  # torch's OneCycleLR divides by zero where a phase has one step
                raise UserError(
                    f"scheduler: it cannot be laid over the {steps} steps of this run ({one_line(error)}); change its "
                    "settings or trainer.max_epochs."
                ) from error
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
        schedule = self.make_scheduler(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": self.monitor}}

    def _count_steps(self) -> int:
        """Number of steps that the optimizer takes in the whole run."""
        steps = int(self.trainer.estimated_stepping_batches)  # which also loads the training images
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, GradientAccumulationScheduler):  # Lightning counts by the factor of now
                factors = map(callback.get_accumulate_grad_batches, range(self.trainer.max_epochs or 0))
                steps = sum(math.ceil(self.trainer.num_training_batches / factor) for factor in factors)
        return steps

    def _parameter_groups(self) -> Iterable[Any]:
        if self.decay_norms_and_biases:
            return self.network.parameters()
        parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        decayed, spared = ([p for p in parameters if (p.dim() > 1) is several] for several in (True, False))
        return [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]


def spans_run(make_scheduler: Callable[..., Any]) -> bool:
    """Whether a schedule is laid over the whole run: its class takes ``total_steps``, as torch's OneCycleLR does."""
    return "total_steps" in inspect.signature(make_scheduler).parameters
