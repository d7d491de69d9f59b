"""The checkpoints of a run: ``best.ckpt`` and ``last.ckpt``."""

import logging
import os
import shutil
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch import callbacks

from fer_exp.errors import UserError
from fer_exp.files import replacing
from fer_exp.runs.checkpoint import load_checkpoint
from fer_exp.training.callbacks.history import HistoryCallback

log = logging.getLogger(__name__)


class Checkpoints(callbacks.Checkpoint):
    """Saves ``last.ckpt`` after each epoch and the best epoch as ``best.ckpt``, whose weights it loads at the end.

    The best epoch is the one of ``HistoryCallback``. An epoch whose loss is not finite is not saved. Files are replaced
    as a whole, so a run that is killed while saving leaves the previous ones. (Lightning's ModelCheckpoint saves its
    ``last.ckpt`` only together with the best, and forgets the best score if a run is resumed in another folder.)

    Args:
        folder: where the files go.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Create the folder; if a run is resumed in a new folder, copy its best checkpoint."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if trainer.ckpt_path is not None:
            self._find_best(Path(trainer.ckpt_path), _history(trainer))

    def _find_best(self, resumed: Path, history: HistoryCallback) -> None:
        """Make ``best.ckpt`` hold the best epoch before the resumed one, as the resumed checkpoint names it.

        A file beside the resumed one may belong to another run, or to a later epoch of the same run.
        """
        best = self.folder / "best.ckpt"
        run_id, wanted = history.record.summary["run_id"], history.best_epoch
        if wanted is None or _identity(best) == (run_id, wanted):
            return
        resumed_run, _ = _identity(resumed) or (None, 0)
        candidates = (best, resumed.parent / "best.ckpt", resumed)
        source = next((path for path in candidates if _identity(path) == (resumed_run, wanted)), None)
        if source is not None:
            content = torch.load(source, map_location="cpu", weights_only=True)
            content["hyper_parameters"]["run_id"] = run_id
            with replacing(best) as draft:
                torch.save(content, draft)
            return
        log.warning(
            "Warning: %s has no checkpoint of epoch %d, the best epoch so far: best.ckpt will hold the best of the "
            "epochs that follow.",
            resumed.parent,
            wanted,
        )
        history.skip = len(history.rows)
        best.unlink(missing_ok=True)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the epoch."""
        history = _history(trainer)
        if history.diverged:
            return
        is_best = history.best_epoch == trainer.current_epoch + 1
        # best.ckpt first: last.ckpt refers to it, and a run that is killed in between trains this epoch again.
        name = "best.ckpt" if is_best else "last.ckpt"
        with replacing(self.folder / name) as draft:
            trainer.save_checkpoint(draft)
        if is_best:
            self._copy(self.folder / "best.ckpt", "last.ckpt")

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Load the best weights."""
        self._load_best(trainer, pl_module)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Load the best weights after Ctrl-C or SIGTERM."""
        if isinstance(exception, KeyboardInterrupt | SystemExit):
            self._load_best(trainer, pl_module)

    def _load_best(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        history = _history(trainer)
        if history.best_epoch is not None and (self.folder / "best.ckpt").is_file():
            best = torch.load(self.folder / "best.ckpt", map_location=module.device, weights_only=True, mmap=True)
            module.load_state_dict(best["state_dict"])
            history.loaded_epoch = history.best_epoch

    def _copy(self, source: Path, name: str) -> None:
        with replacing(self.folder / name) as draft:
            try:
                os.link(source, draft)  # files are replaced and never written to, so two names may share one
            except OSError:  # not on every file system
                shutil.copyfile(source, draft)


def _history(trainer: L.Trainer) -> HistoryCallback:
    own = trainer.callbacks  # type: ignore[attr-defined]
    return next(callback for callback in own if isinstance(callback, HistoryCallback))


def _identity(checkpoint: Path) -> tuple[str, int] | None:
    """The run id and the epoch (from 1) of a checkpoint; None if it cannot be read."""
    try:
        content = load_checkpoint(checkpoint)
    except UserError:
        return None
    return str(content["hyper_parameters"]["run_id"]), int(content["epoch"]) + 1
