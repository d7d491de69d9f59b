"""What happens around the runs of a command: no record is written over, a sweep goes on, and ends with its answer.

Light imports: this is loaded before Hydra parses the command line.
"""

import logging
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer_exp.errors import UserError
from fer_exp.records import FINISHED, SUMMARY, SWEEP, read_summary, read_sweep, write_sweep

log = logging.getLogger(__name__)

HYDRA_FILES = {".hydra", "train.log"}  # what Hydra writes to a run's folder before the run begins
EXIT_FAILED, EXIT_DIVERGED = 1, 3  # 2 is that of a wrong command line


def check_folder(folder: Path, resume: str | None) -> None:
    """See to it that no run writes over another's record, nor among other files.

    Raises:
        UserError: ``folder`` holds files, and is not the folder of the run that is to be resumed.
    """
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names <= HYDRA_FILES or (resume and folder.resolve() == Path(resume).resolve().parents[1]):
        return
    held = "the record of another run" if SUMMARY in names else "other files"
    raise UserError(f"{folder} holds {held}: choose another hydra.run.dir, or remove it.")


def check_sweep_folder(folder: Path, overrides: Sequence[str]) -> bool:
    """See to it that a sweep's folder is new, or its own from an earlier try.

    Returns:
        Whether the sweep was begun before and now goes on.

    Raises:
        UserError: ``folder`` holds another sweep, or other files.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    if not (folder / SWEEP).exists():
        raise UserError(f"{folder} holds other files: choose another hydra.sweep.dir, or remove it.")
    before = read_sweep(folder)["overrides"]
    if before != list(overrides):
        raise UserError(
            f"{folder} holds another sweep ({' '.join(before)}): give the same command to go on with it, or choose "
            f"another hydra.sweep.dir. Sweeps of different folders can be compared together: "
            f"python -m fer_exp.compare DIR DIR"
        )
    return True


def plan_sweep(config: DictConfig) -> tuple[int | None, list[str]]:
    """What Hydra's own sweeper will make of the overrides.

    Returns:
        The number of jobs, None with another sweeper; and the keys that are swept, the seed left out.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    sweeper = config.hydra.sweeper
    arguments = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    overrides = OverridesParser.create().parse_overrides([*arguments, *config.hydra.overrides.task])
    swept = [o.key_or_group for o in overrides if o.is_sweep_override() and o.key_or_group != "seed"]
    if not str(sweeper.get("_target_")).endswith(f".{BasicSweeper.__name__}"):
        return None, swept
    return sum(len(batch) for batch in BasicSweeper.split_arguments(overrides, None)), swept


def earlier_attempt(folder: Path, config: Mapping[str, Any]) -> tuple[str, Path | None]:
    """What an earlier try of the same sweep left of this job.

    Args:
        folder: the job's.
        config: the job's configuration, plain and unresolved, as the record holds it.

    Returns:
        ``("finished", None)``; ``("resume", checkpoint)``; or ``("new", None)``, when what lay there was no use and
        has been taken away.

    Raises:
        UserError: the record there was made with other settings.
    """
    try:
        summary = read_summary(folder)
    except (FileNotFoundError, ValueError):
        summary = {"status": "failed"}  # killed before its first epoch began: nothing is lost
    else:
        before = summary.get("config")
        if before is not None and _comparable(before) != _comparable(config):
            raise UserError(
                f"{folder} holds the record of a run with other settings, so a configuration file has changed since: "
                f"choose another hydra.sweep.dir, or remove that folder."
            )
    if summary["status"] in FINISHED:
        return "finished", None
    last = folder / "checkpoints/last.ckpt"
    if last.exists():
        return "resume", last
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in HYDRA_FILES:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return "new", None


def same_as_earlier_job(cfg: DictConfig, sweep_dir: Path, job: int) -> int | None:
    """The number of an earlier job of the sweep with the same settings: a swept value that changes nothing."""
    wanted = _comparable(plain(cfg))
    for path in sorted(sweep_dir.glob(f"*/{SUMMARY}")):
        number = path.parent.name
        if (
            number.isdigit()
            and int(number) < job
            and _comparable(read_summary(path.parent).get("config", {})) == wanted
        ):
            return int(number)
    return None


def plain(cfg: Any) -> dict[str, Any]:
    """A configuration as plain values, its interpolations as they stand."""
    container = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in ("output_dir", "resume")}


def jobs_at_once(launcher: Mapping[str, Any], jobs: int | None, cores: int) -> int:
    """How many jobs of a sweep share this machine's cores, as far as the launcher's settings tell.

    Joblib's ``n_jobs`` says so (-1: one a core). submitit's local executor starts all jobs at once. A cluster gives
    each job cores of its own.
    """
    if "n_jobs" in launcher:
        wanted = launcher["n_jobs"] or 1
        at_once = wanted if wanted > 0 else max(1, cores + 1 + wanted)
    else:
        at_once = jobs or 1 if str(launcher.get("_target_")).endswith(".LocalLauncher") else 1
    return min(at_once, jobs or at_once)


class KeepRecords(Callback):
    """Hydra's callback around runs and sweeps; ``conf/train.yaml`` names it."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse the folder of another run before Hydra writes its configuration and log there."""
        try:
            check_folder(Path(config.hydra.run.dir), config.get("resume"))
        except OmegaConfBaseException:
            return  # a name that is made of the job's own facts, its time among them, is a new one
        except UserError as error:
            refuse(error)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse the folder of another sweep, and say what this one is."""
        folder, overrides = Path(config.hydra.sweep.dir), list(config.hydra.overrides.task)
        try:
            goes_on = check_sweep_folder(folder, overrides)
        except UserError as error:
            refuse(error)
        if goes_on:
            print(f"Going on with the sweep in {folder}: finished jobs are not run again.")
        else:
            write_sweep(folder, overrides, *plan_sweep(config))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """After each job of a sweep a line: which, its result, the time left."""
        folder, sweep = Path(config.hydra.runtime.output_dir), Path(config.hydra.sweep.dir)
        if config.hydra.mode == RunMode.MULTIRUN and (sweep / SWEEP).exists() and (folder / SUMMARY).exists():
            log.info("%s", format_job(folder, sweep, config.hydra))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Compare the runs, print the answer, and say in the exit status whether all came to a result."""
        from fer_exp.compare import compare_folders

        folder = Path(config.hydra.sweep.dir)
        try:
            compare_folders([folder], output=folder)
        except UserError as error:
            refuse(error)
        statuses = Counter(summary["status"] for summary in _summaries(folder))
        print(f"Jobs: {', '.join(f'{n} {status}' for status, n in statuses.most_common())}. All in {folder}")
        if set(statuses) - set(FINISHED):
            print(f"The same command with hydra.sweep.dir={folder} runs those again that came to no result.")
            sys.exit(EXIT_FAILED)
        if "diverged" in statuses:
            sys.exit(EXIT_DIVERGED)


def format_job(folder: Path, sweep_folder: Path, hydra: DictConfig) -> str:
    """The line that tells a finished job: which, its result, and how long the rest may take."""
    from fer_exp.hardware import available_cores

    sweep, summary, summaries = read_sweep(sweep_folder), read_summary(folder), _summaries(sweep_folder)
    its_own = " ".join(override for override in hydra.overrides.task if override not in sweep["overrides"])
    best = summary["best"]
    result = f"best val_acc {best['val_acc']:.4f} in epoch {best['epoch']}" if best else str(summary["error"])
    line = f"Job {hydra.job.num} ({its_own}) {summary['status']}: {result}."
    done = sum(s["status"] != "running" for s in summaries)
    left = max((sweep["jobs"] or 0) - done, 0)
    seconds = [s["seconds"]["total"] for s in summaries if s["status"] in FINISHED]
    if not left or not seconds:
        return line
    at_once = jobs_at_once(hydra.launcher, left, available_cores())
    time_left = format_seconds(left * sum(seconds) / len(seconds) / at_once)
    return f"{line} {done} of {sweep['jobs']} done, about {time_left} left."


def format_seconds(seconds: float) -> str:
    """In the unit that suits: seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def _summaries(sweep: Path) -> list[dict[str, Any]]:
    return [read_summary(path.parent) for path in sorted(sweep.glob(f"*/{SUMMARY}"))]


def refuse(error: UserError) -> NoReturn:
    """End the command with words."""
    print(f"Error: {error}", file=sys.stderr)
    sys.exit(EXIT_FAILED)
