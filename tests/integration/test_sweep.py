"""Sweeps: every choice is trained, a failure does not end them, and a killed one goes on."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fer_exp.config.schema import CONFIG_DIR
from fer_exp.runs.record import read_history, read_summary

TIMES = ("train_seconds", "val_seconds")


def settings(faces: Path) -> tuple[str, ...]:
    return (
        "data=folders", f"data.root={faces}", "data.batch_size=10", "logger=none",
        "trainer.limit_train_batches=2", "trainer.precision=32-true",
    )  # fmt: skip


@pytest.fixture
def quick(faces) -> tuple[str, ...]:
    """Settings of a run of a second: two steps, one epoch."""
    return (*settings(faces), "trainer.max_epochs=1")


def figures(folder: Path):
    return [{name: value for name, value in row.items() if name not in TIMES} for row in read_history(folder)]


def records(sweep: Path):
    return {path.parent.name: read_summary(path.parent) for path in sorted(sweep.glob("*/summary.json"))}


def test_a_sweep_trains_every_choice(command, quick, tmp_path):
    status, printed = command("-m", "hydra.sweep.dir=swept", "optimizer=adam,sgd", "seed=0,1", *quick)
    assert status == 0, printed
    done = records(tmp_path / "swept")
    assert [(s["choices"]["optimizer"], s["seed"], s["status"]) for s in done.values()] == [
        ("adam", 0, "completed"), ("adam", 1, "completed"), ("sgd", 0, "completed"), ("sgd", 1, "completed"),
    ]  # fmt: skip
    best = done["2"]["best"]["val_acc"]
    assert f"Job 2 (optimizer=sgd seed=0) completed: best val_acc {best:.4f} in epoch 1. 3 of 4 done, about" in printed
    assert "Jobs: 4 completed." in printed


def test_two_sweeps_have_folders_of_their_own_by_default(command, quick, tmp_path):
    for _ in range(2):
        command("-m", "seed=0", *quick)
    assert len(list((tmp_path / "outputs/sweeps").iterdir())) == 2


def test_a_sweep_goes_on_after_a_job_that_cannot_begin(command, quick, tmp_path):
    status, printed = command("-m", "hydra.sweep.dir=swept", "optimizer.lr=-1,0.001", *quick)
    assert status == 1
    assert "optimizer.lr=-1: expected a finite number from 0 up" in printed
    assert "Jobs: 1 failed, 1 completed." in printed
    assert "/swept runs those again that came to no result." in printed
    done = records(tmp_path / "swept")
    assert [summary["status"] for summary in done.values()] == ["failed", "completed"]
    assert "optimizer.lr=-1: expected a finite number" in done["0"]["error"]
    assert done["0"]["config"]["optimizer"]["lr"] == -1


def test_a_sweep_goes_on_after_a_job_that_crashes(command, quick, tmp_path, monkeypatch):
    from fer_exp.training.module import Classifier

    step = Classifier.training_step

    def crash_in_job_0(self, *arguments):
        if self.hparams["settings"]["seed"] == 7:
            raise RuntimeError("the device fell off the bus")
        return step(self, *arguments)

    monkeypatch.setattr(Classifier, "training_step", crash_in_job_0)
    status, printed = command("-m", "hydra.sweep.dir=swept", "seed=7,8", *quick)
    assert status == 1
    assert "the device fell off the bus" in printed
    assert [s["status"] for s in records(tmp_path / "swept").values()] == ["failed", "completed"]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    # The cause is gone: given again, the sweep runs the failed job, and that job alone.
    finished = (tmp_path / "swept/1/summary.json").read_bytes()
    assert command("-m", "hydra.sweep.dir=swept", "seed=7,8", *quick)[0] == 0
    assert [s["status"] for s in records(tmp_path / "swept").values()] == ["completed", "completed"]
    assert (tmp_path / "swept/1/summary.json").read_bytes() == finished


def test_a_job_that_diverges_is_said_in_the_exit_status(command, quick, tmp_path):
    status, printed = command("-m", "hydra.sweep.dir=swept", "optimizer=sgd", "optimizer.lr=1e-3,1e30", *quick)
    assert status == 3
    assert "Jobs: 1 completed, 1 diverged." in printed


def test_a_sweep_over_nothing_is_warned_about(command, quick):
    printed = command("-m", "optimizer.lr=0.001,1e-3", *quick)[1]
    assert "the settings are those of job 0: what is swept changes nothing" in printed


def test_jobs_of_a_sweep_do_not_depend_on_their_neighbours(command, quick, tmp_path):
    command("-m", "hydra.sweep.dir=swept", "seed=3,0", *quick)
    command("hydra.run.dir=alone", "seed=0", *quick)
    assert figures(tmp_path / "swept/1") == figures(tmp_path / "alone")


def test_a_finished_sweep_given_again_runs_nothing(command, quick, tmp_path):
    sweep = ("-m", "hydra.sweep.dir=swept", "seed=0,1", *quick)
    assert command(*sweep)[0] == 0
    results = [*(tmp_path / "swept").glob("*/*.[cjp]*"), *(tmp_path / "swept").glob("*/checkpoints/*")]
    before = {path: path.read_bytes() for path in results}
    assert len(before) == 2 * (2 + 4 + 3)  # record, pictures, checkpoints
    status, printed = command(*sweep)
    assert status == 0
    assert printed.count("This run was finished before.") == 2
    assert {path: path.read_bytes() for path in results} == before


def test_folders_of_jobs_may_be_named_otherwise(command, quick, tmp_path):
    sweep = ("hydra.sweep.dir=swept", "hydra.sweep.subdir='${hydra:runtime.choices.optimizer}/${hydra:job.num}'")
    status, printed = command("-m", *sweep, "optimizer=adam,sgd", "optimizer.lr=-1", *quick)
    assert status == 1
    assert "Jobs: 2 failed." in printed
    assert (tmp_path / "swept/sgd/1/summary.json").exists()


def test_a_launcher_that_gives_up_leaves_the_answer_of_what_was_finished(command, quick, tmp_path, monkeypatch):
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher

    launch = BasicLauncher.launch

    def give_up(self, jobs, initial_job_idx):
        launch(self, jobs[:1], initial_job_idx)
        raise RuntimeError("a worker died")

    monkeypatch.setattr(BasicLauncher, "launch", give_up)
    status, printed = command("-m", "hydra.sweep.dir=swept", "seed=0,1", *quick)
    assert status == 1
    assert "a worker died" in printed
    assert "Jobs: 1 completed, 1 not begun." in printed
    assert (tmp_path / "swept/report.html").exists()


def test_a_job_in_a_folder_that_another_process_holds_is_left_to_it(command, quick, tmp_path):
    from fer_exp.runs.folder import claim

    assert command("-m", "hydra.sweep.dir=swept", "seed=0", *quick)[0] == 0
    record = (tmp_path / "swept/0/summary.json").read_text().replace("completed", "running")
    (tmp_path / "swept/0/summary.json").write_text(record)
    with claim(tmp_path / "swept/0"):
        status, printed = command("-m", "hydra.sweep.dir=swept", "seed=0", *quick)
    assert status == 1
    assert "another process is training in this folder" in printed
    assert (tmp_path / "swept/0/summary.json").read_text() == record


def test_the_folder_of_another_sweep_is_refused(command, quick, tmp_path):
    assert command("-m", "hydra.sweep.dir=swept", "seed=0", *quick)[0] == 0
    before = (tmp_path / "swept/0/.hydra/config.yaml").read_bytes()
    status, printed = command("-m", "hydra.sweep.dir=swept", "seed=1", *quick)
    assert status == 1
    assert "swept holds another sweep (seed=0 data=folders" in printed
    assert (tmp_path / "swept/0/.hydra/config.yaml").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    status, printed = command("-m", "hydra.sweep.dir=mine", "seed=1", *quick)
    assert status == 1
    assert "mine holds other files: choose another hydra.sweep.dir" in printed
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_job_whose_settings_have_changed_since_is_not_written_over(command, quick, tmp_path):
    sweep = ("-m", "hydra.sweep.dir=swept", "seed=0", *quick)
    assert command(*sweep)[0] == 0
    path = tmp_path / "swept/0/summary.json"
    summary = json.loads(path.read_text())
    summary["config"]["optimizer"]["lr"] = 0.5  # as if conf/optimizer/adam.yaml had been edited
    path.write_text(json.dumps(summary))
    status, printed = command(*sweep)
    assert status == 1
    assert "holds the record of a run with other settings" in printed
    assert json.loads(path.read_text()) == summary


# Kills its own process in job 1: where the epoch (from 0) begins, or between its last checkpoint and its end.
KILLED = """
import os, signal, sys
import fer_exp.training.callbacks.history as recorder
from fer_exp.train import main

hook, at_epoch = "{hook}", {at_epoch}
original = getattr(recorder.HistoryCallback, hook)

def killing(self, trainer, module):
    if "/1" in str(self.record.folder)[-2:] and trainer.current_epoch == at_epoch:
        os.kill(os.getpid(), signal.SIGKILL)
    original(self, trainer, module)

setattr(recorder.HistoryCallback, hook, killing)
main()
"""


# Early stopping ends each run after its third epoch.
STOPPED = ("trainer.max_epochs=4", "callbacks.early_stopping.patience=2", "callbacks.early_stopping.min_delta=10")


@pytest.fixture(scope="module")
def whole(faces, tmp_path_factory):
    """The same sweep, not killed."""
    folder = tmp_path_factory.mktemp("whole")
    subprocess.run([sys.executable, "-m", "fer_exp.train", *killed_sweep(faces, folder)], check=True)
    return folder


def killed_sweep(faces: Path, folder: Path) -> list[str]:
    return ["-m", "seed=0,1", *settings(faces), *STOPPED, f"hydra.sweep.dir={folder}"]


@pytest.mark.parametrize(
    ("hook", "at_epoch", "resumes"),
    [("on_train_epoch_start", 0, False), ("on_train_epoch_start", 2, True), ("on_train_end", 3, True)],
)
def test_a_killed_sweep_ends_as_if_it_had_not_been(command, child, faces, whole, tmp_path, hook, at_epoch, resumes):
    sweep = killed_sweep(faces, tmp_path / "killed")
    killed = child("-c", KILLED.format(hook=hook, at_epoch=at_epoch), *sweep, cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [s["status"] for s in records(tmp_path / "killed").values()] == ["completed", "running"]
    status, printed = command(*sweep)
    assert status == 0, printed
    assert ("Resuming from" in printed) is resumes
    for job in "01":
        assert figures(tmp_path / "killed" / job) == figures(whole / job)
        summaries = [read_summary(sweep / job) for sweep in (whole, tmp_path / "killed")]
        for key in ("status", "stopped_by", "epochs"):
            assert summaries[0][key] == summaries[1][key]
        assert summaries[0]["best"]["epoch"] == summaries[1]["best"]["epoch"]


def test_a_job_whose_folder_holds_other_files_is_refused_and_they_are_left(command, quick, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    sweep = ("-m", *quick, "seed=0", "hydra.sweep.dir=sweep", "hydra.sweep.subdir=../mine")
    for _ in range(2):
        status, printed = command(*sweep)
        assert status == 1
        assert "mine holds files that no run wrote (thesis.txt): move them" in printed
        assert "Refused and left as they were: 0." in printed
        assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"
    (tmp_path / "mine/thesis.txt").unlink()
    assert command(*sweep)[0] == 0


def test_jobs_that_another_process_refuses_are_told_at_the_end(child, faces, tmp_path):
    settings = ("data=folders", f"data.root={faces}", "data.batch_size=10", "trainer.max_epochs=1", "logger=none",
                "trainer.limit_train_batches=1", "hydra.sweep.dir=sweep", "seed=0,1")  # fmt: skip
    joblib = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "--config-dir")
    for folder, lr in (("a", 0.01), ("b", 0.5)):
        (tmp_path / folder / "optimizer").mkdir(parents=True)
        content = (CONFIG_DIR / "optimizer/sgd.yaml").read_text().replace("lr: 1e-2", f"lr: {lr}")
        (tmp_path / folder / "optimizer/mine.yaml").write_text(content)
    run = ("-m", "fer_exp.train", "-m", *settings, "optimizer=mine", *joblib)
    assert child(*run, "a", cwd=tmp_path).returncode == 0
    other = child(*run, "b", cwd=tmp_path)
    assert other.returncode == 1
    assert "other settings (optimizer.lr was 0.01 and is 0.5)" in other.stdout
    assert "Refused and left as they were: 0, 1." in other.stdout


def test_images_on_disk_are_streamed_in_the_workers_of_a_launcher(child, faces, tmp_path):
    swept = child(
        "-m", "fer_exp.train", "-m", "data=folders", f"data.root={faces}", "data.batch_size=10", "seed=0,1",
        "trainer.max_epochs=1", "trainer.limit_train_batches=2", "logger=none", "data.in_memory=false",
        "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", cwd=tmp_path,
    )  # fmt: skip
    assert swept.returncode == 0, swept.stdout + swept.stderr
    assert "Jobs: 2 completed." in swept.stdout
