"""The two checkpoints of a run: the best epoch's, and the last one's to go on from."""

import os
import shutil
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch import callbacks

from fer_exp.records import DIRECTION


class Checkpoints(callbacks.Checkpoint):
    """Saves ``last.ckpt`` after each epoch, and keeps the best epoch's as ``best.ckpt``.

    Each is replaced whole: a run that is killed while it saves leaves the one before. Lightning's ModelCheckpoint
    saves its ``last.ckpt`` only when the best is saved, and forgets the best score when a run is resumed in another
    folder. Lightning calls this after the other callbacks, so that what they did in the epoch is in the file.

    Args:
        folder: where the files go.
        monitor: name of the figure whose best epoch is kept; the first of equals.
    """

    def __init__(self, folder: str | Path, monitor: str) -> None:
        self.folder = Path(folder)
        self.monitor = monitor
        self.sign = 1 if DIRECTION[monitor] == "max" else -1
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
        value = float(trainer.callback_metrics[self.monitor])
        is_best = self.best_value is None or self.sign * value > self.sign * self.best_value
        if is_best:
            self.best_value = value
        part = self.folder / ".last.ckpt.part"
        trainer.save_checkpoint(part)
        _replace(part, self.folder / "last.ckpt")
        if is_best:
            self._copy(self.folder / "last.ckpt", "best.ckpt")

    def _copy(self, source: Path, name: str) -> None:
        part = self.folder / f".{name}.part"
        shutil.copyfile(source, part)
        _replace(part, self.folder / name)

    def state_dict(self) -> dict[str, Any]:
        """The best so far, for a run that is resumed."""
        return {"best_value": self.best_value}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the best of the run that is resumed."""
        self.best_value = state_dict["best_value"]


def _replace(part: Path, path: Path) -> None:
    """Put a finished file in its place once its content has reached the disk."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(path)
