"""Sweeps: every choice is trained, a failure does not end them, and a repeated command finishes them."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from fer_exp import compare
from fer_exp.config.schema import CONFIG_DIR
from fer_exp.runs.record import read_history, read_summary

pytestmark = pytest.mark.usefixtures("no_plots")

SECONDS = ("train_seconds", "val_seconds")


def settings(faces: Path) -> tuple[str, ...]:
    return (
        "data=folders", f"data.root={faces}", "data.batch_size=10", "logger=none", "model=vgg_small",
        "model.widths=[4,4,4,4]", "trainer.limit_train_batches=2", "trainer.precision=32-true", "scheduler.patience=0",
    )  # fmt: skip


@pytest.fixture
def quick(faces) -> tuple[str, ...]:
    """Settings of a run of a second: two steps, one epoch."""
    return (*settings(faces), "trainer.max_epochs=1")


def history(folder: Path):
    return [{name: value for name, value in row.items() if name not in SECONDS} for row in read_history(folder)]


def records(sweep: Path):
    return {path.parent.name: read_summary(path.parent) for path in sorted(sweep.glob("*/summary.json"))}


def statuses(sweep: Path):
    return [summary["status"] for summary in records(sweep).values()]


def test_a_sweep_trains_every_choice_once(command, quick, tmp_path):
    sweep = ("-m", "hydra.sweep.dir=swept", "optimizer=adam,sgd", "seed=3,0", *quick)
    status, printed = command(*sweep)
    assert status == 0, printed
    done = records(tmp_path / "swept")
    assert [(s["choices"]["optimizer"], s["seed"], s["status"]) for s in done.values()] == [
        ("adam", 3, "completed"), ("adam", 0, "completed"), ("sgd", 3, "completed"), ("sgd", 0, "completed"),
    ]  # fmt: skip
    assert f"val_acc {100 * done['2']['best']['val_acc']:.2f} %" in printed
    assert "3 of 4 done" in printed
    assert "Jobs: 4 completed." in printed
    # A job does not depend on the jobs before it in the same process.
    command("hydra.run.dir=alone", "seed=0", *quick)
    assert history(tmp_path / "swept/1") == history(tmp_path / "alone")
    # The same command again trains nothing.
    results = [*(tmp_path / "swept").glob("*/*.[cjp]*"), *(tmp_path / "swept").glob("*/checkpoints/*")]
    before = {path: path.read_bytes() for path in results}
    assert command(*sweep)[0] == 0
    assert {path: path.read_bytes() for path in results} == before


def test_a_sweep_continues_after_failed_jobs(command, quick, tmp_path, monkeypatch):
    from fer_exp.training.module import Classifier

    step = Classifier.training_step

    def crash_with_lr_2(self, *arguments):
        if self.optimizers().param_groups[0]["lr"] == 2:
            raise RuntimeError("the device fell off the bus")
        return step(self, *arguments)

    monkeypatch.setattr(Classifier, "training_step", crash_with_lr_2)
    sweep = ("-m", "hydra.sweep.dir=swept", "optimizer=sgd", "optimizer.lr=-1,2,1e-3", *quick)
    status, printed = command(*sweep)
    assert status == 1
    assert "Jobs: 2 failed, 1 completed." in printed
    done = records(tmp_path / "swept")
    assert statuses(tmp_path / "swept") == ["failed", "failed", "completed"]
    assert "optimizer.lr=-1" in done["0"]["error"]
    assert "the device fell off the bus" in done["1"]["error"]
    # The cause is fixed: the same command repeats the failed jobs only.
    monkeypatch.setattr(Classifier, "training_step", step)
    assert command(*sweep)[0] == 1
    assert statuses(tmp_path / "swept") == ["failed", "completed", "completed"]
    assert records(tmp_path / "swept")["2"] == done["2"]


def test_a_report_that_cannot_be_written_leaves_the_runs_and_names_the_command_for_it(
    command, run_main, quick, tmp_path
):
    sweep = ("-m", "hydra.sweep.dir=swept", "optimizer=sgd", *quick)
    assert command(*sweep)[0] == 0
    (tmp_path / "swept/report.html").unlink()
    (tmp_path / "swept/report.html").mkdir()
    status, printed = command(*sweep)
    assert status == 1
    assert "Jobs: 1 completed." in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("Error: ")]
    places = shlex.split(line.partition("fer_exp.compare ")[2].partition(" --output")[0])
    assert run_main(compare.main, *places, "--output", "report")[0] == 0
    assert (tmp_path / "report/report.html").is_file()


def test_a_diverged_job_sets_the_exit_status(command, quick):
    status, printed = command("-m", "optimizer=sgd", "optimizer.lr=1e-3,1e30,0.001", *quick)
    assert status == 3
    assert "Jobs: 2 completed, 1 diverged." in printed
    assert "job 0" in printed  # 0.001 is 1e-3


def test_damaged_jobs_are_trained_again(command, quick, tmp_path):
    sweep = ("-m", "hydra.sweep.dir=swept", "seed=0,1,2,3", *quick)
    assert command(*sweep)[0] == 0
    before = {job: history(tmp_path / "swept" / job) for job in "0123"}
    text = (tmp_path / "swept/1/history.csv").read_text()
    (tmp_path / "swept/1/history.csv").write_text(text[: len(text) // 2])
    (tmp_path / "swept/2/summary.json").write_text("{")
    (tmp_path / "swept/3/history.csv").unlink()
    (tmp_path / "swept/3/checkpoints/last.ckpt").write_bytes(b"damaged")
    status, printed = command(*sweep)
    assert status == 0, printed
    assert "Jobs: 4 completed." in printed
    assert {job: history(tmp_path / "swept" / job) for job in "0123"} == before


def test_folders_of_jobs_may_have_other_names(command, quick, tmp_path):
    sweep = ("hydra.sweep.dir=swept", "hydra.sweep.subdir='${hydra:runtime.choices.optimizer}/${hydra:job.num}'")
    status, printed = command("-m", *sweep, "optimizer=adam,sgd", "optimizer.lr=-1", *quick)
    assert status == 1
    assert "Jobs: 2 failed." in printed
    assert (tmp_path / "swept/sgd/1/summary.json").exists()


def test_a_folder_is_used_by_one_sweep(command, quick, tmp_path):
    sweep = ("-m", "hydra.sweep.dir=swept", "seed=0", *quick)
    (tmp_path / "swept/.hydra").mkdir(parents=True)
    with FileLock(tmp_path / "swept/.hydra/lock"):  # by another process, in effect: the lock is of another file handle
        status, printed = command(*sweep)
    assert status == 1
    assert "another process" in printed
    assert [path.name for path in (tmp_path / "swept").iterdir()] == [".hydra"]
    assert command(*sweep)[0] == 0
    summary = (tmp_path / "swept/0/summary.json").read_text().replace("completed", "running")
    (tmp_path / "swept/0/summary.json").write_text(summary)
    with FileLock(tmp_path / "swept/0/.hydra/lock"):  # a worker of a killed sweep
        status, printed = command(*sweep)
    assert status == 1
    assert "another process" in printed
    assert (tmp_path / "swept/0/summary.json").read_text() == summary


def test_folders_with_other_content_are_refused(command, quick, tmp_path):
    assert command("-m", "hydra.sweep.dir=swept", "seed=0", *quick)[0] == 0
    config = (tmp_path / "swept/0/.hydra/config.yaml").read_bytes()
    status, printed = command("-m", "hydra.sweep.dir=swept", "seed=1", *quick)
    assert status == 1
    assert "another sweep (seed=0 data=folders" in printed
    assert (tmp_path / "swept/0/.hydra/config.yaml").read_bytes() == config
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    assert command("-m", "hydra.sweep.dir=mine", "seed=1", *quick)[0] == 1
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    # A job refuses such a folder too, every time.
    job = ("-m", *quick, "seed=0", "hydra.sweep.dir=sweep", "hydra.sweep.subdir=../mine")
    for _ in range(2):
        status, printed = command(*job)
        assert status == 1
        assert "thesis.txt" in printed
        assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"
    (tmp_path / "mine/thesis.txt").unlink()
    assert command(*job)[0] == 0


def test_a_job_whose_config_files_changed_is_not_overwritten(command, quick, tmp_path):
    sweep = ("-m", "hydra.sweep.dir=swept", "seed=0", *quick)
    assert command(*sweep)[0] == 0
    path = tmp_path / "swept/0/summary.json"
    summary = json.loads(path.read_text())
    summary["config"]["optimizer"]["lr"] = 0.5  # as if conf/optimizer/adam.yaml had been edited
    path.write_text(json.dumps(summary))
    status, printed = command(*sweep)
    assert status == 1
    assert "optimizer.lr" in printed
    assert json.loads(path.read_text()) == summary


# Kills the process in job 1, or, with joblib, its worker: at the start of an epoch, or after the last checkpoint.
KILL = """
import os, signal
from fer_exp.training.callbacks.history import HistoryCallback
hook, at_epoch = "{hook}", {at_epoch}
original = getattr(HistoryCallback, hook)
def killing(self, trainer, module):
    if self.record.folder.name == "1" and trainer.current_epoch == at_epoch:
        os.kill(os.getpid(), signal.SIGKILL)
    original(self, trainer, module)
setattr(HistoryCallback, hook, killing)
"""
# Early stopping ends each run after its third epoch.
STOPPED = ("trainer.max_epochs=4", "callbacks.early_stopping.patience=2", "callbacks.early_stopping.min_delta=10")


@pytest.fixture(scope="module")
def whole(faces, tmp_path_factory):
    """A sweep that is not killed."""
    folder = tmp_path_factory.mktemp("whole")
    subprocess.run([sys.executable, "-m", "fer_exp.train", *killed_sweep(faces, folder)], check=True)
    return folder


def killed_sweep(faces: Path, folder: Path) -> list[str]:
    return ["-m", "seed=0,1", *settings(faces), *STOPPED, f"hydra.sweep.dir={folder}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hook", "at_epoch"),
    [
        ("on_train_epoch_start", 2),
        ("on_train_epoch_start", 0),
        ("on_train_end", 3),
    ],
)
def test_a_killed_sweep_ends_as_one_that_was_not(command, child, faces, whole, tmp_path, hook, at_epoch):
    sweep = killed_sweep(faces, tmp_path / "killed")
    code = KILL.format(hook=hook, at_epoch=at_epoch) + "from fer_exp.train import main\nmain()"
    killed = child("-c", code, *sweep, cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert statuses(tmp_path / "killed") == ["completed", "running"]
    status, printed = command(*sweep)
    assert status == 0, printed
    for job in "01":
        assert history(tmp_path / "killed" / job) == history(whole / job)
        here, there = (read_summary(sweep / job) for sweep in (tmp_path / "killed", whole))
        assert all(here[key] == there[key] for key in ("status", "stopped_by", "epochs", "history") if key != "history")
        assert here["best"]["epoch"] == there["best"]["epoch"]


# A worker of joblib imports this at its start. It is killed once its job 1 has written a file.
KILLED_WORKER = """
import os, pathlib, signal, threading, time
def watch(lock):
    while True:
        time.sleep(0.02)
        for fd in pathlib.Path("/proc/self/fd").iterdir():
            try:
                if os.readlink(fd) == str(lock) and (lock.parent.parent / os.environ["KILLED_AFTER"]).exists():
                    os.kill(os.getpid(), signal.SIGKILL)
            except OSError:
                pass
if "KILLED_JOB" in os.environ:
    lock = pathlib.Path(os.environ["KILLED_JOB"]) / ".hydra/lock"
    threading.Thread(target=watch, args=[lock], daemon=True).start()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("file", "status"), [("summary.json", "unfinished"), (".hydra/lock", "not begun")])
def test_a_killed_worker_is_reported_and_its_sweep_can_be_finished(child, faces, tmp_path, file, status):
    (tmp_path / "sitecustomize.py").write_text(KILLED_WORKER)
    command = (
        "-m", "fer_exp.train", "-m", "seed=0,1,2", *settings(faces), "trainer.max_epochs=1",
        f"hydra.sweep.dir={tmp_path / 'swept'}", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2",
    )  # fmt: skip
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    variables = {"PYTHONPATH": path, "KILLED_JOB": str(tmp_path / "swept/1"), "KILLED_AFTER": file}
    killed = child(*command, cwd=tmp_path, **variables)
    assert killed.returncode == 1, killed.stdout + killed.stderr
    assert "SIGKILL" in killed.stderr
    assert "Traceback" not in killed.stderr
    assert status in killed.stdout
    assert f"hydra.sweep.dir={tmp_path / 'swept'}" in killed.stdout
    finished = child(*command, cwd=tmp_path)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "Jobs: 3 completed." in finished.stdout


@pytest.mark.slow
def test_refusals_in_other_processes_are_reported(child, faces, tmp_path):
    run = ("-m", "fer_exp.train", "-m", *settings(faces), "trainer.max_epochs=1", "hydra.sweep.dir=sweep", "seed=0,1",
           "optimizer=mine", "data.in_memory=false", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")  # fmt: skip
    for folder, lr in (("a", 0.01), ("b", 0.5)):
        (tmp_path / folder / "optimizer").mkdir(parents=True)
        content = (CONFIG_DIR / "optimizer/sgd.yaml").read_text().replace("lr: 1e-2", f"lr: {lr}")
        (tmp_path / folder / "optimizer/mine.yaml").write_text(content)
    first = child(*run, "--config-dir", "a", cwd=tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout.count("completed: val_acc") == 2  # one line per job
    second = child(*run, "--config-dir", "b", cwd=tmp_path)
    assert second.returncode == 1
    assert "optimizer.lr was 0.01 and is 0.5" in second.stderr
    assert "refused" in second.stdout
