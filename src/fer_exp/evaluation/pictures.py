"""The plots of an evaluation, and its sheets of images."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from fer_exp.errors import one_line
from fer_exp.evaluation.calibration import bin_index, confidence_and_correct, scale
from fer_exp.evaluation.content import Evaluation
from fer_exp.evaluation.gradcam import gradcam_maps
from fer_exp.evaluation.scores import wilson
from fer_exp.files import printable
from fer_exp.plots.evaluation import Reliability, per_class_figure, reliability_figure
from fer_exp.plots.images import Row, Tile
from fer_exp.plots.run import confusion_figure
from fer_exp.runs.checkpoint import LoadedModel

MAX_MISTAKES, MISTAKES_PER_ROW = 32, 8
GRADCAM_PER_CLASS, MAX_GRADCAM = 3, 42  # images
MAP_STRENGTH = 0.6  # of a Grad-CAM map over its image

Draw = Callable[[str, str], Figure]  # takes title and subtitle
Sheets = dict[str, tuple[str, list[Row]]]


def make_plots(evaluation: Evaluation) -> dict[str, tuple[str, Draw]]:
    """Title and function of each plot, by file name without ``.png``."""
    classes, scores = evaluation.images.classes, evaluation.scores[evaluation.tta]
    log_probabilities = evaluation.log_probabilities[evaluation.tta]
    curves = [_reliability(evaluation, "as trained", "ece", log_probabilities)]
    if scores.temperature is not None:
        scaled = scale(log_probabilities, scores.temperature)
        curves.append(_reliability(evaluation, f"T = {scores.temperature:.2f}", "ece_calibrated", scaled))
    confidence = log_probabilities.amax(dim=1).exp().numpy()
    metrics = dict(zip(("precision", "recall", "F1"), scores.per_class.values(), strict=True))
    return {
        "confusion_matrix": ("Confusion matrix", partial(confusion_figure, scores.confusion, classes)),
        "per_class": ("Metrics of each class", partial(per_class_figure, metrics, classes, scores.support)),
        "reliability": ("Reliability", partial(reliability_figure, curves, confidence)),
    }


def make_sheets(evaluation: Evaluation, model: LoadedModel) -> tuple[Sheets, list[str]]:
    """Title and rows of each sheet of images, by file name without ``.png``; and why one does not exist."""
    sheets: Sheets = {}
    omitted: list[str] = []
    log_probabilities = evaluation.log_probabilities[evaluation.tta]
    confidence, correct = confidence_and_correct(log_probabilities, evaluation.images.labels)
    wrong = torch.nonzero(~correct).squeeze(1)
    if len(wrong):
        worst = wrong[confidence[wrong].argsort(descending=True, stable=True)[:MAX_MISTAKES]]
        title = f"The {len(worst)} most confident of {len(wrong):,} errors"
        sheets["mistakes"] = (title, _rows(_mistakes(evaluation, worst.tolist()), MISTAKES_PER_ROW))
    else:
        omitted.append("There is no plot of errors: every prediction is correct.")
    some = _some_of_each_class(evaluation.images.labels, len(evaluation.images.classes), evaluation.seed)
    try:
        predicted = log_probabilities[some].argmax(dim=1)
        maps = gradcam_maps(model.network, evaluation.images.images[some].to(model.device), predicted).cpu().numpy()
    except (ValueError, RuntimeError) as error:  # no convolution, or one that the logits do not depend on
        omitted.append(f"There are no Grad-CAM maps: {one_line(error)}.")
    else:
        sheets["gradcam"] = ("Grad-CAM", _rows(_gradcam(evaluation, some.tolist(), maps), GRADCAM_PER_CLASS))
    return sheets, omitted


def _mistakes(evaluation: Evaluation, indices: list[int]) -> list[list[Tile]]:
    """The images with true class, predicted class and file name."""
    files = [printable(evaluation.images.names[i]).rpartition("/")[2] for i in indices]
    return [[_tile(evaluation, i, file)] for i, file in zip(indices, files, strict=True)]


def _gradcam(evaluation: Evaluation, indices: list[int], maps: NDArray[np.floating]) -> list[list[Tile]]:
    """Each image beside its map (K, S, S)."""
    pairs = []
    for i, heat in zip(indices, maps, strict=True):
        tile = _tile(evaluation, i)
        colors = np.moveaxis(255 * colormaps["inferno"](heat)[..., :3], -1, 0)
        heated = ((1 - MAP_STRENGTH) * tile.image + MAP_STRENGTH * colors).round().astype(np.uint8)
        pairs.append([tile, Tile(heated, ("Grad-CAM" if heat.any() else "no evidence",))])
    return pairs


def _tile(evaluation: Evaluation, index: int, *captions: str) -> Tile:
    """An image with its true and its predicted class."""
    images = evaluation.images
    highest, predicted = evaluation.log_probabilities[evaluation.tta][index].max(dim=0)
    true = f"true: {images.classes[images.labels[index]]}"
    guess = f"pred: {images.classes[predicted]} {100 * float(highest.exp()):.0f}\u00a0%"
    return Tile(images.images[index].numpy(), (true, guess, *captions))


def _rows(groups: list[list[Tile]], per_row: int) -> list[Row]:
    return [Row(groups[i : i + per_row]) for i in range(0, len(groups), per_row)]


def _reliability(evaluation: Evaluation, label: str, ece: str, log_probabilities: Tensor) -> Reliability:
    confidence, correct = confidence_and_correct(log_probabilities, evaluation.images.labels)
    bins = bin_index(confidence).numpy()
    count = np.bincount(bins)
    used = count > 0
    mean, hits = (np.bincount(bins, weights=values.double().numpy())[used] for values in (confidence, correct))
    accuracy, low, high = wilson(hits.astype(np.int64), count[used])
    error = evaluation.scores[evaluation.tta].overall[ece].value
    return Reliability(label, mean / count[used], accuracy, low, high, error)


def _some_of_each_class(labels: Tensor, classes: int, seed: int) -> Tensor:
    """Indices of a few random images of each class, ordered by class."""
    generator = torch.Generator().manual_seed(seed)
    per_class = max(1, min(GRADCAM_PER_CLASS, MAX_GRADCAM // classes))
    chosen = []
    for label in range(classes):
        members = torch.nonzero(labels == label).squeeze(1)
        chosen.append(members[torch.randperm(len(members), generator=generator)[:per_class]])
    return torch.cat(chosen)[:MAX_GRADCAM]
