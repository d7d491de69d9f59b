"""A Lightning callback that records the times of an epoch."""

import time
from typing import Any, ClassVar

import lightning as L
import torch

from benchmarks.contenders.turns import WARMUP_STEPS, mean_step


class Clock(L.Callback):
    """The times of the last epoch, on the clock of ``time.perf_counter``.

    Attributes:
        latest: the newest instance; a config that creates the callback keeps no other reference.
    """

    latest: ClassVar["Clock"]

    def __init__(self) -> None:
        Clock.latest = self

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start of the epoch."""
        self.start, self.warm, self.steps = now(), None, int(trainer.num_training_batches)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *step: Any) -> None:
        """End of the warm-up and of the training; a GPU is synchronized only there."""
        done = step[-1] + 1
        if done == WARMUP_STEPS:
            self.warm = now()
        if done == self.steps:
            self.trained = now()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End of the epoch; checkpoints are saved later."""
        self.end = now()

    @property
    def step_seconds(self) -> float:
        """Mean of the steps after the warm-up."""
        return mean_step(self.warm, self.trained, self.steps)


def now() -> float:
    """The time, after the device has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
