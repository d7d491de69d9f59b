"""The train command as a person uses it: from any folder, with mistakes, as a sweep."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fer_exp.runs.record import read_history

QUICK = ("trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.precision=32-true", "data.batch_size=10")


def run_folders(tmp_path: Path) -> list[Path]:
    return sorted(path.parent for path in tmp_path.glob("outputs/**/summary.json"))


def test_one_run_leaves_its_record_under_outputs(command, faces, tmp_path):
    status, printed = command("data=folders", f"data.root={faces}", "optimizer=sgd", *QUICK)
    assert status == 0
    (folder,) = run_folders(tmp_path)
    assert folder.parent == tmp_path / "outputs/runs"
    assert folder.name.endswith("_sgd")
    assert {path.name for path in folder.iterdir()} == {
        ".hydra", "train.log", "history.csv", "summary.json", "checkpoints", "tensorboard",
        "samples.png", "model.png", "curves.png", "confusion_matrix.png",
    }  # fmt: skip
    assert "Epoch 1/1 - " in printed
    # A log file reads as the terminal does: every line that was printed, none of a progress bar.
    log = (folder / "train.log").read_text()
    assert "Found 70 images belonging to 7 classes." in log
    assert "Epoch 1/1 - " in log
    assert "\x1b" not in printed


def test_a_relative_root_is_taken_from_the_working_folder(command, faces, tmp_path):
    (tmp_path / "my faces").symlink_to(faces)
    settings = ["data=folders", "data.root=my faces", *QUICK]
    status, printed = command(*settings, "optimizer=sgd", "optimizer.lr=0.05", "seed=3", "logger=none")
    assert status == 0
    # The next command is for the same data, and the path is as it was typed.
    (sweep,) = [line.partition("python")[2] for line in printed.splitlines() if "optimizer=adam,sgd" in line]
    assert shlex.split(sweep) == ["-m", "fer_exp.train", "-m", *settings, "logger=none", "optimizer=adam,sgd,rmsprop"]


def test_a_run_from_a_checkpoint_suggests_no_sweep_over_other_data(command, faces, tmp_path):
    assert command("data=folders", f"data.root={faces}", "hydra.run.dir=run", "logger=none", *QUICK)[0] == 0
    status, printed = command("resume=run/checkpoints/last.ckpt", "trainer.max_epochs=2")
    assert status == 0, printed
    assert "optimizer=adam,sgd" not in printed


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["data=folders"], ["data.root"]),
        (["data=folders", "data.root=nowhere"], ["data.root", "nowhere"]),
        (["data=folders", "data.root=a_file"], ["a_file"]),
        (["data=folders", "data.root=empty"], ["empty", "train/"]),
        (["data=folders", "data.root={faces}", "data.batch_size=1000"], ["data.batch_size=1000", "70"]),
        (["data=[1,2]"], ["data=[1,2]", "folders", "synthetic"]),
        (["data.root=DIR"], ["data.root", "data=folders"]),
        (["optimizer=adamm"], ["adamm", "adam", "rmsprop", "sgd"]),
        (["optimizer.momentum=0.9"], ["optimizer.momentum", "optimizer=rmsprop"]),
        (["optimizer.lrr=1"], ["optimizer.lrr", "optimizer.lr"]),
        (["optimizer.lr=fast"], ["optimizer.lr=fast"]),
        (["optimizer.lr=-1", "trainer.max_epochs=0"], ["optimizer.lr", "trainer.max_epochs"]),
        (["epochs=5"], ["epochs=5", "trainer.max_epochs"]),
        (["data_root=DIR"], ["data_root=DIR", "data.root"]),
        (["lerning_rate=4"], ["lerning_rate=4", "optimizer.lr"]),
        (["optimiser=sgd"], ["optimiser=sgd", "optimizer="]),
        (["no_such_key=1"], ["no_such_key"]),
        (["resume=missing.ckpt"], ["missing.ckpt"]),
        (["resume=a_file"], ["a_file"]),
        (["output_dir=here"], ["hydra.run.dir=here"]),
        (["--config-dir", "broken", "optimizer=bad"], ["bad.yaml"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_gets_one_message_and_leaves_nothing(command, faces, tmp_path, arguments, named):
    (tmp_path / "a_file").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken/optimizer").mkdir(parents=True)
    (tmp_path / "broken/optimizer/bad.yaml").write_text("lr: [1,")
    status, printed = command(*(argument.format(faces=faces) for argument in arguments))
    assert status == 1
    assert all(part in printed for part in named), printed
    assert printed.count("Error: ") == 1
    assert "Traceback" not in printed
    assert [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()] == []


def test_other_files_and_other_runs_are_never_overwritten(command, faces, tmp_path):
    run = ("data=folders", f"data.root={faces}", "hydra.run.dir=one", "logger=none", *QUICK)
    assert command(*run)[0] == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert command(*run, "optimizer=sgd")[0] == 1
    assert command("hydra.run.dir=mine")[0] == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_interrupt_before_the_training_leaves_nothing(command, tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("fer_exp.train.check_config", interrupt)
    status, printed = command()
    assert status == 130
    assert "Traceback" not in printed
    assert list(tmp_path.glob("outputs/runs/*")) == []


def test_a_bug_is_logged_with_its_traceback(command, tmp_path, monkeypatch):
    monkeypatch.setattr("fer_exp.train.check_config", lambda _: 1 / 0)
    status, printed = command("hydra.run.dir=run")
    assert status == 1
    assert printed.count("Traceback") == 1
    assert "ZeroDivisionError" in (tmp_path / "run/train.log").read_text()


def test_hydra_full_error_shows_the_traceback(child, tmp_path):
    given = ("-m", "fer_exp.train", "optimizer=null")
    for value, traced in (("0", False), ("1", True)):
        result = child(*given, cwd=tmp_path, HYDRA_FULL_ERROR=value)
        assert result.returncode == 1
        assert ("Traceback" in result.stderr) is traced


# A process that holds a run's folder.
HOLD = """
from pathlib import Path
from fer_exp.runs.folder import lock_run_dir
with lock_run_dir(Path("run")):
    print("held", flush=True)
    input()
"""


@pytest.mark.parametrize("more", [[], ["resume=auto"]])
def test_a_second_process_in_a_run_folder_is_refused(command, tmp_path, more):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout.readline() == "held\n"
        status, printed = command("hydra.run.dir=run", *more)
        first.communicate("\n")
    assert status == 1
    assert "Traceback" not in printed
    assert list(tmp_path.rglob("summary.json")) == []


def test_help_and_the_composed_config_are_shown_without_importing_torch(tmp_path, child):
    code = (
        "import sys; sys.argv = ['fer_exp.train', '--cfg', 'job'];"
        "from fer_exp.train import main; main(); print('torch' in sys.modules)"
    )
    result = child("-c", code, cwd=tmp_path)
    assert result.stdout.splitlines()[-1] == "False", result.stderr
    help_ = child("-m", "fer_exp.train", "--help", cwd=tmp_path)
    assert help_.returncode == 0
    assert all(name in help_.stdout for name in ("sgd_nesterov", "max_epochs", "experiment"))


REAL = os.environ.get("FER_EXP_DATA")


@pytest.mark.skipif(not REAL, reason="FER_EXP_DATA does not name a folder with the FER2013 class folders")
def test_real_folders_train(command, tmp_path):
    small = tmp_path / "fer"
    for split in ("train", "validation"):
        for folder in sorted((Path(REAL) / split).iterdir()):
            target = small / split / folder.name
            target.mkdir(parents=True)
            for file in sorted(folder.iterdir())[:40]:
                (target / file.name).symlink_to(file)
    arguments = ("experiment=notebook", f"data.root={small}", "trainer.max_epochs=2", "logger=none")
    status, printed = command(*arguments)
    assert status == 0, printed
    assert "Found 280 images belonging to 7 classes." in printed
    (folder,) = run_folders(tmp_path)
    first, second = read_history(folder)
    assert second["step"] == 4  # 280 images: two batches of 128, the tail dropped
    assert second["train_loss"] < first["train_loss"]
    assert torch.isfinite(torch.tensor(second["val_loss"]))


def test_nothing_is_warned_of_that_nobody_can_act_on(child, faces, tmp_path):
    result = child(
        "-W", "default", "-m", "fer_exp.train", "data=folders", f"data.root={faces}", "callbacks=fixed_budget",
        "scheduler=none", "data.in_memory=false", *QUICK, cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0
    assert result.stderr == ""
    assert "Warning" not in result.stdout


@pytest.mark.parametrize("program", ["train", "evaluate"])
def test_a_reader_that_has_seen_enough_is_no_error(program):
    with subprocess.Popen(
        [sys.executable, "-m", f"fer_exp.{program}", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        said = process.stderr.read()
        process.wait()
    assert said == b""
