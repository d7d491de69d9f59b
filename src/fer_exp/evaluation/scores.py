"""What a network gets right, class by class, each figure with a bootstrap interval over the images."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional import classification

from fer_exp.data.dataset import ImageDataset
from fer_exp.data.loaders import ValidationBatches
from fer_exp.evaluation.calibration import BINS, bin_of, expected_calibration_error, fit_temperature, temper, top
from fer_exp.evaluation.images import Images
from fer_exp.evaluation.tta import log_probabilities
from fer_exp.plots.terminal import progress_bar
from fer_exp.runs.checkpoint import LoadedModel

LEVEL = 0.95  # of the intervals
_AT_ONCE = 2**23  # weights of images that are drawn together: 64 MiB

Figures = dict[str, NDArray[np.float64]]  # by name: scalars, or one value a class


class Interval(NamedTuple):
    """A figure with its bootstrap interval; NaN where it is not defined, as the precision of a class never named."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Scores:
    """The figures of one set of predictions.

    Attributes:
        overall: accuracy, balanced_accuracy (mean recall of the classes), macro_f1, nll (mean negative log-likelihood,
            nats) and ece (expected calibration error); with a temperature also nll_calibrated and ece_calibrated.
        per_class: precision, recall and f1, each with C intervals.
        confusion: (C, C) counts; rows are true classes, columns predicted ones.
        temperature: by which the logits of the calibrated figures were divided; None where none could be fitted.
    """

    overall: Mapping[str, Interval]
    per_class: Mapping[str, tuple[Interval, ...]]
    confusion: NDArray[np.int64]
    temperature: float | None

    @property
    def support(self) -> list[int]:
        """Number of images of each class."""
        support: list[int] = self.confusion.sum(axis=1).tolist()
        return support


def measure(
    trained: LoadedModel, images: Images, views: Sequence[str], batch_size: int, resamples: int = 2000, seed: int = 0
) -> tuple[dict[str, Tensor], dict[str, Scores]]:
    """The network's answers (N, C), and their scores, for each view; each has a temperature of its own.

    Args:
        trained: the network.
        images: to report on, and to fit the temperature on.
        views: how each face is shown.
        batch_size: images at once.
        resamples: as of ``score``.
        seed: as of ``score``.
    """

    def answer(dataset: ImageDataset, view: str) -> Tensor:
        batches = ValidationBatches(dataset, batch_size, trained.device)
        with progress_bar(f"{view}, {dataset.fingerprint[:6]}") as progress:
            return log_probabilities(trained, (faces for faces, _ in batches), view, len(dataset), progress)

    answers, scores = {}, {}
    for view in views:
        answers[view] = answer(images.reported, view)
        temperature = None
        if images.selection is not None:
            is_reported = images.selection.fingerprint == images.reported.fingerprint
            selection = answers[view] if is_reported else answer(images.selection, view)
            temperature = fit_temperature(selection, images.selection.labels)
        scores[view] = score(answers[view], images.reported.labels, temperature, resamples, seed)
    return answers, scores


def score(
    log_probabilities: Tensor, labels: Tensor, temperature: float | None, resamples: int = 2000, seed: int = 0
) -> Scores:
    """All figures of N predictions.

    The interval of each is that of the percentile bootstrap (Efron & Tibshirani 1993, chapter 13): images are drawn
    with replacement. It tells how far the choice of images moves the figure; not how far another training would, nor
    another temperature. That of the ECE lies too high: resampling adds noise to each bin, and a gap has no sign. With
    the same seed and N the draws are the same, so that intervals of several views are paired.

    Args:
        log_probabilities: (N, C).
        labels: (N,) int64.
        temperature: for the calibrated figures; None leaves them out.
        resamples: number of bootstrap draws.
        seed: of the draws.
    """
    classes = log_probabilities.shape[1]
    values = _figures(log_probabilities, labels)
    if temperature is not None:
        values |= _calibrated(_figures(temper(log_probabilities, temperature), labels))
    draws = _bootstrap(log_probabilities, labels, temperature, resamples, seed)
    tail = (1 - LEVEL) / 2
    intervals = {name: _quantiles(draws[name], tail) for name in values}
    overall = {
        name: Interval(float(value), *map(float, intervals[name])) for name, value in values.items() if value.ndim == 0
    }
    per_class = {
        name: tuple(Interval(float(value[c]), *map(float, intervals[name][:, c])) for c in range(classes))
        for name, value in values.items()
        if value.ndim == 1
    }
    confusion = classification.multiclass_confusion_matrix(log_probabilities.argmax(1), labels, classes)
    return Scores(overall, per_class, confusion.numpy(), temperature)


def _figures(log_probabilities: Tensor, labels: Tensor) -> Figures:
    """The figures themselves, by torchmetrics."""
    predicted, classes = log_probabilities.argmax(dim=1), log_probabilities.shape[1]
    precision, recall, f1 = (
        metric(predicted, labels, classes, average=None).double().numpy()
        for metric in (
            classification.multiclass_precision,
            classification.multiclass_recall,
            classification.multiclass_f1_score,
        )
    )
    support, named = (np.bincount(of, minlength=classes) for of in (labels, predicted))
    # Where there is nothing to divide by, torchmetrics has 0: a class that is never named has no precision.
    precision[named == 0] = recall[support == 0] = f1[named + support == 0] = np.nan
    return {
        "accuracy": np.asarray((predicted == labels).double().mean()),  # torchmetrics rounds it to float32
        "balanced_accuracy": np.nanmean(recall),
        "macro_f1": np.nanmean(f1),
        "nll": np.asarray(F.nll_loss(log_probabilities, labels)),
        "ece": np.asarray(expected_calibration_error(log_probabilities, labels)),
        "precision": precision,
        "recall": recall,
        "f1": f1,
    }


def _calibrated(figures: Figures) -> Figures:
    """Of the figures after calibration those that a temperature changes."""
    return {f"{name}_calibrated": figures[name] for name in ("nll", "ece")}


def _bootstrap(
    log_probabilities: Tensor, labels: Tensor, temperature: float | None, resamples: int, seed: int
) -> dict[str, NDArray[np.float64]]:
    """The figures of each resample, (R,) or (R, C): all follow from weighted sums over the images.

    A resample is a vector of weights, how often each image was drawn, so that the sums of all resamples are one
    product of matrices.
    """
    number, classes = log_probabilities.shape
    cells = labels * classes + log_probabilities.argmax(dim=1)
    parts = [F.one_hot(cells, classes**2).double(), *_terms(log_probabilities, labels)]
    if temperature is not None:
        parts += _terms(temper(log_probabilities, temperature), labels)
    ends = np.cumsum([part.shape[1] for part in parts])[:-1]
    terms = torch.cat(parts, dim=1).numpy()
    rng, at_once = np.random.default_rng(seed), max(1, _AT_ONCE // number)
    chances = np.full(number, 1 / number)
    sums = [
        rng.multinomial(number, chances, size=min(at_once, resamples - done)) @ terms
        for done in range(0, resamples, at_once)
    ]
    confusion, *others = np.split(np.concatenate(sums), ends, axis=1)
    figures = _of_confusion(confusion.reshape(-1, classes, classes))
    for suffix, (nll, gaps) in zip(("", "_calibrated"), zip(others[::2], others[1::2], strict=True), strict=False):
        figures[f"nll{suffix}"] = nll[:, 0] / number
        figures[f"ece{suffix}"] = np.abs(gaps).sum(axis=1) / number
    return figures


def _terms(log_probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """What each image adds to the negative log-likelihood, (N, 1), and to the gaps of the bins, (N, ``BINS``)."""
    confidence, correct = top(log_probabilities, labels)
    gaps = F.one_hot(bin_of(confidence), BINS) * (confidence - correct.float())[:, None]
    return F.nll_loss(log_probabilities, labels, reduction="none")[:, None].double(), gaps.double()


def _of_confusion(confusion: NDArray[np.float64]) -> Figures:
    """Figures of R confusion matrices (R, C, C); a mean over classes passes over those without a defined value."""
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    support, named = confusion.sum(axis=2), confusion.sum(axis=1)
    with np.errstate(invalid="ignore"):
        recall, precision, f1 = hits / support, hits / named, 2 * hits / (support + named)
    return {
        "accuracy": hits.sum(axis=1) / confusion.sum(axis=(1, 2)),
        "balanced_accuracy": np.nanmean(recall, axis=1),
        "macro_f1": np.nanmean(f1, axis=1),
        "precision": precision,
        "recall": recall,
        "f1": f1,
    }


def _quantiles(draws: NDArray[np.float64], tail: float) -> NDArray[np.float64]:
    """(2,) or (2, C): resamples in which a figure is not defined do not count; NaN where it is in none."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice")
        return np.asarray(np.nanquantile(draws, (tail, 1 - tail), axis=0))
