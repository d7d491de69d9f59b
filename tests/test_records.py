import json
import math
from datetime import datetime

import pytest

from fer_exp.atomic import replacing
from fer_exp.records import COLUMNS, RunRecord, best_row, read_history, read_summary


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
