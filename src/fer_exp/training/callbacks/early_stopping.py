"""Early stopping, and the weights that a stopped or finished training goes back to."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch import callbacks
from torch import Tensor

from fer_exp.files import replacing
from fer_exp.metrics import describe
from fer_exp.runs.record import is_finite
from fer_exp.training.callbacks.ema import validated_weights


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's early stopping, with the direction read from the figure's name, and Keras's strict "better".

    Args:
        monitor: name of the figure.
        patience: number of epochs in a row without a better value that end the run.
        min_delta: by how much a value must be better, in the figure's unit.

    Raises:
        ValueError: ``patience`` is below 1.
    """

    def __init__(self, monitor: str, patience: int, min_delta: float = 0.0) -> None:
        if patience < 1:
            raise ValueError(f"patience={patience}: expected a whole number from 1 up")
        # A value that is not finite is the recorder's business: such a run has diverged, it was not stopped.
        super().__init__(monitor, min_delta, patience, mode=describe(monitor).direction, check_finite=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the counters of an earlier run, and keep the patience that was configured now."""
        patience = self.patience
        super().load_state_dict(state_dict)
        self.patience = patience
        self.stopped_epoch = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Train no further where the run that is resumed had been stopped, and killed before its end."""
        trainer.should_stop = trainer.should_stop or self.stopped

    @property
    def stopped(self) -> bool:
        """Whether the patience has run out."""
        return self.wait_count >= self.patience


class RestoreBestWeights(L.Callback):
    """Puts the weights of the best epoch back when training ends or is interrupted, and saves them.

    Keras restores only when early stopping fired; a run that used up its epochs kept its last weights. A run that is
    resumed with another monitor looks for its best among the epochs that follow.

    Args:
        monitor: name of the figure whose best epoch is meant; the first of equals.
        path: where the restored weights are saved.
    """

    def __init__(self, monitor: str, path: str | Path) -> None:
        self.monitor = monitor
        self.path = Path(path)
        self.sign = 1 if describe(monitor).direction == "max" else -1
        self.best_value: float | None = None
        self.best_epoch: int | None = None
        self.weights: dict[str, Tensor] = {}

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep a copy of the weights if this epoch is the best so far."""
        value = float(trainer.callback_metrics[self.monitor])
        is_best = self.best_value is None or self.sign * value > self.sign * self.best_value
        if is_best and is_finite(trainer.callback_metrics):
            self.best_value, self.best_epoch = value, trainer.current_epoch + 1
            self.weights = {name: w.detach().clone() for name, w in validated_weights(trainer, pl_module).items()}

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore."""
        self._restore(trainer, pl_module)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Restore when a person, or with SIGTERM a machine, ends the training."""
        if isinstance(exception, KeyboardInterrupt | SystemExit):
            self._restore(trainer, pl_module)

    def _restore(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.weights:
            module.load_state_dict(self.weights)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as draft:
                trainer.save_checkpoint(draft, weights_only=True)

    def state_dict(self) -> dict[str, Any]:
        """The best so far, for a run that is resumed."""
        return {
            "monitor": self.monitor,
            "best_value": self.best_value,
            "best_epoch": self.best_epoch,
            "weights": self.weights,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the best of the run that is resumed, unless it is another figure's."""
        if state_dict.get("monitor", self.monitor) != self.monitor:
            return
        self.best_value, self.best_epoch = state_dict["best_value"], state_dict["best_epoch"]
        self.weights = {name: torch.as_tensor(w) for name, w in state_dict["weights"].items()}
