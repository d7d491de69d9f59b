import importlib.util
import json
import math
import sys

import pytest
from PIL import Image

from benchmarks.contenders.naive_lightning import NaiveLightning
from benchmarks.contenders.own import Own
from benchmarks.contenders.plain import Plain
from benchmarks.contenders.turns import UNMEASURED, Contender, mean_step
from benchmarks.training import Lengths, chart, epoch_batches, format_table, main, measure, summarise

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
    """Answers with seconds that are given, and notes when it was asked."""

    def __init__(self, name, asked, steps, epochs):
        self.facts = {"precision": "32-true", "threads": 2, "versions": {}}
        self.name, self.asked, self.steps, self.epochs = name, asked, iter(steps), iter(epochs)

    def turn(self, steps, validation):
        self.asked.append((self.name, steps, validation))
        if steps == UNMEASURED + 1:
            return {"step_seconds": 100.0, "train_seconds": 100.0, "val_seconds": 100.0}
        if steps == 7:
            return {"step_seconds": next(self.steps), "train_seconds": 100.0, "val_seconds": 100.0}
        train, val = next(self.epochs)
        return {"step_seconds": 100.0, "train_seconds": train, "val_seconds": val}


@pytest.fixture
def asked():
    return []


@pytest.fixture
def measured(asked):
    return measure(
        {
            "fer_exp": Scripted("fer_exp", asked, [0.5, 0.4, 0.8], [(10, 1), (20, 2), (15, 1)]),
            "keras": Scripted("keras", asked, [1.5, 1.6, 1.6], [(30, 3), (30, 3), (30, 2)]),
        },
        Lengths(steps=7, epoch=50, validation=4),
        rounds=3,
    )


def test_a_step_of_the_plain_loop_is_one_of_fer_exp(settings):
    plain = Plain(**settings)
    ours, theirs = Own(**settings).turn(7, 4), plain.turn(7, 4)
    assert ours.keys() == theirs.keys() == KEYS
    for loss in ("train_loss", "val_loss"):
        assert math.isfinite(ours[loss])
        assert theirs[loss] == pytest.approx(ours[loss], rel=1e-6), loss
    # The last step counts, and so do the validation's last images.
    assert plain.turn(6, 4)["train_loss"] != pytest.approx(ours["train_loss"], rel=1e-6)
    assert plain.turn(7, 3)["val_loss"] != pytest.approx(ours["val_loss"], rel=1e-6)
    for taken in (ours, theirs):
        assert 0 < taken["step_seconds"] * (7 - UNMEASURED) < taken["train_seconds"] + 0.001
        assert taken["val_seconds"] > 0


def test_the_tutorial_takes_as_many_steps_as_it_is_told_to(settings):
    contender = NaiveLightning(**settings)
    taken = contender.turn(3, 2)
    assert contender.module.trainer.global_step == 3
    assert contender.module.trainer.num_val_batches == [2]
    assert taken.keys() == KEYS
    assert 0 < taken["step_seconds"] < taken["train_seconds"]
    assert all(math.isfinite(value) for value in taken.values())


def test_the_first_steps_are_not_in_a_step_time():
    assert mean_step(10.0, 16.0, UNMEASURED + 3) == 2.0
    assert math.isnan(mean_step(10.0, 10.0, UNMEASURED))
    assert math.isnan(mean_step(None, 10.0, 1))


@pytest.mark.parametrize(
    ("images", "expected"), [(28709, (224, 29)), (14354, (112, 15)), (640, (5, 1)), (128, (1, 1)), (0, (0, 0))]
)
def test_a_part_of_an_epoch_is_validated_on_the_same_part(images, expected):
    assert epoch_batches(images, (28709, 3589), 128) == expected


def test_contenders_take_turns_and_the_warm_up_is_not_kept(measured, asked):
    assert asked[:2] == [("fer_exp", UNMEASURED + 1, 2), ("keras", UNMEASURED + 1, 2)]
    assert [name for name, *_ in asked[2:]] == ["fer_exp", "keras"] * 2 + ["keras", "fer_exp"] * 2 + [
        "fer_exp",
        "keras",
    ] * 2
    assert [turn for _, *turn in asked[2:6]] == [[7, 1], [7, 1], [50, 4], [50, 4]]
    assert measured["fer_exp"].steps == [0.5, 0.4, 0.8]
    assert measured["keras"].epoch_seconds == [33, 33, 32]


def test_medians_and_ratios_are_of_what_was_measured(measured):
    figures = summarise(measured, 128)
    assert figures["fer_exp"]["step_seconds"] == {"median": 0.5, "least": 0.4, "most": 0.8}
    assert figures["fer_exp"]["epoch_seconds"] == {"median": 16, "least": 11, "most": 22}
    assert figures["fer_exp"]["images_per_second"] == 256
    assert (figures["fer_exp"]["step_ratio"], figures["fer_exp"]["epoch_ratio"]) == (1, 1)
    assert figures["keras"]["step_ratio"] == 3  # of 3, 4 and 2: not 1.6 / 0.5
    assert figures["keras"]["epoch_ratio"] == 2  # of 3, 1.5 and 2


def test_the_table_holds_the_medians(measured):
    head, _, ours, theirs = format_table(measured, 128).splitlines()
    assert head.split()[:4] == ["contender", "precision", "threads", "step"]
    assert "500.0 [400.0..800.0]" in ours
    assert "16.00 [11.00..22.00]" in ours
    assert theirs.split()[-2:] == ["3.00", "2.00"]
    assert {len(head)} == {len(ours), len(theirs)}


def test_without_fer_exp_or_without_epochs_there_are_no_ratios(measured):
    del measured["fer_exp"]
    measured["keras"].epochs = []
    figures = summarise(measured, 128)["keras"]
    assert (figures["step_ratio"], figures["epoch_ratio"], figures["epoch_seconds"]) == (None, None, None)
    assert format_table(measured, 128).splitlines()[-1].split()[-3:] == ["-", "-", "-"]


def test_the_chart_has_a_bar_a_contender_and_a_panel_a_quantity(measured):
    figure = chart(measured, 128, "a machine")
    steps, epochs = figure.axes
    assert [label.get_text().split("\n")[0] for label in steps.get_yticklabels()] == ["fer_exp", "keras"]
    assert [bar.get_width() for bar in steps.patches] == [500, 1600]
    assert [bar.get_width() for bar in epochs.patches] == [16, 33]
    for taken in measured.values():
        taken.epochs = []
    assert len(chart(measured, 128, "a machine").axes) == 1


def test_the_command_measures_in_processes_and_writes_what_it_printed(faces, tmp_path, capsys):
    main(
        f"--data {faces} --contenders plain --images 40 --steps 2 --rounds 2 --batch-size 10 --threads 1 "
        f"--precision 32-true --json {tmp_path / 'figures.json'} --chart {tmp_path / 'chart.png'}".split()
    )
    printed = capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text())
    plain = figures["measured"]["plain"]
    assert plain["facts"]["threads"] == 1
    assert (len(plain["steps"]), len(plain["epochs"])) == (2, 2)
    assert figures["turns"] == {"steps": 2 + UNMEASURED, "epoch": 4, "validation": 2}
    median = figures["medians"]["plain"]["step_seconds"]["median"]
    assert median == sum(plain["steps"]) / 2
    assert f"{median * 1000:,.1f} [" in printed.splitlines()[-1]
    assert "70 training and 35 validation images; batches of 10" in printed
    assert f"torch {figures['machine']['versions']['torch']}" in printed
    with Image.open(tmp_path / "chart.png") as picture:
        assert picture.format == "PNG"


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed here")
def test_a_missing_tensorflow_is_said(faces, capsys):
    with pytest.raises(SystemExit, match="nothing to measure"):
        main(["--data", str(faces), "--contenders", "keras", "--steps", "2", "--batch-size", "10"])
    assert (
        f"keras is skipped: tensorflow is not installed for {sys.executable}. Name a Python" in capsys.readouterr().out
    )


def test_a_contender_that_fails_is_told_with_its_last_words(settings):
    with pytest.raises(RuntimeError, match=r"(?s)benchmarks.contenders.none ended with 1:.*No module named"):
        Contender("benchmarks.contenders.none", settings)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--contenders", "plain,jax"], "--contenders: jax; there are fer_exp, plain, lightning, keras"),
        (["--images", "5"], "expected 0, or a number from --batch-size=10 to the 70 training images"),
        (["--images", "71"], "to the 70 training images"),
        (["--steps", "6"], "expected at most 5"),
        (["--rounds", "0"], "from 1 up"),
        (["--keras-python", "/nowhere/python"], "there is no such file"),
        (["--data", "/nowhere"], "there is no such folder"),
    ],
)
def test_what_cannot_be_measured_is_refused(faces, capsys, given, said):
    with pytest.raises(SystemExit):
        main(["--data", str(faces), "--steps", "2", "--batch-size", "10", *given])
    assert said in capsys.readouterr().err


def test_the_notebooks_network_in_keras():
    tensorflow = pytest.importorskip("tensorflow")
    from benchmarks.contenders.keras_notebook import notebook_model

    model = notebook_model(tensorflow.keras)
    assert sum(weights.numpy().size for weights in model.trainable_weights) == 4_474_759
    assert sum(weights.numpy().size for weights in model.non_trainable_weights) == 3_968
