import math

import pytest

from fer_exp.comparison.tuning import score, tune


def trial(make_run, accuracy, status="completed", **settings):
    settings = {key.replace("__", "."): value for key, value in settings.items()}
    return make_run("sgd", 0, accuracy, status, settings={"data.val_fraction": 0.2, **settings})


def test_the_winner_is_the_best_trial(make_run):
    trials = [
        trial(make_run, (0.3, 0.5), optimizer__lr=0.01),
        trial(make_run, (0.6, 0.4), optimizer__lr=0.1),
        trial(make_run, (0.2, 0.2), optimizer__lr=1.0),
    ]
    best, final = tune("sgd", trials, "best"), tune("sgd", trials, "final")
    assert (best.label, best.trials) == ("sgd", tuple(trials))
    assert best.winner is trials[1]
    assert final.winner is trials[0]
    assert best.varied == final.varied == ("optimizer.lr",)
    assert best.edges == ()
    assert final.edges == ("optimizer.lr",)


def test_scores(make_run):
    assert score(trial(make_run, (0.6, 0.4)), "best") == 0.6
    assert score(trial(make_run, (0.6, 0.4)), "final") == 0.4
    nan = {"val_loss": [1.0, math.nan], "train_loss": [1.0, math.nan]}
    diverged = make_run("sgd", 0, (0.6, 0.14), "diverged", settings={"data.val_fraction": 0.2}, **nan)
    assert score(diverged, "best") == score(diverged, "final") == 0.14  # as it ended


def test_a_diverged_trial_loses_to_a_sound_one_but_a_failed_one_never_wins(make_run):
    diverged = trial(make_run, (0.7, 0.14), "diverged", optimizer__lr=1.0)
    sound = trial(make_run, (0.2, 0.15), optimizer__lr=0.1)
    failed = trial(make_run, (0.9,), "failed", optimizer__lr=0.01)
    assert tune("sgd", [diverged, failed, sound], "best").winner is sound
    assert tune("sgd", [failed, diverged], "best").winner is diverged
    nothing = tune("sgd", [failed], "best")
    assert nothing.winner is None
    assert (nothing.trials, nothing.edges) == ((failed,), ())


def test_an_accuracy_that_is_lost_does_not_win(make_run):
    lost = make_run("sgd", 0, (0.2,), "diverged", val_loss=[math.nan], train_loss=[math.nan])
    lost.history["val_acc"][:] = math.nan
    sound = trial(make_run, (0.1,))
    assert tune("sgd", [lost, sound], "best").winner is sound


def test_of_equals_the_first_wins(make_run):
    first, second = trial(make_run, (0.5,), optimizer__lr=0.1), trial(make_run, (0.5,), optimizer__lr=0.2)
    assert tune("sgd", [first, second], "best").winner is first
    assert tune("sgd", [second, first], "best").winner is second


@pytest.mark.parametrize(("best", "edges"), [(0, ("optimizer.lr",)), (1, ()), (2, ("optimizer.lr",))])
def test_an_edge_is_the_lowest_or_highest_value_tried(make_run, best, edges):
    trials = [trial(make_run, (0.9 if i == best else 0.1,), optimizer__lr=lr) for i, lr in enumerate((0.01, 0.1, 1.0))]
    assert tune("sgd", trials, "best").edges == edges


def test_a_value_whose_trial_failed_was_tried_too(make_run):
    trials = [
        trial(make_run, (0.5,), optimizer__lr=0.1),
        trial(make_run, (0.4,), optimizer__lr=0.01),
        trial(make_run, (), "failed", optimizer__lr=1.0),
    ]
    assert tune("sgd", trials, "best").edges == ()


def test_only_ranges_of_numbers_have_edges(make_run):
    trials = [
        trial(make_run, (0.9,), optimizer__lr=1, optimizer__nesterov=True, monitor="val_acc", optimizer__clip=None),
        trial(make_run, (0.1,), optimizer__lr=2, optimizer__nesterov=False, monitor="val_loss", optimizer__clip=1.0),
        trial(make_run, (0.1,), optimizer__lr=3, optimizer__momentum=0.9, monitor="train_acc", optimizer__clip=2.0),
    ]
    found = tune("sgd", trials, "best")
    assert {"monitor", "optimizer.clip", "optimizer.lr", "optimizer.nesterov", "optimizer.momentum"} == set(
        found.varied
    )
    assert found.edges == ("optimizer.lr",)


def test_a_choice_of_two_numbers_has_no_edges(make_run):
    trials = [trial(make_run, (0.9 - m,), optimizer__momentum=m) for m in (0, 0.9, 0, 0.9)]
    assert tune("sgd", trials, "best").edges == ()


def test_what_a_failed_trial_did_not_live_to_see_is_not_varied(make_run):
    failed = make_run("sgd", 0, (), "failed", facts={"environment": {}, "data": {}})
    found = tune("sgd", [make_run("sgd", 0), failed], "best")
    assert found.varied == ()
