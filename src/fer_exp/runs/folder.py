"""A run's folder: whether a run may write there, its lock, and what an earlier attempt left."""

import errno
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

from fer_exp.config.paths import RECORDED_PATHS
from fer_exp.errors import UserError, join_first
from fer_exp.files import DRAFT, expand_path, quote_override
from fer_exp.runs.checkpoint import is_intact
from fer_exp.runs.config_diff import NEUTRAL_KEYS, config_diff
from fer_exp.runs.record import FINISHED, HISTORY, SUMMARY, SchemaError, digest, read_history, read_summary

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
LAST = f"{CHECKPOINTS}/last.ckpt"
LOCK = ".hydra/lock"
# Settings that a resumed run may change: its length, what happens around the training, and where its images are, whose
# fingerprint is compared.
RESUME_KEYS = NEUTRAL_KEYS | {"callbacks", "trainer.max_epochs", "trainer.accelerator", "trainer.precision"}
RESUME_KEYS |= {"data._target_", "data.on_unreadable", *(key for key in RECORDED_PATHS if key.startswith("data."))}
# What a run writes to its folder, beside Hydra's files and drafts. Other files belong to someone else.
_PLOTS = {f"{name}.png" for name in ("samples", "augmentation", "model", "curves", "confusion_matrix")}
_WRITTEN = {SUMMARY, HISTORY, CHECKPOINTS, "tensorboard", *_PLOTS}
# File systems without locks: NFS without lockd, some network drives.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def check_run_dir(folder: Path, resume: str | None, config: Mapping[str, Any]) -> None:
    """Check that a run overwrites neither another run nor other files.

    Args:
        folder: the run's folder.
        resume: None, a checkpoint, or ``auto`` to resume the run in ``folder``.
        config: the run's resolved config.

    Raises:
        UserError: ``folder`` is a file, is locked, or holds files and is not the run to resume.
    """
    blocking = next((path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()), None)
    if blocking is not None:
        raise UserError(f"{blocking} is a file: choose another hydra.run.dir.")
    if _is_locked(folder):
        raise _locked_error(folder)
    names = {path.name for path in folder.iterdir() if not is_hydra_file(path)} if folder.is_dir() else set()
    if not names:
        return
    if resume == "auto":
        _check_resumable(folder, config)
    elif resume is None or not is_run_of(resume, folder):
        content = "another run" if SUMMARY in names else "other files"
        hint = "; add resume=auto to resume it" if SUMMARY in names else ""
        raise UserError(f"{folder} holds {content}: choose another hydra.run.dir, or remove it{hint}.")


def check_output_dir(cfg: DictConfig) -> None:
    """Raise UserError if ``output_dir`` is not Hydra's folder of this command, where the log and the config are."""
    given, folder = cfg.get("output_dir"), HydraConfig.get().runtime.output_dir
    if isinstance(given, str) and Path(given).resolve() != Path(folder).resolve():
        key = "hydra.sweep.dir" if HydraConfig.get().mode == RunMode.MULTIRUN else "hydra.run.dir"
        raise UserError(f"output_dir={given}: choose the folder with {key}={given}")


def run_of(checkpoint: str | Path) -> Path:
    """The folder above the ``checkpoints/`` folder that a checkpoint is in. Links are not followed."""
    return expand_path(checkpoint).absolute().parent.parent


def is_run_of(checkpoint: str | Path, folder: Path) -> bool:
    """Whether ``folder`` is the run's folder of a checkpoint. Links and bind mounts give a folder several paths."""
    with suppress(OSError):
        return (run_of(checkpoint) / CHECKPOINTS).samefile(folder / CHECKPOINTS)
    return False


def find_resume_state(folder: Path, config: Mapping[str, Any]) -> tuple[str, Path | None]:
    """Find out how far an earlier attempt of a run got, and clean up after it.

    Args:
        folder: the run's folder.
        config: the run's resolved config.

    Returns:
        ``("finished", None)``, ``("resume", checkpoint)``, or ``("new", None)`` with an empty folder.

    Raises:
        UserError: the folder holds a run with another config, or files that no run wrote.
    """
    summary = _check_resumable(folder, config)
    remove_drafts(folder)
    if not summary:
        (folder / SUMMARY).unlink(missing_ok=True)  # damaged
    if summary.get("status") in FINISHED:
        if has_whole_history(folder, summary):
            return "finished", None
        log.warning("Warning: %s is damaged: the run is repeated from its last checkpoint.", folder / HISTORY)
    last = folder / LAST
    if last.exists() and is_intact(last):
        return "resume", last
    if last.exists():
        log.warning("Warning: %s is damaged: the run starts again from the first epoch.", last)
    for path in folder.iterdir() if folder.is_dir() else ():
        if not is_hydra_file(path):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return "new", None


def _check_resumable(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The summary of the run in ``folder``, empty if there is none; raise UserError if it cannot be resumed."""
    if not folder.is_dir():
        return {}
    summary: dict[str, Any] = {}
    try:
        summary = read_summary(folder)
    except FileNotFoundError:
        pass
    except (SchemaError, OSError) as error:
        raise UserError(f"{folder / SUMMARY} cannot be read ({error}): choose another folder.") from error
    except ValueError as error:
        log.warning("Warning: %s is damaged (%s) and will be replaced.", folder / SUMMARY, error)
    is_finished, has_checkpoint = summary.get("status") in FINISHED, (folder / LAST).exists()
    if summary and (is_finished or has_checkpoint):
        ignore = NEUTRAL_KEYS if is_finished else RESUME_KEYS
        if changed := config_diff(summary["config"], config, ignore):
            remedy = "Use the same settings or another folder."
            is_longer = config.get("trainer", {}).get("max_epochs", 0) > summary["epochs"]
            if is_longer and has_checkpoint and not config_diff(summary["config"], config, RESUME_KEYS):
                resume = quote_override("resume", folder / LAST)
                remedy += f" To train the run for more epochs in another folder, use {resume}."
            raise UserError(f"{folder} holds a run with other settings ({'; '.join(changed)}). {remedy}")
    if not has_checkpoint and not is_finished:
        _check_own_files(folder)
    return summary


def _check_own_files(folder: Path) -> None:
    names = {path.name for path in folder.iterdir() if not is_hydra_file(path)} - _WRITTEN
    if foreign := sorted(name for name in names if not name.endswith(DRAFT)):
        raise UserError(
            f"{folder} holds files that no run wrote ({join_first(foreign, 3)}): move them, or choose another folder."
        )


def has_whole_history(folder: Path, summary: Mapping[str, Any]) -> bool:
    """Whether ``history.csv`` is the one that ``summary.json`` was written with."""
    try:
        rows = read_history(folder)
    except (OSError, ValueError):
        return False
    return bool(summary["history"] == digest(rows))


def remove_drafts(folder: Path) -> None:
    """Remove the drafts that a killed process left in ``folder`` and in its ``checkpoints/``."""
    for place in (folder, folder / CHECKPOINTS):
        for draft in place.glob(f".*{DRAFT}"):
            draft.unlink(missing_ok=True)


@contextmanager
def lock_run_dir(folder: Path, hint: str = "choose another hydra.run.dir") -> Iterator[None]:
    """Lock a folder while this process writes to it. The system releases the lock when the process ends.

    On a file system without locks a warning is logged instead.

    Args:
        folder: of a run, a sweep or a report.
        hint: what to do if the folder cannot be written.

    Raises:
        UserError: another process has locked it, or it cannot be written.
    """
    lock = _file_lock(folder)
    try:
        (folder / LOCK).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise _locked_error(folder) from error
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise UserError(f"{folder} cannot be written ({error.strerror}): {hint}.") from error
        log.warning("Warning: %s cannot be locked (%s): start only one process there.", folder, error)
    try:
        yield
    finally:
        lock.release()


def _is_locked(folder: Path) -> bool:
    """Whether another process has locked ``folder``."""
    if not (folder / LOCK).exists():
        return False
    try:
        with _file_lock(folder).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # no locks, or a folder that cannot be written: no one trains there
        return False


def _file_lock(folder: Path) -> FileLock:
    """The lock of a folder: one object in this process, which it may acquire several times."""
    return FileLock(folder.resolve() / LOCK, is_singleton=True, thread_local=False)


def _locked_error(folder: Path) -> UserError:
    return UserError(f"{folder}: another process is using this folder. Wait until it ends, or choose another folder.")


def check_empty_dir(folder: Path, log_file: str) -> None:
    """Check that a command that writes to its own folder overwrites nothing.

    Args:
        folder: of the command.
        log_file: name of the log file, which may exist.

    Raises:
        UserError: ``folder`` holds other files.
    """
    if folder.is_dir() and {path.name for path in folder.iterdir()} - {log_file}:
        raise UserError(f"{folder} holds other files: choose another hydra.run.dir, or remove it.")


def is_hydra_file(path: Path) -> bool:
    """Whether Hydra wrote this to a run's folder before the run began: its config files and the log."""
    return path.name == ".hydra" or path.suffix == ".log" or (path / "hydra.yaml").is_file()


def remove_empty_run_dir(folder: Path) -> None:
    """Remove the files that Hydra wrote for a run that did not begin. A folder with other files is left as it is."""
    if not folder.is_dir() or _is_locked(folder) or not all(is_hydra_file(path) for path in folder.iterdir()):
        return
    for handler in list(logging.getLogger().handlers):
        if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).parent == folder.absolute():
            with suppress(OSError):  # a full disk
                handler.close()  # Windows does not remove open files
            logging.getLogger().removeHandler(handler)
            Path(handler.baseFilename).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):  # another log file keeps the folder
        folder.rmdir()


def find_run_id(folder: Path) -> str:
    """The id of the run recorded in ``folder``, or a new one."""
    try:
        return str(read_summary(folder)["run_id"])
    except (OSError, ValueError):
        return uuid.uuid4().hex


def read_result(folder: Path) -> float:
    """The best validation accuracy of a finished run; NaN if it has none."""
    best = read_summary(folder)["best"]
    return float(best["val_acc"]) if best else math.nan
