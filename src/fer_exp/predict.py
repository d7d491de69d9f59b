"""Name the expression on images: ``python -m fer_exp.predict run=DIR images=DIR``.

Imports at the top are light, so that ``--help`` and a wrong key answer at once; torch is imported by the prediction.
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig, ListConfig

from fer_exp.cli import call
from fer_exp.config.schema import CONFIG_DIR, is_whole, resolve
from fer_exp.data.sources.class_folders import CLASSES, SUFFIXES
from fer_exp.errors import UserError
from fer_exp.evaluation.protocol import VIEWS
from fer_exp.files import expand_path, printable, replacing
from fer_exp.runs.checkpoint import check_source, find_checkpoint, load_network

if TYPE_CHECKING:
    from torch import Tensor

REMINDER = "This names the label that annotators would most likely give to the image, not what a person feels."


def predict(cfg: DictConfig) -> None:
    """Print what the network that ``cfg`` names says of each image, and write it where ``cfg.output`` says.

    Args:
        cfg: the composed configuration.

    Raises:
        UserError: the settings or the checkpoint are not as they must be, or no image can be read.
    """
    check(cfg)
    paths = find_images(cfg.images)
    checkpoint, _, _ = find_checkpoint(cfg)

    import torch

    from fer_exp.data.decode import SIZE, decode_files
    from fer_exp.evaluation.tta import log_probabilities
    from fer_exp.plots.terminal import progress_bar

    trained, _ = load_network(checkpoint, cfg.trainer.accelerator, cfg.trainer.precision)
    with progress_bar("reading") as progress:
        faces, failures = decode_files([str(path) for path in paths], progress)
    unreadable = dict(failures)
    for file, reason in unreadable.items():
        print(f"Warning: {printable(file)} cannot be read: {reason}", file=sys.stderr)
    readable = [i for i, path in enumerate(paths) if str(path) not in unreadable]
    if not readable:
        raise UserError(f"images={printable(cfg.images)}: none of the {len(paths)} files can be read as an image")
    images = torch.from_numpy(faces[readable]).reshape(-1, 1, SIZE, SIZE)
    with progress_bar("naming") as progress:
        batches = images.split(cfg.batch_size)
        probabilities = log_probabilities(trained, batches, cfg.views, len(images), progress).exp()
    named = [paths[i] for i in readable]
    for path, row in zip(named, probabilities, strict=True):
        print(f"{printable(path)}: {in_words(row, cfg.top)}")
    if cfg.output is not None:
        write_predictions(expand_path(cfg.output), named, probabilities)
        print(f"\nWritten to {cfg.output}")
    print(f"\n{REMINDER}")


def check(cfg: DictConfig) -> None:
    """See to it that the settings are possible, and that no file is written over.

    Raises:
        UserError: they are not, or ``output`` is there.
    """
    resolve(cfg, {"images": "Give a file, a folder, or a list of both, e.g. images=face.jpg"})
    check_source(cfg)
    if cfg.views not in VIEWS:
        raise UserError(f"views={cfg.views}: expected one of {', '.join(VIEWS)}")
    if not is_whole(cfg.top, at_least=1) or cfg.top > len(CLASSES):
        raise UserError(f"top={cfg.top}: expected a whole number from 1 to {len(CLASSES)}")
    if cfg.output is not None and expand_path(cfg.output).exists():
        raise UserError(f"output={cfg.output} is there already: choose another file, or remove it.")


def find_images(given: object) -> list[Path]:
    """The files that ``images`` names; of a folder the images in and below it, sorted.

    Raises:
        UserError: something is not there, or a folder holds no images.
    """
    found: list[Path] = []
    for name in given if isinstance(given, ListConfig) else [given]:
        place = expand_path(name)
        try:
            if place.is_dir():
                below = sorted(path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
                if not below:
                    raise UserError(
                        f"images={printable(name)}: this folder holds no images ({', '.join(sorted(SUFFIXES))})"
                    )
                found += below
            elif place.exists():
                found.append(place)
            else:
                raise UserError(f"images={printable(name)}: there is no such file or folder")
        except OSError as error:  # a folder that may not be entered, a name that is too long
            raise UserError(f"images={printable(name)}: cannot be read ({error.strerror})") from error
    if not found:
        raise UserError("images=[]: expected at least one file or folder")
    return list(dict.fromkeys(found))


def in_words(probabilities: "Tensor", top: int) -> str:
    """The likeliest class, and the next ones, with their probabilities: ``happy 93.1 % (neutral 4.0 %, sad 1.2 %)``.

    Args:
        probabilities: (C,) of one image.
        top: how many are named.
    """
    # Stable: of equal ones the first, as in the CSV file and the evaluation.
    values, indices = (sorted_[:top] for sorted_ in probabilities.sort(descending=True, stable=True))
    first, *others = (f"{CLASSES[i]} {v:.1%}" for i, v in zip(indices.tolist(), values.tolist(), strict=True))
    return first + (f" ({', '.join(others)})" if others else "")


def write_predictions(output: Path, files: Sequence[Path], probabilities: "Tensor") -> None:
    """Write one row an image: its file, the class that is named, and the probability of each.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with replacing(output) as draft, draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["file", "predicted", *CLASSES])
            for path, row in zip(files, probabilities.tolist(), strict=True):
                named = CLASSES[row.index(max(row))]
                writer.writerow([printable(path), named, *(f"{probability:.6f}" for probability in row)])
    except OSError as error:
        raise UserError(f"output={output}: cannot be written ({error.strerror or error})") from error


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="predict")
def run(cfg: DictConfig) -> None:
    """What Hydra calls with the composed configuration."""
    try:
        predict(cfg)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def main() -> None:
    """The command; exits with status 1 where no image can be named."""
    call(run)


if __name__ == "__main__":
    main()
