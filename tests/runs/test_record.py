import json
import math
import re
import subprocess
import tempfile
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_exp.config.schema import plain
from fer_exp.files import replacing
from fer_exp.runs import record as records
from fer_exp.runs.record import (
    COLUMNS,
    RunRecord,
    best_row,
    changed_settings,
    digest,
    read_history,
    read_summary,
    read_sweep,
    write_sweep,
)


def row(epoch, val_acc, **changes):
    values = {
        "epoch": epoch,
        "step": epoch * 224,
        "lr": 1e-3,
        "train_loss": 1 / 3,
        "train_acc": 0.4,
        "val_loss": 1.25,
        "val_acc": val_acc,
        "val_macro_f1": 0.3,
        "train_seconds": 30.5,
        "val_seconds": 1.5,
    }
    return {**values, **changes}


def test_history_is_read_back_to_the_last_digit(tmp_path):
    rows = [row(1, 0.1 + 0.2), row(2, 2 / 3, val_loss=math.inf)]
    RunRecord(tmp_path, {}).write_epochs(rows)
    assert read_history(tmp_path) == rows
    assert (tmp_path / "history.csv").read_text().splitlines()[0] == ",".join(COLUMNS)


ROWS = st.lists(
    st.tuples(*(st.integers() if kind is int else st.floats() for kind in COLUMNS.values())).map(
        lambda values: dict(zip(COLUMNS, values, strict=True))
    ),
    max_size=4,
)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(rows=ROWS)
def test_any_history_is_read_back(rows):
    with tempfile.TemporaryDirectory() as folder:
        RunRecord(Path(folder), {}).write_epochs(rows)
        read = read_history(Path(folder))
        assert repr(read) == repr(rows)  # where NaN is NaN and -0.0 is not 0.0
        assert json.loads((Path(folder) / "summary.json").read_text())["history"] == digest(read)


def test_a_history_is_known_by_its_figures(tmp_path):
    rows = [row(1, 0.5), row(2, 0.6, val_loss=math.nan)]
    assert digest(rows) == digest([{**each, "lr": 1e-3} for each in rows])
    assert digest(rows) != digest([rows[0], {**rows[1], "train_acc": math.nextafter(0.4, 1)}])
    assert digest(rows) != digest(rows[:1])
    RunRecord(tmp_path, {}).write_epochs(rows)
    text = (tmp_path / "history.csv").read_bytes()
    (tmp_path / "history.csv").write_bytes(text.replace(b"\n", b"\r\n"))  # as git may check it out
    assert digest(read_history(tmp_path)) == read_summary(tmp_path)["history"]


def test_a_history_that_was_cut_within_a_figure_is_not_read(tmp_path):
    RunRecord(tmp_path, {}).write_epochs([row(1, 0.5, val_seconds=1.75)])
    text = (tmp_path / "history.csv").read_text()
    (tmp_path / "history.csv").write_text(text.removesuffix("5\n"))
    with pytest.raises(ValueError, match=r"history\.csv ends in the middle of a line"):
        read_history(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "sweep.json is empty"),
        ("[]", "sweep.json holds no mapping"),
        ("[" * 100_000, "sweep.json is nested too deeply"),
        ('{"jobs": "three"}', "its jobs is 'three'"),
        ('{"jobs": true}', "its jobs is True"),
        ('{"swept": {"seed": 1}}', "its swept is"),
        ('{"overrides": [1]}', "its overrides are not all text"),
        ('{"winners": ["adam"]}', "its winners is"),
        ('{"arms": {"adam": 1}}', "its arms are no lists of jobs"),
    ],
    ids=lambda text: text[:30],
)
def test_a_damaged_sweep_is_neither_read_nor_written_over(tmp_path, text, reason):
    (tmp_path / "sweep.json").write_text(text)
    for refused in (lambda: read_sweep(tmp_path), lambda: write_sweep(tmp_path, jobs=3)):
        with pytest.raises(ValueError, match=reason):
            refused()
    assert (tmp_path / "sweep.json").read_text() == text


def test_nan_survives_in_the_history_and_is_null_in_the_summary(tmp_path):
    RunRecord(tmp_path, {}).write_epochs([row(1, 1 / 7, train_loss=math.nan)])
    assert math.isnan(read_history(tmp_path)[0]["train_loss"])
    assert read_summary(tmp_path)["last"]["train_loss"] is None


def test_a_record_has_every_key_from_its_first_moment(tmp_path):
    record = RunRecord(tmp_path, {"seed": 0})
    assert list(tmp_path.iterdir()) == []
    record.write_epochs([])
    summary = read_summary(tmp_path)
    assert datetime.fromisoformat(summary.pop("started")) <= datetime.fromisoformat(summary.pop("updated"))
    assert summary == {
        "schema": 2, "status": "running", "seed": 0, "epochs": 0, "best": None, "last": None, "restored": None,
        "stopped_by": None, "seconds": {"train": 0, "validation": 0, "total": 0}, "error": None,
        "history": digest([]),
    }  # fmt: skip
    assert read_history(tmp_path) == []


def test_summary_follows_the_epochs(tmp_path):
    record = RunRecord(tmp_path, {})
    record.write_epochs([row(1, 0.5), row(2, 0.6), row(3, 0.6)])
    summary = read_summary(tmp_path)
    assert summary["status"] == "running"
    assert (summary["epochs"], summary["best"]["epoch"], summary["last"]["epoch"]) == (3, 2, 3)
    record.finish("completed", 100.0, stopped_by="max_epochs")
    summary = read_summary(tmp_path)
    assert summary["seconds"] == {"train": 91.5, "validation": 4.5, "total": 100.0}
    assert (summary["status"], summary["stopped_by"]) == ("completed", "max_epochs")


def test_best_is_the_first_of_equals_and_never_one_whose_loss_is_lost():
    assert best_row([row(1, 0.9, val_loss=math.nan), row(2, 0.4), row(3, 0.4)])["epoch"] == 2
    assert best_row([row(1, 0.9, train_loss=math.inf)]) is None
    assert best_row([]) is None


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    with replacing(path) as draft:
        draft.write_text('{"a": 1}')
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"), replacing(path) as draft:
        draft.write_text("half")
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_record_from_before_a_setting_tells_what_held_then(composed, tmp_path):
    now = plain(composed())
    before = {key: value for key, value in now.items() if key not in ("loss", "decay_norms_and_biases", "ema")}
    before["data"] = {key: value for key, value in now["data"].items() if key != "balanced_sampling"}
    record = RunRecord(tmp_path, {"config": before})
    record.finish("completed", 1.0)
    read = read_summary(tmp_path)["config"]
    assert changed_settings(read, now) == []
    assert changed_settings(read, plain(composed("data.balanced_sampling=true", "loss.label_smoothing=0.1"))) == [
        "data.balanced_sampling was False and is True",
        "loss.label_smoothing was 0.0 and is 0.1",
    ]


def test_the_commit_is_that_of_this_code_and_of_no_repository_around_it(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    installed = tmp_path / "lib/records.py"
    installed.parent.mkdir()
    installed.write_text("")
    author = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", *author, "-C", tmp_path, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    monkeypatch.setattr(records, "__file__", str(installed))
    assert records._git_commit() is None
    subprocess.run(["git", "-C", tmp_path, "add", "."], check=True)
    subprocess.run(["git", *author, "-C", tmp_path, "commit", "-q", "-m", "ours"], check=True)
    subprocess.run(["git", *author, "-C", tmp_path, "tag", "-a", "v1", "-m", "a release"], check=True)
    assert re.fullmatch("[0-9a-f]{40}", records._git_commit())
    installed.write_text("changed")
    assert records._git_commit().endswith("-dirty")


def test_keys_that_are_numbers_are_those_that_json_has(tmp_path):
    config = {"callbacks": {"accumulate": {"scheduling": {0: 4, 10: 2}, "more": None}}}
    RunRecord(tmp_path, {"config": config}).write_epochs([])
    recorded = read_summary(tmp_path)["config"]
    assert changed_settings(recorded, config) == []
    config["callbacks"]["accumulate"]["scheduling"] = {0: 4, 5: 2}
    assert changed_settings(recorded, config) == [
        "callbacks.accumulate.scheduling.10 was 2 and is None",
        "callbacks.accumulate.scheduling.5 was None and is 2",
    ]


def test_one_batch_is_another_setting_than_all_of_them():
    one, whole = ({"trainer": {"limit_train_batches": limit, "max_epochs": limit}} for limit in (1, 1.0))
    assert changed_settings(one, whole) == ["trainer.limit_train_batches was 1 and is 1.0"]
