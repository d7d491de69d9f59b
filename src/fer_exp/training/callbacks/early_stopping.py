"""Early stopping."""

from typing import Any

import lightning as L
from lightning.pytorch import callbacks

from fer_exp.metrics import describe
from fer_exp.training.module import monitored_value


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's early stopping, with the direction from ``METRICS`` and Keras's strict "better".

    Args:
        monitor: name of the metric.
        patience: number of epochs in a row without improvement that end the run.
        min_delta: the smallest difference that counts as an improvement.

    Raises:
        ValueError: ``patience`` is below 1, or ``min_delta`` is negative.
    """

    def __init__(self, monitor: str, patience: int, min_delta: float = 0.0) -> None:
        if patience < 1:
            raise ValueError(f"patience={patience}: expected an integer >= 1")
        if min_delta < 0:
            raise ValueError(f"min_delta={min_delta}: expected a number >= 0")
        # HistoryCallback handles values that are not finite: such a run diverged.
        super().__init__(monitor, min_delta, patience, mode=describe(monitor).direction, check_finite=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counters of an earlier run, but not its patience."""
        patience = self.patience
        super().load_state_dict(state_dict)
        self.patience = patience
        self.stopped_epoch = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Do not train if the resumed run had stopped already and was killed before it finished."""
        trainer.should_stop = trainer.should_stop or self.stopped

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count an epoch without improvement."""
        monitored_value(trainer, self.monitor)  # raises for a metric that was not logged
        super().on_train_epoch_end(trainer, pl_module)

    @property
    def stopped(self) -> bool:
        """Whether the patience has run out."""
        return self.wait_count >= self.patience
