import importlib.util
import json
import math

import pytest

from benchmarks.contenders.naive_lightning import NaiveLightning
from benchmarks.contenders.own import Own
from benchmarks.contenders.plain import Plain
from benchmarks.contenders.turns import WARMUP_STEPS, Contender, mean_step
from benchmarks.training import Lengths, epoch_batches, format_table, main, measure, summarize

KEYS = {"step_seconds", "train_seconds", "val_seconds", "train_loss", "val_loss"}


@pytest.fixture
def settings(faces):
    return {
        "root": str(faces),
        "train": str(faces / "train"),
        "validation": str(faces / "validation"),
        "batch_size": 10,
        "precision": "32-true",
    }


class Scripted:
    """A contender with given seconds, which records its turns."""

    def __init__(self, name, turns, steps, epochs):
        self.facts = {"precision": "32-true", "threads": 2, "versions": {}}
        self.name, self.turns, self.steps, self.epochs = name, turns, iter(steps), iter(epochs)

    def turn(self, steps, validation):
        self.turns.append((self.name, steps, validation))
        if steps == WARMUP_STEPS + 1:
            return {"step_seconds": 100.0, "train_seconds": 100.0, "val_seconds": 100.0}
        if steps == 7:
            return {"step_seconds": next(self.steps), "train_seconds": 100.0, "val_seconds": 100.0}
        train, val = next(self.epochs)
        return {"step_seconds": 100.0, "train_seconds": train, "val_seconds": val}


@pytest.fixture
def turns():
    return []


@pytest.fixture
def measured(turns):
    return measure(
        {
            "fer_exp": Scripted("fer_exp", turns, [0.5, 0.4, 0.8], [(10, 1), (20, 2), (15, 1)]),
            "keras": Scripted("keras", turns, [1.5, 1.6, 1.6], [(30, 3), (30, 3), (30, 2)]),
        },
        Lengths(steps=7, epoch=50, validation=4),
        rounds=3,
    )


@pytest.mark.slow
def test_the_plain_loop_takes_the_steps_of_fer_exp(settings):
    plain = Plain(**settings)
    ours, theirs = Own(**settings).turn(7, 4), plain.turn(7, 4)
    assert ours.keys() == theirs.keys() == KEYS
    for loss in ("train_loss", "val_loss"):
        assert theirs[loss] == pytest.approx(ours[loss], rel=1e-6), loss
    # The last step and the last validation images count.
    assert plain.turn(6, 4)["train_loss"] != pytest.approx(ours["train_loss"], rel=1e-6)
    assert plain.turn(7, 3)["val_loss"] != pytest.approx(ours["val_loss"], rel=1e-6)
    for turn in (ours, theirs):
        assert 0 < turn["step_seconds"] * (7 - WARMUP_STEPS) < turn["train_seconds"] + 0.001
        assert turn["val_seconds"] > 0


def test_the_tutorial_takes_the_requested_steps(settings):
    contender = NaiveLightning(**settings)
    turn = contender.turn(3, 2)
    assert contender.module.trainer.global_step == 3
    assert contender.module.trainer.num_val_batches == [2]
    assert turn.keys() == KEYS
    assert all(math.isfinite(value) for value in turn.values())


def test_a_step_time_excludes_the_warm_up():
    assert mean_step(10.0, 16.0, WARMUP_STEPS + 3) == 2.0
    assert math.isnan(mean_step(10.0, 10.0, WARMUP_STEPS))
    assert math.isnan(mean_step(None, 10.0, 1))


@pytest.mark.parametrize(
    ("images", "expected"), [(28709, (224, 29)), (14354, (112, 15)), (640, (5, 1)), (128, (1, 1)), (0, (0, 0))]
)
def test_a_fraction_of_an_epoch_is_validated_on_the_same_fraction(images, expected):
    assert epoch_batches(images, (28709, 3589), 128) == expected


def test_contenders_take_turns_and_the_warm_up_is_discarded(measured, turns):
    assert turns[:2] == [("fer_exp", WARMUP_STEPS + 1, 2), ("keras", WARMUP_STEPS + 1, 2)]
    assert [name for name, *_ in turns[2:10]] == ["fer_exp", "keras"] * 2 + ["keras", "fer_exp"] * 2
    assert [turn for _, *turn in turns[2:6]] == [[7, 1], [7, 1], [50, 4], [50, 4]]
    assert measured["fer_exp"].steps == [0.5, 0.4, 0.8]
    assert measured["keras"].epochs == [33, 33, 32]


def test_medians_and_ratios(measured):
    ours, theirs = summarize(measured, 128).values()
    assert ours["step_seconds"] == {"median": 0.5, "least": 0.4, "most": 0.8}
    assert ours["epoch_seconds"] == {"median": 16, "least": 11, "most": 22}
    assert ours["images_per_second"] == 256
    assert theirs["step_ratio"] == 3  # of 3, 4 and 2: not 1.6 / 0.5
    assert theirs["epoch_ratio"] == 2  # of 3, 1.5 and 2
    assert format_table(measured, 128).splitlines()[-1].split()[-2:] == ["3.00", "2.00"]


def test_missing_reference_or_epochs_give_no_ratios(measured):
    del measured["fer_exp"]
    measured["keras"].epochs = []
    assert format_table(measured, 128).splitlines()[-1].split()[-3:] == ["-", "-", "-"]


@pytest.mark.slow
def test_the_command_prints_and_writes_the_medians(faces, tmp_path, capsys):
    main(
        f"--data {faces} --contenders plain --images 40 --steps 2 --rounds 2 --batch-size 10 --threads 1 "
        f"--precision 32-true --json {tmp_path / 'training.json'}".split()
    )
    results = json.loads((tmp_path / "training.json").read_text())
    plain = results["measured"]["plain"]
    assert plain["facts"]["threads"] == 1
    assert results["turns"] == {"steps": 2 + WARMUP_STEPS, "epoch": 4, "validation": 2}
    median = results["medians"]["plain"]["step_seconds"]["median"]
    assert median == sum(plain["steps"]) / 2
    assert f"{median * 1000:,.1f} [" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed here")
def test_a_contender_with_a_missing_package_is_skipped(faces, capsys):
    with pytest.raises(SystemExit, match="no contender"):
        main(["--data", str(faces), "--contenders", "keras", "--steps", "2", "--batch-size", "10"])
    assert "keras is skipped: tensorflow" in capsys.readouterr().out


def test_a_failed_contender_is_reported_with_its_output(settings):
    with pytest.raises(RuntimeError, match=r"(?s)benchmarks.contenders.none ended with 1:.*No module named"):
        Contender("benchmarks.contenders.none", settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--contenders", "plain,jax"], "--contenders=jax"),
        (["--images", "5"], "--images=5"),
        (["--images", "71"], "--images=71"),
        (["--steps", "6"], "at most 5"),
        (["--rounds", "0"], "--rounds=0"),
        (["--keras-python", "/nowhere/python"], "/nowhere/python"),
        (["--data", "/nowhere"], "--data=/nowhere"),
    ],
)
def test_invalid_options_are_refused(faces, capsys, options, message):
    with pytest.raises(SystemExit):
        main(["--data", str(faces), "--steps", "2", "--batch-size", "10", *options])
    assert message in capsys.readouterr().err


def test_the_keras_network_has_the_parameters_of_the_notebook():
    tensorflow = pytest.importorskip("tensorflow")
    from benchmarks.contenders.keras_notebook import notebook_model

    model = notebook_model(tensorflow.keras)
    assert sum(weights.numpy().size for weights in model.trainable_weights) == 4_474_759
    assert sum(weights.numpy().size for weights in model.non_trainable_weights) == 3_968
