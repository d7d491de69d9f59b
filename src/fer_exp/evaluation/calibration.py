"""Calibration: expected calibration error and temperature scaling."""

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

BINS = 15  # of equal width, as in Guo et al. 2017
TEMPERATURES = (0.01, 100.0)  # search range


def fit_temperature(log_probabilities: Tensor, labels: Tensor) -> float:
    """The temperature T > 0 that minimizes the negative log-likelihood of softmax(logits / T) (Guo et al. 2017).

    The loss is convex in 1 / T. It has no minimum if every prediction is correct; the result is then a small T whose
    loss is nearly 0. A network that has learned nothing gets the upper end of ``TEMPERATURES``.

    Args:
        log_probabilities: (N, C) logits or log-probabilities.
        labels: (N,) int64.
    """

    def loss(log_temperature: float) -> float:
        return float(F.nll_loss(scale(log_probabilities, float(np.exp(log_temperature))), labels))

    found = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-7})
    return float(np.exp(found.x))


def scale(log_probabilities: Tensor, temperature: float) -> Tensor:
    """Log-probabilities (N, C) after division of the logits by a temperature."""
    return torch.log_softmax(log_probabilities / temperature, dim=1)


def confidence_and_correct(log_probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The probability of the predicted class, (N,) float32 in [0, 1], and whether the prediction is correct, (N,)."""
    highest, predicted = log_probabilities.max(dim=1)
    return highest.exp().float().clamp(max=1), predicted == labels


def bin_index(confidence: Tensor) -> Tensor:
    """The bin of each confidence, (N,) int64. A bin includes its lower edge; the last bin also includes 1."""
    edges = torch.linspace(0, 1, BINS + 1)
    return (torch.bucketize(confidence, edges, right=True) - 1).clamp(max=BINS - 1)


def calibration_terms(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    """(N,) float64 whose mean is the expected calibration error (Naeini et al. 2015).

    The error is the mean of |confidence - accuracy| over the bins, weighted by their number of images. The term of an
    image is its confidence minus its correctness (0 or 1), with the sign of its bin's gap. The spread of the terms
    gives the standard error.
    """
    confidence, correct = confidence_and_correct(log_probabilities, labels)
    gaps, bins = confidence.double() - correct.double(), bin_index(confidence)
    signs = torch.zeros(BINS, dtype=torch.float64).index_add(0, bins, gaps).sign()
    return signs[bins] * gaps
