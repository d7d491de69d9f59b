"""What happens around the jobs of a sweep: none is done twice, each is told, and at the end there is an answer.

Light imports: this is loaded before Hydra parses the command line.
"""

import gc
import json
import logging
import math
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer_exp.config.schema import GROUPS, plain
from fer_exp.errors import UserError
from fer_exp.files import DRAFT, quote_override
from fer_exp.runs.folder import check_folder, check_output_dir, claim, prepare_resume, read_result
from fer_exp.runs.record import (
    FINISHED,
    SUMMARY,
    config_diff,
    for_json,
    mark_failed,
    read_summary,
    record_folders,
)
from fer_exp.runs.sweep_record import SWEEP, read_sweep, write_sweep

log = logging.getLogger(__name__)

_REFUSED = ".refused"  # folder in that of a sweep: an empty file for each job that was refused
EXIT_FAILED, EXIT_DIVERGED = 1, 3  # 2 is that of a wrong command line


def check_sweep_folder(folder: Path, overrides: Sequence[str], sweeper: Mapping[str, Any]) -> bool:
    """See to it that a sweep's folder is new, or its own from an earlier try.

    Args:
        folder: of the sweep.
        overrides: of the command line.
        sweeper: the settings of Hydra's sweeper, plain.

    Returns:
        Whether the sweep was begun before and now goes on.

    Raises:
        UserError: ``folder`` holds another sweep, or other files.
    """
    children = list(folder.iterdir()) if folder.is_dir() else []
    # A command that was refused, or killed, before its first job began leaves these.
    if all(path.name in (SWEEP, "multirun.yaml") or path.name.endswith(DRAFT) for path in children):
        return False
    if not (folder / SWEEP).exists():
        raise UserError(f"{folder} holds other files: choose another hydra.sweep.dir, or remove it.")
    before = read_sweep(folder)
    if before["overrides"] != list(overrides) or before["sweeper"] != sweeper:
        given = " ".join(before["overrides"])
        if before["overrides"] == list(overrides):
            given = f"with other settings of hydra.sweeper, {json.dumps(before['sweeper'])}"
        raise UserError(
            f"{folder} holds another sweep ({given}): give the same command to go on with it, or choose another "
            f"hydra.sweep.dir. Sweeps of different folders can be compared together: "
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
    try:
        return sum(len(batch) for batch in BasicSweeper.split_arguments(overrides, None)), swept
    except HydraException:  # glob(*), which takes a look at the configuration folders
        return None, swept


def duplicate_job(cfg: DictConfig, sweep_dir: Path, job: int) -> int | None:
    """The number of an earlier job of the sweep with the same settings: a swept value that changes nothing."""
    config = plain(cfg)
    for folder, summary in _summaries(sweep_dir):
        earlier = summary.get("config")
        if folder.name.isdecimal() and int(folder.name) < job and earlier and not config_diff(earlier, config):
            return int(folder.name)
    return None


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


class SweepCallback(Callback):
    """Hydra's callback around runs and sweeps; ``conf/train.yaml`` names it.

    Attributes:
        sweep: folder of the sweep that this process has begun.
    """

    sweep: ClassVar[Path | None] = None

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse the folder of another run before Hydra writes its configuration and log there."""
        if str(config.hydra.sweeper.get("_target_")).startswith("hydra_plugins.fer_exp_study."):
            refuse(UserError("a study is a sweep: give it with -m, as in python -m fer_exp.train -m +study=optimizers"))
        try:
            folder = Path(config.hydra.run.dir)
            HydraConfig.instance().set_config(config)
            run_config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
            run_config.output_dir = str(folder)
            settings: Any = OmegaConf.to_container(run_config, resolve=True)
            check_folder(folder, config.get("resume"), settings)
        except OmegaConfBaseException:
            return  # a name that is made of the job's own facts, its time among them, is a new one
        except UserError as error:
            refuse(error)
        except OSError as error:
            refuse(UserError(f"{config.hydra.run.dir}: {error.strerror}; choose another hydra.run.dir."))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse the folder of another sweep, and say what this one is."""
        folder, overrides = Path(config.hydra.sweep.dir).absolute(), list(config.hydra.overrides.task)
        sweeper = OmegaConf.to_container(config.hydra.sweeper)
        assert isinstance(sweeper, dict)
        try:
            if check_sweep_folder(folder, overrides, for_json(sweeper)):
                print(f"Going on with the sweep in {folder}: finished jobs are not run again.")
            else:
                print(f"Sweep in {folder}")
                jobs, swept = plan_sweep(config)
                if (folder / SWEEP).exists():  # of a command that was refused, a study's perhaps
                    (folder / SWEEP).unlink()
                write_sweep(folder, overrides=overrides, sweeper=for_json(sweeper), jobs=jobs, swept=swept)
        except UserError as error:
            refuse(error)
        except (OSError, ValueError, KeyError, HydraException) as error:  # Hydra would go on after a warning
            refuse(UserError(f"the sweep cannot begin in {folder}: {error}"))
        shutil.rmtree(folder / _REFUSED, ignore_errors=True)
        SweepCallback.sweep = folder

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """After each job of a sweep a line: which, its result, the time left."""
        folder = Path(config.hydra.runtime.output_dir)
        sweep = Path(config.hydra.runtime.cwd, config.hydra.sweep.dir)
        if config.hydra.mode == RunMode.MULTIRUN and (sweep / SWEEP).exists() and (folder / SUMMARY).exists():
            log.info("%s", format_job(folder, sweep, config.hydra))


def end_sweep(folder: Path) -> int:
    """Compare the runs of a sweep, print the answer and what came of the jobs.

    Returns:
        The exit status: 0 where all jobs came to a result, 3 where one diverged, 1 where one failed or is missing.
    """
    from fer_exp.compare import compare_folders

    status = 0
    try:
        compare_folders([folder], output=folder)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        status = EXIT_FAILED
    statuses = Counter(summary["status"] for _, summary in _summaries(folder))
    missing = (read_sweep(folder)["jobs"] or 0) - statuses.total()
    refused = refusals(folder)
    told = [f"{count} {name}" for name, count in statuses.most_common()] + [f"{missing} not begun"] * (missing > 0)
    print(f"Jobs: {', '.join(told)}. All in {folder}")
    if refused:
        jobs = ", ".join(map(str, refused))
        print(f"Refused and left as they were: {jobs}. What is told of them above is not of this command.")
        return EXIT_FAILED
    if set(statuses) - set(FINISHED) or missing > 0:
        print(
            f"The same command with {quote_override('hydra.sweep.dir', folder)} runs those again that came to no result."  # noqa: E501
        )
        return EXIT_FAILED
    return status or (EXIT_DIVERGED if "diverged" in statuses else 0)


def run_job(cfg: DictConfig, train: Callable[..., float]) -> float:
    """Train one job of a sweep, unless an earlier try of the sweep finished it.

    A job that fails leaves a record, and the sweep continues. Only Ctrl-C and SIGTERM end it.

    Args:
        cfg: the composed config of the job.
        train: trains a run with a config and returns its result.

    Returns:
        The validation accuracy of the best epoch; NaN if there is none.
    """
    hydra_cfg = HydraConfig.get()
    folder, sweep = Path(hydra_cfg.runtime.output_dir), Path(hydra_cfg.runtime.cwd, hydra_cfg.sweep.dir)
    try:
        check_output_dir(cfg)
        with claim(folder):
            return _train_or_fail(cfg, train, folder, sweep) if prepare_resume(cfg, folder) else read_result(folder)
    except UserError as error:  # for example, the folder holds another run
        log.error("Error: %s", error)
        note_refusal(sweep, hydra_cfg.job.num)
        return math.nan
    except (KeyboardInterrupt, SystemExit) as error:
        log.info("The same command with %s continues this sweep.", quote_override("hydra.sweep.dir", sweep))
        raise SystemExit(128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else error.code) from error
    finally:
        gc.collect()  # trainer and module refer to each other, and Python does not know how much memory they take


def _train_or_fail(cfg: DictConfig, train: Callable[..., float], folder: Path, sweep: Path) -> float:
    from fer_exp.training.hardware import available_cores, share_cores

    hydra_cfg = HydraConfig.get()
    facts = {"config": plain(cfg), "choices": choices(), "seed": cfg.seed}
    try:
        duplicate = duplicate_job(cfg, sweep, hydra_cfg.job.num)
        if duplicate is not None:
            log.warning("Warning: same settings as job %d: a swept key has no effect.", duplicate)
        share_cores(jobs_at_once(hydra_cfg.launcher, read_sweep(sweep)["jobs"], available_cores()))
        return train(cfg, verbose=False)
    except UserError as error:
        log.error("Error: %s", error)
        reason = str(error)
    except Exception as error:
        log.exception("This job failed.")
        reason = f"{type(error).__name__}: {error}"
    with suppress(OSError, ValueError):  # on a full disk, or if it is damaged, the record stays as it was
        mark_failed(folder, facts, reason)
    return math.nan


def choices() -> dict[str, str]:
    """The choice in each config group by name; empty if Hydra did not compose the config."""
    if not HydraConfig.initialized():
        return {}
    names = HydraConfig.get().runtime.choices
    return {group: str(names[group]) for group in (*GROUPS, "experiment") if names.get(group)}


def note_refusal(folder: Path, job: int) -> None:
    """Note that a job was not run, for the end of the sweep: the job may be in another process, on another machine."""
    with suppress(OSError):
        (folder / _REFUSED).mkdir(parents=True, exist_ok=True)
        (folder / _REFUSED / str(job)).touch()


def refusals(folder: Path) -> list[int]:
    """The numbers of the jobs that the command refused to run."""
    return sorted(int(path.name) for path in (folder / _REFUSED).glob("*"))


def format_job(folder: Path, sweep_folder: Path, hydra: DictConfig) -> str:
    """The line that tells a finished job: which, its result, and how long the rest may take."""
    from fer_exp.training.hardware import available_cores

    sweep, summary = read_sweep(sweep_folder), read_summary(folder)
    summaries = [each for _, each in _summaries(sweep_folder)]
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


def _summaries(sweep: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for folder in record_folders(sweep):
        with suppress(OSError, ValueError):  # a job that begins anew takes its old record away
            yield folder, read_summary(folder)


def refuse(error: UserError) -> NoReturn:
    """End the command with words."""
    print(f"Error: {error}", file=sys.stderr)
    sys.exit(EXIT_FAILED)
