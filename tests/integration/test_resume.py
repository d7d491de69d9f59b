"""Resume a run: in place, in a new folder, from a copy, from linked folders, after a move, on another machine."""

import json
import os
import platform
import shutil
import sys
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from fer_exp import evaluate
from fer_exp.runs.record import read_history, read_summary
from fer_exp.train import main

pytestmark = pytest.mark.usefixtures("no_plots")

SECONDS = ("train_seconds", "val_seconds")
LONGER = "trainer.max_epochs=4"


def history(folder):
    return [{name: value for name, value in row.items() if name not in SECONDS} for row in read_history(folder)]


@pytest.fixture(scope="module")
def settings(faces):
    """Settings that differ from the defaults in several groups."""
    return (
        "data=folders", f"data.root={faces}", "data.batch_size=10", "trainer.precision=32-true", "logger=none",
        "trainer.limit_train_batches=2", "model=vgg_small", "model.widths=[4,4,4,4]", "optimizer=sgd_nesterov",
        "scheduler=none", "ema=default", "seed=3",
    )  # fmt: skip


@pytest.fixture(scope="module")
def base(settings, tmp_path_factory):
    """A run of two epochs, and the same run with four."""
    folder = tmp_path_factory.mktemp("base")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr("fer_exp.training.callbacks.plots.save_plot", lambda *_: True)
        for name, epochs in (("two", 2), ("four", 4)):
            GlobalHydra.instance().clear()
            arguments = [*settings, f"trainer.max_epochs={epochs}", f"hydra.run.dir={folder / name}"]
            patch.setattr(sys, "argv", ["fer_exp.train", *arguments])
            main()
    return folder


@pytest.fixture
def two(base, tmp_path):
    """A copy of the run of two epochs."""
    return shutil.copytree(base / "two", tmp_path / "two")


def in_place(two):
    return two, ()


def new_folder(two):
    return two.with_name("new"), ()


def linked_checkpoints(two):
    (two / "checkpoints").rename(two.with_name("scratch"))
    (two / "checkpoints").symlink_to(two.with_name("scratch"))
    return two, ()


def linked_folder(two):
    two.rename(two.with_name("moved"))
    two.symlink_to(two.with_name("moved"))
    return two, ()


def images_moved(two):
    config = read_summary(two)["config"]
    shutil.copytree(config["data"]["root"], two.with_name("images"))
    return two, ("data=folders", f"data.root={two.with_name('images')}")


def more_callbacks(two):
    return two, ("callbacks=fixed_budget",)


@pytest.mark.parametrize(
    "case", [in_place, new_folder, linked_checkpoints, linked_folder, images_moved, more_callbacks]
)
def test_a_resumed_run_takes_its_own_settings_and_continues_exactly(command, base, two, monkeypatch, case):
    folder, overrides = case(two)
    monkeypatch.setattr(platform, "node", lambda: "another-machine")
    checkpoint = two / "checkpoints/last.ckpt"
    resume = f"resume={os.path.relpath(checkpoint)}"
    status, printed = command(resume, LONGER, f"hydra.run.dir={folder}", *overrides)
    assert status == 0, printed
    assert history(folder) == history(base / "four")
    assert read_summary(folder)["config"]["resume"] == str(checkpoint)  # valid in any working directory
    here, there = read_summary(folder), read_summary(base / "four")
    assert here["environment"]["host"] == "another-machine"
    for key in ("status", "best", "last", "confusion"):
        ignored = dict.fromkeys(SECONDS)
        assert here[key] == there[key] or {**here[key], **ignored} == {**there[key], **ignored}
    assert here["config"]["optimizer"] == there["config"]["optimizer"]
    assert here["choices"]["optimizer"] == "sgd_nesterov"
    for name in ("best", "last"):
        checkpoints = [
            torch.load(place / f"checkpoints/{name}.ckpt", weights_only=True) for place in (folder, base / "four")
        ]
        assert checkpoints[0]["hyper_parameters"]["run_id"] == here["run_id"]
        states = [each["state_dict"] for each in checkpoints]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[1])


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("optimizer.lr=0.5", "optimizer.lr"),
        ("optimizer=adam", "optimizer._target_"),
        ("seed=4", "seed"),
        ("ema=none", "ema"),
    ],
)
def test_explicit_overrides_that_contradict_the_run_are_refused(command, two, override, key):
    before = (two / "summary.json").read_bytes()
    status, printed = command(f"resume={two}/checkpoints/last.ckpt", LONGER, f"hydra.run.dir={two}", override)
    assert status == 1
    assert key in printed
    assert (two / "summary.json").read_bytes() == before


def test_resume_auto_needs_the_run_s_folder(command, tmp_path):
    status, printed = command("resume=auto")
    assert status == 1
    assert "hydra.run.dir" in printed
    assert list(tmp_path.iterdir()) == []


def test_resume_auto_repeats_a_damaged_run_and_leaves_a_finished_one(command, base, settings, two):
    again = (*settings, "trainer.max_epochs=2", f"hydra.run.dir={two}", "resume=auto")
    before = (two / "summary.json").read_bytes()
    assert command(*again)[0] == 0
    assert (two / "summary.json").read_bytes() == before
    text = (two / "history.csv").read_text()
    (two / "history.csv").write_text(text[: len(text) // 2])
    assert command(*again)[0] == 0
    assert history(two) == history(base / "two")
    (two / "history.csv").unlink()
    (two / "checkpoints/last.ckpt").write_bytes(b"damaged")
    assert command(*again)[0] == 0
    assert history(two) == history(base / "two")


@pytest.mark.parametrize("is_sweep", [False, True])
def test_the_same_command_with_relative_paths_finds_its_finished_run(command, settings, faces, tmp_path, is_sweep):
    # The folder's name is a part of other values, and the beginning of the path of the images.
    (tmp_path / "optim_images").symlink_to(faces)
    place = ("hydra.sweep.dir=optim", "-m") if is_sweep else ("hydra.run.dir=optim", "resume=auto")
    again = (*settings, "data.root=optim_images", "trainer.max_epochs=1", *place)
    assert command(*again)[0] == 0
    summary = tmp_path / ("optim/0" if is_sweep else "optim") / "summary.json"
    before = summary.read_bytes()
    status, printed = command(*again)
    assert status == 0, printed
    assert summary.read_bytes() == before


def test_more_epochs_for_a_finished_run_in_the_way_that_the_refusal_says(command, base, settings, two):
    longer = (*settings, "trainer.max_epochs=4")
    status, printed = command(*longer, f"hydra.run.dir={two}", "resume=auto")
    assert status == 1
    assert "trainer.max_epochs was 2 and is 4" in printed
    (resume,) = [word.strip(".") for word in printed.split() if word.startswith("resume=")]
    assert command(*longer, resume, "hydra.run.dir=longer")[0] == 0
    assert history(Path("longer")) == history(base / "four")


def test_a_checkpoint_belongs_to_the_run_that_wrote_it(command, base, two, tmp_path):
    """The best checkpoint beside a resumed one may be of a later epoch: it is not taken over."""
    shutil.copy(two / "checkpoints/last.ckpt", two / "checkpoints/epoch2.ckpt")
    shutil.copy(base / "four/checkpoints/best.ckpt", two / "checkpoints/best.ckpt")  # of another run, or a later epoch
    status, printed = command(f"resume={two}/checkpoints/epoch2.ckpt", "trainer.max_epochs=3", "hydra.run.dir=other")
    assert status == 0, printed
    summary = read_summary(tmp_path / "other")
    best = torch.load(tmp_path / "other/checkpoints/best.ckpt", weights_only=True)
    assert best["hyper_parameters"]["run_id"] == summary["run_id"] != read_summary(two)["run_id"]
    assert best["epoch"] + 1 == summary["best"]["epoch"] <= 3
    (two / "checkpoints/last.ckpt").unlink()
    shutil.copy(tmp_path / "other/checkpoints/last.ckpt", two / "checkpoints/last.ckpt")
    status, printed = command(f"resume={two}/checkpoints/last.ckpt", LONGER, f"hydra.run.dir={two}")
    assert status == 1
    assert "another run" in printed


@pytest.mark.parametrize(
    ("program", "group"), [("train", "optimizer"), ("train", "data"), ("evaluate", "model"), ("evaluate", "data")]
)
def test_a_foreign_checkpoint_imports_no_other_package(run_main, two, tmp_path, monkeypatch, program, group):
    (tmp_path / "evil.py").write_text("open('imported', 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    path = two / "checkpoints/last.ckpt"
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["config"][group]["_target_"] = "evil.Class"
    torch.save(content, path)
    if program == "train":
        status, printed = run_main(main, f"resume={path}", LONGER, "hydra.run.dir=new")
    else:
        status, printed = run_main(evaluate.main, f"ckpt={path}", "resamples=100", "hydra.run.dir=found")
    assert status == 1
    assert "evil.Class" in printed
    assert not (tmp_path / "imported").exists()


def test_a_record_is_the_run_s_own_config(two):
    summary = json.loads((two / "summary.json").read_text())
    assert "${" not in json.dumps(summary["config"])
    assert summary["config"]["data"]["seed"] == summary["seed"] == 3
