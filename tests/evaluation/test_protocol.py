"""Which figure may stand under which name."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fer_exp.errors import UserError
from fer_exp.evaluation.protocol import (
    LEDGER,
    PROTOCOLS,
    EvalSplit,
    choose_protocol,
    looks_before,
    note_look,
    record_report,
    refuse_second_report,
    reports_on_others,
    state,
)
from fer_exp.evaluation.provenance import Provenance

ORIGIN = Provenance(
    Path("best.ckpt"), Path("run"), "best", 4, 9, "val_acc", "max_epochs", 0.0, train="T", selection="S"
)
LAST = replace(ORIGIN, weights="last", selected_by=None)
HELD_OUT = replace(ORIGIN, val_fraction=0.2)
UNKNOWN = replace(ORIGIN, run=None, epochs=None, val_fraction=None)


@pytest.mark.parametrize(
    ("origin", "split", "fingerprint", "expected"),
    [
        (ORIGIN, "validation", "S", "folders"),
        (ORIGIN, "selection", "S", "folders"),
        (ORIGIN, "/some/copy", "S", "folders"),
        (ORIGIN, "validation", "changed", "other"),
        (ORIGIN, "train", "T", "training"),
        (ORIGIN, "/some/copy", "T", "training"),
        (ORIGIN, "test", "X", "official"),
        (ORIGIN, "/elsewhere", "X", "other"),
        (HELD_OUT, "validation", "V", "held_out"),
        (HELD_OUT, "selection", "S", "other"),
        (HELD_OUT, "test", "X", "official"),
        (UNKNOWN, "validation", "S", "other"),
        (UNKNOWN, "validation", "V", "other"),
    ],
)
def test_the_protocol_follows_from_run_and_images(origin, split, fingerprint, expected):
    reported = EvalSplit(split, fingerprint, split)
    assert choose_protocol("auto", reported, origin) == expected
    assert choose_protocol(expected, reported, origin) == expected
    for wrong in {*PROTOCOLS} - {expected}:
        if (expected, wrong) != ("other", "official"):
            with pytest.raises(UserError, match=f"protocol={wrong}|no test|run=DIR"):
                choose_protocol(wrong, reported, origin)


def test_any_folder_that_the_run_did_not_see_can_be_the_official_test():
    assert choose_protocol("official", EvalSplit("/elsewhere", "X", "/elsewhere"), ORIGIN) == "official"


@pytest.mark.parametrize(
    ("wanted", "split", "fingerprint", "origin", "said"),
    [
        ("auto", "test", "T", ORIGIN, "run was trained on, and no test"),
        ("auto", "test", "S", ORIGIN, "run was selected on, and no test"),
        ("official", "/a/copy", "S", HELD_OUT, "run was selected on, and no test"),
        ("auto", "test", "X", UNKNOWN, "give run=DIR instead of ckpt=best.ckpt"),
        ("held_out", "validation", "S", ORIGIN, "trained with data.val_fraction=0"),
        ("folders", "validation", "V", HELD_OUT, "selected on 20% of train/, held out"),
        ("folders", "validation", "changed", ORIGIN, "not those that the run was selected on"),
        ("folders", "validation", "S", UNKNOWN, "not known how these weights were selected"),
        ("other", "test", "X", ORIGIN, "expected auto or official"),
    ],
)
def test_a_protocol_that_does_not_fit_is_refused(wanted, split, fingerprint, origin, said):
    with pytest.raises(UserError, match=said):
        choose_protocol(wanted, EvalSplit(split, fingerprint, split), origin)


@pytest.mark.parametrize(
    ("protocol", "origin", "split", "fingerprint", "said"),
    [
        ("folders", ORIGIN, "validation", "S", "selected on the images it is reported on: optimistic"),
        (
            "folders",
            replace(ORIGIN, weights="last", selected_by=None),
            "validation",
            "S",
            "validated on the images it is reported on",
        ),
        ("other", HELD_OUT, "selection", "S", "optimistic"),
        ("held_out", HELD_OUT, "validation", "V", "no choice of this run saw"),
        ("official", ORIGIN, "test", "X", "once"),
        ("training", ORIGIN, "train", "T", "a fit, no result"),
        (
            "training",
            ORIGIN,
            "train",
            "changed",
            "other or changed images in the place of those that it was trained on",
        ),
        (
            "folders",
            replace(ORIGIN, selected_by="train_loss"),
            "validation",
            "S",
            "the best train_loss on train/; reported on validation/, validated on the images",
        ),
        ("other", UNKNOWN, "/elsewhere", "X", "selection unknown"),
    ],
)
def test_the_statement_says_protocol_split_and_selection(protocol, origin, split, fingerprint, said):
    statement = state(protocol, EvalSplit(split, fingerprint, split), origin)
    assert all(part in statement for part in (said, f"Protocol {protocol}:", "epoch 4", f"reported on {split}"))


def test_how_weights_were_selected_is_told():
    assert ORIGIN.in_words == "weights of epoch 4 of 9, the best val_acc on validation/"
    restored = replace(HELD_OUT, weights="restored", selected_by="val_loss")
    assert "best val_loss on 20% of train/, held out" in restored.in_words
    assert "not chosen by it" in LAST.in_words
    copy = replace(LAST, weights="copy.ckpt", stopped_by="early_stopping")
    assert "selection unknown" in copy.in_words
    assert copy.in_short == "epoch 4, selection unknown"
    assert "early stopping on validation/ ended the run" in replace(LAST, stopped_by="early_stopping").in_words
    assert "untold epoch" in replace(UNKNOWN, epoch=None).in_words


def test_a_run_is_reported_on_test_images_once(tmp_path):
    report = {"images": 35, "accuracy": 0.6123, "weights": "best", "view": "single", "output": "somewhere"}
    refuse_second_report(tmp_path, "X")
    record_report(tmp_path, "X", report)
    record_report(tmp_path, "Y", report)
    date = json.loads((tmp_path / LEDGER).read_text())["reports"]["X"]["time"][:10]
    with pytest.raises(UserError, match=f"35 test images on {date}, with an accuracy of 61.23% .*somewhere"):
        refuse_second_report(tmp_path, "X")
    refuse_second_report(tmp_path, "Z")
    assert [path.name for path in tmp_path.iterdir()] == [LEDGER]


def test_looks_under_no_protocol_and_reports_on_other_images_are_told(tmp_path):
    report = {"images": 35, "accuracy": 0.6123, "weights": "best", "view": "single", "output": "somewhere"}
    assert looks_before(tmp_path, "X") == 0
    for _ in range(2):
        note_look(tmp_path, "X")
    record_report(tmp_path, "Y", report)
    note_look(tmp_path, "Z")
    assert [looks_before(tmp_path, images) for images in "XYZ"] == [2, 0, 1]
    (told,) = reports_on_others(tmp_path, "X")
    assert "35 other test images" in told
    assert "61.23%" in told
    assert not list(reports_on_others(tmp_path, "Y"))
    statement = state("official", EvalSplit("test", "X", "test"), ORIGIN, looks=2)
    assert "reported on test/, once, after 2 looks under no protocol's rules" in statement


@pytest.mark.parametrize("content", ["", "[]", '{"reports": 1}', '{"reports": {"X": {}}}', '{"reports": {"X": 1}}'])
def test_a_damaged_ledger_is_no_licence(tmp_path, content):
    (tmp_path / LEDGER).write_text(content)
    with pytest.raises(UserError, match="cannot be read"):
        refuse_second_report(tmp_path, "X")


def test_the_words_name_the_folder_that_the_images_lie_in():
    statement = state("folders", EvalSplit("validation", "S", "test"), ORIGIN)
    assert "reported on test/, selected on the images it is reported on" in statement
