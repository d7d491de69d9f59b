"""Averages of the weights, which are validated and saved in place of the trained weights."""

from itertools import compress
from typing import Any

import lightning as L
import torch
from lightning.pytorch import callbacks
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor


class WeightEMA(callbacks.WeightAveraging):
    """Exponential moving average of weights and batch-norm statistics, by Lightning's own callback.

    Validation during training uses the averaged weights. Checkpoints hold them, and beside them the trained weights to
    resume from. The first averages look back on fewer steps, as in TensorFlow's
    ``ExponentialMovingAverage(num_updates=...)``: after n steps the decay is at most (1 + n) / (10 + n), so the initial
    weights do not hold back short runs.

    Args:
        decay: fraction of the average that remains at each step: 0.999 looks back on about 1,000 steps.

    Raises:
        ValueError: ``decay`` is not in [0, 1).
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay}: expected a fraction in [0, 1)")
        self.decay = decay
        super().__init__()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Create the average on the training device: Lightning moves the module there only afterwards."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:
            self._average_model.n_averaged = self._average_model.n_averaged.cpu()

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average after an optimizer step.

        torch's own update reads its counter from the device in each step, and so waits for all work before it.
        """
        if trainer.global_step <= self._latest_update_step:  # gradients are accumulated
            return
        self._latest_update_step = trainer.global_step
        average = self._average_model
        assert average is not None
        steps = int(average.n_averaged)
        decay = min(self.decay, (1 + steps) / (10 + steps)) if steps else 0.0
        averaged, trained = _values(average.module), _values(pl_module)
        floating = [value.is_floating_point() for value in averaged]
        counters = [not one for one in floating]
        torch._foreach_lerp_([*compress(averaged, floating)], [*compress(trained, floating)], 1 - decay)
        if any(counters):
            torch._foreach_copy_([*compress(averaged, counters)], [*compress(trained, counters)])
        average.n_averaged += 1

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validate the average; after training the best weights are in place."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Train on with the trained weights."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_end(trainer, pl_module)


def _values(module: torch.nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
