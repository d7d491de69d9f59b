import dataclasses
import itertools
import json
import math
import random
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from fer_exp.comparison.analysis import _hosts_with_overlap, compare, default_measure, verdict
from fer_exp.comparison.load import read_run
from fer_exp.comparison.statistics import PairedDifference, paired_difference
from fer_exp.errors import UserError

OTHER_FACES = {"data": {"fingerprint": {"train": "a" * 64, "validation": "c" * 64}}}
MORE_FACES = {"data": {"fingerprint": {"train": "c" * 64, "validation": "b" * 64}}}
NAN = {"train_loss": [1.5, math.nan], "val_loss": [1.5, math.nan]}


def rewrite(run, **changes):
    """Read a run again with keys of its summary changed; None takes one away."""
    path = run.folder / "summary.json"
    summary = {key: value for key, value in {**json.loads(path.read_text()), **changes}.items() if value is not None}
    path.write_text(json.dumps(summary))
    return read_run(run.folder)


def without_config(run):
    return rewrite(run, schema=1, config=None, choices=None, started=None, updated=None)


def by_label(comparison):
    return {group.label: group for group in comparison.groups}


def said(comparison, words):
    """The one note with these words."""
    (note,) = [note for note in comparison.notes if words in note]
    return note


# Figures


def test_figures_of_a_group_are_those_of_numpy_over_its_seeds(make_run):
    accuracies = [(0.3, 0.52, 0.5), (0.2, 0.4, 0.45), (0.35, 0.6, 0.55)]
    runs = [make_run("adam", seed, values) for seed, values in enumerate(accuracies)]
    (group,) = compare(runs).groups
    best, final = np.array([0.52, 0.45, 0.6]), np.array([0.5, 0.45, 0.55])
    for measure, expected in (("best", best), ("final", final)):
        found = group.spreads[measure, "val_acc"]
        assert (found.n, found.min, found.max) == (3, expected.min(), expected.max())
        assert found.mean == pytest.approx(expected.mean())
        assert found.std == pytest.approx(expected.std(ddof=1))
        assert found.median == pytest.approx(np.median(expected))
        assert group.spreads[measure, "val_loss"].mean == pytest.approx((2 - expected).mean())
        assert group.spreads[measure, "val_macro_f1"].median == pytest.approx(np.median(expected - 0.1))


def test_time_to_target_is_a_median_in_which_misses_stay(make_run):
    runs = [
        make_run("adam", 0, (0.3, 0.5, 0.6), train_seconds=[10.0, 20.0, 40.0]),
        make_run("adam", 1, (0.5, 0.5, 0.6), train_seconds=[11.0, 20.0, 40.0]),
        make_run("adam", 2, (0.3, 0.4, 0.4)),
        make_run("sgd", 0, (0.5,)),
        make_run("sgd", 1, (0.1,)),
    ]
    groups = by_label(compare(runs, target=0.5))
    adam, sgd = groups["adam"], groups["sgd"]
    assert (adam.reached, sgd.reached) == (2, 1)
    assert [adam.to_target[unit].median for unit in ("epochs", "steps", "seconds")] == [2, 20, 30]
    assert (adam.to_target["epochs"].min, adam.to_target["seconds"].min) == (1, 11)
    assert adam.to_target["epochs"].max == sgd.to_target["epochs"].median == math.inf


def test_a_target_is_given_or_derived_from_the_best_group(make_run):
    runs = [make_run("adam", seed, (level,)) for seed, level in enumerate((0.58, 0.6, 0.9))]
    runs += [make_run("sgd", seed, (0.4,)) for seed in range(3)]
    derived, given = compare(runs), compare(runs, target=0.33)
    assert (derived.target, derived.target_is_given) == (0.57, False)  # 95 % of 0.6
    assert (given.target, given.target_is_given) == (0.33, True)
    assert compare([make_run("adam", 0, (0.6399,))]).target == 0.6  # 60.79 %: whole percent, and never above


def test_statuses_are_counted_and_runs_without_a_result_are_in_no_figure(make_run):
    runs = [
        make_run("adam", 0, (0.5,)),
        make_run("adam", 1, (0.1, 0.14), "diverged", **NAN),
        make_run("adam", 2, (0.9,), "failed"),
        make_run("adam", 3, (0.9,), "running"),
        make_run("adam", 4, (0.9,), "interrupted"),
    ]
    comparison = compare(runs)
    (group,) = comparison.groups
    assert group.statuses == {"completed": 1, "diverged": 1, "failed": 1, "running": 1, "interrupted": 1}
    assert group.counted == tuple(runs[:2])
    assert group.spreads["final", "val_acc"].mean == pytest.approx((0.5 + 0.14) / 2)
    assert comparison.runs == runs
    assert said(comparison, "Diverged") == f"Diverged: 1 of 5 runs, counted as they ended: {runs[1].folder}."
    assert said(comparison, "Failed").endswith(f"in no figure: {runs[2].folder} (out of memory).")
    assert str(runs[3].folder) in said(comparison, "Running still, or killed")
    assert str(runs[4].folder) in said(comparison, "Interrupted")


def test_a_diverged_run_makes_the_mean_loss_infinite_and_is_paired(make_run):
    runs = [make_run("adam", seed, (0.4, 0.5)) for seed in range(3)]
    runs += [make_run("sgd", 0, (0.3, 0.45)), make_run("sgd", 1, (0.3, 0.4))]
    runs += [make_run("sgd", 2, (0.3, 0.14), "diverged", **NAN)]
    comparison = compare(runs, measure="final")
    sgd = by_label(comparison)["sgd"]
    assert sgd.spreads["final", "val_loss"].mean == math.inf
    assert sgd.spreads["final", "val_loss"].median == pytest.approx(1.6)
    assert sgd.spreads["best", "val_loss"].max == math.inf  # as it ended, whatever it had reached before
    (difference,) = comparison.differences
    assert math.isnan(difference.paired["final", "val_loss"].mean)
    assert difference.paired["final", "val_acc"].n == 3
    assert difference.paired["final", "val_acc"].mean == pytest.approx((-0.05 - 0.1 - 0.36) / 3)


def test_a_run_that_ended_without_an_epoch_is_told_of(make_run):
    empty = make_run("adam", 1, (), "diverged")
    comparison = compare([make_run("adam", 0), empty])
    assert comparison.groups[0].counted == (comparison.runs[0],)
    assert said(comparison, "1 of 2 runs") == (
        f"1 of 2 runs ended without an epoch, and are in no figure: {empty.folder}."
    )


def test_where_no_run_came_to_a_result_there_is_a_comparison_of_nothing(make_run):
    comparison = compare([make_run("adam", 0, (), "failed"), make_run("sgd", 0, (), "running")])
    assert math.isnan(comparison.target)
    assert comparison.groups[0].spreads["best", "val_acc"].n == 0
    assert "no finished runs with the same seed: nothing can be claimed" in comparison.differences[0].sentence


# Pairs


def test_pairs_are_made_by_seed(make_run):
    adam = {0: 0.5, 2: 0.6, 5: 0.7, 9: 0.1}
    sgd = {1: 0.9, 2: 0.55, 5: 0.62, 0: 0.49}
    runs = [make_run("adam", seed, (value,)) for seed, value in adam.items()]
    runs += [make_run("sgd", seed, (value,)) for seed, value in sgd.items()]
    (difference,) = compare(runs).differences
    assert (difference.group, difference.baseline) == ("sgd", "adam")
    expected = paired_difference([0.49 - 0.5, 0.55 - 0.6, 0.62 - 0.7])
    assert difference.paired["best", "val_acc"] == expected
    assert difference.paired["best", "val_loss"].mean == pytest.approx(-expected.mean)
    assert "3 paired seeds" in difference.sentence


def test_the_order_of_runs_does_not_matter(make_run, three_optimizers):
    repeated = [make_run("adam", 1, (0.2, 0.3)), make_run("adam", 1, (0.2, 0.35))]
    repeated = [without_config(run) for run in repeated]  # nothing tells when: the folder decides
    runs = [*three_optimizers, *repeated, make_run("sgd", 3, (0.1,), "diverged"), make_run("adam", 4, (), "failed")]
    expected = compare(runs, baseline="sgd")
    shuffled = list(runs)
    for shuffle in range(5):
        random.Random(shuffle).shuffle(shuffled)
        found = compare(shuffled, baseline="sgd")
        assert by_label(found).keys() == by_label(expected).keys()
        for label, group in by_label(expected).items():
            again = by_label(found)[label]
            assert (again.counted, again.spreads, again.reached) == (group.counted, group.spreads, group.reached)
            assert again.to_target == pytest.approx(group.to_target, nan_ok=True)
        assert found.target == expected.target
        assert {d.sentence for d in found.differences} == {d.sentence for d in expected.differences}


def test_of_runs_with_one_seed_the_latest_counts(make_run):
    times = {0.5: "2026-01-02", 0.6: "2026-01-03", 0.4: "2026-01-01"}
    runs = [make_run("adam", 0, (a,), facts={"started": f"{day}T00:00:00+00:00"}) for a, day in times.items()]
    runs.append(make_run("adam", 0, (0.9,), "failed", facts={"started": "2026-01-04T00:00:00+00:00"}))
    runs.append(rewrite(make_run("adam", 0, (0.8,)), started=None))  # before records told when
    comparison = compare(runs)
    (group,) = comparison.groups
    assert group.counted == (runs[1],)
    assert group.spreads["best", "val_acc"].n == 1
    assert said(comparison, "several runs") == (
        f"adam has several runs with seed 0: only the latest counts, {runs[1].folder}."
    )


def test_of_runs_that_do_not_tell_when_the_last_folder_counts(make_run):
    runs = [rewrite(make_run("adam", 0, (0.01 * i,)), started=None, updated=None) for i in range(11)]
    (group,) = compare([*runs[::2], *runs[1::2]]).groups
    assert group.counted[0].folder.name == "10"  # and not 9


# Groups


def test_groups_are_made_by_any_key(make_run):
    runs = [
        make_run(name, seed, settings={"optimizer.lr": lr, "trainer.max_epochs": epochs})
        for name, lr, epochs in (("adam", 0.001, 5), ("adam", 0.01, 5), ("sgd", 0.01, 10))
        for seed in (0, 1)
    ]
    two = compare(runs, ("optimizer", "optimizer.lr"))
    assert list(by_label(two)) == ["adam, optimizer.lr=0.001", "adam, optimizer.lr=0.01", "sgd, optimizer.lr=0.01"]
    assert "not compared: they differ in trainer.max_epochs too" in two.differences[1].sentence
    three = compare(runs, ("optimizer", "optimizer.lr", "trainer.max_epochs"))
    assert next(iter(by_label(three))) == "adam, optimizer.lr=0.001, trainer.max_epochs=5"
    assert all("not compared" not in difference.sentence for difference in three.differences)
    by_rate = compare(runs[:4], ("optimizer.lr",), baseline="0.01")
    assert list(by_label(by_rate)) == ["0.001", "0.01"]
    assert by_rate.differences[0].group == "0.001"


@pytest.mark.parametrize(
    ("key", "labels", "settings", "facts"),
    [
        ("model", ["notebook_cnn", "resnet18"], {"model": {"_target_": "ResNet"}}, {"choices": {"model": "resnet18"}}),
        ("data.batch_size", ["128", "64"], {"data.batch_size": 64}, {}),
        ("trainer.precision", ["32-true", "bf16-mixed"], {}, {"environment": {"precision": "bf16-mixed"}}),
        ("callbacks", ["none", "fixed_budget"], {"callbacks": {}}, {"choices": {"callbacks": "fixed_budget"}}),
    ],
)
def test_what_is_asked_for_may_differ(make_run, key, labels, settings, facts):
    runs = [make_run("adam", seed, (0.4,)) for seed in range(3)]
    runs += [make_run("adam", seed, (0.5 + seed / 100,), settings=settings, facts=facts) for seed in range(3)]
    comparison = compare(runs, (key,))
    assert list(by_label(comparison)) == labels
    assert comparison.differences[0].sentence.startswith(f"{labels[1]} beats {labels[0]}")


def test_one_value_written_in_two_ways_is_one_group(make_run):
    runs = [make_run("adam", seed, settings={"optimizer.lr": lr}) for seed, lr in enumerate((1, 1.0))]
    assert [(group.label, len(group.counted)) for group in compare(runs, ("optimizer.lr",)).groups] == [("1", 2)]


def test_unlike_runs_of_one_name_are_told_apart_and_never_averaged(make_run):
    runs = [make_run("adam", 0, (0.5,)), make_run("adam", 0, (0.7,), settings={"data.batch_size": 64})]
    comparison = compare(runs)
    assert {label: g.spreads["best", "val_acc"].mean for label, g in by_label(comparison).items()} == {
        "adam, data.batch_size=128": 0.5,
        "adam, data.batch_size=64": 0.7,
    }
    assert said(comparison, "Runs of adam") == (
        "Runs of adam differ in data.batch_size: they are not averaged, but shown as groups of their own."
    )
    assert comparison.differences[0].sentence == (
        "adam, data.batch_size=64 and adam, data.batch_size=128 are not compared: they differ in data.batch_size too."
    )


@pytest.mark.parametrize(
    ("settings", "facts", "key"),
    [
        ({}, OTHER_FACES, "data.fingerprint"),
        ({}, MORE_FACES, "data.fingerprint"),
        ({}, {"environment": {"precision": "bf16-mixed"}}, "precision"),
        ({"trainer.max_epochs": 6}, {}, "trainer.max_epochs"),
        ({"model.dropout": 0.5}, {}, "model.dropout"),
        ({"callbacks.early_stopping.patience": 10}, {}, "callbacks.early_stopping.patience"),
        ({"trainer.gradient_clip_val": 1.0}, {}, "trainer.gradient_clip_val"),
        ({"optimizer.lr": 0.1}, {}, "optimizer.lr"),
    ],
)
def test_whatever_differs_splits_a_group(make_run, settings, facts, key):
    comparison = compare([make_run("adam", 0), make_run("adam", 1, settings=settings, facts=facts)])
    assert [len(group.counted) for group in comparison.groups] == [1, 1]
    assert f"differ in {key}:" in said(comparison, "Runs of adam")


def test_groups_that_differ_in_much_are_numbered_and_a_choice_is_named(make_run):
    many = {"trainer.max_epochs": 6, "data.batch_size": 64, "model.dropout": 0.5}
    comparison = compare([make_run("adam"), make_run("adam", settings=many), make_run("adam", 1, settings=many)])
    assert [(g.label, len(g.runs)) for g in comparison.groups] == [("adam (variant 1)", 1), ("adam (variant 2)", 2)]
    chosen = [{"choices": {"optimizer": "adam", "callbacks": name}} for name in ("notebook", "fixed_budget")]
    runs = [make_run("adam", facts=chosen[0]), make_run("adam", facts=chosen[1], settings={"callbacks": {"a": 1}})]
    assert list(by_label(compare(runs))) == ["adam, callbacks=notebook", "adam, callbacks=fixed_budget"]


def test_labels_are_never_the_same(make_run):
    runs = [make_run("adam", settings={"optimizer.eps": eps}) for eps in (None, "none")]
    comparison = compare(runs)
    assert list(by_label(comparison)) == ["adam (variant 1)", "adam (variant 2)"]
    assert [group.runs for group in comparison.groups] == [(runs[0],), (runs[1],)]


@pytest.mark.parametrize(
    ("settings", "facts", "group_by", "reason"),
    [
        ({}, OTHER_FACES, "optimizer", "data.fingerprint"),
        ({}, MORE_FACES, "optimizer", "data.fingerprint"),
        ({"data.generator_seed": 1}, OTHER_FACES, "data.generator_seed", "data.fingerprint"),
        ({"data.ignore": "x"}, OTHER_FACES, "data", "data.fingerprint"),  # asked for, but no accuracies to compare
        ({"model.dropout": 0.5, "trainer.max_epochs": 6}, {}, "optimizer", "model.dropout, trainer.max_epochs"),
        ({"model": {"_target_": "R"}}, {"choices": {"optimizer": "sgd", "model": "resnet18"}}, "optimizer", "model"),
    ],
)
def test_groups_that_differ_in_more_than_the_key_are_not_compared(make_run, settings, facts, group_by, reason):
    base = {"choices": {"optimizer": "adam", "model": "notebook_cnn", "data": "a"}}
    runs = [make_run("adam", seed, facts=base) for seed in range(3)]
    facts = {"choices": {"optimizer": "sgd", "model": "notebook_cnn", "data": "b"}, **facts}
    runs += [make_run("sgd", seed, settings=settings, facts=facts) for seed in range(3)]
    (difference,) = compare(runs, (group_by,)).differences
    assert difference.paired == {}
    assert difference.sentence.endswith(f"are not compared: they differ in {reason} too.")


def test_other_training_images_are_compared_where_the_data_are_asked_for(make_run):
    runs = [make_run("adam", seed) for seed in range(3)]
    settings = {"data.exclude": "exclude.txt"}
    runs += [make_run("adam", seed, (0.6 + seed / 100,), settings=settings, facts=MORE_FACES) for seed in range(3)]
    (difference,) = compare(runs, ("data.exclude",)).differences
    assert len(difference.paired) > 0
    assert "not compared" not in difference.sentence
    # A batch size does not decide the images: other ones are by accident.
    runs[3:] = [make_run("adam", seed, settings={"data.batch_size": 64}, facts=MORE_FACES) for seed in range(3)]
    (difference,) = compare(runs, ("data.batch_size",)).differences
    assert difference.sentence.endswith("are not compared: they differ in data.fingerprint too.")


def test_sweeps_that_differ_in_whatever_they_like_are_compared_by_their_folders(make_run, tmp_path):
    def moved(name, run):
        return read_run(shutil.move(run.folder, tmp_path / name / str(run.seed)))

    more = {"optimizer.lr": 0.1, "model.dropout": 0.5, "scheduler": {"factor": 0.2}}
    for name in ("plain", "more", "odd"):
        (tmp_path / name).mkdir()
    runs = [moved("plain", make_run("adam", seed)) for seed in range(3)]
    runs += [moved("more", make_run("sgd", seed, (0.6 + seed / 100,), settings=more)) for seed in range(3)]
    comparison = compare(runs, ("folder",))
    assert list(by_label(comparison)) == ["plain", "more"]
    assert comparison.differences[0].sentence.startswith("more beats plain")
    # Unlike things in one folder are not averaged, and accuracies on other images not compared, as ever.
    runs += [moved("odd", make_run("adam", 0, settings={"model.dropout": 0.1}))]
    runs += [moved("odd", make_run("adam", 1, settings={"model.dropout": 0.2}, facts=OTHER_FACES))]
    odd = compare(runs, ("folder",)).differences[1:]
    assert [difference.group for difference in odd] == [
        "odd, data.fingerprint=aaaaaaaaaaaa/bbbbbbbbbbbb, model.dropout=0.1",
        "odd, data.fingerprint=aaaaaaaaaaaa/cccccccccccc, model.dropout=0.2",
    ]
    assert "differ in data.fingerprint too" in odd[1].sentence


def test_a_schedule_that_looks_at_the_validation_images_is_said_where_others_do_not(make_run):
    plateau = {"scheduler": {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau"}}
    constant = [make_run("adam", seed) for seed in range(2)]
    led = [make_run("sgd", seed, settings=plateau) for seed in range(2)]
    comparison = compare([*constant, *led], ("optimizer", "scheduler._target_"))
    label = "sgd, scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau"
    assert f"the learning rate of {label}, and not" in said(comparison, "The validation images cut")
    assert not [note for note in compare(led).notes if "The validation images cut" in note]
    by_training = [make_run("sgd", seed, settings=plateau | {"monitor": "train_loss"}) for seed in range(2)]
    assert not [n for n in compare([*constant, *by_training]).notes if "The validation images cut" in n]


def test_more_training_faces_can_be_compared_where_that_is_asked_for(make_run):
    runs = [make_run("adam", s, facts={"choices": {"data": "a"}}) for s in range(3)]
    runs += [make_run("adam", s, (0.9,), facts={"choices": {"data": "b"}, **MORE_FACES}) for s in range(3)]
    (difference,) = compare(runs, ("data",)).differences
    assert difference.paired["best", "val_acc"].mean == pytest.approx(0.4)


def test_a_failed_run_is_not_told_apart_by_what_it_did_not_live_to_see(make_run):
    failed = make_run("adam", 1, (), "failed", facts={"environment": {}, "data": {}})
    comparison = compare([failed, make_run("adam", 0)])
    assert [len(group.runs) for group in comparison.groups] == [2]
    assert comparison.shared["precision"] == "32-true"


def test_records_without_configuration_take_part_as_far_as_they_tell(make_run):
    whole = [make_run(facts={"choices": {}}, seed=0, optimizer="adam") for _ in range(1)]
    partial = without_config(make_run("adam", 1, settings={"trainer.max_epochs": 99}))
    comparison = compare([partial, *whole])
    (group,) = comparison.groups
    assert [run.seed for run in group.counted] == [0, 1]
    assert said(comparison, "lack their configuration") == (
        "1 of 2 records lack their configuration: whether epochs, batch size and schedule agree cannot be checked: "
        f"{partial.folder}."
    )
    assert comparison.shared["trainer.max_epochs"] == 5
    assert comparison.differing == {}
    longer = make_run("adam", 2, settings={"trainer.max_epochs": 50}, facts={"choices": {}})
    assert list(by_label(compare([*whole, longer, partial]))) == [
        "ADAM, trainer.max_epochs=5",
        "ADAM, trainer.max_epochs=50",
        "ADAM, trainer.max_epochs=not recorded",
    ]


def test_settings_are_listed_as_shared_or_differing(make_run):
    runs = [make_run("adam", settings={"optimizer.betas": [0.9, 0.99]}), make_run("sgd", settings={"optimizer.lr": 1})]
    comparison = compare(runs)
    assert comparison.differing == {"optimizer.betas": ("[0.9, 0.99]", None), "optimizer.lr": (0.001, 1)}
    assert comparison.shared["trainer.max_epochs"] == 5
    assert comparison.shared["data.fingerprint"] == f"{'a' * 12}/{'b' * 12}"
    assert not set(comparison.shared) & set(comparison.differing)


def test_an_unknown_key_or_baseline_is_refused_with_what_there_is(make_run):
    runs = [make_run("adam", 0), make_run("sgd", 0, settings={"optimizer.lr": 0.1})]
    for keys in (("optimiser",), ("optimizer", "optimizer.lrr")):
        with pytest.raises(UserError, match=rf"group_by={keys[-1]}: no run has such a key") as raised:
            compare(runs, keys)
        assert str(raised.value).endswith("there are model, optimizer, optimizer.lr, folder, seed")
    with pytest.raises(UserError, match="baseline=SGD: there is no such group; there are adam, sgd"):
        compare(runs, baseline="SGD")
    with pytest.raises(UserError, match="group_by: expected a key"):
        compare(runs, ())


def test_the_baseline_is_the_first_group_or_the_one_named(three_optimizers):
    assert [(d.group, d.baseline) for d in compare(three_optimizers).differences] == [
        ("sgd", "adam"),
        ("rmsprop", "adam"),
    ]
    named = compare(three_optimizers, baseline="rmsprop").differences
    assert [(d.group, d.baseline) for d in named] == [("adam", "rmsprop"), ("sgd", "rmsprop")]


def test_a_comparison_from_records_to_sentences(three_optimizers):
    sgd, rmsprop = compare(three_optimizers).differences
    assert sgd.sentence.startswith("adam beats sgd by ")
    assert sgd.sentence.endswith("3 paired seeds (best val_acc).")
    assert rmsprop.sentence.startswith("No difference between rmsprop and adam can be claimed: ")


def test_the_last_epoch_is_measured_where_no_early_stopping_ended_runs(make_run):
    fixed = [make_run("adam", seed, settings={"callbacks": {"early_stopping": None}}) for seed in (0, 1)]
    assert compare(fixed).measure == "final"
    assert compare(fixed, measure="best").measure == "best"
    assert compare([*fixed, make_run("sgd", 0)]).measure == "best"
    assert default_measure([without_config(make_run("sgd", 0))]) == "best"  # not known
    assert default_measure([]) == "best"


# Held out


def trial(make_run, accuracy, lr, arm="adam", **facts):
    settings = {"data.val_fraction": 0.2, "optimizer.lr": lr}
    return make_run("adam", 0, (accuracy,), settings=settings, facts=facts, arm=arm)


def test_trials_are_not_averaged_with_runs_that_report(make_run):
    trials = [trial(make_run, 0.8, 0.1, **OTHER_FACES), trial(make_run, 0.9, 0.001, **OTHER_FACES)]
    reporting = [make_run("adam", 0, (0.5,)), make_run("adam", 1, (0.6,))]
    comparison = compare([*trials, *reporting])
    (group,) = comparison.groups
    assert group.counted == tuple(reporting)
    assert group.spreads["best", "val_acc"].mean == pytest.approx(0.55)
    (tuning,) = comparison.trials
    assert (tuning.label, tuning.trials, tuning.winner) == ("adam", tuple(trials), trials[1])
    assert tuning.varied == ("optimizer.lr",)
    assert not any("Trials" in note or "held" in note for note in comparison.notes)


def test_trials_alone_are_compared_with_a_warning(make_run):
    comparison = compare([trial(make_run, 0.8, 0.1), trial(make_run, 0.9, 0.001)])
    assert comparison.trials == ()
    assert len(comparison.groups) == 2
    assert "not for reporting" in said(comparison, "data.val_fraction")


def test_a_sweep_that_holds_images_out_is_a_group_beside_others_and_no_tuning(make_run):
    held = trial(make_run, 0.8, 0.1, arm=None, **OTHER_FACES)
    comparison = compare([held, make_run("adam", 0, (0.5,))])
    assert comparison.trials == ()
    assert len(comparison.groups) == 2
    assert "1 of 2 runs were validated on a part" in said(comparison, "not for reporting")
    assert "not compared" in comparison.differences[0].sentence


def test_the_choice_is_that_of_the_runs_that_report_and_a_later_better_trial_is_told_of(make_run):
    trials = [trial(make_run, 0.4, 0.1), trial(make_run, 0.6, 0.01), trial(make_run, 0.9, 0.001)]
    reporting = [make_run("adam", seed, settings={"optimizer.lr": 0.01}, arm="adam") for seed in (1, 2)]
    late = compare([*trials, *reporting])
    assert (late.trials[0].winner, late.trials[0].best, late.trials[0].edges) == (trials[1], trials[2], ())
    assert said(late, "after the choice").startswith("adam: a trial that came to its result after the choice")
    at_once = compare([*trials[:2], *reporting])
    assert at_once.trials[0].winner is at_once.trials[0].best is trials[1]
    assert not any("after the choice" in note for note in at_once.notes)


def test_arms_with_the_same_optimizer_are_tuned_and_compared_each_by_itself(make_run):
    low = [trial(make_run, 0.4, 0.001, "low"), trial(make_run, 0.6, 0.002, "low")]
    high = [trial(make_run, 0.7, 0.1, "high"), trial(make_run, 0.5, 0.2, "high")]
    reporting = [
        make_run("adam", seed, (accuracy + seed / 50,), settings={"optimizer.lr": lr}, arm=arm)
        for arm, lr, accuracy in (("low", 0.002, 0.5), ("high", 0.1, 0.6))
        for seed in (1, 2)
    ]
    comparison = compare([*low, *high, *reporting], ["arm"])
    assert {tuning.label: tuning.winner for tuning in comparison.trials} == {"low": low[1], "high": high[0]}
    assert [group.label for group in comparison.groups] == ["low", "high"]
    assert comparison.differences[0].sentence.startswith("high is ahead of low by 10.0 points")
    assert not any("not averaged" in note for note in comparison.notes)


def test_trials_of_two_studies_are_not_put_together(make_run):
    here = [trial(make_run, 0.4, 0.001), trial(make_run, 0.6, 0.01)]
    there = [dataclasses.replace(run, arm=dataclasses.replace(run.arm, study=Path("/other"))) for run in here[:1]]
    comparison = compare([*here, *there, make_run("adam", 1)])
    assert {t.label: len(t.trials) for t in comparison.trials} == {"adam (runs)": 2, "adam (other)": 1}


def test_what_a_study_tuned_excuses_its_own_runs_alone(make_run):
    def runs(arm, lr, dropout, **settings):
        settings |= {"optimizer.lr": lr, "model.dropout": dropout}
        return [make_run("adam", seed, settings=settings, arm=arm) for seed in (0, 1)]

    first, second = runs("a", 0.001, 0.25), runs("b", 0.1, 0.5)
    (difference,) = compare([*first, *second], ["model.dropout"]).differences
    assert "2 paired seeds" in difference.sentence
    plain = [dataclasses.replace(run, arm=None) for run in second]
    (difference,) = compare([*first, *plain], ["model.dropout"]).differences
    assert difference.sentence.endswith("are not compared: they differ in optimizer.lr too.")
    # What neither the study nor the question has changed speaks against every group.
    (difference,) = compare([*first, *runs("c", 0.1, 0.25, monitor="val_acc")], ["arm"]).differences
    assert difference.sentence.endswith("are not compared: they differ in monitor too.")


def said_of(comparison, label):
    return next(difference.sentence for difference in comparison.differences if difference.group == label)


def test_the_baseline_is_the_first_group_with_a_result(make_run):
    runs = [make_run("adam", seed, (), "failed") for seed in (0, 1)]
    runs += [make_run(name, seed, (a + seed / 50,)) for name, a in (("sgd", 0.4), ("rmsprop", 0.5)) for seed in (0, 1)]
    assert {difference.baseline for difference in compare(runs).differences} == {"sgd"}
    assert said_of(compare(runs), "rmsprop").startswith("rmsprop is ahead of sgd by 10.0 points")


def test_trials_on_unlike_images_are_told_of(make_run):
    trials = [trial(make_run, 0.8, 0.1), trial(make_run, 0.9, 0.001, **OTHER_FACES)]
    comparison = compare([*trials, make_run("adam", 0)])
    assert said(comparison, "unlike images").startswith("Trials of adam were validated on unlike images")


# Circumstances


def at(make_run, start, end, host="h", status="completed"):
    zero = datetime(2026, 1, 1, tzinfo=UTC)
    begin, close = ((zero + timedelta(seconds=s)).isoformat(timespec="milliseconds") for s in (start, end))
    run = make_run("adam", 0, status=status, facts={"environment": {"host": host}, "started": begin})
    return rewrite(run, updated=close)


@pytest.mark.parametrize(
    ("spans", "overlap"),
    [
        ([(0, 10), (10, 20), (20, 30)], False),
        ([(20, 30), (0, 10), (10, 20)], False),
        ([(0, 10), (9.9, 20)], True),
        ([(0, 100), (1, 2)], True),
        ([(0, 100), (100, 101), (101, 102), (50, 51)], True),
        ([(0, 1), (2, 50), (3, 4), (45, 60)], True),
        ([(5, 10)], False),
    ],
)
def test_runs_that_shared_a_machine_are_told_of(make_run, spans, overlap):
    comparison = compare([at(make_run, *span) for span in spans])
    assert any("shared a machine at the same time (h)" in note for note in comparison.notes) == overlap


def test_overlap_is_found_wherever_a_search_of_all_pairs_finds_it(make_run):
    draw = random.Random(0)
    zero = datetime(2026, 1, 1, tzinfo=UTC)
    found = []
    runs = [make_run("adam", 0, facts={"environment": {"host": "h"}}) for _ in range(4)]
    for _ in range(300):
        spans = []
        for run in runs:
            start = draw.randrange(60)
            span = zero + timedelta(seconds=start), zero + timedelta(seconds=start + draw.choice((1, 2, 30)))
            run.__dict__["span"] = span
            spans.append(span)
        pairs = itertools.combinations(set(spans), 2)
        expected = any(a[0] < b[1] and b[0] < a[1] for a, b in pairs)
        found.append(expected)
        assert bool(_hosts_with_overlap(runs)) == expected
    assert 0.2 < np.mean(found) < 0.98


def test_overlap_is_a_matter_of_one_host_and_of_all_its_runs(make_run):
    elsewhere = compare([at(make_run, 0, 10, "a"), at(make_run, 0, 9, "b")])
    assert not any("shared a machine" in note for note in elsewhere.notes)
    with_killed = compare([at(make_run, 0, 10), at(make_run, 5, 20, status="running")])
    assert said(with_killed, "shared a machine")
    with_trial = [at(make_run, 0, 10), rewrite(trial(make_run, 0.5, 0.1), started="2026-01-01", updated="2026-02-01")]
    with_trial[1].summary["environment"]["host"] = "h"
    assert said(compare(with_trial), "shared a machine")


def test_a_copied_record_does_not_overlap_with_itself(make_run, tmp_path):
    run = at(make_run, 0, 10)
    copy = read_run(shutil.copytree(run.folder, tmp_path / "copy"))
    comparison = compare([run, copy])
    assert not any("shared a machine" in note for note in comparison.notes)
    assert said(comparison, "several runs with seed 0")
    assert len(comparison.groups[0].counted) == 1


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"device": "another"}, "different values of device (a processor, another): their seconds are not comparable"),
        ({"threads": 8}, "different values of threads (2, 8): their seconds are not comparable"),
        ({"versions": {"torch": "3"}}, "different values of torch (2, 3): results may differ for that reason"),
        ({"git_commit": "beef"}, "different values of git commit (beef, cafe): results may differ for that reason"),
    ],
)
def test_unlike_circumstances_are_told_of(make_run, environment, words):
    usual = {"device": "a processor", "threads": 2, "precision": "32-true", "versions": {"torch": "2"}}
    usual["git_commit"] = "cafe"
    runs = [make_run("adam", seed, facts={"environment": usual | (environment if seed else {})}) for seed in (0, 1)]
    comparison = compare(runs)
    assert words in said(comparison, "The runs had")
    assert len(comparison.groups) == 1
    assert compare(runs[:1]).notes == ()


def test_notes_that_are_given_come_first(make_run):
    comparison = compare([make_run(), make_run(status="failed", seed=1)], notes=["Read this."])
    assert comparison.notes[0] == "Read this."
    assert len(comparison.notes) == 2


# Verdicts


@pytest.mark.parametrize(
    ("difference", "sentence"),
    [
        (PairedDifference(3, 0.021, 0.009, 0.034, 0.01), "A beats B by 2.1 points [0.9, 3.4], 3 paired seeds"),
        (PairedDifference(3, -0.021, -0.034, -0.009, 0.01), "B beats A by 2.1 points [0.9, 3.4], 3 paired seeds"),
        (
            PairedDifference(3, 0.021, 0.009, 0.034, 0.0571),
            "A is ahead of B by 2.1 points [0.9, 3.4], 3 paired seeds (best val_acc), but the paired t-test does not "
            "confirm it (p = 0.057): more seeds are needed to claim a difference.",
        ),
        (
            PairedDifference(3, -0.021, -0.034, -0.009, 0.0571),
            "B is ahead of A by 2.1 points [0.9, 3.4], 3 paired seeds (best val_acc), but the paired t-test",
        ),
        (
            PairedDifference(4, 0.01, -0.005, 0.021, 0.3),
            "No difference between A and B can be claimed: A is ahead by 1.0 points [-0.5, 2.1], 4 paired seeds "
            "(best val_acc), and zero is within.",
        ),
        (
            PairedDifference(4, -0.01, -0.021, 0.005, 0.3),
            "No difference between A and B can be claimed: B is ahead by 1.0 points [-0.5, 2.1], 4 paired seeds",
        ),
        (
            PairedDifference(4, -0.01, -0.02, 0.0, 0.3),  # no "-0.0"
            "No difference between A and B can be claimed: B is ahead by 1.0 points [0.0, 2.0], 4 paired seeds",
        ),
        (
            PairedDifference(2, 0.0, -0.01, 0.01, 1.0),
            "No difference between A and B can be claimed: they differ by 0.0 points [-1.0, 1.0], 2 paired seeds",
        ),
        (
            PairedDifference(6, 3e-4, 2e-4, 4e-4, 0.001),  # one image of 3,589 is 0.028 points
            "A beats B by 0.03 points [0.02, 0.04], 6 paired seeds",
        ),
        (PairedDifference(1, -3e-4, math.nan, math.nan, math.nan), "B is ahead of A by 0.03 points (best val_acc)"),
        (
            PairedDifference(1, 0.034, math.nan, math.nan, math.nan),
            "A is ahead of B by 3.4 points (best val_acc), but with one seed nothing can be claimed; add e.g. "
            "seed=0,1,2.",
        ),
        (
            PairedDifference(1, -0.034, math.nan, math.nan, math.nan),
            "B is ahead of A by 3.4 points (best val_acc), but",
        ),
        (PairedDifference(1, 0.0, math.nan, math.nan, math.nan), "A and B are level (best val_acc), but with one seed"),
        (
            PairedDifference(0, math.nan, math.nan, math.nan, math.nan),
            "A and B have no finished runs with the same seed: nothing can be claimed.",
        ),
        (
            paired_difference([0.1, math.inf, 0.2]),
            "A and B have runs without a finite figure: nothing can be claimed.",
        ),
        (paired_difference([math.nan]), "A and B have runs without a finite figure: nothing can be claimed."),
    ],
)
def test_verdicts(difference, sentence):
    found = verdict("A", "B", difference, "best")
    assert found.startswith(sentence)
    assert found.endswith(".")


def test_a_verdict_names_its_measure():
    assert "(final val_acc)" in verdict("A", "B", PairedDifference(3, 0.02, 0.01, 0.03, 0.01), "final")
    assert "(final val_acc)" in verdict("A", "B", PairedDifference(1, 0.02, *[math.nan] * 3), "final")
