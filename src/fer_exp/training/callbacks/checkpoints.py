"""The checkpoints of a run: the best epoch's, and the last one's to go on from."""

import os
import shutil
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch import callbacks

from fer_exp.files import replacing
from fer_exp.metrics import describe
from fer_exp.runs.record import is_finite


class Checkpoints(callbacks.Checkpoint):
    """Saves ``last.ckpt`` after each epoch, and keeps the best epoch's as ``best.ckpt``.

    An epoch whose loss is not finite is not saved. Each file is replaced whole: a run that is killed while it saves
    leaves the one before. Lightning's ModelCheckpoint saves its ``last.ckpt`` only when the best is saved, and
    forgets the best score when a run is resumed in another folder. A run that is resumed with another monitor begins
    anew with its best.

    Args:
        folder: where the files go.
        monitor: name of the figure whose best epoch is kept; the first of equals.
    """

    def __init__(self, folder: str | Path, monitor: str) -> None:
        self.folder = Path(folder)
        self.monitor = monitor
        self.sign = 1 if describe(monitor).direction == "max" else -1
        self.best_value: float | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make the folder, and take over the best checkpoint of a run that is resumed in a new one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if trainer.ckpt_path is not None:
            best = Path(trainer.ckpt_path).parent / "best.ckpt"
            if best.is_file() and best.resolve().parent != self.folder.resolve():
                self._copy(best, "best.ckpt")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the epoch."""
        if not is_finite(trainer.callback_metrics):
            return
        value = float(trainer.callback_metrics[self.monitor])
        is_best = self.best_value is None or self.sign * value > self.sign * self.best_value
        if is_best:
            self.best_value = value
        # The best first: last.ckpt knows of it, and a run that is killed between the two does this epoch again.
        name = "best.ckpt" if is_best else "last.ckpt"
        with replacing(self.folder / name) as draft:
            trainer.save_checkpoint(draft)
        if is_best:
            self._copy(self.folder / "best.ckpt", "last.ckpt")

    def _copy(self, source: Path, name: str) -> None:
        with replacing(self.folder / name) as draft:
            try:
                os.link(source, draft)  # at once: as files are replaced and never written to, two names may share one
            except OSError:  # not on every file system
                shutil.copyfile(source, draft)

    def state_dict(self) -> dict[str, Any]:
        """The best so far, for a run that is resumed."""
        return {"monitor": self.monitor, "best_value": self.best_value}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the best of the run that is resumed, unless it is another figure's."""
        if state_dict.get("monitor", self.monitor) == self.monitor:
            self.best_value = state_dict["best_value"]
