"""The plots of an evaluation, and its sheets of images: errors, and Grad-CAM maps."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from captum.attr import LayerGradCam  # type: ignore[import-untyped]
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from fer_exp.data.dataset import normalize
from fer_exp.errors import one_line
from fer_exp.evaluation.content import Evaluation
from fer_exp.evaluation.scores import bin_index, confidence_and_correct, scale, wilson
from fer_exp.files import printable
from fer_exp.models.summary import eval_mode, list_layers
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
        if len(worst) == len(wrong):
            title = "Errors, the most confident first"
        names = evaluation.images.names
        tiles = [_tile(evaluation, i, printable(names[i]).rpartition("/")[2]) for i in worst.tolist()]
        sheets["mistakes"] = (title, _rows([[tile] for tile in tiles], MISTAKES_PER_ROW))
    else:
        omitted.append("There is no plot of errors: every prediction is correct.")
    some = _some_of_each_class(evaluation.images.labels, len(evaluation.images.classes), evaluation.seed)
    try:
        predicted = log_probabilities[some].argmax(dim=1)
        maps = gradcam_maps(model.network, evaluation.images.images[some].to(model.device), predicted).cpu().numpy()
    except Exception as error:  # no convolution, or a network that captum cannot explain: the evaluation goes on
        omitted.append(f"There are no Grad-CAM maps: {one_line(error)}.")
    else:
        sheets["gradcam"] = ("Grad-CAM", _rows(_gradcam(evaluation, some.tolist(), maps), GRADCAM_PER_CLASS))
    return sheets, omitted


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


def gradcam_maps(network: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Compute how much each location of an image supports a class: Grad-CAM (Selvaraju et al. 2017, section 3).

    The channels of the last convolution whose output is larger than 1x1 are summed, weighted by the mean gradient of
    the class's logit. The positive part is resized to the image (bilinear) and divided by its maximum, so that values
    of different images cannot be compared.

    Args:
        network: maps normalized images (K, C, S, S) to logits. It runs in evaluation mode and is left unchanged.
        images: (K, C, S, S) uint8, K > 0.
        targets: the class to explain for each image, (K,) int64.

    Returns:
        (K, S, S) float32 in [0, 1], on the images' device; 0 everywhere if nothing supports the class.

    Raises:
        ValueError: the network has no such convolution, for example a transformer.
    """
    device = next(network.parameters()).device
    with eval_mode(network):
        grad_cam = LayerGradCam(network, _last_convolution(network, images.shape[1:]))
        maps = grad_cam.attribute(normalize(images).to(device), targets.to(device), relu_attributions=True).detach()
    maps = maps.float().nan_to_num(0, posinf=0)  # a diverged network
    maps = F.interpolate(maps, images.shape[2:], mode="bilinear", align_corners=False).squeeze(1)
    highest = maps.amax(dim=(1, 2), keepdim=True)
    return (maps / highest.where(highest > 0, 1)).to(images.device)


def _last_convolution(network: nn.Module, image_shape: torch.Size) -> nn.Conv2d:
    for layer in reversed(list_layers(network, image_shape)):
        module = network.get_submodule(layer.name)
        if isinstance(module, nn.Conv2d) and max(layer.output_shape[1:]) > 1 and not _is_patch_embedding(module):
            return module
    raise ValueError(f"{type(network).__name__} has no convolution with an output larger than 1x1 to explain")


def _is_patch_embedding(convolution: nn.Conv2d) -> bool:
    """Whether kernels do not overlap, as in the first layer of a vision transformer."""
    sides = zip(convolution.kernel_size, convolution.stride, strict=True)
    return all(1 < kernel <= stride for kernel, stride in sides)
