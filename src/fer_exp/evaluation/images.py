"""The images of an evaluation: the evaluated ones, and those that the run was trained and validated on."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer_exp.config.instantiate import build_checked
from fer_exp.data.audit import is_constant
from fer_exp.data.datamodule import FolderDataModule, ImageDataModule
from fer_exp.data.dataset import CHUNK_SIZE, ImageDataset
from fer_exp.errors import UserError
from fer_exp.evaluation.protocol import Provenance
from fer_exp.files import expand_path, printable

log = logging.getLogger(__name__)

SPLITS = ("validation", "train", "test", "selection")
FOLDERS = f"{FolderDataModule.__module__}.{FolderDataModule.__qualname__}"


@dataclass(frozen=True)
class Images:
    """The images of an evaluation.

    Attributes:
        split: ``train``, ``selection``, ``validation``, ``test``, or a folder.
        folder: of the evaluated images.
        evaluated: the evaluated images.
        train: the run's training images; None if unknown.
        selection: the images that the run validated on; None if unknown.
        root: the run's data folder; None if unknown.
        is_held_out: whether ``selection`` was held out of train/.
    """

    split: str
    folder: Path
    evaluated: ImageDataset
    train: ImageDataset | None
    selection: ImageDataset | None
    root: Path | None
    is_held_out: bool = False

    @property
    def location(self) -> Path:
        """The folder of the evaluated images, relative to the data folder if it is inside it."""
        if self.root is not None and self.folder.is_relative_to(self.root):
            return self.folder.relative_to(self.root)
        return self.folder


def build_data(run: Mapping[str, Any], given: Mapping[str, Any]) -> ImageDataModule:
    """Build the data module of a run, with ``given`` keys in place of the run's own.

    Args:
        run: the run's config group ``data``; empty if unknown. A given ``root`` replaces synthetic images.
        given: keys of the data module.

    Raises:
        UserError: the data module refuses the keys.
    """
    base = {"_target_": FOLDERS, "root": "", "seed": 0} if not run or "root" in given else {}
    own = run if not base or run.get("_target_") == FOLDERS else {}
    # Evaluation needs neither soft labels nor sampling, and their files may be gone.
    own = {key: value for key, value in own.items() if key not in ("soft_labels", "balanced_sampling")}
    if own.get("root") and "root" not in given and not expand_path(own["root"]).is_dir():
        log.info("The run's data folder %s does not exist; data.root=DIR replaces it.", printable(own["root"]))
        own["root"] = ""
    data: ImageDataModule = build_checked({**base, **own, "batch_size": 1, **given}, "data", ImageDataModule)
    return data


def load_images(data: ImageDataModule, split: str) -> Images:
    """Load a split, and the images that the run was trained and validated on.

    Args:
        data: of the run; with an empty ``root`` only a folder can be loaded.
        split: one of ``SPLITS``, or a folder of class folders.

    Raises:
        UserError: there are no such images, or they cannot be read.
    """
    if not getattr(data, "root", True):
        name = _split_name(split, {})
        if name in SPLITS:
            raise UserError(f"split={name}: the data of this checkpoint was not found; give data.root=DIR")
        return Images(name, Path(name), data.load_folder(name, Path(name)), None, None, None)
    data.setup()
    source, train, selection, is_held_out = data.source, data.train_set, data.val_set, data.val_fraction > 0
    assert source is not None
    places = {name: place for name in ("test", "train", "validation") if (place := source.location(name))}
    name = _split_name(split, places)
    if name == "train":
        return Images(name, places[name], train, train, selection, source.root, is_held_out)
    if name == "selection" or (name == "validation" and not is_held_out):
        folder = places["train" if is_held_out else "validation"]
        return Images(name, folder, selection, train, selection, source.root, is_held_out)
    if name not in SPLITS:
        folder = Path(name)
        return Images(name, folder, data.load_folder(name, folder), train, selection, source.root, is_held_out)
    if (evaluated := data.load_split(name)) is None:
        raise UserError(
            f"split={name}: {printable(source.root)} has no {name} split. Use split=selection for the images that the "
            "run was validated on, or the folder of the images: split=DIR protocol=official"
        )
    is_shared = not is_held_out and places[name].is_dir() and places[name] == places.get("validation")
    if is_shared or evaluated.fingerprint == selection.fingerprint:
        raise UserError(
            f"split={name}: the run was validated on {printable(places[name])}, so it is no test set. Use another test "
            "set, or split=validation."
        )
    return Images(name, places[name], evaluated, train, selection, source.root, is_held_out)


def _split_name(split: str, places: Mapping[str, Path]) -> str:
    """``split``; for the folder of a split of the data, the name of that split."""
    if split in SPLITS:
        return split
    folder = expand_path(split)
    if not folder.is_dir():
        raise UserError(f"split={printable(split)}: expected {', '.join(SPLITS)}, or a folder of class folders")
    return next((name for name, place in places.items() if place.resolve() == folder.resolve()), str(folder))


def find_caveats(
    images: Images, provenance: Provenance, validated_in: str | None, precision: str
) -> tuple[dict[str, int], list[str]]:
    """Compare the images with those of the run.

    Args:
        images: of the evaluation.
        provenance: of the weights.
        validated_in: precision of the run's validation; None if unknown.
        precision: of the evaluation.

    Returns:
        Number of evaluated images with the same pixels as a ``train`` or a ``selection`` image; and caveats, a sentence
        each.
    """
    notes, copies = [], {}
    for name, others, recorded, verb in (
        ("train", images.train, provenance.train, "trained"),
        ("selection", images.selection, provenance.selection, "validated"),
    ):
        if others is None:
            continue
        if recorded is not None and others.fingerprint != recorded:
            notes.append(f"The {name} images changed: the run was {verb} on others.")
        if others.fingerprint != images.evaluated.fingerprint:
            copies[name] = count_copies(images.evaluated, others)
            if copies[name]:
                notes.append(
                    f"{copies[name]:,} of the {len(images.evaluated):,} images have the same pixels as an image that "
                    f"the run was {verb} on."
                )
    if images.selection is None:
        notes.append(
            "The run's data was not found, so no temperature was fitted and no copies of training images were counted; "
            "data.root=DIR sets its folder."
        )
    elif images.selection.fingerprint == images.evaluated.fingerprint:
        notes.append("The temperature was fitted on the evaluated images: metrics at T are optimistic.")
    else:
        source = "the images held out of train/" if images.is_held_out else "validation/"
        notes.append(f"The temperature was fitted on {source} ({len(images.selection):,} images).")
    if validated_in not in (None, precision):
        notes.append(
            f"Computed in {precision}; the run was validated in {validated_in}: small differences are expected."
        )
    elif precision != "32-true":
        notes.append(f"Computed in {precision}.")
    return copies, notes


def count_copies(images: ImageDataset, others: ImageDataset) -> int:
    """Number of ``images`` with the same pixels as one of ``others``; images of a single gray value do not count."""
    known = {digest for digest, constant in _digests(others) if not constant}
    return sum(digest in known for digest, _ in _digests(images))


def _digests(dataset: ImageDataset) -> Iterator[tuple[bytes, bool]]:
    for start in range(0, len(dataset), CHUNK_SIZE):
        chunk = slice(start, start + CHUNK_SIZE)
        constant = is_constant(dataset.images[chunk].numpy())
        yield from zip(map(bytes, dataset.digests[chunk]), constant.tolist(), strict=True)
