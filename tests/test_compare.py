"""The compare command: its options, where the report goes, and its messages."""

import json
import sys

import pytest

from fer_exp import compare
from fer_exp.runs.record import RunRecord
from fer_exp.runs.sweep_record import write_sweep


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder; returns (exit status, output)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fer_exp.compare", *arguments])
        status = 0
        try:
            compare.main()
        except SystemExit as exit_:
            status = exit_.code
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


@pytest.fixture
def sweep(tmp_path):
    """A sweep of two networks with two seeds and one learning rate."""
    folder = tmp_path / "swept"
    for job, (model, seed) in enumerate([("small", 0), ("small", 1), ("large", 0), ("large", 1)]):
        accuracy = {"small": 0.5, "large": 0.6}[model] + seed / 100 + (job == 3) / 500
        row = {
            "epoch": 1, "step": 10, "lr": 0.1, "train_loss": 1.0, "train_acc": 0.5, "val_loss": 1.0,
            "val_acc": accuracy, "val_macro_f1": accuracy, "train_seconds": 1.0, "val_seconds": 0.1,
        }  # fmt: skip
        config = {"model": {"name": model}, "optimizer": {"lr": 0.1}, "callbacks": {"early_stopping": {"patience": 3}}}
        choices = {"model": model, "optimizer": "adam"}
        record = RunRecord(folder / str(job), {"config": config, "choices": choices, "seed": seed})
        record.write_epochs([row])
        record.finish("completed", 2.0)
    write_sweep(folder, overrides=["model=small,large", "seed=0,1"], jobs=4, swept=["model"])
    return folder


def test_an_option_can_be_written_as_an_override():
    dashes = compare.parse_arguments(["a", "b", "--group-by", "optimizer,optimizer.lr", "--baseline", "--x=-1"][:4])
    equals = compare.parse_arguments(["a", "b", "group_by=optimizer,optimizer.lr"])
    assert dashes == equals
    assert equals.group_by == ["optimizer", "optimizer.lr"]
    assert compare.parse_arguments(["a", "baseline=-1"]).baseline == "-1"
    assert compare.parse_arguments(["a", "--baseline", "false"]).baseline == "false"


def test_a_sweep_is_grouped_by_what_it_swept_and_holds_its_report(command, sweep):
    status, printed = command("swept")
    assert status == 0
    assert printed.index("large") < printed.index("small")
    assert (sweep / "report.html").exists()
    assert not (sweep / "comparison.tex").exists()
    assert command(".", "--latex", "--output", "swept")[0] == 0  # found from above, too
    assert (sweep / "comparison.tex").exists()


def test_a_swept_key_that_no_run_has_is_ignored(command, sweep):
    write_sweep(sweep, swept=["optimizer.momentum", "model"])
    assert "large" in command("swept")[1]


def test_what_a_study_tuned_may_differ_between_groups(command, sweep):
    for job in "23":
        path = sweep / job / "summary.json"
        summary = json.loads(path.read_text())
        summary["config"]["optimizer"]["lr"] = 0.2
        path.write_text(json.dumps(summary))
    assert "not compared" in command("swept")[1]
    write_sweep(sweep, tuned=["optimizer.lr"], arms={"small": [0, 1], "large": [2, 3]})
    assert "not compared" not in command("swept")[1]


def test_the_report_of_several_folders_gets_its_own(command, sweep, tmp_path):
    assert command("swept/0", "swept/2", "group_by=model")[0] == 0
    assert len(list(tmp_path.glob("outputs/comparisons/*/report.html"))) == 1
    arguments = ("swept", "--output", "mine", "--baseline", "small", "--measure", "final", "title=Which network?")
    assert command(*arguments)[0] == 0
    assert "Which network?" in (tmp_path / "mine/comparison.md").read_text()


def test_watch_repeats_until_all_runs_have_ended(command, sweep, monkeypatch):
    summary = json.loads((sweep / "3/summary.json").read_text())
    (sweep / "3/summary.json").write_text(json.dumps({**summary, "status": "running"}))
    pages = []

    def finish(seconds):
        pages.append((sweep / "report.html").read_text())
        (sweep / "3/summary.json").write_text(json.dumps({**summary, "epochs": 1}))

    monkeypatch.setattr(compare.time, "sleep", finish)
    assert command("swept", "--watch")[0] == 0
    assert ['http-equiv="refresh"' in page for page in pages] == [True]
    assert 'http-equiv="refresh"' not in (sweep / "report.html").read_text()


def test_ctrl_c_ends_with_one_line(command, sweep, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(compare.time, "sleep", interrupt)
    write_sweep(sweep, jobs=5)
    status, printed = command("swept", "--watch")
    assert status == 130
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nowhere"], ["nowhere"]),
        (["swept", "group_by=optimizer.momentun"], ["optimizer.momentun", "model"]),
        (["swept", "baseline=medium"], ["medium", "large, small"]),
        (["swept", "target=60"], ["60", "0.6"]),
        (["swept", "metric=val_auc"], ["val_auc", "val_acc"]),
        (["empty"], ["empty"]),
        (["swept", "output=swept/sweep.json"], ["swept/sweep.json"]),
    ],
    ids=" ".join,
)
def test_a_mistake_gets_one_message(command, sweep, tmp_path, arguments, named):
    (tmp_path / "empty").mkdir()
    status, printed = command(*arguments)
    assert status == 1
    assert all(text in printed for text in named)
    assert "Traceback" not in printed


def test_a_loss_can_be_the_target(command, sweep):
    assert command("swept", "metric=val_loss", "target=1.5")[0] == 0
    assert "val_loss 1.5000" in (sweep / "comparison.md").read_text().replace("\\", "")


def test_a_wrong_option_is_refused(command, sweep):
    assert command("swept", "measure=middle")[0] == 2
    assert command()[0] == 2
