"""The progress bar of an epoch."""

import time
from typing import Any

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn
from rich.progress import Progress

from fer_exp.plots.terminal import make_progress
from fer_exp.training.epoch_metrics import EpochMetrics
from fer_exp.training.module import Classifier

_SECONDS_CPU, _SECONDS_GPU = 1.0, 5.0  # between two readings of the metrics, each of which waits for the device


class ProgressBar(L.Callback):
    """A bar with loss, accuracy, images per second and time left, for training and validation; on terminals only."""

    def __init__(self) -> None:
        self._progress: Progress | None = None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show a new bar."""
        description = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        self._start(description, int(trainer.num_training_batches), pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance by one batch."""
        assert isinstance(pl_module, Classifier)
        self._advance(pl_module.train_metrics, len(batch[1]))

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Replace the bar by that of the validation."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._stop()
            self._start("validation", int(sum(trainer.num_val_batches)), pl_module)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Advance by one batch."""
        assert isinstance(pl_module, Classifier)
        self._advance(pl_module.val_metrics, len(batch[1]))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remove the bar: the epoch's log line replaces it."""
        self._stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Remove the bar."""
        self._stop()

    def _start(self, description: str, batches: int, module: L.LightningModule) -> None:
        self._progress = make_progress()
        self._progress.start()
        self._task = self._progress.add_task(description, total=batches, info="")
        self._interval = _SECONDS_CPU if module.device.type == "cpu" else _SECONDS_GPU
        self._images, self._started = 0, time.perf_counter()
        self._read = self._started  # when the metrics were read

    def _advance(self, metrics: EpochMetrics, images: int) -> None:
        if self._progress is None or self._progress.disable:
            return
        self._images += images
        now = time.perf_counter()
        if now - self._read < self._interval:
            self._progress.advance(self._task)
            return
        values = metrics.compute()
        loss, accuracy = values[f"{metrics.split}_loss"], values[f"{metrics.split}_acc"]
        self._read = time.perf_counter()
        speed = self._images / (self._read - self._started)
        info = f"loss {loss:.4f}  acc {100 * accuracy:.2f} %  {speed:,.0f} images/s"
        self._progress.update(self._task, advance=1, info=info)

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
