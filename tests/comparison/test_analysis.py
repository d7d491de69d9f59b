import math

import numpy as np
import pytest
from scipy import stats

from fer_exp.comparison.analysis import compare
from fer_exp.comparison.caveats import find_caveats
from fer_exp.comparison.load import Records
from fer_exp.comparison.verdict import make_verdict, next_steps
from fer_exp.errors import UserError

CLASSES = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"]
SCORES = {"adam": [0.60, 0.62, 0.61], "sgd": [0.55, 0.58, 0.56], "rmsprop": [0.60, 0.61, 0.615]}


def labels(comparison):
    return [group.label for group in comparison.groups]


def test_groups_are_sorted_by_score_and_compared_with_the_best(make_records):
    comparison = compare(make_records(**SCORES))
    assert labels(comparison) == ["adam", "rmsprop", "sgd"]
    assert comparison.reference.label == "adam"
    raw = []
    for group in comparison.tested:
        scores = np.array(SCORES[group.label]) - np.array(SCORES["adam"])
        reference = stats.ttest_1samp(scores, 0)
        assert group.test.mean == pytest.approx(scores.mean())
        assert group.test.p_value == pytest.approx(reference.pvalue)
        raw.append(reference.pvalue)
    adjusted = [group.p_adjusted for group in comparison.tested]
    assert adjusted == pytest.approx([max(raw[0], 2 * raw[1]), 2 * raw[1]])
    assert [group.is_significant for group in comparison.tested] == [False, True]
    verdict = make_verdict(comparison)
    assert not verdict.is_conclusive
    assert "sgd" in verdict.headline
    assert [comparison.result(group) for group in comparison.groups] == ["best", "not significant", "worse"]


def test_a_baseline_can_be_chosen(make_records):
    comparison = compare(make_records(**SCORES), baseline="sgd")
    assert comparison.reference.label == "sgd"
    assert {group.label for group in comparison.tested} == {"adam", "rmsprop"}
    assert [comparison.result(group) for group in comparison.groups] == ["better", "better", "baseline"]
    with pytest.raises(UserError, match="adam, rmsprop, sgd"):
        compare(make_records(**SCORES), baseline="other")


def test_a_loss_is_better_lower(make_records):
    comparison = compare(make_records(**SCORES), metric="val_loss")
    assert labels(comparison) == ["adam", "rmsprop", "sgd"]
    assert comparison.groups[2].test.mean > 0
    assert comparison.result(comparison.groups[2]) == "worse"


def test_a_metric_of_a_callback_can_be_the_score(make_run):
    runs = [make_run("adam", 0, [0.5], val_auc=[0.7]), make_run("sgd", 0, [0.6], val_auc=[0.6])]
    assert labels(compare(Records(runs), metric="val_auc")) == ["adam", "sgd"]
    with pytest.raises(UserError, match="val_acc"):
        compare(Records(runs), metric="val_other")


def test_one_seed_allows_no_test(make_records):
    comparison = compare(make_records(adam=[0.6], sgd=[0.5]))
    assert not make_verdict(comparison).is_conclusive
    assert comparison.result(comparison.groups[1]) == "one seed"
    assert "seed=1,2" in next_steps(comparison)[1]


def test_no_group_above_chance_gets_no_claim(make_records):
    # Of 3,589 validation images 895 are happy: 24.9 %.
    comparison = compare(make_records(adam=[0.250, 0.251, 0.249], sgd=[0.14, 0.142, 0.137]))
    assert comparison.chance == pytest.approx(895 / 3589)
    assert all(group.at_chance for group in comparison.groups)
    assert comparison.groups[1].p_adjusted < 0.05
    assert not make_verdict(comparison).is_conclusive
    assert comparison.result(comparison.groups[1]).startswith("not significant")
    assert math.isnan(comparison.target)


def test_a_group_at_chance_is_named(make_records):
    comparison = compare(make_records(adam=[0.6, 0.61], sgd=[0.25, 0.24]))
    assert [group.at_chance for group in comparison.groups] == [False, True]
    assert "at chance" in comparison.result(comparison.groups[1])
    assert any("sgd" in caveat and "24.9 %" in caveat for caveat in find_caveats(comparison))


def test_chance_is_that_of_each_groups_own_images(make_run):
    data = {
        "classes": CLASSES,
        "counts": {"validation": [700, 50, 50, 50, 50, 50, 50]},
        "fingerprint": {"train": "a" * 64, "validation": "c" * 64},
    }
    runs = [make_run("adam", seed, [0.6]) for seed in (0, 1)]
    runs += [make_run("sgd", seed, [0.7], facts={"data": data, "confusion": None}) for seed in (0, 1)]
    comparison = compare(Records(runs))
    assert {group.label: group.at_chance for group in comparison.groups} == {"adam": False, "sgd": True}
    assert any("2 different sets of images" in caveat for caveat in find_caveats(comparison))


def test_groups_that_tie_are_all_named(make_records):
    headline = make_verdict(compare(make_records(adam=[0.6, 0.5], sgd=[0.5, 0.6], rmsprop=[0.4, 0.4]))).headline
    assert "adam, sgd" in headline


def test_parts_of_epochs_are_named(make_run):
    limit = {"settings": {"trainer.limit_train_batches": 20, "trainer.limit_val_batches": 1.0}}
    comparison = compare(Records([make_run("adam", 0, [0.5], **limit), make_run("sgd", 0, [0.6], **limit)]))
    (caveat,) = [each for each in find_caveats(comparison) if "limit_" in each]
    assert "trainer.limit_train_batches=20 batches" in caveat
    assert "limit_val" not in caveat


def test_the_next_step_names_the_seeds_that_are_needed(make_records):
    steps, command = next_steps(compare(make_records(adam=[0.61, 0.60, 0.62], sgd=[0.59, 0.588, 0.59])))
    assert "for sgd" in steps[0]
    assert "seed=3" in command


def test_pairs_are_made_by_seed(make_run):
    runs = [make_run("adam", seed, [0.6 + seed / 100]) for seed in (0, 1, 2)]
    runs += [make_run("sgd", seed, [0.5 + seed / 50]) for seed in (1, 2, 3)]
    assert compare(Records(runs)).groups[1].test.differences == pytest.approx((0.52 - 0.61, 0.54 - 0.62))


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
def test_an_unfinished_run_is_excluded_with_a_caveat(make_run, status):
    runs = [make_run("adam", 0, [0.6]), make_run("sgd", 0, [0.5]), make_run("sgd", 1, [0.9], status=status)]
    comparison = compare(Records(runs))
    assert [len(group.counted) for group in comparison.groups] == [1, 1]
    assert any(str(runs[2].folder) in caveat for caveat in find_caveats(comparison))


def test_without_any_result_there_is_a_report_of_nothing(make_run):
    comparison = compare(Records([make_run(status="failed"), make_run("sgd", val_acc=())]))
    assert not comparison.tested
    assert make_verdict(comparison).headline
    assert next_steps(comparison) == ([], "")


def test_the_latest_run_of_a_seed_counts(make_run):
    times = {"started": "2026-02-01T00:00:00Z", "updated": "2026-02-01T00:00:01Z"}
    runs = [make_run("adam", 0, [0.7], facts=times), make_run("adam", 0, [0.6]), make_run("sgd", 0, [0.5])]
    comparison = compare(Records(runs))
    assert comparison.groups[0].summary.mean == pytest.approx(0.7)
    assert any(str(runs[0].folder) in message for message in comparison.messages)


def test_runs_with_other_settings_are_not_averaged(make_run):
    runs = [make_run("adam", 0, [0.6]), make_run("adam", 1, [0.5], settings={"data.batch_size": 64})]
    assert labels(compare(Records(runs))) == ["adam, data.batch_size=128", "adam, data.batch_size=64"]


@pytest.mark.parametrize(
    "incidental",
    [
        {"settings": {"data.root": "/elsewhere"}},
        {"settings": {"logger": {"other": 1}}},
        {"settings": {"cuda_graph": True}},
        {"settings": {"data.file": "/elsewhere/faces.csv"}},
        {"settings": {"data.exclude": "/elsewhere/list.txt"}},
    ],
    ids=str,
)
def test_incidental_settings_do_not_split_a_group(make_run, incidental):
    own = {"data.file": "/here/faces.csv", "data.exclude": "/here/list.txt"}
    runs = [
        make_run("adam", seed, [0.6], settings=own | more) for seed, more in enumerate(({}, incidental["settings"]))
    ]
    assert labels(compare(Records(runs))) == ["adam"]


def test_groups_that_differ_in_more_than_the_key_are_not_compared(make_run):
    runs = [make_run("adam", 0, [0.6]), make_run("sgd", 0, [0.5], settings={"data.batch_size": 64})]
    group = compare(Records(runs)).groups[1]
    assert group.test is None
    assert "data.batch_size" in group.reason
    assert compare(Records(runs), ["optimizer", "data.batch_size"]).groups[1].test


def test_other_validation_images_are_never_compared(make_run):
    other = {"classes": [], "fingerprint": {"train": "a" * 64, "validation": "c" * 64}}
    runs = [make_run("adam", 0, [0.6]), make_run("sgd", 0, [0.5], facts={"data": other, "confusion": None})]
    for keys in (["optimizer"], ["optimizer", "data.fingerprint"]):
        assert not compare(Records(runs), keys).tested


def test_other_classes_are_refused(make_run):
    data = {"classes": ["a", "b"], "fingerprint": {"train": "a" * 64, "validation": "b" * 64}}
    runs = [make_run("adam"), make_run("sgd", facts={"data": data, "confusion": [[1, 0], [0, 1]]})]
    with pytest.raises(UserError, match="classes"):
        compare(Records(runs))


def test_an_unknown_key_is_refused_with_the_keys_that_differ(make_run):
    runs = [make_run("adam"), make_run("sgd", settings={"optimizer.lr": 0.1})]
    with pytest.raises(UserError, match=r"optimizer\.lrr.*optimizer\.lr"):
        compare(Records(runs), ["optimizer.lrr"])


def test_the_last_epoch_is_measured_unless_runs_stop_early(make_run):
    fixed = [make_run("adam", 0, [0.6, 0.5]), make_run("sgd", 0, [0.4, 0.4])]
    assert compare(Records(fixed)).score.measure == "final"
    stopping = [make_run("adam", 0, [0.6, 0.5], settings={"callbacks.early_stopping": {"patience": 3}})]
    comparison = compare(Records([*stopping, *fixed[1:]]))
    assert comparison.score.measure == "best"
    assert any("optimistic" in caveat for caveat in find_caveats(comparison))


def test_the_target_is_given_or_95_percent_of_the_best_median(make_records):
    records = make_records(**SCORES)
    assert compare(records, target=0.5).target == 0.5
    assert compare(records).target == math.floor(95 * 0.61) / 100


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"warnings": ["4 training images are in validation too"]}, "4 training images"),
        ({"environment": {"device": "another", "host": "here"}}, "device"),
        ({"environment": {"device": "a processor", "versions": {"torch": "3"}}}, "torch"),
        ({"started": "2026-01-01T00:00:00Z", "updated": "2026-01-01T05:00:00Z"}, "shared a machine"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_facts_of_the_records_become_caveats(make_run, facts, word):
    runs = [make_run("adam", 0, [0.6]), make_run("adam", 1, [0.61]), make_run("sgd", 0, [0.5])]
    assert not any(word in caveat for caveat in find_caveats(compare(Records(runs))) if "lr" not in caveat)
    runs.append(make_run("sgd", 1, [0.5], facts=facts))
    assert any(word in caveat for caveat in find_caveats(compare(Records(runs))))


def test_an_untuned_learning_rate_is_a_caveat(make_records, make_run):
    assert any("untuned" in caveat for caveat in find_caveats(compare(make_records(**SCORES))))
    runs = [make_run(name, 0, [0.5], settings={"optimizer.lr": lr}) for name in ("adam", "sgd") for lr in (0.1, 0.2)]
    comparison = compare(Records(runs), ["optimizer", "optimizer.lr"])
    assert not any("untuned" in caveat for caveat in find_caveats(comparison))
