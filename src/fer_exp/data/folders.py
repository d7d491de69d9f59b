"""Class folders: where the splits lie, which folder is which class, which files are images."""

import logging
import os
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fer_exp.errors import UserError

log = logging.getLogger(__name__)

CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")

_SYNONYMS = {
    "angry": ("anger",),
    "disgust": ("disgusted",),
    "fear": ("fearful", "afraid", "scared"),
    "happy": ("happiness", "joy"),
    "neutral": ("neutrality", "calm"),
    "sad": ("sadness",),
    "surprise": ("surprised", "surprising"),
}
_CLASS_OF = {name: c for c, synonyms in _SYNONYMS.items() for name in (c, *synonyms)}

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".jfif"})
NESTINGS = (".", "images", "images/images")
TRAIN_NAMES = ("train", "training")
VALIDATION_NAMES = ("validation", "val", "valid", "test")

ON_BAD_IMAGE = ("error", "skip")  # what may be done about images that cannot be read


@dataclass(frozen=True)
class Layout:
    """Where the two splits of a data folder lie: at or below its ``root``."""

    root: Path
    train: Path
    validation: Path


@dataclass(frozen=True)
class Listing:
    """The image files of one split, in the order of class and then name.

    Attributes:
        folder: the split's folder.
        files: N paths relative to it, with forward slashes.
        labels: N indices into ``CLASSES``.
        stamps: N pairs of (size in bytes, time of last change in nanoseconds).
        renamed: folder names that were mapped to a class of another name, e.g. ``{"Anger": "angry"}``.
        merged: the folders of each class that has several, e.g. ``{"angry": ("Angry", "angry")}``.
    """

    folder: Path
    files: tuple[str, ...]
    labels: tuple[int, ...]
    stamps: tuple[tuple[int, int], ...]
    renamed: dict[str, str]
    merged: dict[str, tuple[str, ...]]


def find_splits(root: str | Path) -> Layout:
    """Find the training and validation folders under ``root``, directly or nested in ``images/``.

    Says which were taken where they are not ``root/train`` and ``root/validation``.

    Raises:
        UserError: ``root`` is no folder, or holds no pair of splits.
    """
    base = Path(str(root)).expanduser()  # a folder called 2013 comes from the command line as a number
    if not base.exists():
        raise UserError(f"data.root={root}: there is no such folder (looked for {base.absolute()}).")
    if not base.is_dir():
        raise UserError(f"data.root={root}: this is a file; give the folder that holds train/ and validation/.")
    for nesting in NESTINGS:
        train = _child(base / nesting, TRAIN_NAMES)
        validation = _child(base / nesting, VALIDATION_NAMES)
        if train and validation:
            if (train, validation) != (base / "train", base / "validation"):
                log.info("Training on the images in %s, validating on those in %s.", train, validation)
            return Layout(base, train, validation)
    raise UserError(
        f"data.root={root}: found no pair of train/ and validation/ folders there, nor under images/ "
        f"(val/, valid/ and test/ are taken for validation/ too). It holds: {_names(base)}."
    )


def list_images(folder: Path, ignore: Sequence[str] = ()) -> Listing:
    """List the images of one split, class folder by class folder.

    Hidden files and files that are no images by their name (``Thumbs.db``) are passed over.

    Args:
        folder: holds one folder for each class, under its name, a synonym, or another case of either.
        ignore: names of folders that are to be passed over.

    Raises:
        UserError: a class is missing or empty, or a folder has the name of no class.
    """
    found: list[tuple[int, str, tuple[int, int]]] = []
    folders: dict[str, list[str]] = {name: [] for name in CLASSES}
    unknown: list[str] = []
    for entry in sorted(_entries(folder), key=lambda entry: entry.name):
        if not entry.is_dir() or entry.name in ignore:
            continue
        name = _CLASS_OF.get(entry.name.lower())
        if name is None:
            unknown.append(entry.name)
            continue
        folders[name].append(entry.name)
        label = CLASSES.index(name)
        found += [(label, f"{entry.name}/{file}", stamp) for file, stamp in _images(Path(entry.path))]
    if unknown:
        raise UserError(
            f"{folder}: {', '.join(map(repr, unknown))} is the name of none of the seven classes "
            f"({', '.join(CLASSES)}); rename the folder, or pass it over with data.ignore=[{','.join(unknown)}]."
        )
    present = {label for label, _, _ in found}
    if lacking := [name for label, name in enumerate(CLASSES) if label not in present]:
        given = ", ".join(
            f"{name} ({'the folder holds none' if folders[name] else 'no such folder'})" for name in lacking
        )
        raise UserError(
            f"{folder}: no images of {given}; expected at least one image ({', '.join(sorted(SUFFIXES))}) in each of "
            f"the folders {', '.join(CLASSES)}. It holds: {_names(folder)}. Complete it, or change data.root."
        )
    found.sort()
    return Listing(
        folder=folder,
        files=tuple(file for _, file, _ in found),
        labels=tuple(label for label, _, _ in found),
        stamps=tuple(stamp for _, _, stamp in found),
        renamed={given: name for name, names in folders.items() for given in names if given != name},
        merged={name: tuple(names) for name, names in folders.items() if len(names) > 1},
    )


def within(layout: Layout, folder: Path, files: Iterable[str]) -> frozenset[str]:
    """Of ``files``, relative to the layout's root, those in the split ``folder``, relative to it."""
    start = folder.relative_to(layout.root).as_posix() + "/"
    return frozenset(file.removeprefix(start) for file in files if file.startswith(start))


def without(listing: Listing, files: Container[str]) -> Listing:
    """The listing without those of ``files``, which are relative to its folder."""
    kept = [i for i, file in enumerate(listing.files) if file not in files]
    return replace(
        listing,
        files=tuple(listing.files[i] for i in kept),
        labels=tuple(listing.labels[i] for i in kept),
        stamps=tuple(listing.stamps[i] for i in kept),
    )


def _images(folder: Path) -> Iterable[tuple[str, tuple[int, int]]]:
    for entry in _entries(folder):
        if os.path.splitext(entry.name)[1].lower() not in SUFFIXES:  # noqa: PTH122 (faster)
            continue
        if entry.is_file():
            status = entry.stat()
            yield entry.name, (status.st_size, status.st_mtime_ns)
        elif entry.is_symlink():  # leads nowhere: listed, so that the decoding names it
            yield entry.name, (0, 0)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}).") from error


def _child(folder: Path, names: Sequence[str]) -> Path | None:
    if not folder.is_dir():
        return None
    # Sorted, so that of Train/ and train/ the lower case is taken wherever the data lie.
    found = sorted(entry.name for entry in _entries(folder) if entry.is_dir())
    children = {name.lower(): folder / name for name in found}
    return next((children[name] for name in names if name in children), None)


def _names(folder: Path, most: int = 12) -> str:
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in _entries(folder))
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "nothing"
