"""The train command as a person uses it: from any folder, with mistakes, as a sweep."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from fer_exp.records import read_history, read_summary
from fer_exp.train import main

QUICK = ("trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.precision=32-true", "data.batch_size=10")


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """Run the command in this process, in an empty folder; returns (exit status, what was printed)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", ["fer_exp.train", *arguments])
        status = 0
        try:
            main()
        except SystemExit as exit_:
            status = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        printed = capfd.readouterr()
        return status, printed.out + printed.err

    return run


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
    assert command("data=folders", "data.root='my faces'", *QUICK)[0] == 0


def test_a_sweep_trains_every_choice(command, faces, tmp_path):
    status, printed = command(
        "-m", "data=folders", f"data.root={faces}", "optimizer=adam,sgd", "seed=0,1", "logger=none", *QUICK
    )
    assert status == 0, printed
    folders = run_folders(tmp_path)
    assert len(folders) == 4
    assert len({folder.parent for folder in folders}) == 1
    summaries = [read_summary(folder) for folder in folders]
    assert {(s["optimizer"]["name"], s["seed"]) for s in summaries} == {
        ("Adam", 0), ("Adam", 1), ("SGD", 0), ("SGD", 1),
    }  # fmt: skip
    assert all(s["status"] == "completed" for s in summaries)


def test_a_sweep_goes_on_after_a_job_that_cannot_begin(command, faces, tmp_path):
    sweep = ("-m", "data=folders", f"data.root={faces}", "optimizer.lr=-1,0.001", "logger=none", *QUICK)
    status, printed = command(*sweep)
    assert status == 1
    assert "Invalid learning rate: -1" in printed
    assert [read_summary(folder)["status"] for folder in run_folders(tmp_path)] == ["failed", "completed"]


def test_a_sweep_over_nothing_is_warned_about(command, faces):
    sweep = ("-m", "data=folders", f"data.root={faces}", "optimizer.lr=0.001,1e-3", "logger=none", *QUICK)
    assert "the settings are those of job 0: what is swept changes nothing" in command(*sweep)[1]


def test_jobs_of_a_sweep_do_not_depend_on_their_neighbours(command, faces, tmp_path):
    common = ("data=folders", f"data.root={faces}", "logger=none", *QUICK)
    command("-m", "seed=3,0", *common)
    command("seed=0", *common)
    in_sweep, alone = tmp_path.glob("outputs/sweeps/*/1"), tmp_path.glob("outputs/runs/*")
    losses = [read_history(next(folders))[0]["train_loss"] for folders in (in_sweep, alone)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["data=folders"], ["data.root must be set", "data.root=DIR"]),
        (["data=folders", "data.root=nowhere"], ["data.root=nowhere", "no such folder"]),
        (["data=folders", "data.root=a_file"], ["data.root=a_file", "file"]),
        (["data=folders", "data.root=empty"], ["data.root=empty", "train/"]),
        (["data=folders", "data.root=half"], ["disgust", "fear", "surprise"]),
        (["data=folders", "data.root={faces}", "data.batch_size=1000"], ["data.batch_size=1000", "70"]),
        (["optimizer=adamm"], ["adamm", "adam", "rmsprop", "sgd"]),
        (["model=vgg99"], ["vgg99", "notebook_cnn", "resnet18"]),
        (["optimizer.lrr=1"], ["optimizer.lrr"]),
        (["optimizer.lr=fast"], ["optimizer.lr=fast", "expected a number"]),
        (["no_such_key=1"], ["no_such_key"]),
        (["monitor=val_los"], ["monitor=val_los", "val_loss"]),
        (["trainer.max_epochs=-3"], ["trainer.max_epochs=-3", "from 1 up"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_gets_one_message_and_leaves_nothing(command, faces, tmp_path, arguments, said):
    (tmp_path / "a_file").write_text("")
    (tmp_path / "empty").mkdir()
    for split in ("train", "validation"):
        (tmp_path / "half" / split).mkdir(parents=True)
        (tmp_path / "half" / split / "angry").symlink_to(faces / split / "angry")
    status, printed = command(*(argument.format(faces=faces) for argument in arguments))
    assert status == 1
    assert all(part in printed for part in said), printed
    assert "Traceback" not in printed
    assert [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()] == []


def test_a_folder_that_was_there_before_is_left_as_it_was(command, faces, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    status, printed = command("hydra.run.dir=mine")
    assert status == 1
    assert "mine holds other files: choose another hydra.run.dir" in printed
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_an_interrupt_before_the_training_leaves_nothing(command, tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("fer_exp.train.check_config", interrupt)
    status, printed = command()
    assert status == 130
    assert "Interrupted before the training began." in printed
    assert "Traceback" not in printed
    assert list(tmp_path.glob("outputs/runs/*")) == []


def test_a_run_never_writes_over_another_s_record(command, faces, tmp_path):
    run = ("data=folders", f"data.root={faces}", "hydra.run.dir=one", "logger=none", *QUICK)
    assert command(*run)[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "one").rglob("*") if path.is_file()}
    status, printed = command(*run, "optimizer=sgd")
    assert status == 1
    assert "holds the record of another run: choose another hydra.run.dir" in printed
    assert {path: path.read_bytes() for path in (tmp_path / "one").rglob("*") if path.is_file()} == before


def test_a_sweep_given_again_never_writes_over_its_records(command, faces, tmp_path):
    sweep = ("-m", "hydra.sweep.dir=swept", "data=folders", f"data.root={faces}", "seed=0,1", "logger=none", *QUICK)
    assert command(*sweep)[0] == 0
    assert command(*sweep)[0] == 1
    assert [read_summary(tmp_path / "swept" / job)["status"] for job in "01"] == ["completed", "completed"]


def child(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )


def test_help_and_the_composed_config_are_shown_without_importing_torch(tmp_path):
    code = (
        "import sys; sys.argv = ['fer_exp.train', '--cfg', 'job'];"
        "from fer_exp.train import main; main(); print('torch' in sys.modules)"
    )
    result = child("-c", code, cwd=tmp_path)
    assert result.stdout.splitlines()[-1] == "False", result.stderr
    assert "max_epochs: 8" in result.stdout
    help_ = child("-m", "fer_exp.train", "--help", cwd=tmp_path)
    assert help_.returncode == 0
    assert "optimizer: adam, adamw, rmsprop, sgd, sgd_nesterov" in help_.stdout


def test_an_installed_wheel_brings_its_configuration(tmp_path, faces):
    built = child(
        "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist"), cwd=Path(__file__).parents[2]
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)  # what an installer does with a wheel of plain Python
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    arguments = ["data=folders", f"data.root={faces}", "logger=none", *QUICK]
    result = child("-m", "fer_exp.train", *arguments, cwd=elsewhere, PYTHONPATH=str(site))
    assert result.returncode == 0, result.stderr
    assert len(run_folders(elsewhere)) == 1
    where = child("-c", "import fer_exp.config as c; print(c.CONFIG_DIR)", cwd=elsewhere, PYTHONPATH=str(site))
    assert where.stdout.strip() == str(site / "fer_exp" / "conf")


def test_an_optimizer_of_another_package_is_one_yaml(command, faces, tmp_path, monkeypatch):
    (tmp_path / "my_package.py").write_text(
        "import torch\nclass Lion(torch.optim.SGD):\n    def __init__(self, params, lr):\n"
        "        super().__init__(params, lr=lr)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_conf/optimizer").mkdir(parents=True)
    yaml = "_target_: my_package.Lion\n_partial_: true\nlr: 1e-4\n"
    (tmp_path / "my_conf/optimizer/lion.yaml").write_text(yaml)
    data = ("data=folders", f"data.root={faces}", "logger=none", *QUICK)
    status, printed = command("--config-dir", "my_conf", "optimizer=lion", *data)
    assert status == 0, printed
    assert read_summary(run_folders(tmp_path)[0])["optimizer"] == {
        "name": "Lion", "_target_": "my_package.Lion", "_partial_": True, "lr": 1e-4,
    }  # fmt: skip


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
