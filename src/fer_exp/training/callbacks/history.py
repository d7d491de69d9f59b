"""The run record and the log line of each epoch."""

import logging
import math
import time
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch import callbacks
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from fer_exp.errors import plural
from fer_exp.metrics import METRICS, format_value
from fer_exp.runs.record import Row, RunRecord, best_row, is_finite
from fer_exp.training.callbacks.early_stopping import EarlyStopping
from fer_exp.training.module import Classifier

log = logging.getLogger(__name__)


class HistoryCallback(callbacks.Checkpoint):
    """Writes a row of the history and logs a line each epoch; finds the best epoch; stops a run that diverges.

    A row has ``METRICS`` and every other scalar that a callback or the module logged in the epoch.

    Lightning calls ``Checkpoint`` callbacks last. This one comes before ``Checkpoints``, whose checkpoints hold its
    state.

    Args:
        record: where the history goes.
        start: when the run began, on the clock of ``time.perf_counter``.
    """

    def __init__(self, record: RunRecord, start: float) -> None:
        self.record = record
        self.start = start
        self.monitor = str(record.summary["monitor"])
        self.rows: list[Row] = []
        self.skip = 0  # first epochs without weights to return to: see Checkpoints
        self.diverged: str | None = None
        self.loaded_epoch: int | None = None  # of best.ckpt, after training; None without callbacks.checkpoints
        self.earlier_metrics: dict[str, Tensor] = {}  # trainer.callback_metrics before the epoch

    @property
    def seconds(self) -> float:
        """Seconds since the run began, including those of the run that it resumed."""
        return time.perf_counter() - self.start

    @property
    def best(self) -> Row | None:
        """The row of the best epoch."""
        return best_row(self.rows[self.skip :], self.monitor)

    @property
    def best_epoch(self) -> int | None:
        """The number of the best epoch, from 1."""
        best = self.best
        return None if best is None else int(best["epoch"])

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin the record, with the epochs of a resumed run."""
        self.record.write_epochs(self.rows, self.skip)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the epoch's clock."""
        self._epoch_start = time.perf_counter()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the training clock and start the validation clock."""
        if trainer.state.fn == TrainerFn.FITTING:
            if pl_module.device.type == "cuda":
                torch.cuda.synchronize()  # steps still in the GPU's queue are training, not validation
            self._validation_start = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record and log the epoch."""
        now = time.perf_counter()
        row: Row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            **_epoch_metrics(trainer, self.earlier_metrics),
            "train_seconds": round(self._validation_start - self._epoch_start, 3),
            "val_seconds": round(now - self._validation_start, 3),
        }
        self.rows.append(row)
        events = self._events(trainer, row)
        self.record.write_epochs(self.rows, self.skip)
        log.info("%s", format_epoch(row, trainer.max_epochs))
        for event in events:
            log.info("  %s", event)

    def _events(self, trainer: L.Trainer, row: Row) -> list[str]:
        if not is_finite(row):
            self.diverged = self._describe_divergence(trainer, row)
            trainer.should_stop = True
            return [f"Diverged: {self.diverged}."]
        events = []
        if self.best_epoch == row["epoch"]:
            events.append(f"Best {self.monitor} so far: {format_value(self.monitor, row[self.monitor])}")
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        # Schedules that step with the optimizer change it all the time.
        if lr < row["lr"] and all(config.interval == "epoch" for config in trainer.lr_scheduler_configs):
            events.append(f"Learning rate reduced to {lr:.1e}")
        if stopping := _stopped(trainer):
            patience = plural(stopping.patience, "epoch")
            events.append(f"Early stopping: {stopping.monitor} has not improved for {patience}")
        return events

    def _describe_divergence(self, trainer: L.Trainer, row: Row) -> str:
        classifier = trainer.lightning_module
        assert isinstance(classifier, Classifier)
        step = row["step"]
        if not math.isfinite(row["train_loss"]):
            what = "the training loss"
            finite_steps = int(classifier.train_metrics.finite_batches) // trainer.accumulate_grad_batches
            step = min(step, (self.rows[-2]["step"] if len(self.rows) > 1 else 0) + finite_steps + 1)
        else:
            what = "the validation loss" if classifier.is_finite() else "a weight"
        return (
            f"{what} became infinite or NaN in epoch {row['epoch']} (step {step}, learning rate {row['lr']:.1e}). "
            "Try a smaller optimizer.lr"
        )

    def stopped_by(self, trainer: L.Trainer) -> str:
        """Why the training ended."""
        if self.diverged:
            return "divergence"
        if _stopped(trainer):
            return "early_stopping"
        return "max_epochs" if len(self.rows) >= (trainer.max_epochs or 0) else "another_callback"

    def state_dict(self) -> dict[str, Any]:
        """The history so far, for a run that resumes."""
        return {"rows": self.rows, "seconds": self.seconds, "skip": self.skip}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the history of the resumed run."""
        self.rows = [dict(row) for row in state_dict["rows"]]
        self.start -= state_dict["seconds"]
        self.skip = state_dict["skip"]


def format_epoch(row: Row, max_epochs: int | None) -> str:
    """The log line of an epoch: its metrics and the learning rate."""
    own = {"epoch", "step", "lr", "train_seconds", "val_seconds"}
    metrics = [*METRICS, *(name for name in row if name not in METRICS and name not in own)]
    parts = [f"{name.removeprefix('train_')} {format_value(name, row[name])}" for name in metrics if name in row]
    seconds = row["train_seconds"] + row["val_seconds"]
    return " - ".join([f"Epoch {row['epoch']}/{max_epochs}", f"{seconds:.0f} s", *parts, f"lr {row['lr']:.1e}"])


def _epoch_metrics(trainer: L.Trainer, earlier: Mapping[str, Tensor]) -> Row:
    """``lr``, ``METRICS`` and all other scalars logged in the epoch; of a metric logged per step too, the mean.

    Lightning retains the tensors of ``earlier`` metrics that are not logged again.
    """
    logged = {name: value for name, value in trainer.callback_metrics.items() if value is not earlier.get(name)}
    forked = {f"{name}{end}" for name in logged for end in ("_step", "_epoch") if f"{name}_epoch" in logged}
    names = ["lr", *(n for n in METRICS if n in logged), *(n for n in logged if n not in METRICS and n != "lr")]
    return {name: float(logged[name]) for name in names if name not in forked and logged[name].numel() == 1}


def _stopped(trainer: L.Trainer) -> EarlyStopping | None:
    own = trainer.callbacks  # type: ignore[attr-defined]
    return next((c for c in own if isinstance(c, EarlyStopping) and c.stopped), None)
