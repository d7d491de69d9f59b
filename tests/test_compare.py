"""The compare command: its two ways of writing an option, and what it says of a mistake."""

import json
import sys

import pytest

from fer_exp.compare import main, parse_arguments
from fer_exp.runs.record import RunRecord
from fer_exp.runs.sweep_record import write_sweep


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder; returns (exit status, what was printed)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fer_exp.compare", *arguments])
        status = 0
        try:
            main()
        except SystemExit as exit_:
            status = exit_.code
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


@pytest.fixture
def sweep(tmp_path):
    """A sweep of two networks with two seeds, its learning rate the same."""
    folder = tmp_path / "swept"
    for job, (model, seed) in enumerate([("small", 0), ("small", 1), ("large", 0), ("large", 1)]):
        accuracy = {"small": 0.5, "large": 0.6}[model] + seed / 100
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


def test_an_option_can_be_written_as_the_training_takes_it():
    dashes = parse_arguments(
        ["a", "b", "--group-by", "optimizer,optimizer.lr", "--target", "0.6", "--baseline", "adam"]
    )
    equals = parse_arguments(["a", "b", "group_by=optimizer,optimizer.lr", "target=0.6", "baseline=adam"])
    assert dashes == equals
    assert equals.group_by == ["optimizer", "optimizer.lr"]
    assert [str(place) for place in equals.places] == ["a", "b"]


def test_a_sweep_is_grouped_by_what_it_swept_and_its_report_lies_beside_its_runs(command, sweep):
    status, printed = command("swept")
    assert status == 0
    assert "large is ahead of small by 10.0 points" in printed
    assert (sweep / "report.html").exists()


def test_what_was_swept_is_also_known_from_above_the_sweep(command, sweep, tmp_path):
    printed = command(".")[1]
    assert "large is ahead of small by 10.0 points" in printed


def test_a_swept_key_that_no_run_has_is_passed_over(command, sweep):
    write_sweep(sweep, swept=["optimizer.momentum", "model"])
    assert "large is ahead of small by 10.0 points" in command("swept")[1]


def test_what_a_study_tuned_may_differ_between_groups(command, sweep):
    for job in "23":
        path = sweep / job / "summary.json"
        summary = json.loads(path.read_text())
        summary["config"]["optimizer"]["lr"] = 0.2
        path.write_text(json.dumps(summary))
    assert "are not compared: they differ in optimizer.lr too" in command("swept")[1]
    write_sweep(sweep, tuned=["optimizer.lr"])
    assert "large is ahead of small by 10.0 points" in command("swept")[1]


def test_the_report_of_other_runs_gets_a_folder_of_its_own(command, sweep, tmp_path):
    assert command("swept/0", "swept/2", "group_by=model")[0] == 0
    assert len(list(tmp_path.glob("outputs/comparisons/*/report.html"))) == 1
    assert command("swept", "--output", "mine", "--baseline", "large", "--measure", "final")[0] == 0
    assert "large" in (tmp_path / "mine/comparison.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere: there is no such folder"),
        (
            ["swept", "group_by=optimizer.momentun"],
            "group_by=optimizer.momentun: no run has such a key; there are model",
        ),
        (["swept", "baseline=medium"], "baseline=medium: there is no such group; there are small, large"),
        (["swept", "target=60"], "target=60.0: expected an accuracy in (0, 1], e.g. target=0.6"),
        (["empty"], "empty: no run is recorded there"),
        (["swept", "output=swept/sweep.json"], "swept/sweep.json: the report cannot be written there"),
    ],
    ids=" ".join,
)
def test_a_mistake_gets_one_message(command, sweep, tmp_path, arguments, said):
    (tmp_path / "empty").mkdir()
    status, printed = command(*arguments)
    assert status == 1
    assert said in printed
    assert "Traceback" not in printed


def test_a_wrong_option_is_refused(command, sweep):
    assert command("swept", "measure=middle")[0] == 2
    assert command()[0] == 2
