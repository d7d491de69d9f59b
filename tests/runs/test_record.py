import json
import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_exp.metrics import METRICS
from fer_exp.runs.config_diff import config_diff
from fer_exp.runs.record import (
    LEADING_COLUMNS,
    TRAILING_COLUMNS,
    RunRecord,
    best_row,
    digest,
    mark_failed,
    read_history,
    read_summary,
)

COLUMNS = (*LEADING_COLUMNS, *METRICS, *TRAILING_COLUMNS)


def row(epoch, val_acc=0.5, **changes):
    values = {
        "epoch": epoch, "step": epoch * 224, "lr": 1e-3, "train_loss": 1 / 3, "train_acc": 0.4, "val_loss": 1.25,
        "val_acc": val_acc, "val_macro_f1": 0.3, "train_seconds": 30.5, "val_seconds": 1.5,
    }  # fmt: skip
    return {**values, **changes}


KINDS = {"epoch": st.integers(), "step": st.integers(), **dict.fromkeys(TRAILING_COLUMNS, st.floats(0, 1e6))}
ROWS = st.lists(
    st.tuples(*(KINDS.get(name, st.floats()) for name in COLUMNS)).map(
        lambda values: dict(zip(COLUMNS, values, strict=True))
    ),
    max_size=4,
)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(rows=ROWS)
def test_any_history_is_read_back_to_the_last_digit(rows):
    with tempfile.TemporaryDirectory() as folder:
        RunRecord(Path(folder), {}).write_epochs(rows)
        read = read_history(Path(folder))
        assert repr(read) == repr(rows)  # repr: NaN is NaN, and -0.0 is not 0.0
        assert read_summary(Path(folder))["history"] == digest(read)


def test_other_metrics_come_between_the_listed_ones_and_the_seconds(tmp_path):
    rows = [row(1), row(2, my_metric=0.25)]
    RunRecord(tmp_path, {}).write_epochs(rows)
    header = (tmp_path / "history.csv").read_text().splitlines()[0].split(",")
    assert header == [*LEADING_COLUMNS, *METRICS, "my_metric", *TRAILING_COLUMNS]
    first, second = read_history(tmp_path)
    assert math.isnan(first["my_metric"])
    assert second["my_metric"] == 0.25
    assert digest([first, second]) == digest(rows) == read_summary(tmp_path)["history"]


def test_history_without_a_metric_is_readable(tmp_path):
    rows = [row(1)]
    del rows[0]["val_macro_f1"]
    RunRecord(tmp_path, {}).write_epochs(rows)
    assert read_history(tmp_path) == rows


def test_digest_depends_on_values_not_on_line_endings(tmp_path):
    rows = [row(1), row(2, val_loss=math.nan)]
    assert digest(rows) != digest([rows[0], {**rows[1], "train_acc": math.nextafter(0.4, 1)}])
    assert digest(rows) != digest(rows[:1])
    RunRecord(tmp_path, {}).write_epochs(rows)
    text = (tmp_path / "history.csv").read_bytes()
    (tmp_path / "history.csv").write_bytes(text.replace(b"\n", b"\r\n"))  # as git may check it out
    assert digest(read_history(tmp_path)) == read_summary(tmp_path)["history"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.removesuffix("5\n"),
        lambda text: text.replace("0.5", "half"),
        lambda text: text.replace(",1.5\n", ",1.5,7\n"),
        lambda text: text.replace(",1.5\n", "\n"),
        lambda text: text.replace("val_loss", "loss"),
        lambda text: "",
        lambda text: "\0" * len(text) + "\n",
    ],
)
def test_damaged_history_is_refused(tmp_path, damage):
    RunRecord(tmp_path, {}).write_epochs([row(1)])
    path = tmp_path / "history.csv"
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError):  # noqa: PT011
        read_history(tmp_path)


def test_non_finite_numbers_are_null_in_the_summary(tmp_path):
    record = RunRecord(tmp_path, {"config": {"optimizer": {"lr": math.inf}}})
    record.write_epochs([row(1, train_loss=math.nan)])
    summary = read_summary(tmp_path)
    assert summary["last"]["train_loss"] is None
    assert summary["config"] == {"optimizer": {"lr": None}}


def test_summary_follows_the_epochs(tmp_path):
    record = RunRecord(tmp_path, {"monitor": "val_acc", "seed": 0})
    assert list(tmp_path.iterdir()) == []
    record.write_epochs([])
    first = read_summary(tmp_path)
    assert (first["status"], first["epochs"], first["best"]) == ("running", 0, None)
    record.add("warnings", "few images")
    record.add("warnings", "few images")
    record.write_epochs([row(1, 0.5), row(2, 0.6), row(3, 0.6)])
    record.finish("completed", 100.0, stopped_by="max_epochs")
    summary = read_summary(tmp_path)
    assert (summary["epochs"], summary["best"]["epoch"], summary["last"]["epoch"]) == (3, 2, 3)
    assert summary["seconds"] == {"train": 91.5, "validation": 4.5, "total": 100.0}
    assert (summary["status"], summary["stopped_by"]) == ("completed", "max_epochs")
    assert summary["warnings"] == ["few images"]
    assert summary["run_id"] == first["run_id"] != RunRecord(tmp_path, {}).summary["run_id"]
    assert summary.keys() == first.keys()
    mark_failed(tmp_path, {}, "out of memory")
    assert read_summary(tmp_path) | {"updated": 0} == summary | {
        "updated": 0,
        "status": "failed",
        "error": "out of memory",
    }


def test_best_row_is_the_first_best_with_finite_losses():
    rows = [row(1, 0.9, val_loss=math.nan), row(2, 0.4, val_loss=1.0), row(3, 0.4, val_loss=0.5), row(4, 0.3)]
    assert best_row(rows, "val_acc")["epoch"] == 2
    assert best_row(rows, "val_loss")["epoch"] == 3
    assert best_row([row(1, my_error=2.0), row(2, my_error=1.0), row(3)], "my_error")["epoch"] == 2
    assert best_row([row(1, train_loss=math.inf)], "val_acc") is None
    assert best_row([], "val_acc") is None


def test_other_schemas_are_refused_with_both_versions(tmp_path):
    RunRecord(tmp_path, {}).write_epochs([])
    summary = json.loads((tmp_path / "summary.json").read_text())
    for schema in (2, 4):
        (tmp_path / "summary.json").write_text(json.dumps(summary | {"schema": schema}))
        with pytest.raises(ValueError, match=f"{schema}.*3"):
            read_summary(tmp_path)


@pytest.mark.parametrize("value", [None, True, "text", 7, [1], {"a": [None]}])
def test_any_type_in_any_key_is_read_or_refused(tmp_path, value):
    RunRecord(tmp_path, {"seed": 0}).write_epochs([row(1)])
    path = tmp_path / "summary.json"
    summary = json.loads(path.read_text())
    for key in summary:
        path.write_text(json.dumps(summary | {key: value}))
        try:
            assert read_summary(tmp_path)[key] == value
        except ValueError:
            continue


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, "{", '"', "\0\0\0", "{}", '{"schema": true}'])
def test_text_that_is_no_summary_is_refused(tmp_path, text):
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(ValueError):  # noqa: PT011
        read_summary(tmp_path)


def test_config_diff_knows_the_runs_own_folders():
    before = {"output_dir": "/runs/a", "data": {"root": "/runs/abc"}, "a": ["/runs/a/x", "file:/runs/a"]}
    now = {"output_dir": "/runs/b", "data": {"root": "/runs/abc"}, "a": ["/runs/b/x", "file:/runs/b"]}
    assert config_diff(before, now) == []
    now = {"output_dir": "/b", "data": {"root": "/mnt/runs/a"}}  # not below /runs/a
    assert config_diff({"output_dir": "/runs/a", "data": {"root": "/mnt/runs/a"}}, now) == []
    assert config_diff({"output_dir": "optim", "optimizer": "torch.optim.SGD"}, {"optimizer": "torch.optim.SGD"}) == []


def test_config_diff():
    before = {
        "output_dir": "/runs/a", "seed": 0, "optimizer": {"lr": 0.1, "betas": [0.9, 0.99]}, "ema": None, "logger": None,
        "callbacks": {"x": {"folder": "/runs/a/x", "at": {"0": 4}}}, "trainer": {"limit_train_batches": 1},
    }  # fmt: skip
    moved = {
        "output_dir": "/other/b", "seed": 0, "optimizer": {"lr": 0.1, "betas": (0.9, 0.99)}, "ema": {},
        "callbacks": {"x": {"folder": "/other/b/x", "at": {0: 4}}}, "trainer": {"limit_train_batches": 1},
        "logger": {"dir": "z"},
    }  # fmt: skip
    assert config_diff(before, moved) == []
    changed = {**moved, "optimizer": {"lr": 0.2, "betas": [0.9, 0.99]}, "ema": {"decay": 0.9}, "seed": 1}
    changed["trainer"] = {"limit_train_batches": 1.0}  # Lightning reads 1 as one batch, 1.0 as all of them
    assert config_diff(before, changed, ignore={"seed", "logger"}) == [
        "ema.decay was None and is 0.9",
        "optimizer.lr was 0.1 and is 0.2",
        "trainer.limit_train_batches was 1 and is 1.0",
    ]
