"""The images of an evaluation: those reported on, and those that the run was trained and selected on."""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer_exp.config.instantiate import build_checked
from fer_exp.data.audit import is_constant
from fer_exp.data.datamodule import ImageDataModule
from fer_exp.data.dataset import CHUNK_SIZE, ImageDataset
from fer_exp.data.sources.class_folders import Layout, within
from fer_exp.errors import UserError
from fer_exp.evaluation.provenance import Provenance
from fer_exp.files import expand_path, printable

log = logging.getLogger(__name__)

SPLITS = ("validation", "train", "test", "selection")
TEST_NAMES = ("test", "testing")
FOLDERS = f"{ImageDataModule.__module__}.{ImageDataModule.__qualname__}"


@dataclass(frozen=True)
class Images:
    """What an evaluation looks at.

    Attributes:
        split: ``train``, ``selection``, ``validation``, ``test``, or a folder as it was given.
        folder: where the reported images lie.
        reported: the images that are reported on.
        train: those that the run was trained on; None where it is not known where they lie.
        selection: those that the run was validated on; None where it is not known where they lie.
        root: the data folder of the run; None where it is not known.
        holds_out: whether ``selection`` was held out of train/.
    """

    split: str
    folder: Path
    reported: ImageDataset
    train: ImageDataset | None
    selection: ImageDataset | None
    root: Path | None
    holds_out: bool = False

    @property
    def place(self) -> Path:
        """Where the reported images lie, relative to the data folder if they lie in it."""
        if self.root is not None and self.folder.is_relative_to(self.root):
            return self.folder.relative_to(self.root)
        return self.folder


def build_data(run: Mapping[str, Any], given: Mapping[str, Any]) -> ImageDataModule:
    """The data of a run, with the settings that are ``given`` in place of its own.

    Args:
        run: the run's group ``data``, resolved; empty where it is not known. Drawn faces give way to a ``root``.
        given: keys of ``ImageDataModule``.

    Raises:
        UserError: they make no such data.
    """
    settings = {"_target_": FOLDERS, "root": "", "batch_size": 1, "seed": 0} if not run or "root" in given else {}
    keep = run if not settings or run.get("_target_") == FOLDERS else {}
    # What an evaluation has no use for, and what may have gone since.
    keep = {key: value for key, value in keep.items() if key not in ("soft_labels", "balanced_sampling")}
    if keep.get("root") and "root" not in given and not expand_path(keep["root"]).is_dir():
        log.info(
            "The run's data folder %s is not there; data.root=DIR tells where its data lie.", printable(keep["root"])
        )
        keep["root"] = ""
    node = {**settings, **keep, "batch_size": 1, **given}  # no training batch is cut
    data: ImageDataModule = build_checked(node, "data", ImageDataModule)
    return data


def load_images(data: ImageDataModule, split: str) -> Images:
    """Load what ``split`` names, and what the run was trained and selected on.

    Args:
        data: those of the run; with an empty ``root`` only a folder can be loaded.
        split: one of ``SPLITS``, or a folder that holds the class folders.

    Raises:
        UserError: there are no such images, or they cannot be read.
    """
    if not data.root:
        split = _name(split, None)
        if split in SPLITS:
            raise UserError(f"split={split}: it is not known where the data of this checkpoint lie; give data.root=DIR")
        return Images(split, Path(split), data.load_folder(split, Path(split)), None, None, None)
    data.setup()
    layout, train, selection = data.layout, data.train_set, data.val_set
    split = _name(split, layout)
    if split == "validation" and data.val_fraction and layout.validation.name.lower() in TEST_NAMES:
        raise UserError(
            f"split=validation: there is no such folder, and {printable(layout.validation)} is the run's test. "
            "split=selection reports on the images held out of train/, and split=test on the test, once."
        )
    if split == "train":
        return Images(split, layout.train, train, train, selection, layout.root, data.val_fraction > 0)
    if split == "selection" or (split == "validation" and not data.val_fraction):
        folder = layout.train if data.val_fraction else layout.validation
        return Images(split, folder, selection, train, selection, layout.root, data.val_fraction > 0)
    # A list may leave files out of train/ and validation/; of a test nothing is left out.
    folder, left_out = Path(split), frozenset[str]()
    if split == "validation":
        folder = layout.validation
        left_out = within(layout, folder, data.excluded(layout))
    elif split == "test":
        folder = _test_folder(layout)
        if (
            not data.val_fraction and folder.resolve() == layout.validation.resolve()
        ):  # whatever a list leaves out there
            raise UserError(
                f"split=test: {printable(folder)} takes the place of validation/: these are the images that the run was "  # noqa: E501
                "selected on, and no test. Report on others, or on split=validation, which says so."
            )
    reported = data.load_folder(split, folder, left_out)
    return Images(split, folder, reported, train, selection, layout.root, data.val_fraction > 0)


def _name(split: str, layout: Layout | None) -> str:
    """A folder by the name that it has as a split of the data, where it is one."""
    if split in SPLITS:
        return split
    folder = expand_path(split)
    if not folder.is_dir():
        raise UserError(f"split={printable(split)}: expected {', '.join(SPLITS)}, or a folder of class folders")
    if layout is not None:
        places = {"train": layout.train, "validation": layout.validation}
        if test := _find_test(layout):
            places = {"test": test, **places}
        return next((name for name, place in places.items() if place.resolve() == folder.resolve()), str(folder))
    return str(folder)


def _find_test(layout: Layout) -> Path | None:
    beside = sorted(layout.train.parent.iterdir())
    return next((place for place in beside if place.name.lower() in TEST_NAMES and place.is_dir()), None)


def _test_folder(layout: Layout) -> Path:
    if (folder := _find_test(layout)) is None:
        raise UserError(
            f"split=test: {printable(layout.train.parent)} holds no folder test/; give the folder of the test images, "
            "split=DIR protocol=official"
        )
    return folder


def examine(
    images: Images, origin: Provenance, validated_in: str | None, precision: str
) -> tuple[dict[str, int], list[str]]:
    """What has to be known of the images beside the protocol.

    Args:
        images: of the evaluation.
        origin: of the weights.
        validated_in: the precision in which the run was validated; None where it is not known.
        precision: of the evaluation.

    Returns:
        How many of the reported images have the pixels of a ``train`` or a ``selection`` image; and notes, a sentence
        each.
    """
    notes, found = [], {}
    for name, others, known, in_words in (
        ("train", images.train, origin.train, "trained"),
        ("selection", images.selection, origin.selection, "validated"),
    ):
        if others is None:
            continue
        if known is not None and others.fingerprint != known:
            notes.append(
                f"The images that the data settings name are not those that the run was {in_words} on: they have "
                "changed, or others are given."
            )
        if others.fingerprint != images.reported.fingerprint:
            found[name] = copies(images.reported, others)
            if found[name]:
                notes.append(
                    f"{found[name]:,} of the {len(images.reported):,} images have exactly the pixels of one that the "
                    f"run was {in_words} on."
                )
    if images.selection is None:
        notes.append(
            "No temperature could be fitted, and no copies of training images be looked for, as it is not known where "
            "the run's data lie; data.root=DIR tells."
        )
    elif images.selection.fingerprint == images.reported.fingerprint:
        notes.append("The temperature was fitted on the images reported on: the figures at T are optimistic.")
    else:
        on = "the images held out of train/" if images.holds_out else "validation/"
        notes.append(f"The temperature was fitted on {on} ({len(images.selection):,} images).")
    if precision != "32-true":
        notes.append(f"The figures are computed in {precision}.")
    if validated_in not in (None, precision):
        notes.append(
            f"The run was validated in {validated_in}, and this is {precision}: its record may differ a little."
        )
    return found, notes


def copies(reported: ImageDataset, others: ImageDataset) -> int:
    """How many of ``reported`` have exactly the pixels of one of ``others``; images that show nothing do not count."""
    known = {digest for digest, is_blank in _digests(others) if not is_blank}
    return sum(digest in known for digest, _ in _digests(reported))


def _digests(images: ImageDataset) -> Iterator[tuple[bytes, bool]]:
    for start in range(0, len(images), CHUNK_SIZE):
        faces = images.images[start : start + CHUNK_SIZE].squeeze(1).numpy()
        for face, is_blank in zip(faces, is_constant(faces), strict=True):
            yield hashlib.sha256(face).digest(), bool(is_blank)
