"""The run record and the printed line of each epoch."""

import logging
import math
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch import callbacks
from lightning.pytorch.trainer.states import TrainerFn

from fer_exp.runs.record import Row, RunRecord, best_row, is_finite
from fer_exp.training.callbacks.early_stopping import EarlyStopping, RestoreBestWeights
from fer_exp.training.module import Classifier

log = logging.getLogger(__name__)

FIGURES = ("lr", "train_loss", "train_acc", "val_loss", "val_acc", "val_macro_f1")


class HistoryCallback(callbacks.Checkpoint):
    """Writes a row of the history, and prints a line, each epoch; ends a run whose loss is no longer finite.

    It tells what the others did, and its own state belongs in the checkpoint. So it is one of those callbacks that
    Lightning calls last, and stands before the one that saves.

    Args:
        record: where the history goes.
        start: when the run began, on the clock of ``time.perf_counter``.
    """

    def __init__(self, record: RunRecord, start: float) -> None:
        self.record = record
        self.start = start
        self.rows: list[Row] = []
        self.diverged: str | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the run began, those of the run that it resumed included."""
        return time.perf_counter() - self.start

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin the record, with the epochs of the run that is resumed."""
        self.record.write_epochs(self.rows)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the epoch's clock."""
        self._epoch_start = time.perf_counter()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the training clock and start the validation's."""
        if trainer.state.fn == TrainerFn.FITTING:
            if pl_module.device.type == "cuda":
                torch.cuda.synchronize()  # steps still in the GPU's queue are training, not validation
            self._validation_start = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record and print the epoch."""
        now = time.perf_counter()
        row: Row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            **{name: float(trainer.callback_metrics[name]) for name in FIGURES},
            "train_seconds": round(self._validation_start - self._epoch_start, 3),
            "val_seconds": round(now - self._validation_start, 3),
        }
        previous_best = best_row(self.rows, self.record.summary["monitor"])
        self.rows.append(row)
        self.record.write_epochs(self.rows)
        log.info("%s", format_epoch(row, trainer.max_epochs))
        for event in self._events(trainer, row, previous_best):
            log.info("  %s", event)

    def _events(self, trainer: L.Trainer, row: Row, previous_best: Row | None) -> list[str]:
        if not is_finite(row):
            self.diverged = self._describe_divergence(trainer, row)
            trainer.should_stop = True
            return [f"Diverged: {self.diverged}."]
        events = []
        if previous_best is None or row["val_acc"] > previous_best["val_acc"]:
            events.append(f"New best val_acc {row['val_acc']:.4f}")
        by_epochs = all(config.interval == "epoch" for config in trainer.lr_scheduler_configs)  # others fall all along
        if by_epochs and (lr := trainer.optimizers[0].param_groups[0]["lr"]) < row["lr"]:
            events.append(f"Learning rate cut to {lr:.1e}")
        if stopping := _stopped(trainer):
            events.append(f"Early stopping: no better {stopping.monitor} in {stopping.patience} epochs")
        return events

    def _describe_divergence(self, trainer: L.Trainer, row: Row) -> str:
        classifier = trainer.lightning_module
        assert isinstance(classifier, Classifier)
        before = self.rows[-2] if len(self.rows) > 1 else None
        step = row["step"]
        if not math.isfinite(row["train_loss"]):
            lost = "the training loss was"
            finite_steps = classifier.train_metrics.finite_batches // trainer.accumulate_grad_batches
            step = min(step, (before["step"] if before else 0) + finite_steps + 1)
        else:
            lost = "the validation loss was" if classifier.is_finite() else "the weights were"
        last = (
            f"epoch {before['epoch']} was the last with finite figures: loss {before['train_loss']:.4f}, "
            f"val_loss {before['val_loss']:.4f}, val_acc {before['val_acc']:.4f}"
            if before
            else "no epoch had finite figures"
        )
        return (
            f"{lost} no longer finite in epoch {row['epoch']} (step {step}, learning rate {row['lr']:.1e}); {last}. "
            "A smaller optimizer.lr may help"
        )

    def outcome(self, trainer: L.Trainer) -> dict[str, Any]:
        """How the training ended, as facts for the summary: ``stopped_by`` and ``restored``."""
        if self.diverged:
            stopped_by = "divergence"
        elif _stopped(trainer):
            stopped_by = "early_stopping"
        else:
            stopped_by = "max_epochs" if len(self.rows) >= (trainer.max_epochs or 0) else "another_callback"
        return {"stopped_by": stopped_by, "restored": self.restored_row(trainer)}

    def restored_row(self, trainer: L.Trainer) -> Row | None:
        """The epoch whose weights are put back at the end; None where that was not asked for."""
        epochs = [c.best_epoch for c in _callbacks(trainer) if isinstance(c, RestoreBestWeights)]
        return next((row for row in self.rows if row["epoch"] in epochs), None)

    def state_dict(self) -> dict[str, Any]:
        """The history so far, for a run that is resumed."""
        return {"rows": self.rows, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the history of the run that is resumed."""
        self.rows = [dict(row) for row in state_dict["rows"]]
        self.start -= state_dict["seconds"]


def format_epoch(row: Row, max_epochs: int | None) -> str:
    """One line with the notebook's figures."""
    seconds = row["train_seconds"] + row["val_seconds"]
    return (
        f"Epoch {row['epoch']}/{max_epochs} - {seconds:.0f}s"
        f" - loss {row['train_loss']:.4f} - acc {row['train_acc']:.4f}"
        f" - val_loss {row['val_loss']:.4f} - val_acc {row['val_acc']:.4f}"
        f" - lr {row['lr']:.1e}"
    )


def _callbacks(trainer: L.Trainer) -> list[L.Callback]:
    return trainer.callbacks  # type: ignore[attr-defined, no-any-return]


def _stopped(trainer: L.Trainer) -> EarlyStopping | None:
    return next((c for c in _callbacks(trainer) if isinstance(c, EarlyStopping) and c.stopped), None)
