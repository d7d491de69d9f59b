"""How a training starts, runs and ends: its log lines and warnings, and the status of the record in every case."""

import errno
import logging
import re
import shlex
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from fer_exp.config.paths import as_typed_in_a_shell, config_dir_options
from fer_exp.data.datamodule import ImageDataModule
from fer_exp.errors import UserError, one_line, plural
from fer_exp.files import quote_override
from fer_exp.metrics import METRICS, describe, format_value
from fer_exp.models.summary import Layer, format_layers
from fer_exp.runs.record import SUMMARY, RunRecord
from fer_exp.training.callbacks.history import HistoryCallback
from fer_exp.training.module import Classifier

log = logging.getLogger(__name__)

_NOT_WRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


@contextmanager
def collect_warnings() -> Iterator[list[str]]:
    """Collect the text of each warning that is logged, once."""
    texts: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage().removeprefix("Warning: ")
            if text not in texts:
                texts.append(text)

    handler = Collector(logging.WARNING)
    logger = logging.getLogger("fer_exp")
    logger.addHandler(handler)
    try:
        yield texts
    finally:
        logger.removeHandler(handler)


def log_start(record: RunRecord, network: nn.Module, layers: Sequence[Layer]) -> None:
    """Log the network and the optimizer; the layers in a table if there are any."""
    summary = record.summary
    params = summary["params"]
    counts = f"{params['trainable']:,} trainable and {params['non_trainable']:,} non-trainable parameters"
    log.info("Model: %s, %s.", type(network).__name__, counts)
    if layers:
        log.info("%s", format_layers(layers))
    log.info("Optimizer: %s. Seed: %d.", record.optimizer, summary["seed"])


def fit(
    trainer: L.Trainer, module: Classifier, datamodule: ImageDataModule, history: HistoryCallback, resume: str | None
) -> None:
    """Train, load the best weights and validate them. The record gets the status in every case.

    Raises:
        UserError: the folder was removed or cannot be written, the device's memory is full, or a callback or schedule
            does not fit the run.
        SystemExit: the training was interrupted.
    """
    with _record_failures(history):
        trainer.fit(module, datamodule=datamodule, ckpt_path=resume, weights_only=True)
        trainer.validate(module, datamodule=datamodule, verbose=False)
        history.record.finish(
            "diverged" if history.diverged else "completed",
            history.seconds,
            stopped_by=history.stopped_by(trainer),
            confusion=module.val_metrics.confusion.tolist() if history.loaded_epoch else None,
            error=history.diverged,
        )


def log_result(record: RunRecord) -> None:
    """Log how the training ended, and the metrics of the best epoch."""
    summary = record.summary
    status, reason = summary["status"].capitalize(), summary["stopped_by"].replace("_", " ")
    epochs, seconds = plural(summary["epochs"], "epoch"), summary["seconds"]["total"]
    log.info("")
    log.info("%s after %s (%s) in %.0f s.", status, epochs, reason, seconds)
    if best := summary["best"]:
        names = dict.fromkeys([*(name for name in METRICS if name.startswith("val_")), summary["monitor"]])
        metrics = ", ".join(f"{name} {format_value(name, best[name])}" for name in names)
        better = "lowest" if describe(summary["monitor"]).direction == "min" else "highest"
        log.info("Best epoch (%s %s): %d: %s", better, summary["monitor"], best["epoch"], metrics)
    if summary["missing"]:
        log.info("Not written because of errors: %s. See the warnings above.", ", ".join(summary["missing"]))


def log_next_steps(record: RunRecord) -> None:
    """Log where the results are and which commands may follow."""
    folder, source = record.folder, record.summary["data"]["source"]
    log.info("Results: %s", folder)
    commands = {}
    if "Synthetic" in str(source):
        commands["Train on your own images"] = "python -m fer_exp.train data=folders data.root=DIR"
    if sweep := _optimizer_sweep():
        commands["Compare optimizers"] = sweep
    commands["Evaluate this run"] = f"python -m fer_exp.evaluate {quote_override('run', folder)}"
    if (folder / "tensorboard").is_dir() and "TensorBoardLogger" not in record.summary["missing"]:
        commands["See the curves"] = f"tensorboard --logdir {shlex.quote(str(folder))}"
    for purpose, command in commands.items():
        log.info("  %-25s %s", purpose, command)


def _optimizer_sweep() -> str:
    """The command of this run as a sweep over optimizers; empty for a run that has the settings of a checkpoint."""
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    given = hydra.overrides.task if hydra else []
    if any(each.startswith("resume=") and each != "resume=auto" for each in given):
        return ""
    options = config_dir_options(hydra) if hydra else []
    kept = [each for each in given if not re.match(r"[+~]*(optimizer|seed|resume|output_dir)\b", each)]
    words = [*map(as_typed_in_a_shell, [*options, *kept]), "optimizer=adam,sgd,rmsprop"]
    return " ".join(["python -m fer_exp.train -m", *words])


@contextmanager
def _record_failures(history: HistoryCallback) -> Iterator[None]:
    record, folder = history.record, history.record.folder
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:
        with suppress(OSError):  # on a full disk the record stays as it was after the last epoch
            record.finish("interrupted", history.seconds)
        last = folder / "checkpoints/last.ckpt"
        hint = f" Resume with {quote_override('resume', last)}" if last.exists() else ""
        log.info("Interrupted after %s.%s", plural(len(history.rows), "epoch"), hint)
        # 128 + signal, as a shell reports it. Lightning exits with 1 after Ctrl-C and without a code after SIGTERM.
        is_sigint = isinstance(error, KeyboardInterrupt) or error.args == (1,)
        raise SystemExit(128 + (signal.SIGINT if is_sigint else signal.SIGTERM)) from error
    except Exception as error:
        if isinstance(error, UserError) and not (folder / SUMMARY).exists():
            raise  # the schedule does not fit the run: training has not begun
        if not folder.is_dir():
            raise UserError(f"{folder} was removed during the training, and the run's record with it.") from error
        with suppress(OSError):
            record.finish("failed", history.seconds, error=f"{type(error).__name__}: {error}")
        if problem := _user_problem(error, folder):
            raise UserError(problem) from error
        raise


def _user_problem(error: Exception, folder: Path) -> str | None:
    """What the user can fix, as a message; None for any other error."""
    if isinstance(error, torch.OutOfMemoryError):
        return f"the device's memory is full ({one_line(error)}); use a smaller data.batch_size"
    if isinstance(error, MisconfigurationException):  # Lightning's own callbacks raise it
        return f"callbacks: {one_line(error)}"
    # torch reports a checkpoint that cannot be written as a RuntimeError.
    is_unwritten = any(text in str(error) for text in ("PytorchStreamWriter", "iostream error"))
    if error.errno in _NOT_WRITABLE if isinstance(error, OSError) else is_unwritten:
        place, reason = getattr(error, "filename", None) or folder, getattr(error, "strerror", None) or error
        return (
            f"{place} cannot be written ({reason}). All completed epochs are saved. Free some space, then resume with "
            f"the same command, {quote_override('hydra.run.dir', folder)} and resume=auto"
        )
    return None
