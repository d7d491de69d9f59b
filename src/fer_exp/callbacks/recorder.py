"""The run record and the printed line of each epoch."""

import logging
import math
import time
from typing import Any

import lightning as L

from fer_exp.callbacks.early_stopping import EarlyStopping, RestoreBestWeights
from fer_exp.records import Row, RunRecord, best_row

log = logging.getLogger(__name__)

FIGURES = ("train_loss", "train_acc", "val_loss", "val_acc", "val_macro_f1")


class Recorder(L.Callback):
    """Writes a row of the history, and prints a line, each epoch; ends a run whose loss is no longer finite.

    It must be the last of the callbacks but for checkpoints: it tells what the others did.

    Args:
        record: where the history goes.
    """

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.rows: list[Row] = []
        self.diverged: str | None = None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the epoch's clock."""
        self._epoch_start = time.perf_counter()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the training clock and start the validation's."""
        self._validation_start = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record and print the epoch."""
        now = time.perf_counter()
        figures = {name: float(trainer.callback_metrics[name]) for name in FIGURES}
        row: Row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "lr": float(trainer.callback_metrics["lr"]),
            **figures,
            "train_seconds": round(self._validation_start - self._epoch_start, 3),
            "val_seconds": round(now - self._validation_start, 3),
        }
        previous_best = best_row(self.rows)
        self.rows.append(row)
        self.record.write_epochs(self.rows)
        log.info("%s", format_epoch(row, trainer.max_epochs))
        self._tell_events(trainer, row, previous_best)

    def _tell_events(self, trainer: L.Trainer, row: Row, previous_best: Row | None) -> None:
        if not all(math.isfinite(row[name]) for name in FIGURES):
            self.diverged = (
                f"the loss was no longer finite in epoch {row['epoch']} "
                f"(step {row['step']}, learning rate {row['lr']:.1e}); a smaller optimizer.lr may help"
            )
            log.info("  Diverged: %s.", self.diverged)
            trainer.should_stop = True
            return
        if previous_best is None or row["val_acc"] > previous_best["val_acc"]:
            log.info("  New best val_acc %.4f", row["val_acc"])
        if (lr := _learning_rate(trainer)) < row["lr"]:
            log.info("  Learning rate cut to %.1e", lr)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping) and callback.stopped:
                log.info(
                    "  Early stopping: %s has not improved for %d epochs",
                    callback.monitor,
                    callback.patience,
                )

    def state_dict(self) -> dict[str, Any]:
        """The history so far, for a run that is resumed."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the history of the run that is resumed."""
        self.rows = [dict(row) for row in state_dict["rows"]]

    def outcome(self, trainer: L.Trainer) -> dict[str, Any]:
        """How the training ended, as facts for the summary: ``stopped_by`` and ``restored``."""
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        if self.diverged:
            stopped_by = "divergence"
        elif any(isinstance(c, EarlyStopping) and c.stopped for c in callbacks):
            stopped_by = "early_stopping"
        else:
            stopped_by = "max_epochs"
        restored = next((c.best_epoch for c in callbacks if isinstance(c, RestoreBestWeights)), None)
        return {
            "stopped_by": stopped_by,
            "restored": next((row for row in self.rows if row["epoch"] == restored), None),
        }


def format_epoch(row: Row, max_epochs: int | None) -> str:
    """One line with the notebook's figures."""
    seconds = row["train_seconds"] + row["val_seconds"]
    return (
        f"Epoch {row['epoch']}/{max_epochs} - {seconds:.0f}s"
        f" - loss {row['train_loss']:.4f} - acc {row['train_acc']:.4f}"
        f" - val_loss {row['val_loss']:.4f} - val_acc {row['val_acc']:.4f}"
        f" - lr {row['lr']:.1e}"
    )


def _learning_rate(trainer: L.Trainer) -> float:
    return float(trainer.optimizers[0].param_groups[0]["lr"])
