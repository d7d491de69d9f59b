"""How a training runs and ends: the record gets the status in every case."""

import errno
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import lightning as L

from fer_exp.data.datamodule import ImageDataModule
from fer_exp.errors import UserError
from fer_exp.files import quote_override
from fer_exp.runs.record import SUMMARY
from fer_exp.training.callbacks.history import HistoryCallback
from fer_exp.training.module import Classifier

log = logging.getLogger(__name__)

_NOT_WRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


def fit(
    trainer: L.Trainer, module: Classifier, datamodule: ImageDataModule, history: HistoryCallback, resume: str | None
) -> None:
    """Train, load the best weights and validate them. The record gets the status in every case.

    Raises:
        UserError: the folder was removed or cannot be written, or a callback or schedule does not fit the run.
        SystemExit: the training was interrupted.
    """
    with _record_failures(history):
        trainer.fit(module, datamodule=datamodule, ckpt_path=resume, weights_only=True)
        trainer.validate(module, datamodule=datamodule, verbose=False)
        history.record.finish(
            "diverged" if history.diverged else "completed",
            history.seconds,
            stopped_by=history.stopped_by(trainer),
            confusion=module.val_metrics.confusion.tolist() if history.best_epoch else None,
            error=history.diverged,
        )


@contextmanager
def _record_failures(history: HistoryCallback) -> Iterator[None]:
    record, folder = history.record, history.record.folder
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:
        with suppress(OSError):  # on a full disk the record stays as it was after the last epoch
            record.finish("interrupted", history.seconds)
        epochs = len(history.rows)
        last = folder / "checkpoints/last.ckpt"
        hint = f" Resume with {quote_override('resume', last)}" if last.exists() else ""
        log.info("Interrupted after %d epoch%s.%s", epochs, "" if epochs == 1 else "s", hint)
        # 128 + signal, as a shell reports it. Lightning exits with 1 after Ctrl-C and without a code after SIGTERM.
        raise SystemExit(128 + (signal.SIGINT if error.args == (1,) else signal.SIGTERM)) from error
    except Exception as error:
        if isinstance(error, UserError) and not (folder / SUMMARY).exists():
            raise  # the schedule does not fit the run: training has not begun
        if not folder.is_dir():
            raise UserError(f"{folder} was removed during the training, and the run's record with it.") from error
        with suppress(OSError):
            record.finish("failed", history.seconds, error=f"{type(error).__name__}: {error}")
        if _is_about_writing(error):
            raise _not_writable(folder, error) from error
        raise


def _is_about_writing(error: Exception) -> bool:
    """Whether a file could not be written; torch reports it for checkpoints as a RuntimeError."""
    if isinstance(error, OSError):
        return error.errno in _NOT_WRITABLE
    return any(text in str(error) for text in ("PytorchStreamWriter", "iostream error"))


def _not_writable(folder: Path, error: Exception) -> UserError:
    return UserError(
        f"{folder} cannot be written ({getattr(error, 'strerror', None) or error}). All completed epochs are saved. "
        f"Free some space, then resume with the same command, {quote_override('hydra.run.dir', folder)} and resume=auto"
    )
