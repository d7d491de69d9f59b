"""Resuming: a resumed run ends like one that was never interrupted, and a checkpoint is used only if it belongs."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_exp.errors import UserError
from fer_exp.runs.record import read_history, read_summary
from fer_exp.train import train
from fer_exp.training.resume import check_resume


def metrics(folder):
    return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in read_history(folder)]


def weights(folder, name):
    return torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True)["state_dict"]


def assert_same_run(a, b):
    assert metrics(a) == metrics(b)
    for name in ("last", "best"):
        first, second = weights(a, name), weights(b, name)
        assert all(torch.equal(first[key], second[key]) for key in first), name


def last(folder):
    return f"resume={folder}/checkpoints/last.ckpt"


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory):
    return tmp_path_factory.mktemp("one_epoch") / "run"


@pytest.fixture
def resumable(tiny, tmp_path, one_epoch):
    """The folder of a run of one epoch."""
    if not one_epoch.exists():
        train(tiny("trainer.max_epochs=1", folder=one_epoch))
    return Path(shutil.copytree(one_epoch, tmp_path / "resumable"))


def test_run_with_more_epochs_in_a_new_folder_equals_a_whole_run(tiny, tmp_path):
    recipe = ("scheduler.patience=0", "scheduler.threshold=10", "callbacks=fixed_budget")  # reduces lr every epoch
    whole, part, rest = (tmp_path / name for name in ("whole", "part", "rest"))
    train(tiny(*recipe, "trainer.max_epochs=4", folder=whole))
    train(tiny(*recipe, "trainer.max_epochs=2", folder=part))
    train(tiny(*recipe, "trainer.max_epochs=4", last(part), folder=rest))
    assert_same_run(whole, rest)
    assert [row["lr"] for row in metrics(whole)] == pytest.approx([1e-3, 1e-3, 2e-4, 4e-5])
    assert read_summary(rest)["run_id"] != read_summary(part)["run_id"]


EVERYTHING = (
    "augmentation=strong", "mixup=cutmix", "mixup.mixup_alpha=0.2", "loss.label_smoothing=0.1",
    "loss.class_weights=balanced", "ema=default", "ema.decay=0.9", "callbacks=fixed_budget",
    "trainer.gradient_clip_val=1.0", "weight_decay_exclude_1d=true", "data.balanced_sampling=true", "monitor=val_acc",
    "trainer.limit_train_batches=3", "trainer.limit_val_batches=1", "+trainer.accumulate_grad_batches=2",
)  # fmt: skip


OWN_AUGMENTATION = """
import random
import numpy
from torch import nn

class Scale(nn.Module):
    def forward(self, images):
        return images * random.random() * numpy.random.rand()
"""


# test_optimizers.py restores the state of every optimizer.
@pytest.mark.parametrize(
    ("optimizer", "scheduler"), [("adamw", "one_cycle"), ("rmsprop", "cosine"), ("sgd_nesterov", "plateau")]
)
def test_interrupted_recipe_with_everything_equals_a_whole_run(tiny, tmp_path, interrupted, optimizer, scheduler):
    recipe = (*EVERYTHING, f"optimizer={optimizer}", f"scheduler={scheduler}", "optimizer.weight_decay=1e-3")
    whole, part = tmp_path / "whole", tmp_path / "part"
    train(tiny(*recipe, folder=whole))
    with interrupted(2, step=1):
        train(tiny(*recipe, folder=part))
    assert len(metrics(part)) == 1
    run_id = read_summary(part)["run_id"]
    train(tiny(*recipe, last(part), folder=part))
    assert_same_run(whole, part)
    assert read_summary(part)["run_id"] == run_id


def test_own_augmentation_may_draw_from_python_and_numpy(tiny, tmp_path, monkeypatch, interrupted):
    (tmp_path / "augmentation_of_a_user.py").write_text(OWN_AUGMENTATION)
    monkeypatch.syspath_prepend(tmp_path)
    whole, part = tmp_path / "whole", tmp_path / "part"

    def config(*overrides, folder):
        cfg = tiny(*overrides, folder=folder)
        cfg.augmentation = {"_target_": "augmentation_of_a_user.Scale"}
        return cfg

    train(config(folder=whole))
    with interrupted(2, step=3):
        train(config(folder=part))
    train(config(last(part), folder=part))
    assert_same_run(whole, part)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("optimizer=sgd", "optimizer._target_"),
        ("data.val_fraction=0.5", "fingerprint.train"),
        ("+trainer.accumulate_grad_batches=3", "trainer.accumulate_grad_batches was None and is 3"),
        ("trainer.limit_train_batches=3", "trainer.limit_train_batches was 1.0 and is 3"),
        ("monitor=val_acc", "monitor was val_loss and is val_acc"),
        ("data.seed=1", "data.seed was 0 and is 1"),
        ("trainer.precision=bf16-mixed", "precision was 32-true and is bf16-mixed"),
        ("trainer.max_epochs=1", "trained 1 epoch; expected trainer.max_epochs"),
    ],
)
def test_other_settings_are_refused(tiny, tmp_path, resumable, override, key):
    with pytest.raises(UserError, match=key):
        train(tiny(last(resumable), override))
    assert not (tmp_path / "run").exists()


def test_damaged_checkpoint_is_refused_or_unchanged(tmp_path):
    config = {"trainer": {"max_epochs": 9}, "model": {}}
    hyper_parameters = {"config": config, "classes": ["a"], "image_shape": [1, 48, 48]}
    hyper_parameters |= {"precision": "32-true", "fingerprint": {}, "run_id": "a"}
    content = {"epoch": 1, "hyper_parameters": hyper_parameters, "optimizer_states": [{"step": 2}]}
    content["state_dict"] = {"weight": torch.arange(6.0)}
    path = tmp_path / "last.ckpt"
    torch.save(content, path)
    check_resume(str(path), hyper_parameters, tmp_path)
    whole = path.read_bytes()
    place = st.integers(0, len(whole))
    cut = st.tuples(place, st.integers(0, 8), st.binary(max_size=8))
    damaged = st.one_of(
        place.map(lambda end: whole[:end]), cut.map(lambda c: whole[: c[0]] + c[2] + whole[sum(c[:2]) :])
    )

    @settings(derandomize=True, deadline=None, max_examples=100)
    @given(damaged)
    def check(data):
        path.write_bytes(data)
        try:
            check_resume(str(path), hyper_parameters, tmp_path)
        except UserError:
            return
        same = torch.load(path, weights_only=True)
        assert torch.equal(same.pop("state_dict")["weight"], content["state_dict"]["weight"])
        assert same == {key: value for key, value in content.items() if key != "state_dict"}

    check()


def test_checkpoint_of_other_classes_is_refused(tiny, resumable):
    file = resumable / "checkpoints/last.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["hyper_parameters"]["classes"] = ["happy", "sad"]
    torch.save(checkpoint, file)
    with pytest.raises(UserError, match="classes was"):
        train(tiny(last(resumable)))


def best_epoch(folder):
    checkpoint = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["run_id"] == read_summary(folder)["run_id"]
    return checkpoint["epoch"] + 1


def test_best_checkpoint_of_a_later_epoch_is_not_taken_over(tiny, tmp_path):
    run, resumed = tmp_path / "a", tmp_path / "b"
    recipe = (
        "callbacks=fixed_budget",
        "monitor=train_loss",
        "scheduler=none",
        "optimizer.lr=3e-3",
    )  # falls each epoch
    train(tiny(*recipe, "trainer.max_epochs=2", folder=run))
    shutil.copy(run / "checkpoints/last.ckpt", run / "checkpoints/epoch2.ckpt")
    train(tiny(*recipe, "trainer.max_epochs=6", last(run), folder=run))
    assert best_epoch(run) > 2
    train(tiny(*recipe, "trainer.max_epochs=3", f"resume={run}/checkpoints/epoch2.ckpt", folder=resumed))
    assert best_epoch(resumed) == read_summary(resumed)["best"]["epoch"] <= 3


OWN_METRIC = """
from lightning.pytorch.callbacks import Callback

class Own(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        pl_module.log("own", 1.0 / (1 + trainer.current_epoch))
"""


@pytest.mark.parametrize("place", ["copied alone", "linked folder", "moved"])
def test_best_checkpoint_is_found_or_its_absence_is_reported(tiny, tmp_path, monkeypatch, place):
    run, other, resumed = tmp_path / "a", tmp_path / "other", tmp_path / "b"
    # The epoch before the resumed one is the best, so last.ckpt cannot take the place of best.ckpt.
    own = tmp_path / "own_metric_of_a_user.py"
    own.write_text(OWN_METRIC)
    monkeypatch.syspath_prepend(tmp_path)
    recipe = ("+callbacks.own={_target_:own_metric_of_a_user.Own}", "monitor=own", "callbacks=fixed_budget")
    train(tiny(*recipe, folder=run))
    assert best_epoch(run) == 1
    if place == "copied alone":
        (other / "checkpoints").mkdir(parents=True)
        shutil.copy(run / "checkpoints/last.ckpt", other / "checkpoints/last.ckpt")
    elif place == "linked folder":
        shutil.move(run / "checkpoints", tmp_path / "scratch")
        (run / "checkpoints").symlink_to(tmp_path / "scratch")
        other = run
    else:
        shutil.move(run, other)
    train(tiny(*recipe, "trainer.max_epochs=3", last(other), folder=resumed))
    summary = read_summary(resumed)
    assert best_epoch(resumed) == summary["best"]["epoch"]
    if place == "copied alone":
        assert summary["best"]["epoch"] == 3
        assert any("best.ckpt" in warning for warning in summary["warnings"])
    else:
        assert summary["best"]["epoch"] == 1
        assert not any("best.ckpt" in warning for warning in summary["warnings"])


def test_schedule_over_the_run_cannot_change_its_length(tiny, tmp_path):
    recipe = ("scheduler=cosine", "scheduler.warmup=0.0", "callbacks=fixed_budget")
    train(tiny(*recipe))
    # 14 steps; the lr of an epoch is that of its last step.
    expected = [1e-3 * (1 + math.cos(math.pi * step / 14)) / 2 for step in (6, 13)]
    assert [row["lr"] for row in metrics(tmp_path / "run")] == pytest.approx(expected)
    with pytest.raises(UserError, match=r"trainer\.max_epochs was 2 and is 4"):
        train(tiny(*recipe, "trainer.max_epochs=4", last(tmp_path / "run")))


def test_schedule_that_has_not_started_to_decay_can_change_its_length(tiny, tmp_path, interrupted):
    recipe = ("scheduler=wsd", "scheduler.warmup=2", "scheduler.decay=0.5", "callbacks=fixed_budget")
    whole, part, rest = tmp_path / "whole", tmp_path / "part", tmp_path / "rest"
    train(tiny(*recipe, "trainer.max_epochs=3", folder=whole))
    with interrupted(2):
        train(tiny(*recipe, "trainer.max_epochs=4", "scheduler.decay=0.25", folder=part))
    train(tiny(*recipe, "trainer.max_epochs=3", last(part), folder=rest))
    assert metrics(rest) == metrics(whole)
    assert metrics(whole)[-1]["lr"] < metrics(whole)[0]["lr"] == pytest.approx(1e-3)
    with pytest.raises(UserError, match=r"trainer\.max_epochs was 3 and is 4"):
        train(tiny(*recipe, "trainer.max_epochs=4", last(whole), folder=whole))
