"""The LightningDataModule: class folders, decoded once, served as batches on the training device."""

import logging
import posixpath
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from fer_exp.data.audit import glance
from fer_exp.data.cache import CacheEntry, cache_file, cache_key, default_cache_dir, kept_size, load_split, read_ahead
from fer_exp.data.dataset import ImageDataset, select, val_fraction
from fer_exp.data.decode import SIZE
from fer_exp.data.exclusions import read_exclusions
from fer_exp.data.loaders import TrainingBatches, ValidationBatches
from fer_exp.data.soft_labels import read_soft_labels
from fer_exp.data.sources import synthetic
from fer_exp.data.sources.class_folders import (
    CLASSES,
    ON_UNREADABLE,
    Layout,
    Listing,
    beginning,
    find_splits,
    list_images,
    warn_of_unmatched,
    within,
    without,
)
from fer_exp.errors import UserError, join_first
from fer_exp.files import expand_path, printable, quote_override
from fer_exp.plots.terminal import progress_bar

log = logging.getLogger(__name__)

# Splits that this process has loaded, by their cache file, each with the key of its files at that time, and its place.
_loaded: dict[Path, tuple[str, tuple[ImageDataset, dict[str, str]]]] = {}
_MAX_LOADED = 4  # two data sets with their two splits
MAX_IN_MEMORY = 2 * 2**30  # bytes of both splits, 2,304 an image: 932,067 images
_MAX_NAMED = 20  # unreadable files in a message
_glanced: set[tuple[str, str]] = set()  # fingerprints of the pairs of splits that were warned of, or found clean


class ImageDataModule(L.LightningDataModule):
    """Faces in class folders.

    Args:
        root: the folder that holds ``train/`` and ``validation/`` (or one of their other names).
        batch_size: images a step.
        seed: of the order of the training images.
        ignore: names of folders among the class folders that are to be passed over.
        exclude: a list of files that are to be left out (see ``exclusions``); None for none.
        on_unreadable: ``error`` refuses data with images that cannot be read, ``skip`` leaves these out.
        cache_dir: where decoded images are kept; None for the user's cache folder.
        val_fraction: share of each class's training images that takes the place of the validation images, which are then
            not looked at: for choosing settings without seeing what is to be reported.
        balanced_sampling: show each class equally often in an epoch of as many images.
        soft_labels: a list of labels to train on in place of the folders' (see ``soft_labels``); None for none.
        in_memory: true keeps the decoded images on the training device, false leaves them in the cache's file and reads
            them batch by batch, with the same result; ``auto`` leaves sets of more than ``MAX_IN_MEMORY`` bytes there.

    Attributes:
        layout: where the splits lie, after ``setup``.
        train_set: the training images, after ``setup``.
        val_set: the validation images, after ``setup``.
        left_out: how many files of each folder were left out, after ``setup``:
            ``{"train": {"excluded": 0, "unreadable": 0}, "validation": {...}}``; the latter not with ``val_fraction``.

    Raises:
        ValueError: ``on_unreadable`` or ``in_memory`` is none of these.
    """  # noqa: E501

    layout: Layout
    train_set: ImageDataset
    val_set: ImageDataset

    def __init__(
        self,
        root: str | Path,
        batch_size: int,
        seed: int,
        ignore: Sequence[str] = (),
        exclude: str | Path | None = None,
        on_unreadable: str = "error",
        cache_dir: str | Path | None = None,
        val_fraction: float = 0.0,
        balanced_sampling: bool = False,
        soft_labels: str | Path | None = None,
        in_memory: bool | str = "auto",
    ) -> None:
        super().__init__()
        self.balanced_sampling, self.soft_labels = balanced_sampling, soft_labels
        if in_memory not in (True, False, "auto"):
            raise ValueError(f"data.in_memory={in_memory}: expected auto, true or false")
        self.in_memory = in_memory
        if on_unreadable not in ON_UNREADABLE:
            raise ValueError(f"data.on_unreadable={on_unreadable}: expected {' or '.join(ON_UNREADABLE)}")
        self.exclude, self.on_unreadable = exclude, on_unreadable
        self.left_out: dict[str, dict[str, int]] = {}
        self.val_fraction = val_fraction
        self.root = root
        self.batch_size = batch_size
        self.seed = seed
        names = map(str, [ignore] if isinstance(ignore, str) else ignore)
        self.ignore = tuple(posixpath.normpath(name.replace("\\", "/")) for name in names)
        self.cache_dir = expand_path(cache_dir) if cache_dir else default_cache_dir()
        self._loaded = False

    def find(self) -> Layout:
        """Where the splits lie.

        Raises:
            UserError: there are none.
        """
        return find_splits(self.root)

    def excluded(self, layout: Layout) -> frozenset[str]:
        """The files that ``exclude`` names, relative to the data folder.

        Raises:
            UserError: it cannot be read, or names files that are not there.
        """
        return frozenset() if self.exclude is None else read_exclusions(self.exclude, layout.root)

    def setup(self, stage: str | None = None) -> None:
        """Find, decode (or read from the cache) and report both splits, once.

        Raises:
            UserError: the folders are not as expected, images cannot be read, or the batch is larger than the training
                set.
        """
        if self._loaded:
            return
        self.layout = self.find()
        folders = [self.layout.train] if self.val_fraction else [self.layout.train, self.layout.validation]
        with ThreadPoolExecutor(1) as pool:
            self._load_both(self._read_ahead(folders, pool))
        self._check_batch_size(len(self.train_set))
        if self.soft_labels is not None:
            folder = self.layout.train.relative_to(self.layout.root)
            soft_labels, count = read_soft_labels(self.soft_labels, self.train_set, folder)
            self.train_set = replace(self.train_set, soft_labels=soft_labels)
            log.info(
                "%s has the labels of %d of the %d training images.",
                printable(self.soft_labels),
                count,
                len(soft_labels),
            )
        _report_counts(self.train_set, self.val_set)
        self._warn()
        self._loaded = True

    def _read_ahead(self, folders: Sequence[Path], pool: ThreadPoolExecutor) -> dict[Path, CacheEntry | None]:
        """What is kept of the splits, read while their files are being listed; not of sets that stay on disk."""
        size = sum(kept_size(folder, self.cache_dir) for folder in folders)
        if self.in_memory is False or size > MAX_IN_MEMORY:
            return {}
        new = [folder for folder in folders if cache_file(folder, self.cache_dir) not in _loaded]
        return {folder: read_ahead(folder, self.cache_dir, pool) for folder in new}

    def _load_both(self, ahead: dict[Path, CacheEntry | None]) -> None:
        layout, excluded = self.layout, self.excluded(self.layout)
        train = list_images(layout.train, self.ignore)
        left_out_of_train = within(layout, layout.train, excluded)
        self._check_batch_size(len(without(train, left_out_of_train).files))
        validation = None if self.val_fraction else list_images(layout.validation, self.ignore)
        listings = [train, validation] if validation else [train]
        warn_of_unmatched(self.ignore, listings)
        self._warn_of_dead_lines(excluded, listings)
        self._choose_place(sum(len(listing.files) for listing in listings))
        if not self._load_into_memory:
            ahead = {}
        train_set = self._load("train", train, left_out_of_train, ahead.get(layout.train))
        if validation is None:
            self.train_set, self.val_set = val_fraction(train_set, self.val_fraction)
            counts = zip(CLASSES, self.train_set.counts, self.val_set.counts, strict=True)
            if emptied := [name for name, *in_parts in counts if not all(in_parts)]:
                raise UserError(
                    f"data.val_fraction={self.val_fraction} leaves {', '.join(emptied)} without an image to train or to "  # noqa: E501
                    f"validate on ({printable(layout.train)}): give another share, add images, or validate on those of "
                    f"{printable(layout.validation)} with data.val_fraction=0."
                )
            log.info(
                "%d of them are held out of training and take the place of the validation images, which stay unseen.",
                len(self.val_set),
            )
        else:
            left_out_of_validation = within(layout, layout.validation, excluded)
            self.train_set = train_set
            self.val_set = self._load("validation", validation, left_out_of_validation, ahead.get(layout.validation))

    def _warn_of_dead_lines(self, excluded: frozenset[str], listings: Sequence[Listing]) -> None:
        """Tell which files on the list of those to leave out are no images of the splits."""
        if not excluded:
            return
        places = [(beginning(self.layout, listing.folder), listing) for listing in listings]
        dead = excluded.difference(*([place + file for file in listing.files] for place, listing in places))
        if self.val_fraction:  # the validation images are not looked at
            unseen = beginning(self.layout, self.layout.validation)
            dead = frozenset(path for path in dead if not path.startswith(unseen))
        if dead:
            log.warning(
                "Warning: data.exclude=%s: %d of its %d files are no images of %s, and leave nothing out: %s.",
                printable(self.exclude),
                len(dead),
                len(excluded),
                " or ".join(printable(listing.folder) for listing in listings),
                join_first([printable(path) for path in sorted(dead)], _MAX_NAMED),
            )

    def load_folder(self, split: str, folder: Path, excluded: frozenset[str] = frozenset()) -> ImageDataset:
        """Load another folder of class folders, as the splits are loaded.

        Args:
            split: what it is called in ``left_out``.
            folder: holds the class folders.
            excluded: files that are to be left out, relative to ``folder``.

        Raises:
            UserError: as ``setup``.
        """
        listing = list_images(folder, self.ignore)
        self._choose_place(len(listing.files))
        return self._load(split, listing, excluded)

    def _choose_place(self, images: int) -> None:
        """Decide whether the images come into memory."""
        size = images * SIZE * SIZE
        self._load_into_memory = size <= MAX_IN_MEMORY if self.in_memory == "auto" else bool(self.in_memory)
        if not self._load_into_memory:
            log.info("The images (%.1f GB) are read from disk batch by batch (data.in_memory).", size / 1e9)

    def _check_batch_size(self, images: int) -> None:
        if not 1 <= self.batch_size <= images:
            raise UserError(
                f"data.batch_size={self.batch_size} fills no batch from the {images} training images: "
                f"give data.batch_size a value from 1 to {images}."
            )

    def _load(
        self, split: str, listing: Listing, excluded: frozenset[str], ahead: CacheEntry | None = None
    ) -> ImageDataset:
        for given, name in listing.renamed.items():
            log.info("%s/%s/ is taken for the class %s.", listing.folder.name, given, name)
        for name, merged in listing.merged.items():
            together = " and ".join(f"{listing.folder.name}/{folder}/" for folder in merged)
            log.info("%s are one class, %s: their images are put together.", together, name)
        dataset, unreadable = self._load_once(listing, ahead)
        # The cache holds the whole folder, so that lists that take turns cost no decoding.
        unreadable = {file: reason for file, reason in unreadable.items() if file not in excluded}
        if not excluded.isdisjoint(dataset.files):
            kept = [i for i, file in enumerate(dataset.files) if file not in excluded]
            dataset = select(dataset, torch.tensor(kept, dtype=torch.int64))
        self.left_out[split] = {
            "excluded": len(listing.files) - len(dataset) - len(unreadable),
            "unreadable": len(unreadable),
        }
        if unreadable:
            self._tell_unreadable(listing, unreadable)
        if self.left_out[split]["excluded"]:
            excluded_here = self.left_out[split]["excluded"]
            log.info("%s leaves out %d files of %s.", printable(self.exclude), excluded_here, printable(listing.folder))
        log.info("Found %d images belonging to %d classes. (%s)", len(dataset), len(CLASSES), printable(listing.folder))
        if not all(dataset.counts):
            emptied = [name for name, count in zip(CLASSES, dataset.counts, strict=True) if not count]
            raise UserError(
                f"{printable(listing.folder)}: no image of {', '.join(emptied)} is left: the others cannot be read, or "
                f"data.exclude={printable(self.exclude)} names them. Repair them, or shorten the list."
            )
        return dataset

    def _tell_unreadable(self, listing: Listing, unreadable: dict[str, str]) -> None:
        named = [f"  {printable(listing.folder / file)}: {reason}" for file, reason in unreadable.items()]
        shown = join_first(named, _MAX_NAMED, "\n", "\n  and {} more")
        head = f"{printable(listing.folder)}: {len(named)} of {len(listing.files)} files cannot be read as images"
        if self.on_unreadable == "skip":
            log.warning("Warning: %s and are left out:\n%s", head, shown)
            return
        raise UserError(
            f"{head}:\n{shown}\nRepair or remove them, set data.root to a sound copy, or leave them out with "
            f"data.on_unreadable=skip."
        )

    def _load_once(self, listing: Listing, ahead: CacheEntry | None) -> tuple[ImageDataset, dict[str, str]]:
        """Load a split, or take it from an earlier job of the same sweep, unless a file has changed since."""
        place, key = cache_file(listing.folder, self.cache_dir), f"{cache_key(listing)} {self._load_into_memory}"
        if place in _loaded and _loaded[place][0] == key:
            return _loaded[place][1]
        with progress_bar(f"decoding {listing.folder.name}/") as progress:
            loaded = load_split(listing, self.cache_dir, progress, self._load_into_memory, ahead)
        _loaded.pop(place, None)
        _loaded[place] = key, loaded
        while len(_loaded) > _MAX_LOADED:
            del _loaded[next(iter(_loaded))]
        return loaded

    def _warn(self) -> None:
        """Say what is clearly wrong with the images, once for each data set."""
        pair = (self.train_set.fingerprint, self.val_set.fingerprint)
        if pair in _glanced:
            return
        _glanced.add(pair)
        train, validation = self.train_set, self.val_set
        if not isinstance(train.images, Tensor) or not isinstance(validation.images, Tensor):
            return  # it would take a while, and much memory; the audit goes through such a set
        train_faces, validation_faces = train.images.squeeze(1).numpy(), validation.images.squeeze(1).numpy()
        others = "those held out" if self.val_fraction else "validation"
        if found := glance(train_faces, train.labels.numpy(), validation_faces, validation.labels.numpy(), others):
            log.warning(
                "Warning: %s. This tells which, and makes a list for data.exclude: python -m fer_exp.audit %s",
                found,
                quote_override("data.root", self.root),
            )

    def train_dataloader(self) -> TrainingBatches:
        """Shuffled batches, the tail dropped, on the training device (without a trainer, the CPU) or from disk."""
        return TrainingBatches(self.train_set, self.batch_size, self.seed, self._device(), self.balanced_sampling)

    def val_dataloader(self) -> ValidationBatches:
        """The whole validation set, on the training device or from disk."""
        return ValidationBatches(self.val_set, self.batch_size, self._device())

    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Batches that are cut on the device are there; those from disk follow while the device works."""
        return tuple(part.to(device, non_blocking=True) for part in batch)


class SyntheticDataModule(ImageDataModule):
    """Drawn faces of the seven expressions, for trying the software: written once as class folders, read as such.

    Args:
        train: number of training faces.
        validation: number of validation faces.
        generator_seed: of the drawings; another one draws other people.
        batch_size: images a step.
        seed: of the order of the training images.
        cache_dir: where the drawings and the decoded images are kept; None for the user's cache folder.
        on_unreadable: ``error`` or ``skip``, should a drawing be unreadable, on a failing disk for instance.
        val_fraction: share of the training images that takes the place of the validation images.
        balanced_sampling: show each class equally often in an epoch of as many images.
    """

    def __init__(
        self,
        train: int,
        validation: int,
        generator_seed: int,
        batch_size: int,
        seed: int,
        on_unreadable: str = "error",
        cache_dir: str | Path | None = None,
        val_fraction: float = 0.0,
        balanced_sampling: bool = False,
    ) -> None:
        cache = expand_path(cache_dir) if cache_dir else default_cache_dir()
        root = cache / "synthetic" / f"v{synthetic.VERSION}-{train}-{validation}-seed{generator_seed}"
        super().__init__(
            root,
            batch_size,
            seed,
            on_unreadable=on_unreadable,
            cache_dir=cache_dir,
            val_fraction=val_fraction,
            balanced_sampling=balanced_sampling,
        )
        self.train, self.validation, self.generator_seed = train, validation, generator_seed

    def find(self) -> Layout:
        """Draw the faces where that was not done yet; from there on they are class folders as any.

        Raises:
            UserError: the drawings cannot be made or written.
        """
        root = Path(self.root)
        if not root.exists():
            log.info("Drawing %d + %d faces, once, to %s", self.train, self.validation, printable(root))
        with progress_bar("drawing synthetic faces") as progress:
            try:
                synthetic.write_faces(root, self.train, self.validation, self.generator_seed, progress)
            except ValueError as error:
                raise UserError(
                    f"data.train={self.train} data.validation={self.validation} data.generator_seed={self.generator_seed}: "  # noqa: E501
                    f"no such faces can be drawn ({error})."
                ) from error
            except OSError as error:
                raise UserError(
                    f"The drawn faces cannot be written to {printable(root)} ({error.strerror or error}). "
                    "Set data.cache_dir or FER_EXP_CACHE to a folder that can be written."
                ) from error
        return super().find()


def _report_counts(train: ImageDataset, validation: ImageDataset) -> None:
    log.info("%-12s%12s%12s", "class", "train", "validation")
    for name, in_train, in_validation in zip(CLASSES, train.counts, validation.counts, strict=True):
        log.info("%-12s%12d%12d", name, in_train, in_validation)
