"""The LightningDataModule: class folders, decoded once, served as batches on the training device."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch

from fer_exp.data import synthetic
from fer_exp.data.batches import TrainingBatches, ValidationBatches
from fer_exp.data.cache import cache_file, cache_key, default_cache_dir, load_split
from fer_exp.data.folders import CLASSES, Listing, find_splits, list_images
from fer_exp.data.imageset import ImageSet, hold_out
from fer_exp.errors import UserError
from fer_exp.progress import progress_bar

log = logging.getLogger(__name__)

# Splits that this process has loaded, by their cache file, each with the key of its files at that time.
_loaded: dict[Path, tuple[str, ImageSet]] = {}
_MOST_LOADED = 4  # two data sets with their two splits


class FolderFaces(L.LightningDataModule):
    """Faces in class folders.

    Args:
        root: the folder that holds ``train/`` and ``validation/`` (or one of their other names).
        batch_size: images a step.
        seed: of the order of the training images.
        ignore: names of folders among the class folders that are to be passed over.
        cache_dir: where decoded images are kept; None for the user's cache folder.
        hold_out: share of each class's training images that takes the place of the validation images, which are then
            not looked at: for choosing settings without seeing what is to be reported.
    """

    train_set: ImageSet
    validation_set: ImageSet

    def __init__(
        self,
        root: str | Path,
        batch_size: int,
        seed: int,
        ignore: Sequence[str] = (),
        cache_dir: str | Path | None = None,
        hold_out: float = 0.0,
    ) -> None:
        super().__init__()
        self.hold_out = hold_out
        self.root = root
        self.batch_size = batch_size
        self.seed = seed
        self.ignore = tuple(str(name) for name in ([ignore] if isinstance(ignore, str) else ignore))
        self.cache_dir = Path(cache_dir).expanduser() if cache_dir else default_cache_dir()
        self._loaded = False

    def setup(self, stage: str | None = None) -> None:
        """Find, decode (or read from the cache) and report both splits, once.

        Raises:
            UserError: the folders are not as expected, or the batch is larger than the training set.
        """
        if self._loaded:
            return
        layout = find_splits(self.root)
        train = list_images(layout.train, self.ignore)
        self._check_batch_size(len(train.files))
        if self.hold_out:
            self.train_set, self.validation_set = hold_out(self._load(train), self.hold_out)
            if not all(self.validation_set.counts):
                raise UserError(
                    f"data.hold_out={self.hold_out} leaves a class without an image to validate on: give more, or 0."
                )
            self._check_batch_size(len(self.train_set))
            log.info(
                "%d of them are held out of training and take the place of the validation images, which stay unseen.",
                len(self.validation_set),
            )
        else:
            validation = list_images(layout.validation, self.ignore)
            self.train_set, self.validation_set = self._load(train), self._load(validation)
        _report_counts(self.train_set, self.validation_set)
        self._loaded = True

    def _check_batch_size(self, images: int) -> None:
        if not 1 <= self.batch_size <= images:
            raise UserError(
                f"data.batch_size={self.batch_size} fills no batch from the {images} training images: "
                f"give data.batch_size a value from 1 to {images}."
            )

    def _load(self, listing: Listing) -> ImageSet:
        for given, name in listing.renamed.items():
            log.info("%s/%s/ is taken for the class %s.", listing.folder.name, given, name)
        for name, merged in listing.merged.items():
            together = " and ".join(f"{listing.folder.name}/{folder}/" for folder in merged)
            log.info("%s are one class, %s: their images are put together.", together, name)
        image_set = self._load_once(listing)
        log.info("Found %d images belonging to %d classes. (%s)", len(image_set), len(CLASSES), listing.folder)
        return image_set

    def _load_once(self, listing: Listing) -> ImageSet:
        """Load a split, or take it from an earlier job of the same sweep, unless a file has changed since."""
        place, key = cache_file(listing, self.cache_dir), cache_key(listing)
        if place in _loaded and _loaded[place][0] == key:
            return _loaded[place][1]
        with progress_bar(f"decoding {listing.folder.name}/") as progress:
            image_set = load_split(listing, self.cache_dir, progress)
        _loaded.pop(place, None)
        _loaded[place] = key, image_set
        while len(_loaded) > _MOST_LOADED:
            del _loaded[next(iter(_loaded))]
        return image_set

    def train_dataloader(self) -> TrainingBatches:
        """Shuffled batches on the training device (without a trainer, the CPU), the tail dropped."""
        return TrainingBatches(self.train_set, self.batch_size, self.seed, self._device())

    def val_dataloader(self) -> ValidationBatches:
        """The whole validation set on the training device."""
        return ValidationBatches(self.validation_set, self.batch_size, self._device())

    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Batches are cut on the device: there is nothing to transfer."""
        return batch


class SyntheticFaces(FolderFaces):
    """Drawn faces of the seven expressions, for trying the software: written once as class folders, read as such.

    Args:
        train: number of training faces.
        validation: number of validation faces.
        drawing_seed: of the drawings; another one draws other people.
        batch_size: images a step.
        seed: of the order of the training images.
        cache_dir: where the drawings and the decoded images are kept; None for the user's cache folder.
        hold_out: share of the training images that takes the place of the validation images.
    """

    def __init__(
        self,
        train: int,
        validation: int,
        drawing_seed: int,
        batch_size: int,
        seed: int,
        cache_dir: str | Path | None = None,
        hold_out: float = 0.0,
    ) -> None:
        cache = Path(cache_dir).expanduser() if cache_dir else default_cache_dir()
        root = cache / "synthetic" / f"v{synthetic.VERSION}-{train}-{validation}-seed{drawing_seed}"
        super().__init__(root, batch_size, seed, cache_dir=cache_dir, hold_out=hold_out)
        self.train, self.validation, self.drawing_seed = train, validation, drawing_seed

    def setup(self, stage: str | None = None) -> None:
        """Draw the faces where that was not done yet, and read them as any class folders.

        Raises:
            UserError: the drawings cannot be made or written, or the batch is larger than the training set.
        """
        root = Path(self.root)
        if not root.exists():
            log.info("Drawing %d + %d faces, once, to %s", self.train, self.validation, root)
        with progress_bar("drawing synthetic faces") as progress:
            try:
                synthetic.write_faces(root, self.train, self.validation, self.drawing_seed, progress)
            except ValueError as error:
                raise UserError(
                    f"data.train={self.train} data.validation={self.validation} data.drawing_seed={self.drawing_seed}: "
                    f"no such faces can be drawn ({error})."
                ) from error
            except OSError as error:
                raise UserError(
                    f"The drawn faces cannot be written to {root} ({error.strerror or error}). "
                    "Set data.cache_dir or FER_EXP_CACHE to a folder that can be written."
                ) from error
        super().setup(stage)


def _report_counts(train: ImageSet, validation: ImageSet) -> None:
    log.info("%-12s%12s%12s", "class", "train", "validation")
    for name, in_train, in_validation in zip(CLASSES, train.counts, validation.counts, strict=True):
        log.info("%-12s%12d%12d", name, in_train, in_validation)
