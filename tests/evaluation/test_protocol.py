"""Which protocol fits a run and images, and the one report on a test set."""

from dataclasses import replace
from pathlib import Path

import pytest

from fer_exp.errors import UserError
from fer_exp.evaluation.protocol import (
    LEDGER,
    EvalSplit,
    Ledger,
    Provenance,
    choose_protocol,
    describe_protocol,
)

BEST = Provenance(Path("best.ckpt"), Path("run"), "best", 4, 9, "val_acc", 0.0, train="T", selection="S")
LAST = replace(BEST, name="last", selected_by=None)
HELD_OUT = replace(BEST, val_fraction=0.2)
UNKNOWN = replace(BEST, run=None, epochs=None, val_fraction=None)
REPORT = {
    "time": "2026-01-02T03:04:05+00:00",
    "images": 35,
    "accuracy": 0.6123,
    "weights": "best",
    "tta": "none",
    "output": "somewhere",
}


@pytest.mark.parametrize(
    ("provenance", "name", "fingerprint", "expected"),
    [
        (BEST, "validation", "S", "folders"),
        (BEST, "selection", "S", "folders"),
        (BEST, "/some/copy", "S", "folders"),
        (BEST, "validation", "changed", "other"),
        (BEST, "train", "T", "training"),
        (BEST, "/some/copy", "T", "training"),
        (BEST, "test", "X", "official"),
        (BEST, "/elsewhere", "X", "other"),
        (HELD_OUT, "validation", "V", "held_out"),
        (HELD_OUT, "selection", "S", "other"),
        (HELD_OUT, "test", "X", "official"),
        (UNKNOWN, "validation", "S", "other"),
        (UNKNOWN, "validation", "V", "other"),
    ],
)
def test_the_protocol_follows_from_run_and_images(provenance, name, fingerprint, expected):
    split = EvalSplit(name, fingerprint, name)
    assert choose_protocol("auto", split, provenance) == expected


def test_a_test_set_may_be_any_folder_that_the_run_did_not_use():
    assert choose_protocol("official", EvalSplit("/elsewhere", "X", "/elsewhere"), BEST) == "official"


@pytest.mark.parametrize(
    ("requested", "name", "fingerprint", "provenance"),
    [
        ("auto", "test", "T", BEST),
        ("auto", "test", "S", BEST),
        ("official", "/a/copy", "S", HELD_OUT),
        ("official", "train", "changed", BEST),
        ("auto", "test", "X", UNKNOWN),
    ],
)
def test_images_that_the_run_used_are_no_test_set(requested, name, fingerprint, provenance):
    with pytest.raises(UserError, match=f"split={name}|run=DIR"):
        choose_protocol(requested, EvalSplit(name, fingerprint, name), provenance)


@pytest.mark.parametrize(
    ("protocol", "provenance", "name", "fingerprint", "parts"),
    [
        ("folders", BEST, "validation", "S", ["epoch 4 of 9", "best val_acc on validation/", "optimistic"]),
        ("folders", LAST, "validation", "S", ["not selected", "optimistic"]),
        ("folders", replace(BEST, selected_by="train_loss"), "validation", "S", ["best train_loss on train/"]),
        ("held_out", HELD_OUT, "validation", "V", ["best val_acc on 20 % of train/", "did not use"]),
        ("official", BEST, "test", "X", ["one report"]),
        ("training", BEST, "train", "T", ["trained on these images"]),
        ("training", BEST, "train", "changed", ["differ from the training images"]),
        ("other", UNKNOWN, "/elsewhere", "X", ["selection unknown"]),
        ("other", replace(LAST, name="copy.ckpt"), "/elsewhere", "X", ["selection unknown", "copy.ckpt"]),
    ],
)
def test_the_statement_names_protocol_weights_images_and_meaning(protocol, provenance, name, fingerprint, parts):
    statement = describe_protocol(protocol, EvalSplit(name, fingerprint, name), provenance)
    assert [part for part in (f"Protocol {protocol}", f"Images: {name}", *parts) if part not in statement] == []


def test_a_run_is_reported_on_a_test_set_once(tmp_path):
    Ledger(tmp_path).check_unreported("X")
    Ledger(tmp_path).record("official", "X", REPORT)
    ledger = Ledger(tmp_path)
    with pytest.raises(UserError, match=r"35 images on 2026-01-02, accuracy 61\.23 % .*somewhere"):
        ledger.check_unreported("X")
    ledger.check_unreported("Y")
    assert [path.name for path in tmp_path.iterdir()] == [LEDGER]


def test_other_evaluations_are_counted(tmp_path):
    for fingerprint in "XXZ":
        Ledger(tmp_path).record("other", fingerprint, REPORT)
    assert Ledger(tmp_path).others == {"X": 2, "Z": 1}
    statement = describe_protocol("official", EvalSplit("test", "X", "fer2013.csv"), BEST, earlier=2)
    assert "2 other evaluations" in statement
    assert "test (fer2013.csv)" in statement


@pytest.mark.parametrize("content", ["", "[]", '{"reports": 1}', '{"reports": {"X": {}}, "others": {}}'])
def test_a_damaged_ledger_is_refused(tmp_path, content):
    (tmp_path / LEDGER).write_text(content)
    with pytest.raises(UserError, match=LEDGER):
        Ledger(tmp_path)
