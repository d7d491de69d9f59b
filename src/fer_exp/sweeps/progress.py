"""Report each job of a sweep when it ends: its result, and how long the rest may take."""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fer_exp.metrics import format_value
from fer_exp.runs.config_diff import flatten
from fer_exp.runs.folder import has_whole_history
from fer_exp.runs.record import FINISHED, SUMMARY, read_summary, record_folders
from fer_exp.runs.sweep_record import read_sweep

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0


class JobReporter:
    """Logs a line for each job that ends, read from the jobs' records, so it works with every launcher.

    Args:
        sweep: folder of the sweep.
        launcher: settings of Hydra's launcher.
    """

    def __init__(self, sweep: Path, launcher: Mapping[str, Any]) -> None:
        self.sweep, self.launcher = sweep, launcher
        self._reported: dict[Path, int] = {}  # time of the last change of each record
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        for _ in self._changed():  # records of an earlier attempt are not news
            pass

    def start(self) -> None:
        """Report from a thread, for launchers that run jobs in other processes and wait for all of them."""
        self._thread = threading.Thread(target=self._poll, daemon=True, name="job reporter")
        self._thread.start()

    def stop(self) -> None:
        """Report what ended since the last look, and end the thread."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self.report()

    def report(self) -> None:
        """Log a line for each job that ended since the last call."""
        with self._lock:
            for folder, summary in self._changed():
                if summary["status"] != "running":
                    log.info("%s", format_job(folder, summary, self.sweep, self.launcher))

    def _poll(self) -> None:
        while not self._stopped.wait(POLL_SECONDS):
            self.report()

    def _changed(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        for folder in record_folders(self.sweep):
            with suppress(OSError, ValueError):  # being replaced, or damaged: end_sweep reports that
                changed = (folder / SUMMARY).stat().st_mtime_ns
                if self._reported.get(folder) != changed:
                    self._reported[folder] = changed
                    yield folder, read_summary(folder)


def read_summaries(sweep: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folders and summaries of a sweep's jobs. Records that cannot be read are skipped."""
    for folder in record_folders(sweep):
        with suppress(OSError, ValueError):
            yield folder, read_summary(folder)


def job_statuses(sweep: Path) -> Iterator[str]:
    """The status of each job that has a record; ``damaged`` for a record that the next attempt will replace."""
    for folder in record_folders(sweep):
        try:
            summary = read_summary(folder)
        except (OSError, ValueError):
            yield "damaged"
            continue
        is_damaged = summary["status"] in FINISHED and not has_whole_history(folder, summary)
        yield "damaged" if is_damaged else "unfinished" if summary["status"] == "running" else summary["status"]


def format_job(folder: Path, summary: Mapping[str, Any], sweep_folder: Path, launcher: Mapping[str, Any]) -> str:
    """One line about an ended job: its settings, its result, the jobs done and the time left."""
    from fer_exp.comparison.score import format_duration
    from fer_exp.training.hardware import available_cores

    sweep = read_sweep(sweep_folder)
    values = {**flatten(summary["config"]), **summary["choices"]}
    keys = [key for key in dict.fromkeys([*sweep.swept, *sweep.tuned, "seed"]) if key in values]
    result, best = str(summary["error"]), summary["best"]
    if best:
        metrics = [name for name in dict.fromkeys(["val_acc", summary["monitor"]]) if best.get(name) is not None]
        result = ", ".join(f"{name} {format_value(name, best[name])}" for name in metrics)
        result += f" in the best epoch ({best['epoch']})"
    settings = " ".join(f"{key}={values[key]}" for key in keys)
    line = f"Job {folder.relative_to(sweep_folder)} ({settings}) {summary['status']}: {result}."
    summaries = [each for _, each in read_summaries(sweep_folder)]
    done = sum(each["status"] != "running" for each in summaries)
    if sweep.jobs:
        line += f" {done} of {sweep.jobs} done."
    left = max((sweep.jobs or 0) - done, 0)
    seconds = [each["seconds"]["total"] for each in summaries if each["status"] in FINISHED]
    if not left or not seconds:
        return line
    parallel = parallel_jobs(launcher, left, available_cores())
    time_left = format_duration(left * sum(seconds) / len(seconds) / parallel).replace(".0 ", " ")
    return f"{line} About {time_left} left."


def parallel_jobs(launcher: Mapping[str, Any], jobs: int | None, cores: int) -> int:
    """How many jobs of a sweep share this machine's cores, as far as the launcher's settings say.

    Joblib runs ``n_jobs`` (-1: one per core), submitit's local executor all jobs. On a cluster each job has its own
    cores.
    """
    if "n_jobs" in launcher:
        wanted = launcher["n_jobs"] or 1
        parallel = wanted if wanted > 0 else max(1, cores + 1 + wanted)
    else:
        parallel = jobs or 1 if str(launcher.get("_target_")).endswith(".LocalLauncher") else 1
    return min(parallel, jobs or parallel)
