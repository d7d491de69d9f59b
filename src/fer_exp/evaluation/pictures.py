"""The plots and images of an evaluation."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fer_exp.errors import one_line
from fer_exp.evaluation.calibration import bin_index, confidence_and_correct, scale
from fer_exp.evaluation.gradcam import gradcam_maps
from fer_exp.evaluation.scores import wilson
from fer_exp.files import printable
from fer_exp.plots.evaluation import Reliability, per_class_figure, reliability_figure
from fer_exp.plots.images import gradcam_figure, mistakes_figure
from fer_exp.plots.run import confusion_figure
from fer_exp.runs.checkpoint import LoadedModel

if TYPE_CHECKING:
    from fer_exp.evaluation.report import Evaluation

MAX_MISTAKES = 32
GRADCAM_PER_CLASS, MAX_GRADCAM = 3, 42  # images
MAX_SIDE = 112  # pixels of an image in the HTML report

Draw = Callable[[str, str], Figure]  # takes title and subtitle


@dataclass(frozen=True)
class Thumbnail:
    """An image of the HTML report.

    Attributes:
        sources: data URIs of the image, and of its Grad-CAM map if it has one.
        caption: true class, predicted class, confidence.
        file: its name.
    """

    sources: Sequence[str]
    caption: str
    file: str


@dataclass(frozen=True)
class Pictures:
    """The pictures of an evaluation.

    Attributes:
        plots: title and function of each plot, by file name without ``.png``.
        thumbnails: of ``mistakes`` and ``gradcam``.
        omitted: why a plot does not exist, a sentence each.
    """

    plots: Mapping[str, tuple[str, Draw]]
    thumbnails: Mapping[str, Sequence[Thumbnail]]
    omitted: Sequence[str]


def make_pictures(evaluation: "Evaluation", model: LoadedModel) -> Pictures:
    """Prepare all plots and images."""
    images, scores = evaluation.images, evaluation.scores[evaluation.tta]
    log_probabilities = evaluation.log_probabilities[evaluation.tta]
    classes = images.classes
    confidence, correct = confidence_and_correct(log_probabilities, images.labels)
    predicted = log_probabilities.argmax(dim=1)
    metrics = {"F1" if name == "f1" else name: estimates for name, estimates in scores.per_class.items()}
    curves = _reliability_curves(evaluation)
    plots: dict[str, tuple[str, Draw]] = {
        "confusion_matrix": ("Confusion matrix", partial(confusion_figure, scores.confusion, classes)),
        "per_class": ("Metrics of each class", partial(per_class_figure, metrics, classes, scores.support)),
        "reliability": ("Reliability", partial(reliability_figure, curves, confidence.numpy())),
    }
    thumbnails: dict[str, Sequence[Thumbnail]] = {}
    omitted = []

    def select(indices: Tensor) -> tuple[NDArray[np.uint8], list[str], list[str], list[str]]:
        chosen = indices.tolist()
        return (
            images.images[indices].numpy(),
            [printable(images.names[i]) for i in chosen],
            [classes[images.labels[i]] for i in chosen],
            [classes[predicted[i]] for i in chosen],
        )

    wrong = torch.nonzero(~correct).squeeze(1)
    wrong = wrong[confidence[wrong].argsort(descending=True, stable=True)]
    if len(wrong):
        worst = wrong[:MAX_MISTAKES]
        pixels, files, true, guesses = select(worst)
        title = f"The {len(worst)} most confident of {len(wrong):,} errors"
        draw = partial(mistakes_figure, pixels, files, true, guesses, confidence[worst].numpy())
        plots["mistakes"] = title, draw
        thumbnails["mistakes"] = [
            Thumbnail([_data_uri(image)], f"{label} → {guess} {100 * probability:.0f} %", file)
            for image, file, label, guess, probability in zip(
                pixels, files, true, guesses, confidence[worst].tolist(), strict=True
            )
        ]
    else:
        omitted.append("There is no plot of errors: every prediction is correct.")

    shown = _some_of_each_class(images.labels, len(classes), evaluation.seed)
    pixels, files, true, guesses = select(shown)
    captions = [f"{guess} {100 * p:.0f} %" for guess, p in zip(guesses, confidence[shown].tolist(), strict=True)]
    try:
        maps = gradcam_maps(model.network, torch.from_numpy(pixels).to(model.device), predicted[shown]).cpu().numpy()
    except (ValueError, RuntimeError) as error:  # no convolution, or one that the logits do not depend on
        omitted.append(f"There are no Grad-CAM maps: {one_line(error)}.")
    else:
        plots["gradcam"] = "Grad-CAM", partial(gradcam_figure, pixels, maps, true, captions)
        thumbnails["gradcam"] = [
            Thumbnail([_data_uri(image), _data_uri(_overlay(image, heat))], f"{label} → {caption}", file)
            for image, heat, file, label, caption in zip(pixels, maps, files, true, captions, strict=True)
        ]
    return Pictures(plots, thumbnails, omitted)


def _reliability_curves(evaluation: "Evaluation") -> list[Reliability]:
    scores, labels = evaluation.scores[evaluation.tta], evaluation.images.labels
    log_probabilities = evaluation.log_probabilities[evaluation.tta]
    curves = [("ece", "as trained", log_probabilities)]
    if scores.temperature is not None:
        scaled = scale(log_probabilities, scores.temperature)
        curves.append(("ece_calibrated", f"T = {scores.temperature:.2f}", scaled))
    return [_reliability(label, given, labels, scores.overall[name].value) for name, label, given in curves]


def _reliability(label: str, log_probabilities: Tensor, labels: Tensor, ece: float) -> Reliability:
    confidence, correct = confidence_and_correct(log_probabilities, labels)
    bins = bin_index(confidence).numpy()
    count = np.bincount(bins)
    used = count > 0
    mean, hits = (np.bincount(bins, weights=values.double().numpy())[used] for values in (confidence, correct))
    accuracy, low, high = wilson(hits.astype(np.int64), count[used])
    return Reliability(label, mean / count[used], accuracy, low, high, ece)


def _some_of_each_class(labels: Tensor, classes: int, seed: int) -> Tensor:
    """Indices of a few random images of each class, ordered by class."""
    generator = torch.Generator().manual_seed(seed)
    per_class = max(1, min(GRADCAM_PER_CLASS, MAX_GRADCAM // classes))
    chosen = []
    for label in range(classes):
        members = torch.nonzero(labels == label).squeeze(1)
        chosen.append(members[torch.randperm(len(members), generator=generator)[:per_class]])
    return torch.cat(chosen)[:MAX_GRADCAM]


def _overlay(image: NDArray[np.uint8], heat: NDArray[np.floating]) -> NDArray[np.uint8]:
    """An image (C, H, W) under its Grad-CAM map (H, W), as RGB."""
    colors = np.moveaxis(255 * colormaps["inferno"](heat)[..., :3], -1, 0)
    overlay: NDArray[np.uint8] = (0.4 * image + 0.6 * colors).round().astype(np.uint8)
    return overlay


def _data_uri(image: NDArray[np.uint8]) -> str:
    """An image (C, H, W) as a PNG of at most ``MAX_SIDE`` pixels."""
    picture = Image.fromarray(np.moveaxis(image, 0, -1) if len(image) == 3 else image[0])
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
