"""A run that is killed, terminated or interrupted at any moment can be resumed with the same result."""

import random
import signal

import pytest
import torch

from fer_exp.runs.record import read_history, read_summary

pytestmark = pytest.mark.usefixtures("no_plots")

SECONDS = ("train_seconds", "val_seconds")
EPOCHS = 4
ENTRY = "from fer_exp.train import main\nmain()\n"


@pytest.fixture(scope="module")
def settings(faces):
    """A run that reduces its learning rate in each epoch, so every counter has a state to save."""
    return (
        "data=folders", f"data.root={faces}", "data.batch_size=10", "trainer.precision=32-true", "logger=none",
        f"trainer.max_epochs={EPOCHS}", "trainer.limit_train_batches=2", "scheduler.patience=0",
        "scheduler.threshold=10", "optimizer=sgd_nesterov", "callbacks.early_stopping.patience=4", "model=vgg_small",
        "model.widths=[8,8,8,8]",
    )  # fmt: skip


@pytest.fixture
def start(command, settings):
    """Start or resume the run in a folder."""
    return lambda folder: command(*settings, f"hydra.run.dir={folder}", "resume=auto")


@pytest.fixture
def assert_same_result(start, tmp_path):
    """Compare a run with one that was not interrupted."""
    whole = tmp_path / "whole"

    def compare(folder):
        if not whole.exists():
            assert start(whole)[0] == 0
        histories = [
            [{k: v for k, v in row.items() if k not in SECONDS} for row in read_history(f)] for f in (folder, whole)
        ]
        assert histories[0] == histories[1]
        for name in ("last", "best"):
            here, there = (torch.load(f / f"checkpoints/{name}.ckpt", weights_only=True) for f in (folder, whole))
            assert all(torch.equal(here["state_dict"][key], there["state_dict"][key]) for key in there["state_dict"])
        here, there = read_summary(folder), read_summary(whole)
        for key in ("status", "stopped_by", "epochs", "data", "confusion"):
            assert here[key] == there[key]
        assert here["best"]["epoch"] == there["best"]["epoch"]
        assert not list(folder.rglob(".*.draft"))

    return compare


# In its second epoch the process gets a signal, or its files may not grow beyond 200 kB: a full disk, in effect.
DISTURBED = """
import os, resource, signal, sys
from fer_exp.training.module import Classifier

signal.signal(signal.SIGINT, signal.default_int_handler)  # which background jobs of a shell ignore
how = sys.argv.pop(1)
step = Classifier.training_step

def disturbed(self, *arguments):
    if self.current_epoch == 1 and how == "full disk":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    elif self.current_epoch == 1:
        os.kill(os.getpid(), getattr(signal, how))
    return step(self, *arguments)

Classifier.training_step = disturbed
"""


@pytest.mark.parametrize("name", ["SIGINT", pytest.param("SIGTERM", marks=pytest.mark.slow)])
def test_an_interrupted_run_has_a_complete_record(child, start, assert_same_result, settings, tmp_path, name):
    folder = tmp_path / "run"
    ended = child("-c", DISTURBED + ENTRY, name, *settings, f"hydra.run.dir={folder}", cwd=tmp_path)
    assert ended.returncode == 128 + getattr(signal, name), ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    summary = read_summary(folder)
    assert (summary["status"], summary["epochs"], summary["best"]["epoch"]) == ("interrupted", 1, 1)
    assert (folder / "curves.png").exists()
    assert start(folder)[0] == 0
    assert_same_result(folder)


@pytest.mark.slow
def test_a_full_disk_leaves_what_was_saved(child, start, assert_same_result, settings, tmp_path):
    folder = tmp_path / "run"
    ended = child("-c", DISTURBED + ENTRY, "full disk", *settings, f"hydra.run.dir={folder}", cwd=tmp_path)
    assert ended.returncode == 1
    assert f"{folder} cannot be written" in ended.stderr
    assert "resume=auto" in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["epoch"] == 0
    assert not list(folder.rglob(".*.draft"))
    assert start(folder)[0] == 0
    assert_same_result(folder)


@pytest.mark.slow
def test_a_second_ctrl_c_ends_a_run_at_once(child, start, assert_same_result, settings, tmp_path):
    again = (
        "from fer_exp.training.callbacks.checkpoints import Checkpoints\n"
        "Checkpoints.on_exception = lambda *_: os.kill(os.getpid(), signal.SIGINT)\n"
    )
    folder = tmp_path / "run"
    ended = child("-c", DISTURBED + again + ENTRY, "SIGINT", *settings, f"hydra.run.dir={folder}", cwd=tmp_path)
    assert ended.returncode == -signal.SIGINT, ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    assert read_summary(folder)["status"] == "running"
    assert start(folder)[0] == 0
    assert_same_result(folder)


# Ctrl-C while Hydra prepares the second job of a sweep.
BETWEEN_JOBS = """
import os, signal
import hydra.core.utils

signal.signal(signal.SIGINT, signal.default_int_handler)
run_job, jobs = hydra.core.utils.run_job, []

def interrupted(*arguments, **options):
    jobs.append(1)
    if len(jobs) == 2:
        os.kill(os.getpid(), signal.SIGINT)
    return run_job(*arguments, **options)

hydra.core.utils.run_job = interrupted  # the launcher is imported later
"""


@pytest.mark.slow
def test_ctrl_c_between_jobs_ends_a_sweep(child, command, settings, tmp_path):
    sweep = ("-m", "seed=0,1", *settings, "trainer.max_epochs=1", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    ended = child("-c", BETWEEN_JOBS + ENTRY, *sweep, cwd=tmp_path)
    assert ended.returncode == 130, ended.stdout + ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert read_summary(tmp_path / "sweep/0")["status"] == "completed"
    status, printed = command(*sweep)
    assert status == 0
    assert "Jobs: 2 completed." in printed


# Kills the process at its n-th change of the file system: before a file is synced, replaced or removed, and before a
# folder is created. The last line is the number of changes.
KILLED = """
import os, signal, sys

at, changes = int(sys.argv.pop(1)), 0

def counted(function):
    def call(*arguments, **options):
        global changes
        changes += 1
        if changes == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call

for name in ("fsync", "replace", "mkdir", "unlink"):
    setattr(os, name, counted(getattr(os, name)))
"""


@pytest.mark.slow
def test_runs_killed_at_random_moments_end_like_one_that_was_not(child, assert_same_result, settings, tmp_path):
    def run(folder, at):
        arguments = (str(at), *settings, f"hydra.run.dir={folder}", "resume=auto")
        return child("-c", KILLED + ENTRY + "print(changes)", *arguments, cwd=tmp_path)

    changes = int(run(tmp_path / "counted", 0).stdout.splitlines()[-1])
    assert changes > 10 * EPOCHS
    chance, kills, runs = random.Random(0), 0, 0
    while kills < 30:
        folder = tmp_path / f"killed{runs}"
        runs += 1
        while (ended := run(folder, chance.randint(1, changes) if kills < 30 else 0)).returncode != 0:
            assert ended.returncode == -signal.SIGKILL, ended.stdout + ended.stderr
            kills += 1
            if (folder / "summary.json").exists():
                assert read_summary(folder)["status"] in ("running", "completed")
                epochs = [row["epoch"] for row in read_history(folder)]
                assert epochs == list(range(1, len(epochs) + 1))
            for checkpoint in folder.glob("checkpoints/*.ckpt"):
                torch.load(checkpoint, weights_only=True)
        assert_same_result(folder)
