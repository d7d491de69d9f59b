"""The plots and images of an evaluation."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fer_exp.errors import one_line
from fer_exp.evaluation.calibration import bin_index, confidence_and_correct, scale
from fer_exp.evaluation.content import Evaluation
from fer_exp.evaluation.gradcam import gradcam_maps
from fer_exp.evaluation.scores import wilson
from fer_exp.files import printable
from fer_exp.plots.evaluation import Reliability, per_class_figure, reliability_figure
from fer_exp.plots.images import gradcam_figure, mistakes_figure
from fer_exp.plots.run import confusion_figure
from fer_exp.runs.checkpoint import LoadedModel

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

    plots: dict[str, tuple[str, Draw]]
    thumbnails: dict[str, Sequence[Thumbnail]]
    omitted: list[str]


@dataclass(frozen=True)
class _Examples:
    """K images with labels and predictions; pixels (K, C, S, S), confidence (K,)."""

    pixels: NDArray[np.uint8]
    files: Sequence[str]
    labels: Sequence[str]
    predicted: Sequence[str]
    confidence: NDArray[np.floating]

    @property
    def captions(self) -> list[str]:
        """``sad → happy 93 %`` for each image."""
        rows = zip(self.labels, self.predicted, self.confidence, strict=True)
        return [f"{label} → {guess} {100 * probability:.0f} %" for label, guess, probability in rows]


def make_pictures(evaluation: Evaluation, model: LoadedModel) -> Pictures:
    """Prepare all plots and images."""
    images, scores = evaluation.images, evaluation.scores[evaluation.tta]
    log_probabilities = evaluation.log_probabilities[evaluation.tta]
    confidence, correct = confidence_and_correct(log_probabilities, images.labels)
    metrics = {"F1" if name == "f1" else name: estimates for name, estimates in scores.per_class.items()}
    curves = _reliability_curves(evaluation)
    pictures = Pictures(
        {
            "confusion_matrix": ("Confusion matrix", partial(confusion_figure, scores.confusion, images.classes)),
            "per_class": ("Metrics of each class", partial(per_class_figure, metrics, images.classes, scores.support)),
            "reliability": ("Reliability", partial(reliability_figure, curves, confidence.numpy())),
        },
        {},
        [],
    )
    wrong = torch.nonzero(~correct).squeeze(1)
    worst = wrong[confidence[wrong].argsort(descending=True, stable=True)[:MAX_MISTAKES]]
    if len(wrong):
        _add_mistakes(pictures, _select(evaluation, worst, confidence), len(wrong))
    else:
        pictures.omitted.append("There is no plot of errors: every prediction is correct.")
    some = _some_of_each_class(images.labels, len(images.classes), evaluation.seed)
    try:
        pixels, predicted = images.images[some], log_probabilities[some].argmax(dim=1)
        maps = gradcam_maps(model.network, pixels.to(model.device), predicted).cpu().numpy()
    except (ValueError, RuntimeError) as error:  # no convolution, or one that the logits do not depend on
        pictures.omitted.append(f"There are no Grad-CAM maps: {one_line(error)}.")
    else:
        _add_gradcam(pictures, _select(evaluation, some, confidence), maps)
    return pictures


def _select(evaluation: Evaluation, indices: Tensor, confidence: Tensor) -> _Examples:
    images, chosen = evaluation.images, indices.tolist()
    predicted = evaluation.log_probabilities[evaluation.tta][indices].argmax(dim=1).tolist()
    return _Examples(
        images.images[indices].numpy(),
        [printable(images.names[i]) for i in chosen],
        [images.classes[images.labels[i]] for i in chosen],
        [images.classes[label] for label in predicted],
        confidence[indices].numpy(),
    )


def _add_mistakes(pictures: Pictures, shown: _Examples, count: int) -> None:
    title = f"The {len(shown.files)} most confident of {count:,} errors"
    fields = (shown.pixels, shown.files, shown.labels, shown.predicted, shown.confidence)
    pictures.plots["mistakes"] = title, partial(mistakes_figure, *fields)
    pictures.thumbnails["mistakes"] = [
        Thumbnail([_data_uri(image)], caption, file)
        for image, caption, file in zip(shown.pixels, shown.captions, shown.files, strict=True)
    ]


def _add_gradcam(pictures: Pictures, shown: _Examples, maps: NDArray[np.floating]) -> None:
    captions = [caption.partition(" → ")[2] for caption in shown.captions]
    pictures.plots["gradcam"] = "Grad-CAM", partial(gradcam_figure, shown.pixels, maps, shown.labels, captions)
    pictures.thumbnails["gradcam"] = [
        Thumbnail([_data_uri(image), _data_uri(_overlay(image, heat))], caption, file)
        for image, heat, caption, file in zip(shown.pixels, maps, shown.captions, shown.files, strict=True)
    ]


def _reliability_curves(evaluation: Evaluation) -> list[Reliability]:
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
