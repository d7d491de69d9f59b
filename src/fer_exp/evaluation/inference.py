"""Load a trained network, predict with test-time augmentation (TTA), and write predictions as CSV."""

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import ten_crop

from fer_exp.config.schema import TRUSTED_PACKAGES
from fer_exp.data.dataset import ImageDataset, normalize
from fer_exp.data.loaders import ValidationBatches
from fer_exp.errors import UserError
from fer_exp.files import csv_cell, replacing
from fer_exp.plots.terminal import progress_bar
from fer_exp.runs.checkpoint import LoadedModel, read_checkpoint
from fer_exp.training.hardware import choose_accelerator, choose_precision, device_name, retain_memory

CROP = 11 / 12  # of the image's side: 44 of 48 pixels


def load_model(
    path: Path, accelerator: str, precision: str, packages: Sequence[str] = TRUSTED_PACKAGES
) -> tuple[LoadedModel, str]:
    """Read a checkpoint and move its network to the device.

    Args:
        path: checkpoint file.
        accelerator: ``trainer.accelerator``.
        precision: ``trainer.precision``.
        packages: packages that the checkpoint may take classes from.

    Returns:
        The model, and a sentence with device and precision for the log.

    Raises:
        UserError: the device or precision is not available, or the checkpoint cannot be read.
    """
    accelerator = choose_accelerator(accelerator)
    precision = choose_precision(precision, accelerator)
    if accelerator == "cpu":
        retain_memory()
    if accelerator == "cuda" and precision == "32-true":
        torch.backends.cudnn.allow_tf32 = False  # the default for convolutions: 10 bits of mantissa instead of 23
    model = replace(read_checkpoint(path, packages), precision=precision)
    model.network.to(accelerator)
    return model, f"Device: {device_name(accelerator)}. Precision: {precision}."


def predict_dataset(model: LoadedModel, dataset: ImageDataset, tta: str, batch_size: int) -> Tensor:
    """Log-probabilities (N, C) of a dataset; see ``log_probabilities``."""
    batches = (images for images, _ in ValidationBatches(dataset, batch_size, model.device))
    with progress_bar(f"{len(dataset):,} images, tta={tta}") as progress:
        return log_probabilities(model, batches, tta, lambda done: progress(done, len(dataset)))


def _ten_crop(images: Tensor) -> Sequence[Tensor]:
    """Corners, center and their mirror images (Krizhevsky et al. 2012), resized to the input size."""
    side = images.shape[-1]
    crops = ten_crop(images, [round(CROP * side)] * 2)
    return [F.interpolate(crop, (side, side), mode="bilinear", align_corners=False) for crop in crops]


# Functions from normalized images (N, C, S, S) to a list of versions of the same shape.
_VERSIONS: Mapping[str, Callable[[Tensor], Sequence[Tensor]]] = {
    "none": lambda images: [images],
    "flip": lambda images: [images, images.flip(-1)],
    "ten_crop": _ten_crop,
}


@torch.inference_mode()
def log_probabilities(
    model: LoadedModel,
    batches: Iterable[Tensor],
    tta: str,
    progress: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """Log of the class probabilities, averaged over the versions of each image.

    Args:
        model: the network, on its device.
        batches: images (B, C, S, S) uint8.
        tta: a key of ``protocol.TTA``.
        progress: called with the number of images done.

    Returns:
        (N, C) float64 on the CPU.

    Raises:
        UserError: an output is not finite.
    """
    parts, done = list[Tensor](), 0
    for batch in batches:
        versions = _VERSIONS[tta](normalize(batch.to(model.device)))
        # float64 on the CPU: Apple GPUs have none.
        outputs = torch.stack([model.logits(images).cpu().double().log_softmax(dim=1) for images in versions])
        parts.append((outputs.logsumexp(dim=0) - math.log(len(outputs))).clamp(max=0))  # rounding can exceed 0
        done += len(batch)
        progress(done)
    result = torch.cat(parts)
    if not bool(result.isfinite().all()):
        hint = ", or trainer.precision=32-true" if model.precision == "16-mixed" else ""  # overflows at 65504
        raise UserError(
            f"{model.path}: the network's outputs are not finite. Expected the checkpoint of a run that did not "
            f"diverge{hint}."
        )
    return result


def write_predictions(
    path: Path, classes: Sequence[str], names: Sequence[object], probabilities: Tensor, labels: Tensor | None = None
) -> None:
    """Write one row per image: file, true class if known, predicted class, and the probability of each class.

    Args:
        path: the CSV file.
        classes: C names.
        names: N names of images.
        probabilities: (N, C).
        labels: (N,) true classes; None if unknown.

    Raises:
        OSError: the file cannot be written.
    """
    cells = [csv_cell(name) for name in classes]
    columns = {"file": map(csv_cell, names)}
    if labels is not None:
        columns["label"] = map(cells.__getitem__, labels.tolist())
    columns["predicted"] = map(cells.__getitem__, probabilities.argmax(dim=1).tolist())
    with replacing(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*columns, *cells])
        for *texts, row in zip(*columns.values(), probabilities.tolist(), strict=True):
            writer.writerow([*texts, *(f"{value:.6f}" for value in row)])
