"""A run's folder: whether it may be written to, what an earlier try left there, and who holds it."""

import logging
import math
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from fer_exp.config.schema import plain
from fer_exp.errors import UserError, join_first
from fer_exp.files import DRAFT, expand_path
from fer_exp.runs.record import FINISHED, HISTORY, SUMMARY, config_diff, read_summary

log = logging.getLogger(__name__)

# What a run writes to its folder, beside Hydra's files and drafts; all else there is somebody's, and is left alone.
_PICTURES = {f"{name}.png" for name in ("samples", "augmentation", "model", "curves", "confusion_matrix")}
_WRITTEN = {SUMMARY, HISTORY, "checkpoints", "tensorboard", *_PICTURES}
_claimed: set[Path] = set()  # folders that this process holds


def check_folder(folder: Path, resume: str | None, config: Mapping[str, Any]) -> None:
    """See to it that no run writes over another's record, nor among other files.

    Args:
        folder: of the run.
        resume: as in the configuration: None, a checkpoint, or ``auto`` to go on with what lies in ``folder``.
        config: the run's configuration, plain and unresolved.

    Raises:
        UserError: ``folder`` is a file, or holds files and is not the folder of the run that is to be resumed, or
            another process is training there.
    """
    blocking = next((path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()), None)
    if blocking is not None:
        raise UserError(f"{blocking} is a file: choose another hydra.run.dir.")
    if _is_held(folder):
        raise _held(folder)
    names = {path.name for path in folder.iterdir() if not is_hydras(path)} if folder.is_dir() else set()
    if not names:
        return
    if resume == "auto" and SUMMARY in names:
        _check_same_run(folder, _read_summary(folder), config)
    elif resume == "auto":
        _check_own(folder)
    elif resume is None or folder.resolve() != run_of(resume):
        held = "the record of another run" if SUMMARY in names else "other files"
        hint = "; resume=auto goes on with it" if SUMMARY in names else ""
        raise UserError(f"{folder} holds {held}: choose another hydra.run.dir, or remove it{hint}.")


def check_output_dir(cfg: DictConfig) -> None:
    """Raise UserError if ``output_dir`` is not Hydra's run folder: the log and the config are there already."""
    given, folder = cfg.get("output_dir"), HydraConfig.get().runtime.output_dir
    if isinstance(given, str) and Path(given).resolve() != Path(folder).resolve():
        key = "hydra.sweep.dir" if HydraConfig.get().mode == RunMode.MULTIRUN else "hydra.run.dir"
        raise UserError(f"output_dir={given}: choose the folder with {key}={given}")


def run_of(checkpoint: str | Path) -> Path:
    """The folder of the run that a ``checkpoints/last.ckpt`` is of."""
    return expand_path(checkpoint).resolve().parent.parent


def find_resume_state(folder: Path, config: Mapping[str, Any]) -> tuple[str, Path | None]:
    """What an earlier try left of this run. What is of no use in its folder is taken away.

    Args:
        folder: of the run.
        config: the run's configuration, plain and unresolved, as the record holds it.

    Returns:
        ``("finished", None)``, ``("resume", checkpoint)`` or ``("new", None)``.

    Raises:
        UserError: what lies there was made with other settings, or there is nothing to go on from, and files are in the
            way that no run wrote.
    """
    last = folder / "checkpoints/last.ckpt"
    if (folder / SUMMARY).exists():
        summary = _read_summary(folder)
        if summary["status"] in FINISHED or last.exists():
            _check_same_run(folder, summary, config)
        if summary["status"] in FINISHED:
            return "finished", None
    if last.exists():
        for draft in folder.rglob(f"*{DRAFT}"):
            draft.unlink()
        return "resume", last
    if folder.is_dir():
        _check_own(folder)
        for path in folder.iterdir():
            if not is_hydras(path):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return "new", None


def find_run_id(folder: Path) -> str:
    """The run id of the record in ``folder``, which a resumed run continues; a new one if there is none."""
    with suppress(OSError, ValueError):
        return str(read_summary(folder)["run_id"])
    return uuid.uuid4().hex


def prepare_resume(cfg: DictConfig, folder: Path) -> bool:
    """Make a run with ``resume=auto``, or a job of a sweep, resume what an earlier try left in its folder.

    Returns:
        Whether there is something to train; False if the earlier try finished the run.

    Raises:
        UserError: the folder holds another run.
    """
    if cfg.resume != "auto" and HydraConfig.get().mode != RunMode.MULTIRUN:
        return True
    found, checkpoint = find_resume_state(folder, plain(cfg))
    if found == "finished":
        log.info("This run has finished already.")
        return False
    if checkpoint is not None:
        log.info("Resuming from %s.", checkpoint)
        cfg.resume = str(checkpoint)
    elif cfg.resume == "auto":
        log.info("Nothing to resume in %s: starting a new run.", folder)
        cfg.resume = None
    return True


def read_result(folder: Path) -> float:
    """The validation accuracy of a finished run's best epoch; NaN if it has none."""
    best = read_summary(folder)["best"]
    return float(best["val_acc"]) if best else math.nan


def _check_own(folder: Path) -> None:
    names = {path.name for path in folder.iterdir() if not is_hydras(path)} - _WRITTEN
    if foreign := sorted(name for name in names if not name.endswith(DRAFT)):
        raise UserError(
            f"{folder} holds files that no run wrote ({join_first(foreign, 3)}): move them, or choose another folder."
        )


@contextmanager
def claim(folder: Path, otherwise: str = "choose another hydra.run.dir") -> Iterator[None]:
    """Hold the folder of a run while it trains; the system lets go of it when the process ends, however it ends.

    Args:
        folder: of the run.
        otherwise: what a person may do where it cannot be written.

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    lock = FileLock(folder / ".hydra/lock")
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise _held(folder) from error
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}): {otherwise}.") from error
    held = folder.resolve()
    _claimed.add(held)
    try:
        yield
    finally:
        _claimed.remove(held)
        lock.release()


def check_unused(folder: Path, log_file: str) -> None:
    """See to it that a command that writes to a folder of its own writes over nothing.

    Args:
        folder: of the command; its log file alone may be there.
        log_file: the name of that.

    Raises:
        UserError: ``folder`` is a file, or holds others.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: choose another hydra.run.dir.")
    if folder.is_dir() and {path.name for path in folder.iterdir()} - {log_file}:
        raise UserError(f"{folder} holds other files: choose another hydra.run.dir, or remove it.")


def _is_held(folder: Path) -> bool:
    """Whether another process is training in ``folder``."""
    lock = folder / ".hydra/lock"
    if folder.resolve() in _claimed or not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # where nothing can be written nobody trains
        return False


def _held(folder: Path) -> UserError:
    return UserError(f"{folder}: another process is training in this folder; choose another, or wait.")


def is_hydras(path: Path) -> bool:
    """Whether Hydra wrote this to a run's folder before the run began."""
    return path.name == ".hydra" or path.suffix == ".log"


def discard(folder: Path) -> None:
    """Take away what Hydra wrote for a command that came to nothing, and nothing else: the folder may be an old one."""
    if not folder.is_dir() or _is_held(folder) or not all(is_hydras(path) for path in folder.iterdir()):
        return
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).parent == folder.absolute():
            handler.close()  # Windows removes no file that is open
            Path(handler.baseFilename).unlink(missing_ok=True)
    shutil.rmtree(folder / ".hydra", ignore_errors=True)
    with suppress(OSError):  # a log of somebody else's keeps the folder
        folder.rmdir()


def _read_summary(folder: Path) -> dict[str, Any]:
    try:
        return read_summary(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / SUMMARY} cannot be read ({error}): choose another folder, or remove it.") from error


def _check_same_run(folder: Path, summary: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    before = summary.get("config")
    if before is not None and (changed := config_diff(before, config)):
        raise UserError(
            f"{folder} holds the record of a run with other settings ({'; '.join(changed)}): give the same, or choose "
            f"another folder."
        )
