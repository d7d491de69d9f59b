"""The progress bar of an epoch."""

import time
from typing import Any

import lightning as L
from rich.progress import Progress

from fer_exp.plots.terminal import make_progress


class ProgressBar(L.Callback):
    """A bar with images a second and time left, on terminals only; it reads nothing from the device."""

    def __init__(self) -> None:
        self._progress: Progress | None = None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show a fresh bar."""
        self._progress = make_progress()
        self._progress.start()
        self._task = self._progress.add_task(
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
            total=trainer.num_training_batches,
            rate="",
        )
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move on by one batch."""
        if self._progress is not None:
            images = (batch_idx + 1) * len(batch[1])
            rate = f"{images / (time.perf_counter() - self._start):,.0f} images/s"
            self._progress.update(self._task, advance=1, rate=rate)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the bar away: the epoch's line takes its place."""
        self._stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave the terminal as it was."""
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
