"""Classification metrics with 95 % confidence intervals over the images, calibration error and temperature."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import ndtri
from torch import Tensor
from torch.nn import functional as F

LEVEL = 0.95
BINS = 15  # of confidences, of equal width, as in Guo et al. 2017
TEMPERATURES = (0.01, 100.0)  # search range
_Z = float(ndtri((1 + LEVEL) / 2))

Array = NDArray[np.float64]


class Estimate(NamedTuple):
    """A metric and its confidence interval; NaN where the metric is undefined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Scores:
    """The metrics of one set of predictions.

    Attributes:
        overall: accuracy, balanced_accuracy, macro_f1, nll and ece; with a temperature also nll_calibrated and
            ece_calibrated.
        per_class: precision, recall and f1, C estimates each.
        confusion: counts (C, C); rows are true classes, columns are predicted classes.
        temperature: divides the logits for the calibrated metrics; None without them.
    """

    overall: Mapping[str, Estimate]
    per_class: Mapping[str, tuple[Estimate, ...]]
    confusion: NDArray[np.int64]
    temperature: float | None

    @property
    def support(self) -> list[int]:
        """Number of images of each class."""
        support: list[int] = self.confusion.sum(axis=1).tolist()
        return support


def score(
    log_probabilities: Tensor, labels: Tensor, temperature: float | None, resamples: int = 1000, seed: int = 0
) -> Scores:
    """Compute all metrics of N predictions.

    Intervals describe the choice of images, not other seeds of the training:

    - accuracy, precision, recall: Wilson's interval of a proportion. It has a width at 0 % and 100 % too.
    - F1 = 2 J / (1 + J), where J = TP / (TP + FP + FN) is a proportion: Wilson's interval of J, transformed.
    - balanced accuracy: combines the intervals of the recalls (Newcombe's square-and-add method).
    - macro-F1: percentile bootstrap over images, widened where needed to the combined intervals of the F1 values.
    - negative log-likelihood and ECE: normal interval of a mean over images; the ECE's is cut off at 0 and 1.

    Balanced accuracy and macro-F1 are means over the classes with a defined recall or F1.

    Args:
        log_probabilities: (N, C).
        labels: (N,) int64.
        temperature: for the calibrated metrics; None omits them.
        resamples: number of bootstrap resamples.
        seed: of the bootstrap.
    """
    count, classes = log_probabilities.shape
    cells = labels * classes + log_probabilities.argmax(dim=1)
    confusion = torch.bincount(cells, minlength=classes**2).reshape(classes, classes).numpy()
    hits, support, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    recall, precision = wilson(hits, support), wilson(hits, predicted)
    jaccard = wilson(hits, support + predicted - hits)
    f1 = 2 * jaccard / (1 + jaccard)
    macro_f1 = _mean_over_classes(f1)
    draws = np.random.default_rng(seed).multinomial(count, confusion.ravel() / count, size=resamples)
    low, high = np.quantile(_macro_f1(draws.reshape(-1, classes, classes)), ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    overall = {
        "accuracy": Estimate(*wilson(hits.sum(), np.asarray(count)).tolist()),
        "balanced_accuracy": _mean_over_classes(recall),
        "macro_f1": Estimate(macro_f1.value, min(macro_f1.low, float(low)), max(macro_f1.high, float(high))),
        **_probabilistic(log_probabilities, labels),
    }
    if temperature is not None:
        calibrated = _probabilistic(scale(log_probabilities, temperature), labels)
        overall |= {f"{name}_calibrated": estimate for name, estimate in calibrated.items()}
    per_class = {
        name: tuple(Estimate(*column) for column in values.T.tolist())
        for name, values in (("precision", precision), ("recall", recall), ("f1", f1))
    }
    return Scores(overall, per_class, confusion, temperature)


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
    return highest.exp().float(), predicted == labels


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


def wilson(successes: NDArray[np.int64], trials: NDArray[np.int64]) -> Array:
    """Proportion, lower and upper end of Wilson's interval (Wilson 1927), (3, ...); NaN without trials."""
    n = np.where(trials > 0, trials, np.nan).astype(float)
    p = successes / n
    center = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
    # Rounding must not exclude the proportion itself at 0 and 1.
    return np.stack([p, np.minimum(center - half, p).clip(min=0), np.maximum(center + half, p).clip(max=1)])


def _mean_over_classes(estimates: Array) -> Estimate:
    """Mean of independent estimates (3, C), with the interval of Newcombe 1998 and Zou and Donner 2008."""
    values, lows, highs = estimates[:, ~np.isnan(estimates[0])]
    if not len(values):
        return Estimate(math.nan, math.nan, math.nan)
    mean = values.mean()
    below, above = (np.sqrt(((ends - values) ** 2).sum()) / len(values) for ends in (lows, highs))
    return Estimate(float(mean), float(mean - below), float(mean + above))


def _macro_f1(confusion: NDArray[np.int64]) -> Array:
    """Macro-F1 (R,) of R confusion matrices (R, C, C)."""
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nanmean(2 * hits / (confusion.sum(axis=1) + confusion.sum(axis=2)), axis=1))


def _probabilistic(log_probabilities: Tensor, labels: Tensor) -> dict[str, Estimate]:
    nll = _mean(F.nll_loss(log_probabilities, labels, reduction="none"))
    ece = _mean(calibration_terms(log_probabilities, labels))
    return {"nll": nll._replace(low=max(nll.low, 0)), "ece": Estimate(ece.value, max(ece.low, 0), min(ece.high, 1))}


def _mean(terms: Tensor) -> Estimate:
    mean, error = float(terms.mean()), float(terms.std(correction=0)) / math.sqrt(len(terms))
    return Estimate(mean, mean - _Z * error, mean + _Z * error)
