"""The images of an evaluation: the evaluated ones, and those that the run was trained and validated on."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from fer_exp.config.instantiate import build_checked
from fer_exp.config.paths import path_parts
from fer_exp.data.audit import is_constant
from fer_exp.data.datamodule import ImageDataModule
from fer_exp.data.dataset import ImageDataset
from fer_exp.data.sources.class_folders import FolderDataModule
from fer_exp.errors import UserError
from fer_exp.evaluation.protocol import SPLITS, EvalSplit, Provenance
from fer_exp.files import expand_path, printable
from fer_exp.runs.checkpoint import LoadedModel

log = logging.getLogger(__name__)

PLACES = ("root", "file", "files")  # keys of ``data`` with the images and labels of a source
FOLDERS = f"{FolderDataModule.__module__}.{FolderDataModule.__qualname__}"


@dataclass(frozen=True)
class Images:
    """The images of an evaluation.

    Attributes:
        split: name, fingerprint and location of the evaluated images.
        evaluated: the evaluated images.
        train: the run's training images; None if unknown.
        selection: the images that the run validated on; None if unknown.
        is_held_out: whether ``selection`` was held out of train/.
    """

    split: EvalSplit
    evaluated: ImageDataset
    train: ImageDataset | None = None
    selection: ImageDataset | None = None
    is_held_out: bool = False


def build_data(model: LoadedModel, given: Mapping[str, Any]) -> ImageDataModule:
    """Build the data module of a run for the classes, size and color of its network.

    Class folders replace a source without a folder (synthetic images) if ``data.root`` is given, and a source whose
    files no longer exist.

    Args:
        model: the network.
        given: keys that replace the run's own.

    Raises:
        UserError: the data module refuses the keys.
    """
    # Evaluation needs neither soft labels nor sampling, and their files may be gone.
    unused = ("soft_labels", "balanced_sampling")
    own = {key: value for key, value in model.settings["config"]["data"].items() if key not in unused}
    size, color = model.image_format.size, model.image_format.color
    fixed = {"batch_size": 1, "seed": 0, "classes": list(model.classes), "image_size": size, "color": color}
    settings: Any = OmegaConf.merge(own, fixed, given)
    places = {key: [expand_path(path) for path in path_parts(settings.get(key)) if path] for key in PLACES}
    gone = [f"data.{key}={path}" for key, paths in places.items() for path in paths if not path.exists()]
    if gone:
        log.info("The run's data was not found: %s", printable(", ".join(gone)))
    if (gone and not {"file", "files"} & given.keys()) or ("root" not in own and "root" in given):
        shared = {field.name for field in fields(ImageDataModule)}
        kept = {key: value for key, value in own.items() if key in shared}
        settings = OmegaConf.merge(kept, fixed, {"_target_": FOLDERS, "root": ""}, given)
    data: ImageDataModule = build_checked(settings, "data", ImageDataModule, model.packages)
    return data


def load_images(data: ImageDataModule, split: str) -> Images:
    """Load a split, and the images that the run was trained and validated on.

    Args:
        data: of the run; with an empty ``root`` only a folder can be loaded.
        split: one of ``SPLITS``, or a folder of class folders.

    Raises:
        UserError: there are no such images, or they cannot be read.
    """
    name = split if split in SPLITS else str(expand_path(split).resolve())
    if getattr(data, "root", None) == "":
        if name in SPLITS:
            raise UserError(
                f"split={name}: the data of this checkpoint was not found; give data.root=DIR, or data.file=FILE for a "
                "table"
            )
        evaluated = data.load_folder(name, Path(name))
        return Images(EvalSplit(name, evaluated.fingerprint, name), evaluated)
    data.setup()
    source, selection, is_held_out = data.source, data.val_set, data.val_fraction > 0
    assert source is not None
    places = {name: place for name in ("test", "train", "validation") if (place := source.location(name))}
    if name not in SPLITS:  # the folder of a split is that split
        name = next((known for known, place in places.items() if place.resolve() == Path(name)), name)
    loaded = data.load_split(name) if name == "test" or (name == "validation" and is_held_out) else None
    if name == "selection" and not is_held_out:
        name = "validation"
    elif name == "validation" and is_held_out and loaded is None:
        name = "selection"  # the only validation images of the run
    place = places.get("train" if name == "selection" else name, Path(name))
    if name == "train":
        evaluated = data.train_set
    elif name == "selection" or (name == "validation" and not is_held_out):
        evaluated = selection
    elif name not in SPLITS:
        evaluated = data.load_folder(name, place)
    elif loaded is None:
        raise UserError(
            f"split={name}: {printable(source.root)} has no {name} split. Use split=selection for the images that the "
            "run was validated on, or the folder of the images: split=DIR protocol=official"
        )
    elif place == places.get("validation") and not is_held_out and not place.is_file():  # a table has several splits
        raise UserError(
            f"split={name}: the run was validated on {printable(place)}, so it is no test set. Use another one, or "
            "split=validation."
        )
    else:
        evaluated = loaded
    location = place.relative_to(source.root) if place.is_relative_to(source.root) else place
    described = EvalSplit(name, evaluated.fingerprint, location.as_posix())
    return Images(described, evaluated, data.train_set, selection, is_held_out)


def find_caveats(images: Images, provenance: Provenance) -> tuple[dict[str, int], list[str]]:
    """Compare the evaluated images with those of the run.

    Returns:
        Number of evaluated images with the same pixels as a ``train`` or a ``selection`` image; and caveats, a sentence
        each.
    """
    notes, copies = [], {}
    fingerprint = images.evaluated.fingerprint
    for name, others, recorded, verb in (
        ("train", images.train, provenance.train, "trained"),
        ("selection", images.selection, provenance.selection, "validated"),
    ):
        if others is None:
            continue
        if recorded not in (None, others.fingerprint):
            notes.append(f"The {name} images changed: the run was {verb} on others.")
        if others.fingerprint == fingerprint:
            continue
        copies[name] = count_copies(images.evaluated, others)
        if copies[name]:
            same = f"{copies[name]:,} of the {len(images.evaluated):,} images"
            notes.append(f"{same} have the same pixels as an image that the run was {verb} on.")
    if images.selection is None:
        notes.append("The run's data was not found: no temperature was fitted. Give data.root=DIR or data.file=FILE.")
    elif images.selection.fingerprint == fingerprint:
        notes.append("The temperature was fitted on the evaluated images: metrics at T are optimistic.")
    else:
        place = "the images held out of train/" if images.is_held_out else "validation/"
        notes.append(f"The temperature was fitted on {place} ({len(images.selection):,} images).")
    return copies, notes


def count_copies(images: ImageDataset, others: ImageDataset) -> int:
    """Number of ``images`` with the same pixels as one of ``others``; images of a single color do not count."""
    known = set(map(bytes, others.digests))
    same = [i for i, digest in enumerate(images.digests) if bytes(digest) in known]
    return int((~is_constant(images.images[same].numpy())).sum()) if same else 0
