"""Temperature and calibration error against plain computations."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fer_exp.evaluation.calibration import TEMPERATURES, bin_of, expected_calibration_error, fit_temperature, temper


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
def test_temperature_is_the_best_of_a_grid(predictions, sharpness):
    logits, labels = predictions(400, sharpness=sharpness)
    found = fit_temperature(logits, labels)

    def loss(temperature):
        return float(F.cross_entropy(logits / temperature, labels))

    grid = np.geomspace(0.05, 20, 2000)
    best = min(grid, key=loss)
    assert found == pytest.approx(best, rel=0.005)
    assert loss(found) <= loss(best)


def test_temperature_undoes_what_logits_were_multiplied_by(predictions):
    logits, labels = predictions(400, sharpness=1.0)
    found = [fit_temperature(factor * logits, labels) for factor in (1, 3)]
    assert found[1] == pytest.approx(3 * found[0], rel=1e-4)
    # Of log-probabilities it is the same as of logits.
    assert fit_temperature(logits + 5, labels) == pytest.approx(found[0], rel=1e-4)


def test_temperature_stays_finite_where_all_is_right():
    logits, labels = torch.eye(5, dtype=torch.float64) * 4, torch.arange(5)
    found = fit_temperature(logits, labels)
    assert TEMPERATURES[0] <= found <= TEMPERATURES[1]
    assert float(F.cross_entropy(logits / found, labels)) == pytest.approx(0, abs=1e-12)
    # And where all is wrong, the flatter the better.
    assert fit_temperature(-logits, labels) == pytest.approx(TEMPERATURES[1], rel=1e-3)


def test_tempered_probabilities_keep_their_order_and_sum(predictions):
    log_probabilities, _ = predictions(50)
    tempered = temper(log_probabilities, 2.5)
    assert torch.equal(tempered.argsort(dim=1), log_probabilities.argsort(dim=1))
    torch.testing.assert_close(tempered.exp().sum(dim=1), torch.ones(50, dtype=torch.float64))


def test_calibration_error_is_that_of_a_plain_loop(predictions):
    log_probabilities, labels = predictions(300, sharpness=3.0)
    # Sure to the last digit, and wrong or right: these belong to the last bin, not to one of their own.
    log_probabilities[:20] = torch.tensor([0.0, *6 * [-100.0]], dtype=torch.float64)
    confidence, named = log_probabilities.exp().max(dim=1)
    correct = (named == labels).double()
    expected = 0.0
    for k in range(15):
        inside = (confidence >= k / 15) & ((confidence < (k + 1) / 15) | (k == 14))
        if inside.any():
            expected += float(inside.double().mean() * (confidence[inside].mean() - correct[inside].mean()).abs())
    assert expected_calibration_error(log_probabilities, labels) == pytest.approx(expected, rel=1e-4)


def test_a_bin_holds_its_lower_end():
    assert bin_of(torch.tensor([0.0, 1 / 15, 0.0666, 0.9999, 1.0])).tolist() == [0, 1, 0, 14, 14]
