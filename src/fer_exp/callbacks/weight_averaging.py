"""Averages of the weights, which are validated, kept and restored in place of the weights that are trained."""

import lightning as L
from lightning.pytorch import callbacks
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MovingAverage(callbacks.WeightAveraging):
    """An exponential moving average of weights and batch-norm statistics, by Lightning's own callback.

    Validation is of the averaged weights, and checkpoints hold them, beside those to go on from. Lightning's
    ``EMAWeightAveraging`` averages tensor by tensor; this does all of them in a few calls.

    Args:
        decay: share of the average that stays at each step: 0.999 looks back on about 1,000 steps.

    Raises:
        ValueError: ``decay`` is not in [0, 1).
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay}: expected a share in [0, 1)")
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay))

    def averaged(self) -> dict[str, Tensor]:
        """The averaged weights, under the names that the module's ``state_dict`` has."""
        assert self._average_model is not None
        return self._average_model.module.state_dict()


def validated_weights(trainer: L.Trainer, module: L.LightningModule) -> dict[str, Tensor]:
    """The weights that this epoch's validation was of: the averaged ones, where there are such."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, MovingAverage):
            return callback.averaged()
    return module.state_dict()
