"""Predict the classes of images: ``python -m fer_exp.predict run=RUN images=DIR``.

The imports at the top are light: ``--help`` and wrong keys are answered before torch is imported.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig, ListConfig

from fer_exp.cli import call
from fer_exp.config.schema import CONFIG_DIR, PredictConfig, resolve
from fer_exp.data.folders import SUFFIXES, walk_images
from fer_exp.errors import UserError
from fer_exp.evaluation.source import Source, find_source
from fer_exp.files import expand_path, printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

NOTE = "A prediction is the label that annotators would most likely give to the image, not what the person feels."


def predict(cfg: DictConfig) -> None:
    """Print the most probable classes of each image, and write all probabilities to ``cfg.output``.

    Raises:
        UserError: a setting or the checkpoint is invalid, or no image can be read.
    """
    source = validate(cfg)
    paths = find_images(cfg.images)
    model, _ = source.load(cfg.trainer.accelerator, cfg.trainer.precision)

    import torch

    from fer_exp.data.decode import decode_images
    from fer_exp.evaluation.inference import log_probabilities, write_predictions
    from fer_exp.plots.terminal import progress_bar

    if cfg.top > len(model.classes):
        raise UserError(f"top={cfg.top}: this network has {len(model.classes)} classes")
    parts: list[Tensor] = []

    def predict_chunk(images: "NDArray[np.uint8]") -> None:
        parts.append(log_probabilities(model, torch.from_numpy(images).split(cfg.batch_size), cfg.tta).exp())

    with progress_bar("predicting") as progress:
        decoded = decode_images(map(str, paths), len(paths), model.image_format, progress, predict_chunk)
    for i, reason in decoded.unreadable.items():
        print(f"Warning: {printable(paths[i])} cannot be read: {reason}", file=sys.stderr)
    readable = [i for i in range(len(paths)) if i not in decoded.unreadable]
    if not readable:
        raise UserError(f"images={printable(cfg.images)}: none of the {len(paths)} files can be read as an image")
    files, probabilities = [paths[i] for i in readable], torch.cat(parts)[readable]
    if cfg.output is not None:
        output = expand_path(cfg.output)
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            write_predictions(output, model.classes, files, probabilities)
        except OSError as error:
            raise UserError(f"output={printable(output)}: cannot be written ({error.strerror or error})") from error
    for path, row in zip(files, probabilities, strict=True):
        print(f"{printable(path)}: {format_prediction(row, model.classes, cfg.top)}")
    if cfg.output is not None:
        print(f"\nWritten to {printable(cfg.output)}")
    print(f"\n{NOTE}")


def validate(cfg: DictConfig) -> Source:
    """Check the settings, and that no file is overwritten; return the checkpoint to use.

    Raises:
        UserError: a value is invalid, or ``output`` exists.
    """
    resolve(cfg, {"images": "Give a file, a folder, or a list of both, for example images=face.jpg"})
    source = find_source(cfg, PredictConfig)
    if cfg.output is not None and expand_path(cfg.output).exists():
        raise UserError(f"output={printable(cfg.output)} exists: choose another file, or remove it")
    return source


def find_images(given: object) -> list[Path]:
    """The image files that ``images`` names: files as given, folders with everything below them, sorted.

    Raises:
        UserError: a path does not exist or cannot be read, or a folder contains no images.
    """
    found: list[Path] = []
    for name in given if isinstance(given, ListConfig) else [given]:
        place = expand_path(name)
        try:
            if not place.exists():
                raise UserError(f"images={printable(name)}: there is no such file or folder")
            images = [place / path for path in sorted(walk_images(place).images)] if place.is_dir() else [place]
        except OSError as error:
            raise UserError(f"images={printable(name)}: cannot be read ({error.strerror})") from error
        if not images:
            raise UserError(f"images={printable(name)}: the folder contains no images ({', '.join(sorted(SUFFIXES))})")
        found += images
    if not found:
        raise UserError("images=[]: expected at least one file or folder")
    return list(dict.fromkeys(found))


def format_prediction(probabilities: "Tensor", classes: Sequence[str], top: int) -> str:
    """The ``top`` most probable classes of one image: ``happy 93.1 % (neutral 4.0 %, sad 1.2 %)``.

    Args:
        probabilities: (C,).
        classes: C names.
        top: number of classes.
    """
    # A stable sort: of equal probabilities the first, as argmax in the CSV file and the evaluation.
    values, indices = (part[:top].tolist() for part in probabilities.sort(descending=True, stable=True))
    first, *others = (f"{classes[i]} {100 * value:.1f} %" for i, value in zip(indices, values, strict=True))
    return first + (f" ({', '.join(others)})" if others else "")


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="predict")
def run(cfg: DictConfig) -> None:
    """Hydra's entry point."""
    try:
        predict(cfg)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)  # Hydra would print the overrides too
        sys.exit(1)


def main() -> None:
    """Run the command; exits with status 1 after a user error."""
    call(run, "predict")


if __name__ == "__main__":
    main()
