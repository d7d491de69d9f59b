"""The figures against scikit-learn's, and their intervals against SciPy's bootstrap and a plain loop."""

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap
from sklearn import metrics

from fer_exp.evaluation import scores
from fer_exp.evaluation.calibration import expected_calibration_error, temper
from fer_exp.evaluation.scores import score


def by_sklearn(log_probabilities, labels):
    true, named = labels.numpy(), log_probabilities.argmax(dim=1).numpy()
    classes = range(log_probabilities.shape[1])
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        true, named, labels=classes, zero_division=np.nan
    )
    return {
        "accuracy": metrics.accuracy_score(true, named),
        "balanced_accuracy": metrics.balanced_accuracy_score(true, named),
        "macro_f1": np.nanmean(f1),
        "nll": metrics.log_loss(true, log_probabilities.exp().numpy(), labels=classes),
        "ece": expected_calibration_error(log_probabilities, labels),
        "precision": precision,
        "recall": recall,
        "f1": f1,
    }


def test_figures_are_those_of_sklearn(predictions):
    log_probabilities, labels = predictions(500)
    log_probabilities = log_probabilities.index_fill(1, torch.tensor([3]), -20.0).log_softmax(1)  # never named
    found = score(log_probabilities, labels, None, resamples=100)
    expected = by_sklearn(log_probabilities, labels)
    for name, interval in found.overall.items():
        assert interval.value == pytest.approx(expected[name], rel=1e-6), name
    for name, intervals in found.per_class.items():
        values = [interval.value for interval in intervals]
        np.testing.assert_allclose(values, expected[name], rtol=1e-6, err_msg=name)
    assert np.isnan(found.per_class["precision"][3]).all()  # it has none, and no interval either
    assert found.per_class["f1"][3].value == 0
    named = log_probabilities.argmax(dim=1).numpy()
    np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(labels.numpy(), named))
    assert found.support == torch.bincount(labels).tolist()


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_intervals_are_those_of_a_plain_loop_with_sklearn(predictions, monkeypatch):
    """Small and uneven, so that in some resamples a class is missing, or never named."""
    log_probabilities, labels = predictions(40, classes=4)
    labels[labels == 2] = 0
    labels[:2] = 2
    monkeypatch.setattr(scores, "_AT_ONCE", 40 * 7)  # drawn in several parts
    found = score(log_probabilities, labels, 1.7, resamples=40, seed=3)

    rng = np.random.default_rng(3)
    figures, calibrated = [], []
    for _ in range(40):
        drawn = torch.from_numpy(np.repeat(np.arange(40), rng.multinomial(40, np.full(40, 1 / 40))))
        figures.append(by_sklearn(log_probabilities[drawn], labels[drawn]))
        calibrated.append(by_sklearn(temper(log_probabilities, 1.7)[drawn], labels[drawn]))
    expected = {name: [each[name] for each in figures] for name in figures[0]}
    expected |= {f"{name}_calibrated": [each[name] for each in calibrated] for name in ("nll", "ece")}
    # balanced_accuracy_score leaves out classes without images, and so do we.
    for name, interval in found.overall.items():
        assert interval[1:] == pytest.approx(np.quantile(expected[name], (0.025, 0.975)), rel=1e-5), name
    for name, intervals in found.per_class.items():
        ends = np.nanquantile(expected[name], (0.025, 0.975), axis=0)
        np.testing.assert_allclose([interval[1:] for interval in intervals], ends.T, err_msg=name)


def test_intervals_are_about_those_of_scipy(predictions):
    log_probabilities, labels = predictions(300)
    right = (log_probabilities.argmax(dim=1) == labels).numpy()
    theirs = bootstrap((right,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1))
    ours = score(log_probabilities, labels, None, resamples=4000).overall["accuracy"]
    assert ours[1:] == pytest.approx(tuple(theirs.confidence_interval), abs=0.005)


def test_a_temperature_changes_calibration_alone(predictions):
    log_probabilities, labels = predictions(200)
    plain, cool = (score(log_probabilities, labels, t, resamples=100) for t in (None, 1.0))
    assert {name for name in cool.overall if name not in plain.overall} == {"nll_calibrated", "ece_calibrated"}
    assert {name: cool.overall[name] for name in plain.overall} == plain.overall
    assert cool.overall["nll_calibrated"] == pytest.approx(cool.overall["nll"])
    assert cool.overall["ece_calibrated"] == pytest.approx(cool.overall["ece"])


def test_the_draws_follow_the_seed(predictions):
    first, again, other = (score(*predictions(100), None, resamples=100, seed=seed).overall for seed in (0, 0, 1))
    assert first == again
    assert first["nll"].value == other["nll"].value
    assert first["nll"].low != other["nll"].low
