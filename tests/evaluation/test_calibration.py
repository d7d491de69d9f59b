"""Temperature and calibration error against plain computations."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fer_exp.evaluation.calibration import TEMPERATURES, bin_index, calibration_terms, fit_temperature


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
