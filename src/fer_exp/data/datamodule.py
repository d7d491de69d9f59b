"""The LightningDataModule: splits of an image source, decoded once, served as batches."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig

from fer_exp.config.paths import as_typed_in_a_shell
from fer_exp.data.annotations import check_exclusions, read_exclusions, read_soft_labels
from fer_exp.data.cache import default_cache_dir, load_split
from fer_exp.data.classes import ClassMap
from fer_exp.data.dataset import ImageDataset, MemmapImages, split_dataset
from fer_exp.data.decode import ImageFormat
from fer_exp.data.ferplus import FerPlus, open_ferplus
from fer_exp.data.folders import SPLIT_FOLDERS, list_split, subfolders
from fer_exp.data.loaders import TrainingBatches, ValidationBatches, proportional_order
from fer_exp.data.report import log_class_counts, log_formats, warn_about_duplicates
from fer_exp.data.sources.base import ImageSource, NoRowsError, Split
from fer_exp.errors import UserError, are, join_first, plural
from fer_exp.files import expand_path, printable, quote_override
from fer_exp.plots.terminal import progress_bar

log = logging.getLogger(__name__)

_MAX_NAMED = 20


@dataclass(kw_only=True, eq=False, repr=False)
class ImageDataModule(L.LightningDataModule):
    """Serves the images of a source. A subclass implements ``open_source`` and adds the keys of the source.

    Args:
        batch_size: images per step.
        seed: of the order of the training images.
        image_size: width and height of the decoded images.
        color: ``gray`` or ``rgb``.
        resize: ``stretch``, ``crop`` or ``pad`` (see ``ImageFormat``).
        classes: names and order of the classes, or ``auto`` for those of the data.
        class_names: label -> class name.
        merge: class name -> class that takes its images.
        exclude: list of images to exclude (see ``annotations``).
        on_unreadable: ``error`` refuses data with unreadable images, ``skip`` excludes them.
        cache_dir: folder of the decoded images; None for ``$FER_EXP_CACHE`` or the user's cache folder.
        in_memory: true keeps images on the training device, false reads them from disk batch by batch, with the same
            result; ``auto`` keeps splits of up to 2.5 GB.
        balanced_sampling: show each class equally often in an epoch.
        soft_labels: table of training targets (see ``annotations``).
        ferplus: labels from FER+ for the images of FER2013: ``file``, ``labels``, ``contempt`` and ``fer2013`` (see
            ``FerPlus``); not used where ``file`` is None.
        val_fraction: fraction of each class of the training split that is used for validation; the validation split is
            then not used.
        group_by: column of a table, or regular expression on the image names; ``val_fraction`` then keeps images of the
            same group (subject, video) together. The first group of the expression counts, if it has one.

    Attributes:
        source: the image source, after ``setup``.
        train_set: the training images, after ``setup``.
        val_set: the validation images, after ``setup``.
        skipped: split -> ``{"excluded": N, "unreadable": N}``, after ``setup``.
    """

    choice: ClassVar[str] = ""  # name of the YAML file in conf/data, for the command of an audit; folders if empty

    batch_size: int
    seed: int
    image_size: int = 48
    color: Literal["gray", "rgb"] = "gray"
    resize: Literal["stretch", "crop", "pad"] = "stretch"
    classes: Literal["auto"] | list[str] = "auto"
    class_names: dict[str, str] | None = None
    merge: dict[str, str] | None = None
    exclude: str | Path | None = None
    on_unreadable: Literal["error", "skip"] = "error"
    cache_dir: str | Path | None = None
    in_memory: bool | Literal["auto"] = "auto"
    balanced_sampling: bool = False
    soft_labels: str | Path | None = None
    ferplus: dict[str, Any] | None = None
    val_fraction: float = 0.0
    group_by: str | None = None

    def __post_init__(self) -> None:
        super().__init__()
        self.image_format = ImageFormat(self.image_size, self.color, self.resize)
        self.class_map = ClassMap(None if isinstance(self.classes, str) else self.classes, self.class_names, self.merge)
        self.skipped: dict[str, dict[str, int]] = {}
        self.source: ImageSource | None = None
        self.cache_path = expand_path(self.cache_dir) if self.cache_dir else default_cache_dir()
        self._resolved: tuple[str, ...] | None = None
        self._ferplus: FerPlus | None = None

    def open_source(self) -> ImageSource:
        """Return the image source.

        Raises:
            UserError: it cannot be opened.
        """
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Load both splits, once: decode them, or read them from the cache.

        Raises:
            UserError: the source is incomplete, images are unreadable, or a setting does not fit the data.
        """
        if self._resolved is not None:
            return
        loaded = self._load("train") if self.val_fraction else self._load("train", "validation")
        log_formats(chain.from_iterable(dataset.originals or () for _, dataset in loaded), self.image_format)
        for split, dataset in loaded:
            self._check(split, dataset)
        train_set, *others = [dataset for _, dataset in loaded]
        if not others and not self.val_fraction:
            raise UserError(f"{printable(loaded[0][0].location)}: no validation split; add data.val_fraction=0.1")
        self.train_set, self.val_set = (train_set, *others) if others else self._split_train(train_set)
        if not 1 <= self.batch_size <= len(self.train_set):
            raise UserError(f"data.batch_size={self.batch_size}: expected 1 to {len(self.train_set)} (training images)")
        self._add_soft_labels()
        log_class_counts(self.train_set, self.val_set)
        val_name = "the validation fraction" if self.val_fraction else "validation"
        warn_about_duplicates(self.train_set, self.val_set, val_name, self._command())

    def load_for_audit(self) -> dict[str, ImageDataset]:
        """Load the training and validation split, with no check of their content.

        Raises:
            UserError: the source is incomplete, or no image can be used.
        """
        datasets = {split.name: dataset for split, dataset in self._load("train", "validation")}
        if not any(map(len, datasets.values())):
            problems = chain.from_iterable(dataset.unreadable.items() for dataset in datasets.values())
            reasons = join_first([f"{printable(name)}: {why}" for name, why in problems], 3, "; ")
            raise UserError(
                "data: no image is left. Expected images that can be read and are not in data.exclude. "
                f"{reasons}".rstrip()
            )
        return datasets

    def load_split(self, name: str) -> ImageDataset | None:
        """Load another split of the source; None if it has none of that name. No image of a test split is excluded.

        Raises:
            UserError: as ``setup``.
        """
        self.setup()
        assert self.source is not None
        split = self.source.split(name)
        if split is None:
            return None
        excluded = frozenset() if name == "test" else read_exclusions(self.exclude)
        try:
            decoded = self._decode(split)
        except NoRowsError:
            return None
        dataset = self._prepare(split, self._relabel(split, decoded), excluded)
        self._check(split, dataset, needs_all_classes=False)
        return dataset

    def load_folder(self, name: str, folder: Path) -> ImageDataset:
        """Load a folder of class folders that is not part of the source.

        Raises:
            UserError: as ``setup``.
        """
        if splits := [child for child in subfolders(folder) if child.lower() in SPLIT_FOLDERS]:
            example = quote_override("split", folder / splits[0])
            raise UserError(
                f"split={printable(folder)}: expected class folders; it holds {', '.join(splits)}. Try {example}"
            )
        split, _ = list_split(name, folder, Path() if self.source is None else self.source.root)
        dataset = self._decode(split)
        if self._resolved is None:
            self._resolved = self.class_map.resolve(dataset.classes)
        dataset = self._prepare(split, dataset, frozenset())
        self._check(split, dataset, needs_all_classes=False)
        return dataset

    def _load(self, *wanted: str) -> list[tuple[Split, ImageDataset]]:
        """Open FER+ and the source; decode the splits that it has of those ``wanted``, and apply all settings."""
        self._ferplus = open_ferplus(self.ferplus, self.cache_path)
        if self._ferplus and self.soft_labels is not None:
            raise UserError("data.soft_labels and data.ferplus.file are both set; expected one of them")
        self.source = source = self.open_source()
        splits = [split for name in wanted if (split := source.split(name))]
        for warning in source.warnings():
            log.warning("Warning: %s", warning)
        decoded = []
        for split in splits:
            try:
                decoded.append((split, self._decode(split)))
            except NoRowsError:
                if split.name == "train":
                    raise
        excluded = read_exclusions(self.exclude)
        names = chain.from_iterable((*dataset.names, *dataset.unreadable) for _, dataset in decoded)
        check_exclusions(self.exclude, excluded, names, source.root)
        relabeled = [(split, self._relabel(split, dataset)) for split, dataset in decoded]
        self._resolved = self.class_map.resolve([label for _, dataset in relabeled for label in dataset.classes])
        return [(split, self._prepare(split, dataset, excluded)) for split, dataset in relabeled]

    def _command(self) -> str:
        """Return the command that audits this data."""
        settings = {key: getattr(self, key, None) for key in ("file", "root")}
        if isinstance(settings["file"], Mapping):
            settings |= {f"file.{split}": file for split, file in settings["file"].items()}
        settings |= {f"ferplus.{key}": (self.ferplus or {}).get(key) for key in ("file", "fer2013")}
        overrides = [quote_override(f"data.{k}", path) for k, path in settings.items() if isinstance(path, str | Path)]
        choice = self.choice
        if HydraConfig.initialized():  # the preset, and what the command said about the data beside paths
            hydra = HydraConfig.get()
            choice = hydra.runtime.choices.get("data") or choice
            others = [each for each in hydra.overrides.task if re.match(r"\+*data\.(columns|ignore|class|merge)", each)]
            overrides += map(as_typed_in_a_shell, others)
        if choice not in ("", "folders"):
            overrides.insert(0, f"data={choice}")
        return " ".join(["python -m fer_exp.audit", *overrides])

    def _decode(self, split: Split) -> ImageDataset:
        in_memory = None if self.in_memory == "auto" else bool(self.in_memory)
        with progress_bar(f"decoding {split.name}") as progress:
            return load_split(split, self.image_format, self.cache_path, in_memory, progress)

    def _relabel(self, split: Split, dataset: ImageDataset) -> ImageDataset:
        return self._ferplus.relabel(dataset, split.name) if self._ferplus else dataset

    def _prepare(self, split: Split, dataset: ImageDataset, excluded: frozenset[str]) -> ImageDataset:
        """Replace the labels of the source by the classes, and remove the excluded images."""
        classes = self._resolved or ()
        index = torch.tensor(self._class_indices(split, dataset.classes, classes), dtype=torch.int64)
        soft_labels = dataset.soft_labels
        if soft_labels is not None:  # labels of the same class are summed
            soft_labels = torch.zeros(len(dataset), len(classes)).index_add_(1, index, soft_labels)
        prepared = replace(
            dataset,
            labels=index[dataset.labels],
            classes=classes,
            soft_labels=soft_labels,
            unreadable={name: why for name, why in dataset.unreadable.items() if name not in excluded},
        )
        if not excluded.isdisjoint(dataset.names):
            rows = [i for i, name in enumerate(dataset.names) if name not in excluded]
            prepared = prepared.select(torch.tensor(rows, dtype=torch.int64))
        n_excluded = len(dataset) + len(dataset.unreadable) - len(prepared) - len(prepared.unreadable)
        self.skipped[split.name] = {"excluded": n_excluded, "unreadable": len(prepared.unreadable)}
        return prepared

    def _check(self, split: Split, dataset: ImageDataset, needs_all_classes: bool = True) -> None:
        """Report a split, and check that its images can be read and each class, or at least one, has some."""
        place, n_excluded = printable(split.location), self.skipped[split.name]["excluded"]
        self._check_unreadable(split, dataset.unreadable)
        if n_excluded:
            log.info("%s: %s excluded (data.exclude).", place, are(n_excluded, "image"))
        if isinstance(dataset.images, MemmapImages):
            log.info("%s: images are read from disk batch by batch (data.in_memory).", place)
        empty = [name for name, count in zip(dataset.classes, dataset.counts, strict=True) if not count]
        n_classes = len(dataset.classes) - len(empty)
        log.info("Found %d images belonging to %d classes. (%s)", len(dataset), n_classes, place)
        if empty and (needs_all_classes or not len(dataset)):
            raise UserError(
                f"{place}: no images of {', '.join(empty)}. Expected at least one readable image of each class that is "
                "not excluded. Add images, or change data.classes, data.merge or data.ignore."
            )

    def _class_indices(self, split: Split, label_names: Sequence[str], classes: Sequence[str]) -> list[int]:
        """Map label names to indices into ``classes``."""
        index = {label: self.class_map.index(label, classes) for label in label_names}
        if unknown := [repr(printable(label)) for label, i in index.items() if i is None]:
            raise UserError(
                f"{printable(split.location)}: labels that are none of the classes {', '.join(classes)}: "
                f"{join_first(unknown, _MAX_NAMED)}. Rename them (data.class_names), merge them (data.merge) or skip "
                "them (data.ignore)."
            )
        return [i for i in index.values() if i is not None]

    def _check_unreadable(self, split: Split, unreadable: Mapping[str, str]) -> None:
        if not unreadable:
            return
        lines = [f"  {printable(name)}: {reason}" for name, reason in unreadable.items()]
        shown = join_first(lines, _MAX_NAMED, "\n", "\n  and {} more")
        message = f"{printable(split.location)}: {plural(len(unreadable), 'image')} cannot be read:\n{shown}"
        if self.on_unreadable == "error":
            raise UserError(f"{message}\nRepair or remove them, or skip them with data.on_unreadable=skip.")
        log.warning("Warning: %s\nThey are skipped.", message)

    def _split_train(self, dataset: ImageDataset) -> tuple[ImageDataset, ImageDataset]:
        problem = f"data.val_fraction={self.val_fraction}: expected training and validation images of each class"
        try:
            train_set, val_set = split_dataset(dataset, self.val_fraction, self._group(dataset))
        except ValueError as error:
            raise UserError(f"{problem} ({error})") from error
        if not all(train_set.counts + val_set.counts):
            raise UserError(f"{problem}; a class has too few of the {len(dataset)} images")
        log.info("%d of them are used for validation (data.val_fraction=%s).", len(val_set), self.val_fraction)
        return train_set, val_set

    def _group(self, dataset: ImageDataset) -> Sequence[str] | None:
        """Return the group of each image; None without ``group_by``."""
        if self.group_by is None:
            return None
        if dataset.groups is not None:
            return dataset.groups
        names = dataset.names
        try:
            matches = [re.search(self.group_by, name) for name in names]
        except re.error as error:
            raise UserError(
                f"data.group_by={self.group_by}: neither a column nor a regular expression ({error})"
            ) from error
        if unmatched := [name for name, match in zip(names, matches, strict=True) if match is None]:
            raise UserError(
                f"data.group_by={self.group_by}: matches neither a column nor {len(unmatched)} of {len(names)} names: "
                f"{join_first([printable(name) for name in unmatched], 3)}"
            )
        return [match[1 if match.re.groups else 0] for match in matches if match]

    def _add_soft_labels(self) -> None:
        if self.soft_labels is None:
            return
        train_set = self.train_set
        targets, count = read_soft_labels(
            self.soft_labels, train_set.names, train_set.labels.tolist(), train_set.classes
        )
        self.train_set = replace(train_set, soft_labels=torch.from_numpy(targets))
        log.info("%s has soft labels of %d of %d training images.", printable(self.soft_labels), count, len(train_set))

    def train_dataloader(self) -> TrainingBatches:
        """Return shuffled batches without an incomplete last one."""
        return TrainingBatches(self.train_set, self.batch_size, self.seed, self._device(), self.balanced_sampling)

    def val_dataloader(self) -> ValidationBatches:
        """Return batches of all validation images; if ``trainer.limit_val_batches`` is set, in proportional order."""
        is_limited = self.trainer is not None and self.trainer.limit_val_batches != 1.0
        order = proportional_order(self.val_set.labels) if is_limited else None
        return ValidationBatches(self.val_set, self.batch_size, self._device(), order)

    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch to ``device``; only images from disk are not there already."""
        return tuple(part.to(device, non_blocking=True) for part in batch)
