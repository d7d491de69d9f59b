"""The jobs of a sweep: each is trained once, a failure does not end the sweep, and a comparison ends it.

Light imports: Hydra loads this module before it parses the command line.
"""

import gc
import json
import logging
import math
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer_exp.config.paths import as_typed_in_a_shell, config_dir_options
from fer_exp.config.schema import GROUPS, plain
from fer_exp.errors import UserError
from fer_exp.files import DRAFT, quote_override
from fer_exp.runs.config_diff import config_diff
from fer_exp.runs.folder import check_output_dir, check_run_dir, lock_run_dir, read_result
from fer_exp.runs.record import FINISHED, for_json, mark_failed, record_folders
from fer_exp.runs.resume import prepare_resume
from fer_exp.runs.sweep_record import SWEEP, read_sweep, write_sweep
from fer_exp.sweeps.progress import JobReporter, job_statuses, parallel_jobs, read_summaries

log = logging.getLogger(__name__)

EXIT_FAILED, EXIT_DIVERGED = 1, 3  # 2 stands for a wrong command line
_REFUSED = ".refused"  # folder in the sweep's: an empty file for each job that was refused
_OWN_FILES = (SWEEP, "multirun.yaml", ".hydra", _REFUSED)  # in the sweep's folder before the first job starts


class SweepCallback(Callback):
    """Hydra's callback around runs and sweeps; ``conf/train.yaml`` names it.

    Attributes:
        reporter: logs the jobs of the sweep that this process started.
        lock: of that sweep's folder.
    """

    reporter: ClassVar[JobReporter | None] = None
    lock: ClassVar[ExitStack] = ExitStack()

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse the folder of another run before Hydra writes its config and log there."""
        hydra = config.hydra
        if str(hydra.sweeper.get("_target_")).startswith("hydra_plugins.fer_exp_study."):
            refuse(UserError("a study is a sweep: run python -m fer_exp.train -m +study=NAME"))
        resume = config.get("resume")
        if resume == "auto" and not any(word.startswith("hydra.run.dir=") for word in hydra.overrides.hydra):
            refuse(UserError("resume=auto: add hydra.run.dir=DIR, the folder of the run to resume"))
        try:
            folder = Path(hydra.run.dir)
            HydraConfig.instance().set_config(config)
            run_config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
            run_config.output_dir = str(folder.absolute())
            settings: Any = OmegaConf.to_container(run_config, resolve=True)
            check_run_dir(folder, resume, settings)
        except OmegaConfBaseException:
            return  # depends on values that Hydra sets later; the run checks its folder again
        except UserError as error:
            refuse(error)
        except OSError as error:
            refuse(UserError(f"{hydra.run.dir}: {error.strerror}; choose another hydra.run.dir."))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Lock the sweep's folder, refuse the one of another sweep, and write the sweep's record."""
        folder, overrides = Path(config.hydra.sweep.dir).absolute(), list(config.hydra.overrides.task)
        sweeper: Any = for_json(OmegaConf.to_container(config.hydra.sweeper))
        try:
            is_new = check_sweep_dir(folder, overrides, sweeper)
            self.lock.enter_context(lock_run_dir(folder, "choose another hydra.sweep.dir"))
            if is_new:
                print(f"Sweep in {folder}")
                jobs, swept = plan_sweep(config)
                (folder / SWEEP).unlink(missing_ok=True)  # of a command that was refused before its first job
                facts = {"overrides": overrides, "options": _options(config), "sweeper": sweeper}
                write_sweep(folder, **facts, jobs=jobs, swept=swept)
            else:
                print(f"Resuming the sweep in {folder}: finished jobs are not repeated.")
            for draft in folder.glob(f".*{DRAFT}"):
                draft.unlink(missing_ok=True)
        except UserError as error:
            refuse(error)
        except (OSError, ValueError, HydraException) as error:  # Hydra would continue after a warning
            refuse(UserError(f"the sweep cannot start in {folder}: {error}"))
        shutil.rmtree(folder / _REFUSED, ignore_errors=True)
        SweepCallback.reporter = JobReporter(folder, config.hydra.launcher)
        if not str(config.hydra.launcher.get("_target_")).endswith(".BasicLauncher"):
            SweepCallback.reporter.start()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Log the result of a job that ran in this process."""
        if SweepCallback.reporter is not None:
            SweepCallback.reporter.report()


def _options(config: DictConfig) -> list[str]:
    """The options of the command for Hydra itself, without the folder of the sweep."""
    given = [each for each in config.hydra.overrides.hydra if not each.startswith(("hydra.mode=", "hydra.sweep.dir="))]
    return [*config_dir_options(config.hydra), *given]


def check_sweep_dir(folder: Path, overrides: Sequence[str], sweeper: Mapping[str, Any]) -> bool:
    """Check that a sweep's folder is new, or holds an earlier attempt of the same sweep.

    Args:
        folder: the sweep's folder.
        overrides: of the command line.
        sweeper: settings of Hydra's sweeper, as JSON holds them.

    Returns:
        Whether the sweep is new.

    Raises:
        UserError: ``folder`` holds another sweep, or other files.
    """
    children = list(folder.iterdir()) if folder.is_dir() else []
    if all(path.name in _OWN_FILES or path.name.endswith(DRAFT) for path in children):
        return True
    if not (folder / SWEEP).exists():
        raise UserError(f"{folder} holds other files: choose another hydra.sweep.dir, or remove it.")
    before = read_sweep(folder)
    if before.overrides == list(overrides) and before.sweeper == sweeper:
        return False
    command = " ".join(map(as_typed_in_a_shell, before.overrides))
    if before.overrides == list(overrides):
        command = f"with other settings of hydra.sweeper, {json.dumps(before.sweeper)}"
    raise UserError(
        f"{folder} holds another sweep ({command}). Repeat that command to resume it, or choose another "
        f"hydra.sweep.dir. To compare sweeps in two folders: python -m fer_exp.compare DIR DIR"
    )


def plan_sweep(config: DictConfig) -> tuple[int | None, list[str]]:
    """Predict what Hydra's own sweeper makes of the overrides.

    Returns:
        The number of jobs, None for other sweepers; and the keys that are swept, without the seed.
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
    except HydraException:  # glob(*) needs the config folders
        return None, swept


def run_job(cfg: DictConfig, train: Callable[..., float]) -> float:
    """Train one job of a sweep, unless an earlier attempt finished it.

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
        with lock_run_dir(folder):
            return _train_or_fail(cfg, train, folder, sweep) if prepare_resume(cfg, folder) else read_result(folder)
    except UserError as error:  # for example, the folder holds another run
        log.error("Error: %s", error)
        note_refusal(sweep, hydra_cfg.job.num)
        return math.nan
    except (KeyboardInterrupt, SystemExit) as error:
        raise SystemExit(128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else error.code) from error
    finally:
        gc.collect()  # trainer and module refer to each other, and Python does not know how much memory they take


def _train_or_fail(cfg: DictConfig, train: Callable[..., float], folder: Path, sweep: Path) -> float:
    from fer_exp.training.hardware import available_cores, share_cores

    hydra_cfg = HydraConfig.get()
    facts = {"config": plain(cfg), "choices": choices(), "seed": cfg.seed, "monitor": cfg.monitor}
    try:
        duplicate = duplicate_job(cfg, sweep, hydra_cfg.job.num)
        if duplicate is not None:
            log.warning("Warning: same settings as job %d: a swept key has no effect.", duplicate)
        share_cores(parallel_jobs(hydra_cfg.launcher, read_sweep(sweep).jobs, available_cores()))
        return train(cfg, verbose=False)
    except UserError as error:
        log.error("Error: %s", error)
        reason = str(error)
    except Exception as error:
        log.exception("This job failed.")
        reason = f"{type(error).__name__}: {error}"
    with suppress(OSError, ValueError):  # on a full disk the record stays as it was
        mark_failed(folder, facts, reason)
    return math.nan


def duplicate_job(cfg: DictConfig, sweep: Path, job: int) -> int | None:
    """The number of an earlier job of the sweep with the same settings, if there is one."""
    config = plain(cfg)
    for folder, summary in read_summaries(sweep):
        if folder.name.isdecimal() and int(folder.name) < job and not config_diff(summary["config"], config):
            return int(folder.name)
    return None


def choices() -> dict[str, str]:
    """The choice in each config group by name; empty if Hydra did not compose the config."""
    if not HydraConfig.initialized():
        return {}
    names = HydraConfig.get().runtime.choices
    return {group: str(names[group]) for group in (*GROUPS, "experiment") if names.get(group)}


def close_sweep(status: int) -> int:
    """End the sweep that this process started, if any: report its jobs and unlock its folder.

    Args:
        status: the exit status of the command so far. After a failed launcher the finished jobs are still reported;
            after an interruption (128 and above) the user knows.

    Returns:
        The exit status of the command.
    """
    reporter = SweepCallback.reporter
    try:
        if reporter is not None:
            reporter.stop()
            if status >= 128:
                print(f"The same command with {quote_override('hydra.sweep.dir', reporter.sweep)} resumes this sweep.")
            elif _was_launched(reporter.sweep):
                sweep_status = end_sweep(reporter.sweep)
                status = status or sweep_status
    finally:
        SweepCallback.lock.close()
        SweepCallback.reporter = None
    return status


def _was_launched(sweep: Path) -> bool:
    """Whether a job was started or refused; it may have been killed before it wrote a record."""
    return any(path.is_dir() and path.name != ".hydra" for path in sweep.iterdir())


def end_sweep(folder: Path) -> int:
    """Compare the runs of a sweep, and print the comparison and the number of jobs with each status.

    Returns:
        The exit status: 0 if all jobs have a result, 3 if one diverged, 1 if one failed or has none.
    """
    from fer_exp.comparison.report import compare_folders

    status = 0
    try:
        if any(record_folders(folder)):
            compare_folders([folder], output=folder)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        status = EXIT_FAILED
    statuses = Counter(job_statuses(folder))
    missing = (read_sweep(folder).jobs or 0) - statuses.total()
    counts = [f"{count} {name}" for name, count in statuses.most_common()]
    print(f"Jobs: {', '.join(counts + [f'{missing} not begun'] * (missing > 0))}. All in {folder}")
    if refused := refusals(folder):
        print(f"Jobs that were refused, with an earlier record or none: {', '.join(map(str, refused))}.")
        return EXIT_FAILED
    if set(statuses) - set(FINISHED) or missing > 0:
        print(f"The same command with {quote_override('hydra.sweep.dir', folder)} runs the jobs without a result.")
        return EXIT_FAILED
    return status or (EXIT_DIVERGED if "diverged" in statuses else 0)


def note_refusal(sweep: Path, job: int) -> None:
    """Record that a job was refused, for ``end_sweep``: the job may run in another process."""
    with suppress(OSError):
        (sweep / _REFUSED).mkdir(parents=True, exist_ok=True)
        (sweep / _REFUSED / str(job)).touch()


def refusals(sweep: Path) -> list[int]:
    """The numbers of the refused jobs."""
    return sorted(int(path.name) for path in (sweep / _REFUSED).glob("*"))


def refuse(error: UserError) -> NoReturn:
    """Print an error and end the command."""
    print(f"Error: {error}", file=sys.stderr)
    sys.exit(EXIT_FAILED)
