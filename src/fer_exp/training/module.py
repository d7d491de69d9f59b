"""The LightningModule: training and validation step, metrics of an epoch, optimizer and schedule."""

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

from fer_exp.config.targets import accepts
from fer_exp.data.dataset import normalize
from fer_exp.errors import UserError, one_line
from fer_exp.training.epoch_metrics import EpochMetrics
from fer_exp.training.parameters import find_backbone, parameter_groups

OptimizerFactory = Callable[[Iterable[Any]], Optimizer]
SchedulerFactory = Callable[..., LRScheduler]


class Classifier(L.LightningModule):
    """Trains an image classifier.

    Each epoch logs the rows of ``METRICS`` and ``lr``. The training metrics are those of the augmented and mixed images
    under the training loss; a mixed image has the class with the largest part of its label. ``val_loss`` is the
    cross-entropy of the unchanged images.

    Args:
        network: maps normalized images (N, C, S, S) to logits (N, K).
        optimizer: makes the optimizer from groups of parameters: of the network, and of the loss if it has any.
        scheduler: makes the learning-rate schedule from the optimizer; None for a constant learning rate. A class that
            takes ``total_steps`` gets the steps of the run and steps with the optimizer; any other steps every epoch,
            when the epoch's metrics are known.
        monitor: the metric that a plateau schedule watches.
        num_classes: K.
        loss: maps logits (N, K) and targets, (N,) int64 or (N, K) probabilities, to the training loss.
        augmentation: maps normalized images to changed ones of the same shape; None for none.
        mixup: maps images and their targets (N, K) to mixed ones; None for none.
        weight_decay_exclude_1d: if true, biases and norm weights get no weight decay.
        head_epochs: number of epochs at the start that train the last layer alone. The other layers are then in
            evaluation mode: their weights and the statistics of batch norm do not change. (Lightning's
            BackboneFinetuning adds them to the optimizer later; schedules that span the run do not know such groups.)
        backbone_lr_factor: learning rate of all layers before the last one, as a fraction of the optimizer's.
        channels_last: memory order of images and kernels. Same function, faster.
        hyper_parameters: plain values that describe the run in its checkpoints.

    Raises:
        UserError: ``head_epochs`` or ``backbone_lr_factor`` is set, and the network has no last layer with K outputs.
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
        weight_decay_exclude_1d: bool = False,
        head_epochs: int = 0,
        backbone_lr_factor: float = 1.0,
        channels_last: bool = True,
        hyper_parameters: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        # Plain values only: a checkpoint that holds a partial or a module cannot be loaded safely.
        self.save_hyperparameters(dict(hyper_parameters or {}), logger=False)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(memory_format=self.memory_format)
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self._steps_with_optimizer = scheduler is not None and accepts(scheduler, "total_steps")
        self.monitor = monitor
        self.num_classes = num_classes
        self.loss = loss or nn.CrossEntropyLoss()
        self.augmentation, self.mixup = augmentation, mixup
        self.weight_decay_exclude_1d = weight_decay_exclude_1d
        self.head_epochs = head_epochs
        self.backbone_lr_factor = backbone_lr_factor
        has_backbone = head_epochs > 0 or backbone_lr_factor != 1
        self._backbone, self._backbone_modules = find_backbone(network, num_classes) if has_backbone else ([], [])
        self.train_metrics = EpochMetrics("train", num_classes)
        self.val_metrics = EpochMetrics("val", num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 images (N, C, S, S) to logits (N, K)."""
        return self._logits(normalize(images))

    def _logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images.contiguous(memory_format=self.memory_format))
        if not isinstance(logits, Tensor):  # torchvision's GoogLeNet and Inception, in training mode only
            raise UserError(
                f"model: {type(self.network).__name__} returns {type(logits).__name__} in training; expected a tensor "
                "of logits. For a network of torchvision with auxiliary outputs, add +model.aux_logits=false"
            )
        return logits

    def on_train_epoch_start(self) -> None:
        """Reset the training metrics; freeze or unfreeze the layers before the last one."""
        self.train_metrics.reset()
        if self.head_epochs:
            is_trained = self.current_epoch >= self.head_epochs  # in a resumed run too
            for parameter in self._backbone:
                parameter.requires_grad_(is_trained)
            for module in self._backbone_modules:
                module.training = is_trained

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Loss of one batch: images (N, C, S, S) uint8, and targets, (N,) int64 or (N, K) probabilities."""
        images, targets = batch
        changed, targets = self.augment(normalize(images), targets)
        logits = self._logits(changed)
        loss: Tensor = self.loss(logits, targets)
        self.train_metrics.update(loss, logits, targets if targets.dim() == 1 else targets.argmax(dim=1))
        return loss

    def augment(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Augment and mix normalized images (N, C, S, S) with their targets, with new random draws."""
        if self.augmentation is not None:
            images = self.augmentation(images)
        if self.mixup is not None:
            if targets.dim() == 1:
                # Not F.one_hot, which reads the values and so waits for the device.
                targets = images.new_zeros(len(targets), self.num_classes).scatter_(1, targets.unsqueeze(1), 1)
            images, targets = self.mixup(images, targets)
        return images, targets

    def on_validation_epoch_start(self) -> None:
        """Reset the validation metrics."""
        self.val_metrics.reset()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Add one batch to the validation metrics; return the logits (N, K), which callbacks get as ``outputs``."""
        images, labels = batch
        logits: Tensor = self(images)
        self.val_metrics.update(F.cross_entropy(logits, labels), logits, labels)
        return logits

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's metrics."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            return
        metrics = {**self.train_metrics.compute(), **self.val_metrics.compute(), "lr": self._last_lr()}
        if not self.is_finite():
            # A variance of infinity, for example, makes a constant network with a finite loss.
            metrics["val_loss"] = float("nan")
        # float64 on the CPU: callbacks compare the values that the history shows, to the last digit.
        self.log_dict({name: torch.tensor(value, dtype=torch.float64) for name, value in metrics.items()})

    def on_train_epoch_end(self) -> None:
        """Step a schedule that steps every epoch; by now all callbacks have logged their metrics.

        Lightning would step it after the checkpoint is saved, and a resumed run would lag one step behind.
        """
        value = monitored_value(self.trainer, self.monitor)
        schedule = self.lr_schedulers()
        if isinstance(schedule, ReduceLROnPlateau):
            schedule.step(value)
        elif isinstance(schedule, LRScheduler) and not self._steps_with_optimizer:
            schedule.step()

    def _last_lr(self) -> float:
        """The learning rate of the epoch's last step; a schedule that steps with the optimizer is one step ahead."""
        lr = self._lr_before if self._steps_with_optimizer else self.trainer.optimizers[0].param_groups[0]["lr"]
        return float(lr)

    def is_finite(self) -> bool:
        """Whether all weights, and statistics such as those of batch norm, are finite."""
        values = [value for value in self.network.state_dict().values() if value.is_floating_point()]
        return bool(torch.stack([value.isfinite().all() for value in values]).all())

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step a schedule that spans the run; ``on_train_epoch_end`` steps the others."""
        if self._steps_with_optimizer:
            self._lr_before = scheduler.optimizer.param_groups[0]["lr"]
            scheduler.step()

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients, also with a fused optimizer.

        Lightning refuses that under any mixed precision; only float16, which scales gradients, has a reason to.
        """
        if self.trainer.precision == "16-mixed":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            clip = nn.utils.clip_grad_value_ if gradient_clip_algorithm == "value" else nn.utils.clip_grad_norm_
            clip(self.parameters(), gradient_clip_val)

    def configure_optimizers(self) -> Any:
        """The optimizer, and the schedule if there is one. Lightning saves and restores their states."""
        slower = self._backbone if self.backbone_lr_factor != 1 else []
        optimizer = self.make_optimizer(parameter_groups(self.parameters(), self.weight_decay_exclude_1d, slower))
        for group in optimizer.param_groups:
            if group.get("is_backbone"):
                group["lr"] *= self.backbone_lr_factor
        if self.make_scheduler is None:
            return optimizer
        if not self._steps_with_optimizer:
            schedule = self.make_scheduler(optimizer)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": self.monitor}}
        steps = self._count_steps()
        try:
            schedule = self.make_scheduler(optimizer, total_steps=steps)
        except Exception as error:  # torch's OneCycleLR divides by zero if a phase has one step
            raise UserError(
                f"scheduler: it does not fit the {steps} steps of this run ({one_line(error)}); change its settings or "
                "trainer.max_epochs."
            ) from error
        if slower and len({group["lr"] for group in optimizer.param_groups}) == 1:  # torch's OneCycleLR
            raise UserError(
                "scheduler: it sets the same learning rate for all layers; with backbone_lr_factor, use "
                "scheduler=cosine, wsd, plateau or none"
            )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _count_steps(self) -> int:
        """Number of optimizer steps of the whole run."""
        steps = int(self.trainer.estimated_stepping_batches)  # also loads the training images
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, GradientAccumulationScheduler):  # Lightning counts by the factor of the first epoch
                factors = map(callback.get_accumulate_grad_batches, range(self.trainer.max_epochs or 0))
                steps = sum(math.ceil(self.trainer.num_training_batches / factor) for factor in factors)
        return steps


def monitored_value(trainer: L.Trainer, monitor: str) -> float:
    """The last logged value of ``monitor``.

    Raises:
        UserError: nothing has logged it.
    """
    metrics = trainer.callback_metrics
    if monitor not in metrics:
        logged = ", ".join(name for name in metrics if name != "lr")
        raise UserError(f"monitor={monitor}: no such metric was logged; expected one of {logged}")
    return float(metrics[monitor])
