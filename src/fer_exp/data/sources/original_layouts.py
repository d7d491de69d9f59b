"""Data sets in the layout of their authors: RAF-DB's label list, AffectNet's annotation files."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from fer_exp.data.decode import ImageInput, InvalidImage
from fer_exp.data.folders import walk_images
from fer_exp.data.sources.base import Entries, ImageSource, Split, file_stamp, hash_facts, make_entries
from fer_exp.data.sources.class_folders import FolderDataModule
from fer_exp.data.sources.table import CsvDataModule
from fer_exp.errors import UserError
from fer_exp.files import expand_path, printable

RAFDB_LIST = "EmoLabel/list_patition_label.txt"  # spelled like this
RAFDB_IMAGES = "Image/aligned"
AFFECTNET_SPLITS = {"train": "train_set", "validation": "val_set"}


@dataclass(kw_only=True, eq=False, repr=False)
class RafDbDataModule(FolderDataModule):
    """Serves RAF-DB: from its label list and aligned images, or from class folders as other copies have them.

    Args:
        root: folder that holds ``EmoLabel`` and ``Image``, or ``train`` and ``test``.
    """

    choice: ClassVar[str] = "rafdb"

    def open_source(self) -> ImageSource:
        """See ``ImageDataModule.open_source``."""
        root = expand_path(self.root)
        return RafDb(root, not self.val_fraction) if (root / RAFDB_LIST).is_file() else super().open_source()


@dataclass(kw_only=True, eq=False, repr=False)
class AffectNetDataModule(CsvDataModule):
    """Serves AffectNet: from its label files, or from a folder of images with an annotation file each.

    Args:
        file: as in ``CsvDataModule``; without files, ``root`` holds ``train_set`` and ``val_set``.
    """

    choice: ClassVar[str] = "affectnet"

    def open_source(self) -> ImageSource:
        """See ``ImageDataModule.open_source``."""
        if self.files():
            return super().open_source()
        if self.root is None:
            raise UserError("data.root is empty; expected the folder that holds train_set/ and val_set/: data.root=DIR")
        return AffectNet(expand_path(self.root), [str(label) for label in self.ignore])


class RafDb(ImageSource):
    """An image source: RAF-DB's label list, with lines like ``train_00001.jpg 5``, and its aligned images.

    Args:
        root: folder that holds ``EmoLabel`` and ``Image``.
        needs_validation: whether the test images are the validation split.
    """

    def __init__(self, root: Path, needs_validation: bool) -> None:
        self.root = root
        self._images: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}  # split -> (path, label)
        file = root / RAFDB_LIST
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{printable(file)}: cannot be read ({error})") from error
        for number, line in enumerate(lines, 1):
            match = re.fullmatch(r"((train|test)_\d+)\.jpg\s+(\d+)\s*", line)
            if match is None:
                raise UserError(f"{printable(file)}, line {number}: expected a line like train_00001.jpg 5")
            name, split, label = match.groups()
            self._images[split].append((f"{RAFDB_IMAGES}/{name}_aligned.jpg", label))
        if needs_validation:
            self._images["validation"] = self._images["test"]

    def location(self, name: str) -> Path | None:
        """See ``ImageSource.location``."""
        return self.root / RAFDB_IMAGES if self._images.get(name) else None

    def split(self, name: str) -> Split | None:
        """See ``ImageSource.split``."""
        if (location := self.location(name)) is None:
            return None
        names, labels = zip(*self._images[name], strict=True)
        files = [os.path.join(self.root, path) for path in names]  # noqa: PTH118
        identity = hash_facts(names, labels, [file_stamp(file) for file in files])
        return Split(name, location, identity, lambda: make_entries(names, labels, files))


class AffectNet(ImageSource):
    """An image source: AffectNet's ``train_set`` and ``val_set`` with ``images/1.jpg`` and ``annotations/1_exp.npy``.

    Args:
        root: folder that holds ``train_set`` and ``val_set``.
        ignore: labels whose images are skipped.
    """

    def __init__(self, root: Path, ignore: list[str]) -> None:
        self.root, self.ignore = root, ignore
        for folder in AFFECTNET_SPLITS.values():
            if not (root / folder / "images").is_dir() or not (root / folder / "annotations").is_dir():
                raise UserError(
                    f"data.root={printable(root)}: no {folder}/images/ and {folder}/annotations/ there. For the older "
                    "form, give its label files: data.file.train=training.csv data.file.validation=validation.csv"
                )

    def location(self, name: str) -> Path | None:
        """See ``ImageSource.location``."""
        return self.root / AFFECTNET_SPLITS[name] if name in AFFECTNET_SPLITS else None

    def split(self, name: str) -> Split | None:
        """See ``ImageSource.split``."""
        if (location := self.location(name)) is None:
            return None
        images = walk_images(location / "images").images
        names = sorted(images)
        annotations = [location / "annotations" / f"{Path(image).stem}_exp.npy" for image in names]
        stamps = [images[image] for image in names] + [file_stamp(annotation) for annotation in annotations]
        identity = hash_facts(names, self.ignore, stamps)
        return Split(name, location, identity, lambda: self._read(location, names, annotations), tuple(self.ignore))

    def _read(self, location: Path, images: Sequence[str], annotations: Sequence[Path]) -> Entries:
        names, labels, inputs = [], [], list[ImageInput]()
        for image, annotation in zip(images, annotations, strict=True):
            label = _read_label(annotation)
            if label not in self.ignore:
                names.append(f"{location.name}/images/{image}")
                labels.append(label)
                inputs.append(str(location / "images" / image) if label else InvalidImage(f"no label in {annotation}"))
        if not names:
            raise UserError(f"{printable(location)}: no images with a label that is not in data.ignore")
        return make_entries(names, labels, inputs)


def _read_label(file: Path) -> str:
    """The number in an annotation file, as text; "" if there is none."""
    try:
        return str(int(np.load(file, allow_pickle=False).item()))
    except (OSError, ValueError, EOFError):
        return ""
