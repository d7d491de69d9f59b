"""Class folders: where the splits lie, which folder is which class, which files are images."""

import hashlib
import heapq
import logging
import os
import re
from array import array
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from stat import S_ISREG

from fer_exp.errors import UserError, join_first
from fer_exp.files import expand_path, printable, quote_override

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
_OF_MACHINES = frozenset({"__MACOSX", "@eaDir"})  # folders that archives and network drives add: copies and thumbnails
_MAX_NAMED = 12  # folders in a message

ON_UNREADABLE = ("error", "skip")  # what may be done about images that cannot be read


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
        ignored: the folders that were passed over because that was asked for.
    """

    folder: Path
    files: tuple[str, ...]
    labels: tuple[int, ...]
    stamps: tuple[tuple[int, int], ...]
    renamed: dict[str, str]
    merged: dict[str, tuple[str, ...]]
    ignored: frozenset[str]

    @cached_property
    def identity(self) -> str:
        """A hash of the names, labels, sizes and times of all files: another one where any of them was changed."""
        # No name holds a NUL, so that no two listings come to the same bytes.
        digest = hashlib.sha256("\0".join(self.files).encode(errors="surrogatepass"))
        digest.update(b"\0\0" + bytes(self.labels))
        digest.update(array("Q", (number % 2**64 for stamp in self.stamps for number in stamp)).tobytes())
        return digest.hexdigest()


def find_splits(root: str | Path) -> Layout:
    """Find the training and validation folders under ``root``, directly or nested in ``images/``.

    Says which were taken where they are not ``root/train`` and ``root/validation``.

    Raises:
        UserError: ``root`` is no folder, or holds no pair of splits.
    """
    given = f"data.root={printable(root)}"
    if root is None or not str(root):
        raise UserError("data.root is empty: name the folder that holds train/ and validation/: data.root=DIR")
    base = expand_path(root)
    try:
        base.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{given}: there is no such folder (looked for {printable(base.absolute())}).") from error
    except OSError as error:
        raise UserError(
            f"{given}: cannot be opened ({error.strerror}). Give a folder that can be read and holds train/ and "
            "validation/."
        ) from error
    if not base.is_dir():
        raise UserError(f"{given}: this is a file; give the folder that holds train/ and validation/.")
    for nesting in NESTINGS:
        train = _child(base / nesting, TRAIN_NAMES)
        validation = _child(base / nesting, VALIDATION_NAMES)
        if train and validation:
            if (train, validation) != (base / "train", base / "validation"):
                log.info(
                    "Training on the images in %s, validating on those in %s.", printable(train), printable(validation)
                )
            return Layout(base, train, validation)
    raise UserError(
        f"{given}: found no pair of train/ and validation/ folders there, nor under images/ "
        f"(val/, valid/ and test/ are taken for validation/ too).{_rather(base)} It holds: {_names(base)}."
    )


def _rather(base: Path) -> str:
    """What to give instead, where ``base`` holds the classes themselves: one split, most likely."""
    if not _child(base, tuple(_CLASS_OF)):
        return ""
    parent = Path(os.path.abspath(base)).parent  # noqa: PTH100 (resolve would follow a link to elsewhere)
    with suppress(UserError):  # a parent that may not be listed
        if _child(parent, TRAIN_NAMES) and _child(parent, VALIDATION_NAMES):
            return f" These are the classes of one split: give the folder above, {quote_override('data.root', parent)}."
    return " These are classes: they belong into folders train/ and validation/, and data.root is the folder of both."


def list_images(folder: Path, ignore: Sequence[str] = ()) -> Listing:
    """List the images of one split, class by class; those in folders below a class folder are of its class.

    Hidden files and folders, and files that are no images by their name (``Thumbs.db``), are passed over. A folder
    that links lead to as well is listed once, so that links in a circle come to an end.

    Args:
        folder: holds one folder for each class, under its name, a synonym, or another case of either.
        ignore: folders that are to be passed over, ``contempt`` or ``angry/blurred``.

    Raises:
        UserError: a class is missing or empty, or a folder has the name of no class, belongs to two, or cannot be
            read.
    """
    folders: dict[str, list[str]] = {name: [] for name in CLASSES}
    unknown: list[str] = []
    lost: set[str] = set()
    ignored: set[str] = set()
    for entry in sorted(_entries(folder), key=lambda entry: entry.name):
        name = _CLASS_OF.get(entry.name.lower())
        if not _is_folder(entry):
            lost |= {name} if name and entry.is_symlink() else set()
        elif entry.name in ignore:
            ignored.add(entry.name)
        elif entry.name not in _OF_MACHINES:
            if name is None:
                unknown.append(entry.name)
            else:
                folders[name].append(entry.name)
    if unknown:
        shown = join_first([repr(name) for name in unknown], _MAX_NAMED)
        raise UserError(
            f"{printable(folder)}: {shown} is the name of none of the seven classes "
            f"({', '.join(CLASSES)}); rename the folder{_or_ignore(unknown)}."
        )
    labels = {given: CLASSES.index(name) for name, names in folders.items() for given in names}
    found, ignored_below = _walk(folder, labels, ignore)
    if lacking := [name for name, images in zip(CLASSES, found, strict=True) if not images]:
        why = {name: "a link that leads to no folder" if name in lost else "no such folder" for name in lacking}
        why |= {name: "the folder holds none" for name in lacking if folders[name]}
        raise UserError(
            f"{printable(folder)}: no images of {', '.join(f'{name} ({why[name]})' for name in lacking)}; expected at "
            f"least one image ({', '.join(sorted(SUFFIXES))}) in each of the folders {', '.join(CLASSES)}. "
            f"It holds: {_names(folder)}. Complete it, or change data.root."
        )
    files = [sorted(images) for images in found]
    return Listing(
        folder=folder,
        files=tuple(chain.from_iterable(files)),
        labels=tuple(label for label, names in enumerate(files) for _ in names),
        stamps=tuple(images[name] for images, names in zip(found, files, strict=True) for name in names),
        renamed={given: name for name, names in folders.items() for given in names if given != name},
        merged={name: tuple(names) for name, names in folders.items() if len(names) > 1},
        ignored=frozenset(ignored | ignored_below),
    )


def _walk(
    folder: Path, class_folders: dict[str, int], ignore: Sequence[str]
) -> tuple[list[dict[str, tuple[int, int]]], set[str]]:
    """Of each class, path and stamp of every image in and below its folders, which are given with their labels.

    And the folders below them that were passed over.
    """
    found: list[dict[str, tuple[int, int]]] = [{} for _ in CLASSES]
    ignored: set[str] = set()
    seen: dict[tuple[int, int], tuple[int, str]] = {}
    unclear: dict[str, str] = {}
    # Folders before links to folders: what is there by both ways has the same name on every machine.
    pending = [((folder / place).is_symlink(), place, label) for place, label in class_folders.items()]
    heapq.heapify(pending)
    while pending:
        is_by_link, place, label = heapq.heappop(pending)
        entries = _entries(folder / place)
        status = (folder / place).stat()
        first_label, first = seen.setdefault((status.st_dev, status.st_ino), (label, place))
        if first_label != label:
            unclear[place] = f"is the same folder as {printable(first)}/"
        if first != place:
            continue
        while entries:
            entry = entries.pop()  # and let it go: once asked, it keeps its whole status
            path = f"{place}/{entry.name}"
            is_image = entry.name[entry.name.rfind(".") :].lower() in SUFFIXES
            if is_image and (stamp := _stamp(entry)):
                found[label][path] = stamp
            elif not _is_folder(entry) or entry.name in _OF_MACHINES:
                continue
            elif path in ignore:
                ignored.add(path)
            else:
                named = _CLASS_OF.get(entry.name.lower())
                if named and named != CLASSES[label]:
                    unclear[path] = f"lies in a folder of {CLASSES[label]} and has a name of {named}"
                else:
                    heapq.heappush(pending, (is_by_link or entry.is_symlink(), path, label))
    if unclear:
        told = [f"{printable(place)}/ {why}" for place, why in sorted(unclear.items())]
        shown = join_first(told, _MAX_NAMED, "; ", "; and {} more")
        raise UserError(
            f"{printable(folder)}: which class is meant? {shown}. Move or rename the folder{_or_ignore(sorted(unclear))}."  # noqa: E501
        )
    return found, ignored


def warn_of_unmatched(ignore: Iterable[str], listings: Sequence[Listing]) -> None:
    """Tell which of the folders that were to be passed over are in none of the splits."""
    if absent := sorted({*ignore}.difference(*(listing.ignored for listing in listings))):
        log.warning(
            "Warning: data.ignore: there is no folder %s in %s, so that nothing was passed over for it. Folders are "
            "named as they lie there: contempt, or angry/blurred.",
            join_first([repr(printable(name)) for name in absent], _MAX_NAMED),
            " or ".join(printable(listing.folder) for listing in listings),
        )


def beginning(layout: Layout, folder: Path) -> str:
    """How paths relative to the layout's root begin that lie in the split ``folder``."""
    return folder.relative_to(layout.root).as_posix() + "/"


def within(layout: Layout, folder: Path, files: Iterable[str]) -> frozenset[str]:
    """Of ``files``, relative to the layout's root, those in the split ``folder``, relative to it."""
    start = beginning(layout, folder)
    return frozenset(file.removeprefix(start) for file in files if file.startswith(start))


def without(listing: Listing, files: Collection[str]) -> Listing:
    """The listing without those of ``files``, which are relative to its folder."""
    if not files:
        return listing
    kept = [i for i, file in enumerate(listing.files) if file not in files]
    return replace(
        listing,
        files=tuple(listing.files[i] for i in kept),
        labels=tuple(listing.labels[i] for i in kept),
        stamps=tuple(listing.stamps[i] for i in kept),
    )


def _stamp(entry: os.DirEntry[str]) -> tuple[int, int] | None:
    """Size and time of a file; None for what is none, such as a folder, or a pipe, which would be waited for forever.

    Zeros where it cannot be looked at: a link that leads nowhere or in a circle, or a file that may be listed and not
    looked at. It is listed all the same, and the decoding names it.
    """
    try:
        status = entry.stat()
    except OSError:
        return 0, 0
    return (status.st_size, status.st_mtime_ns) if S_ISREG(status.st_mode) else None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(
            f"{printable(folder)}: cannot be read ({error.strerror}). Allow this user to read it, or set data.root to a "  # noqa: E501
            "copy that can be read."
        ) from error


def _child(folder: Path, names: Sequence[str]) -> Path | None:
    if not os.path.isdir(folder):  # noqa: PTH112 (Path.is_dir raises where it may not look)
        return None
    # Sorted, so that of Train/ and train/ the lower case is taken wherever the data lie.
    found = sorted(entry.name for entry in _entries(folder) if _is_folder(entry))
    children = {name.lower(): folder / name for name in found}
    return next((children[name] for name in names if name in children), None)


def _names(folder: Path) -> str:
    names = sorted(printable(entry.name) + ("/" if _is_folder(entry) else "") for entry in _entries(folder))
    return join_first(names, _MAX_NAMED) or "nothing"


def _or_ignore(folders: Sequence[str]) -> str:
    """The setting that passes folders over, as it is typed; nothing where they are too many, or too odd to type."""
    if len(folders) > _MAX_NAMED or any(printable(name) != name or {*name} & {*"'\"\\$`!%"} for name in folders):
        return ""
    plain = all(re.fullmatch(r"[A-Za-z0-9_/.-]+", name) for name in folders)
    quoted = folders if plain else [f"'{name}'" for name in folders]
    return f', or pass it over with "data.ignore=[{",".join(quoted)}]"'
