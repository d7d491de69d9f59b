from dataclasses import replace
from pathlib import Path

import pytest

from fer_exp.comparison.analysis import compare
from fer_exp.comparison.grouping import is_boundary, tune
from fer_exp.comparison.load import Arm, Records
from fer_exp.runs.sweep_record import Sweep

STUDY = Sweep(Path("study"), swept=["optimizer"], tuned=["optimizer.lr"])


@pytest.fixture
def make_trial(make_run):
    def make(name, lr, score, seed=0, fraction=0.1, status="completed"):
        settings = {"optimizer.lr": lr, "data.val_fraction": fraction}
        run = make_run(name, seed, [score], status, settings)
        return replace(run, arm=Arm(STUDY, name))

    return make


def test_of_trials_with_equal_scores_the_lowest_loss_wins(make_run):
    losses = {0.1: 2.5, 0.2: 1.5, 0.3: 2.0}
    trials = [make_run("adam", 0, [0.6], settings={"optimizer.lr": lr}, val_loss=[loss]) for lr, loss in losses.items()]
    assert tune("adam", trials, "final").winner is trials[1]


def test_the_winner_is_the_first_trial_with_the_highest_score(make_trial):
    trials = [make_trial("adam", lr, score) for lr, score in ((0.1, 0.4), (0.2, 0.6), (0.3, 0.6), (0.4, 0.2))]
    tuning = tune("adam", trials, "final")
    assert tuning.winner is trials[1]
    assert (tuning.varied, tuning.boundary_hits) == (("optimizer.lr",), ())


def test_a_failed_trial_never_wins_but_extends_the_range(make_trial):
    trials = [make_trial("adam", lr, 0.5) for lr in (0.1, 0.2)] + [make_trial("adam", 0.3, 0.9, status="failed")]
    tuning = tune("adam", trials, "final")
    assert tuning.winner is trials[0]
    assert tuning.boundary_hits == ("optimizer.lr",)


@pytest.mark.parametrize(
    ("value", "tried", "hit"),
    [
        (1, [1, 2, 3], True), (3, [1, 2, 3], True), (2, [1, 2, 3], False), (1, [1, 2], False),
        ("a", ["a", "b", "c"], False), (True, [True, False, True], False),
    ],
)  # fmt: skip
def test_a_boundary_is_the_end_of_a_range_of_numbers(value, tried, hit):
    assert is_boundary(value, tried) == hit


def test_trials_choose_and_other_runs_report(make_trial):
    trials = [make_trial(name, lr, lr) for name in ("adam", "sgd") for lr in (0.1, 0.2, 0.3)]
    reports = [
        make_trial(name, lr, score, seed, fraction=0.0)
        for name, lr, score in (("adam", 0.2, 0.5), ("sgd", 0.3, 0.4))
        for seed in (1, 2)
    ]
    comparison = compare(Records([*trials, *reports]), ["arm"])
    assert [len(group.runs) for group in comparison.groups] == [2, 2]
    assert comparison.groups[1].test.n == 2  # a tuned learning rate may differ
    assert {t.label: t.winner.value("optimizer.lr") for t in comparison.tunings} == {"adam": 0.2, "sgd": 0.3}
    assert not compare(Records(trials), ["optimizer", "optimizer.lr"]).tunings
