"""Metrics and calibration against scikit-learn and plain loops, intervals against SciPy."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, bootstrap
from sklearn import metrics
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

from fer_exp.evaluation.scores import TEMPERATURES, bin_index, calibration_terms, fit_temperature, score

CASES = {
    "typical": (200, 7, 2.0),
    "few images": (9, 7, 2.0),
    "one image per class": (3, 3, 2.0),
    "confident": (60, 4, 50.0),
    "one image": (1, 3, 1.0),
}


def all_estimates(scores):
    per_class = ((name, e) for name, estimates in scores.per_class.items() for e in estimates)
    return [*scores.overall.items(), *per_class]


def test_metrics_are_those_of_sklearn(predictions):
    log_probabilities, labels = predictions(500)
    log_probabilities = log_probabilities.index_fill(1, torch.tensor([3]), -20.0).log_softmax(1)  # never predicted
    scores = score(log_probabilities, labels, None, resamples=100)
    true, predicted = labels.numpy(), log_probabilities.argmax(dim=1).numpy()
    precision, recall, f1, support = metrics.precision_recall_fscore_support(true, predicted, zero_division=np.nan)
    expected = {
        "accuracy": metrics.accuracy_score(true, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(true, predicted),
        "macro_f1": f1.mean(),
        "nll": metrics.log_loss(true, log_probabilities.exp().numpy()),
        "ece": float(multiclass_calibration_error(log_probabilities.exp(), labels, 7, 15, norm="l1")),
    }
    assert {name: e.value for name, e in scores.overall.items()} == pytest.approx(expected, rel=1e-5)
    for name, values in (("precision", precision), ("recall", recall), ("f1", f1)):
        np.testing.assert_allclose([e.value for e in scores.per_class[name]], values, rtol=1e-9)
    assert np.isnan(scores.per_class["precision"][3]).all()
    assert scores.support == support.tolist()
    np.testing.assert_array_equal(scores.confusion, metrics.confusion_matrix(true, predicted))


def test_proportions_have_wilson_intervals(predictions):
    scores = score(*predictions(90, classes=3), None, resamples=100)
    hits, count = int(np.trace(scores.confusion)), 90
    pairs = [(scores.overall["accuracy"], hits, count)]
    pairs += [(scores.per_class["recall"][c], int(scores.confusion[c, c]), scores.support[c]) for c in range(3)]
    for estimate, successes, trials in pairs:
        interval = binomtest(successes, trials).proportion_ci(method="wilson")
        assert estimate[1:] == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize("case", CASES)
def test_no_estimate_is_outside_its_interval(predictions, case):
    count, classes, sharpness = CASES[case]
    for seed in range(20):
        for temperature in (None, 3.0):
            log_probabilities, labels = predictions(count, classes, sharpness, seed)
            for name, estimate in all_estimates(score(log_probabilities, labels, temperature, resamples=100)):
                assert np.isnan(estimate).all() or estimate.low <= estimate.value <= estimate.high, (name, estimate)


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_intervals_have_a_width_at_0_and_100_percent(accuracy):
    labels = torch.arange(5).repeat(4)
    predicted = labels if accuracy else (labels + 1) % 5
    scores = score(torch.eye(5, dtype=torch.float64)[predicted].mul(4).log_softmax(1), labels, None, resamples=100)
    estimates = {name: e for name, e in all_estimates(scores) if name not in ("nll", "ece")}
    assert {e.value for e in estimates.values()} == {accuracy}
    assert min(e.high - e.low for e in estimates.values()) > 0.05


def test_averages_exclude_undefined_classes(predictions):
    log_probabilities, labels = predictions(60, classes=3)
    without = torch.cat([log_probabilities, torch.full((60, 1), -30.0, dtype=torch.float64)], dim=1).log_softmax(1)
    three, four = (score(given, labels, None, resamples=100) for given in (log_probabilities, without))
    for name in ("balanced_accuracy", "macro_f1"):
        assert four.overall[name].value == pytest.approx(three.overall[name].value)
    assert np.isnan(four.per_class["f1"][3]).all()


def test_intervals_of_means_agree_with_scipys_bootstrap(predictions):
    log_probabilities, labels = predictions(300)
    predicted = log_probabilities.argmax(dim=1)
    overall = score(log_probabilities, labels, None).overall

    def macro_f1(chosen):
        return metrics.f1_score(labels[chosen], predicted[chosen], average="macro")

    rng = np.random.default_rng(1)
    theirs = bootstrap((np.arange(300),), macro_f1, n_resamples=500, method="percentile", vectorized=False, rng=rng)
    assert overall["macro_f1"][1:] == pytest.approx(tuple(theirs.confidence_interval), abs=0.015)
    losses = -log_probabilities[torch.arange(300), labels].numpy()
    theirs = bootstrap((losses,), np.mean, n_resamples=4000, method="percentile", rng=rng)
    assert overall["nll"][1:] == pytest.approx(tuple(theirs.confidence_interval), abs=0.01)


def test_a_temperature_changes_calibration_only(predictions):
    log_probabilities, labels = predictions(200)
    plain, scaled = (score(log_probabilities, labels, t, resamples=100) for t in (None, 1.0))
    assert {*scaled.overall} - {*plain.overall} == {"nll_calibrated", "ece_calibrated"}
    assert {name: scaled.overall[name] for name in plain.overall} == plain.overall
    assert scaled.overall["nll_calibrated"] == pytest.approx(scaled.overall["nll"])
    assert scaled.overall["ece_calibrated"] == pytest.approx(scaled.overall["ece"])


def test_the_bootstrap_follows_the_seed(predictions):
    first, again, other = (score(*predictions(100), None, resamples=100, seed=seed).overall for seed in (0, 0, 1))
    assert first == again
    assert first["macro_f1"] != other["macro_f1"]


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
def test_the_temperature_is_the_best_of_a_grid(predictions, sharpness):
    logits, labels = predictions(400, sharpness=sharpness)
    found = fit_temperature(logits, labels)

    def loss(temperature):
        return float(F.cross_entropy(logits / temperature, labels))

    best = min(np.geomspace(0.05, 20, 2000), key=loss)
    assert found == pytest.approx(best, rel=0.005)
    assert loss(found) <= loss(best)


def test_the_temperature_is_finite_if_all_predictions_are_correct_or_wrong():
    logits, labels = torch.eye(5, dtype=torch.float64) * 4, torch.arange(5)
    found = fit_temperature(logits, labels)
    assert TEMPERATURES[0] <= found <= TEMPERATURES[1]
    assert float(F.cross_entropy(logits / found, labels)) == pytest.approx(0, abs=1e-12)
    assert fit_temperature(-logits, labels) == pytest.approx(TEMPERATURES[1], rel=1e-3)


def test_the_calibration_error_is_that_of_a_plain_loop(predictions):
    log_probabilities, labels = predictions(300, sharpness=3.0)
    # Confidences of exactly 1 belong to the last bin.
    log_probabilities[:20] = torch.tensor([0.0, *6 * [-100.0]], dtype=torch.float64)
    confidence, predicted = log_probabilities.exp().max(dim=1)
    correct = (predicted == labels).double()
    expected = 0.0
    for k in range(15):
        inside = (confidence >= k / 15) & ((confidence < (k + 1) / 15) | (k == 14))
        if inside.any():
            expected += float(inside.double().mean() * (confidence[inside].mean() - correct[inside].mean()).abs())
    assert float(calibration_terms(log_probabilities, labels).mean()) == pytest.approx(expected, rel=1e-4)


def test_a_bin_includes_its_lower_edge():
    assert bin_index(torch.tensor([0.0, 1 / 15, 0.0666, 0.9999, 1.0])).tolist() == [0, 1, 0, 14, 14]
