"""Whether a network is as sure as it is right, and the temperature that makes it so."""

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

BINS = 15  # of equal width, as Guo et al. 2017 have them
TEMPERATURES = (0.01, 100.0)  # the narrowest and the widest that is looked for


def fit_temperature(log_probabilities: Tensor, labels: Tensor) -> float:
    """The T > 0 for which the negative log-likelihood of softmax(log p / T) is least (Guo et al. 2017, section 4.2).

    It is convex in 1 / T, so that the one minimum is found. Where every prediction is right there is none: the T that
    is returned leaves next to no loss. The largest of ``TEMPERATURES`` tells of a network that knows nothing.

    Args:
        log_probabilities: (N, C) logits, or log-probabilities, which differ from them by a constant for each image.
        labels: (N,) int64.
    """

    def loss(log_temperature: float) -> float:
        return float(F.nll_loss(temper(log_probabilities, float(np.exp(log_temperature))), labels))

    found = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-7})
    return float(np.exp(found.x))


def temper(log_probabilities: Tensor, temperature: float) -> Tensor:
    """(N, C): the log-probabilities after division by a temperature; the order of the classes stays."""
    return torch.log_softmax(log_probabilities / temperature, dim=1)


def top(log_probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Of each image the probability of the class that is named, (N,) float32 in [0, 1], and whether it is right."""
    best, predicted = log_probabilities.max(dim=1)
    return best.exp().float().clamp(max=1), predicted == labels


def bin_of(confidence: Tensor) -> Tensor:
    """(N,) int64: the bin of each confidence (N,) float32; a bin holds its lower end, and the last one 1 as well."""
    ends = torch.linspace(0, 1, BINS + 1)
    return (torch.bucketize(confidence, ends, right=True) - 1).clamp(max=BINS - 1)


def expected_calibration_error(log_probabilities: Tensor, labels: Tensor) -> float:
    """The mean gap between confidence and accuracy over ``BINS`` bins, weighted by their images (Naeini et al. 2015).

    Args:
        log_probabilities: (N, C).
        labels: (N,) int64.
    """
    # torchmetrics has a bin of its own for a probability of exactly 1.
    below_1 = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0))
    probabilities = log_probabilities.exp().float().clamp(max=below_1)
    return float(multiclass_calibration_error(probabilities, labels, log_probabilities.shape[1], BINS, norm="l1"))
