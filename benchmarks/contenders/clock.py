"""A callback for Lightning that notes when the parts of an epoch were done."""

import time
from typing import Any, ClassVar

import lightning as L
import torch

from benchmarks.contenders.turns import UNMEASURED, mean_step


class Clock(L.Callback):
    """The times of the last epoch, on the clock of ``time.perf_counter``.

    Attributes:
        latest: the clock that was made last: where a configuration makes it, nobody else holds it.
    """

    latest: ClassVar["Clock"]

    def __init__(self) -> None:
        Clock.latest = self

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The epoch begins."""
        self.start, self.warm, self.steps = now(), None, int(trainer.num_training_batches)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *step: Any) -> None:
        """A step is done, or on a GPU is in the queue: it is waited for where a time is noted, and only there."""
        done = step[-1] + 1
        if done == UNMEASURED:
            self.warm = now()
        if done == self.steps:
            self.trained = now()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The epoch ends; what saves checkpoints comes later."""
        self.end = now()

    @property
    def step_seconds(self) -> float:
        """Mean of the steps after the first ones."""
        return mean_step(self.warm, self.trained, self.steps)


def now() -> float:
    """The time when the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
