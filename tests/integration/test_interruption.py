"""A run that is killed, terminated or interrupted at any moment goes on as if nothing had happened."""

import random
import signal

import pytest
import torch

from fer_exp.runs.record import read_history, read_summary

TIMES = ("train_seconds", "val_seconds")
EPOCHS = 4

# The command, in a process that a signal hits at its n-th change of the file system: before a file is made safe, put in
# its place or taken away, and before a folder is made. The number of such moments is the last line that is printed.
HIT = """
import builtins, os, signal, sys

at, name = int(sys.argv.pop(1)), sys.argv.pop(1)
moments = 0

def hit_before(function):
    def call(*arguments, **options):
        global moments
        moments += 1
        if moments == at:
            os.kill(os.getpid(), getattr(signal, name))
        return function(*arguments, **options)
    return call

for change in ("fsync", "replace", "mkdir", "unlink"):
    setattr(os, change, hit_before(getattr(os, change)))
from fer_exp.train import main
main()
print(moments)
"""


@pytest.fixture(scope="module")
def settings(faces):
    """A run of seconds with a rate cut in each epoch, so that every counter has something to remember."""
    return (
        "data=folders", f"data.root={faces}", "data.batch_size=10", "trainer.precision=32-true", "logger=none",
        f"trainer.max_epochs={EPOCHS}", "trainer.limit_train_batches=2", "scheduler.patience=0",
        "scheduler.threshold=10", "optimizer=sgd_nesterov", "callbacks.early_stopping.patience=4",
    )  # fmt: skip


@pytest.fixture(scope="module")
def start(child, settings):
    """Begin or go on with a run in ``folder``, to be hit at a moment by a signal."""

    def run(folder, moment=0, name="SIGKILL"):
        arguments = (*settings, f"hydra.run.dir={folder}", "resume=auto")
        return child("-c", HIT, str(moment), name, *arguments, cwd=folder.parent)

    return run


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """The run that was not interrupted: its folder, and how many changes of the file system it made."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    ended = start(folder)
    assert ended.returncode == 0, ended.stderr
    return folder, int(ended.stdout.splitlines()[-1])


def assert_same_outcome(folder, whole):
    histories = [[{k: v for k, v in row.items() if k not in TIMES} for row in read_history(f)] for f in (folder, whole)]
    assert histories[0] == histories[1]
    for name in ("last", "best"):
        states = [torch.load(f / f"checkpoints/{name}.ckpt", weights_only=True)["state_dict"] for f in (folder, whole)]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[1]), name
    here, there = read_summary(folder), read_summary(whole)
    for key in ("status", "stopped_by", "epochs", "data", "config"):
        assert {**here, "config": {**here["config"], "resume": None}}[key] == {
            **there, "config": {**there["config"], "resume": None}
        }[key]  # fmt: skip
    for key in ("best", "last"):
        assert here[key]["epoch"] == there[key]["epoch"]
    assert not list(folder.rglob(".*.draft"))


def kill_again_and_again(start, whole, tmp_path, kills, seed):
    """Kill runs at random moments until that was done ``kills`` times; each ends as the one that was not killed."""
    whole, moments = whole
    assert moments > 10 * EPOCHS
    chance = random.Random(seed)
    done = runs = 0
    while done < kills:
        folder = tmp_path / f"killed{runs}"
        runs += 1
        while True:
            # The next moment to be killed at, or, towards the end, none.
            ended = start(folder, chance.randint(1, moments) if done < kills else 0)
            if ended.returncode == 0:
                break
            assert ended.returncode == -signal.SIGKILL, ended.stdout + ended.stderr
            done += 1
            if (folder / "summary.json").exists():
                assert read_summary(folder)["status"] == "running"
                rows = read_history(folder)
                assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
            for checkpoint in folder.glob("checkpoints/*.ckpt"):
                torch.load(checkpoint, weights_only=True)
        assert_same_outcome(folder, whole)


def test_a_run_killed_at_random_moments_ends_as_one_that_was_not(start, whole, tmp_path):
    kill_again_and_again(start, whole, tmp_path, kills=3, seed=0)


@pytest.mark.slow
def test_a_run_killed_thirty_times_at_random_moments_ends_as_one_that_was_not(start, whole, tmp_path):
    kill_again_and_again(start, whole, tmp_path, kills=30, seed=1)


# The command, in a process that is sent a signal in its second epoch.
SIGNALLED = """
import os, signal, sys
from fer_exp.training.module import Classifier

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's jobs in the background ignore
name = sys.argv.pop(1)
step = Classifier.training_step

def signalled(self, *arguments):
    if self.current_epoch == 1:
        os.kill(os.getpid(), getattr(signal, name))
    return step(self, *arguments)

Classifier.training_step = signalled
from fer_exp.train import main
main()
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_run_that_is_asked_to_end_leaves_a_whole_record_and_goes_on(child, start, whole, settings, tmp_path, name):
    folder = tmp_path / "asked"
    ended = child("-c", SIGNALLED, name, *settings, f"hydra.run.dir={folder}", cwd=tmp_path)
    assert ended.returncode == 128 + getattr(signal, name), ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    summary = read_summary(folder)
    assert (summary["status"], summary["epochs"]) == ("interrupted", 1)
    assert "Interrupted after 1 epoch." in ended.stdout
    assert (folder / "curves.png").exists()
    assert summary["best"]["epoch"] == 1
    assert start(folder).returncode == 0
    assert_same_outcome(folder, whole[0])


# The same, and once more while the first is dealt with.
AGAIN = SIGNALLED.replace(
    "from fer_exp.train import main",
    "from fer_exp.training.callbacks.checkpoints import Checkpoints\n"
    "Checkpoints.on_exception = lambda *_: os.kill(os.getpid(), signal.SIGINT)\n"
    "from fer_exp.train import main",
)


def test_a_second_ctrl_c_ends_a_run_at_once_and_it_goes_on(child, start, whole, settings, tmp_path):
    folder = tmp_path / "asked"
    ended = child("-c", AGAIN, "SIGINT", *settings, f"hydra.run.dir={folder}", cwd=tmp_path)
    assert ended.returncode == -signal.SIGINT, ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    assert read_summary(folder)["status"] == "running"
    assert not (folder / "curves.png").exists()
    assert start(folder).returncode == 0
    assert_same_outcome(folder, whole[0])


# The command, in a process whose files may not grow beyond 1 MB from its second epoch on: a full disk, in effect.
FULL = """
import resource, signal, sys
from fer_exp.training.module import Classifier

step = Classifier.training_step

def full(self, *arguments):
    if self.current_epoch == 1:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
    return step(self, *arguments)

Classifier.training_step = full
from fer_exp.train import main
main()
"""


def test_a_full_disk_is_said_and_leaves_what_was_saved(child, start, whole, settings, tmp_path):
    folder = tmp_path / "full"
    ended = child("-c", FULL, *settings, f"hydra.run.dir={folder}", cwd=tmp_path)
    assert ended.returncode == 1
    assert f"Error: {folder} cannot be written" in ended.stdout
    assert "resume=auto" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr
    assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["epoch"] == 0
    assert not list(folder.rglob(".*.draft"))
    assert start(folder).returncode == 0
    assert_same_outcome(folder, whole[0])


def test_a_finished_run_given_again_is_left_as_it_is(start, whole):
    before = (whole[0] / "summary.json").read_bytes()
    again = start(whole[0])
    assert again.returncode == 0
    assert "This run was finished before." in again.stdout
    assert (whole[0] / "summary.json").read_bytes() == before
