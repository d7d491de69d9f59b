"""List the images in a folder, and in a folder of class folders.

Imports neither torch nor lightning.
"""

import hashlib
import heapq
import logging
import os
from array import array
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG

from fer_exp.data.classes import fer_class
from fer_exp.data.decode import ImageInput
from fer_exp.data.sources.base import NO_STAMP, Entries, Split, Stamp, stamp_of
from fer_exp.errors import UserError, join_first
from fer_exp.files import printable, quote_override

log = logging.getLogger(__name__)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".jfif"})
MACHINE_FOLDERS = frozenset({"__MACOSX", "@eaDir"})  # copies and thumbnails that archives and network drives add
NESTINGS = ("", "images/", "images/images/")
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}
SPLIT_FOLDERS = frozenset(name for names in SPLIT_NAMES.values() for name in names)
_MAX_NAMED = 12


@dataclass
class ImageTree:
    """The image files in and below a folder.

    Attributes:
        images: path relative to the folder, with forward slashes -> stamp.
        folders: names of the folders at the top level.
        ignored: folders that were skipped because the user said so.
        same: folder that a link leads to again -> the path it was visited by.
    """

    images: dict[str, Stamp] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    ignored: set[str] = field(default_factory=set)
    same: dict[str, str] = field(default_factory=dict)


def walk_images(folder: Path, ignore: Iterable[str] = ()) -> ImageTree:
    """List the image files in and below a folder.

    Hidden files and folders, ``__MACOSX`` and ``@eaDir`` are skipped. A folder that several paths lead to is visited
    once, by a path without links if there is one.

    Args:
        folder: where to begin.
        ignore: folders to skip, by name at the top level (``contempt``) or by path (``angry/blurred``).

    Raises:
        UserError: a folder cannot be read.
    """
    tree, seen = ImageTree(), dict[tuple[int, int], str]()
    pending = [(False, "")]  # (reached by a link, path): folders before links
    while pending:
        by_link, place = heapq.heappop(pending)
        entries = scan_folder(folder / place)
        status = os.stat(folder / place)  # noqa: PTH116 (faster than Path.stat)
        visited = seen.setdefault((status.st_dev, status.st_ino), place)
        if visited != place:
            tree.same[place] = visited
            continue
        while entries:
            entry = entries.pop()  # an entry caches its status: release it
            path = f"{place}/{entry.name}" if place else entry.name
            is_image = os.path.splitext(entry.name)[1].lower() in SUFFIXES  # noqa: PTH122
            if is_image and (stamp := _stamp(entry)):
                tree.images[path] = stamp
            elif entry.name in MACHINE_FOLDERS or not (is_folder(entry) or (entry.is_symlink() and not place)):
                continue
            elif path in ignore:
                tree.ignored.add(path)
            else:
                if not place:
                    tree.folders.append(path)
                if is_folder(entry):
                    heapq.heappush(pending, (by_link or entry.is_symlink(), path))
    return tree


def list_split(name: str, folder: Path, root: Path, ignore: Sequence[str] = ()) -> tuple[Split, set[str]]:
    """List the images of a folder of class folders.

    Args:
        name: of the split.
        folder: the folder.
        root: image names are relative to it if it holds ``folder``, else they are absolute.
        ignore: folders to skip, by name (``contempt``) or path (``angry/blurred``).

    Returns:
        The split, and the ignored folders that it has.

    Raises:
        UserError: the folder cannot be read, a class has no images, or a class is ambiguous.
    """
    tree = walk_images(folder, ignore)
    place = folder.relative_to(root) if folder.is_relative_to(root) else folder
    prefix = "" if place == Path() else f"{place.as_posix()}/"
    split = split_tree(name, folder, tree, prefix, lambda paths: [os.path.join(folder, path) for path in paths])  # noqa: PTH118
    return split, tree.ignored


def split_tree(
    name: str, location: Path, tree: ImageTree, prefix: str, inputs: Callable[[list[str]], Iterable[ImageInput]]
) -> Split:
    """Make a split of the images in class folders.

    Args:
        name: of the split.
        location: folder or archive of the images.
        tree: the images below the class folders.
        prefix: prefix of the image names.
        inputs: maps paths in ``tree`` to inputs of the decoder.

    Raises:
        UserError: a class has no images, or a class is ambiguous.
    """
    by_label: dict[str, list[str]] = {label: [] for label in sorted(tree.folders, key=_class_order)}
    for path in tree.images:
        label, separator, _ = path.partition("/")
        if separator:
            by_label[label].append(path)
    _check_classes(f"{location}", tree, by_label)
    paths = [path for images in by_label.values() for path in sorted(images)]
    labels = tuple(i for i, images in enumerate(by_label.values()) for _ in images)

    def read() -> Entries:
        return Entries(tuple(prefix + path for path in paths), labels, tuple(by_label), inputs(paths))

    # No name holds a NUL, so different listings give different bytes.
    digest = hashlib.sha256("\0".join([prefix, *paths]).encode(errors="surrogatepass"))
    digest.update(array("Q", (number % 2**64 for path in paths for number in tree.images[path])).tobytes())
    return Split(name, location, digest.hexdigest(), read)


def find_splits(root: Path, list_children: Callable[[str], list[str]], needs_validation: bool = True) -> dict[str, str]:
    """Find the folders of the splits, directly in the root or nested in ``images/``.

    Args:
        root: folder or archive, for messages.
        list_children: maps a path relative to the root to the names of its subfolders.
        needs_validation: whether a validation split is required.

    Returns:
        Split -> path relative to the root; "" is the root itself.

    Raises:
        UserError: there is no training split, or no validation split where one is required.
    """
    for nesting in NESTINGS:
        children = list_children(nesting)
        splits = {split: nesting + name for split in SPLIT_NAMES if (name := _match(children, SPLIT_NAMES[split]))}
        if needs_validation and "test" in splits:
            splits.setdefault("validation", splits["test"])
        if "train" in splits and ("validation" in splits or not needs_validation):
            if splits != {name: name for name in splits}:
                log.info("Splits: %s", ", ".join(f"{split} in {printable(place)}/" for split, place in splits.items()))
            return splits
    children = list_children("")
    holds_splits = any(_match(children, names) for names in SPLIT_NAMES.values())
    if children and not needs_validation and not holds_splits:
        return {"train": ""}
    held = join_first([f"{printable(name)}/" for name in children], _MAX_NAMED) or "no folders"
    raise UserError(
        f"data.root={printable(root)}: no train/ and validation/ (or val/, valid/, test/) there or in images/."
        f"{_suggest_parent(root)} To train without a validation folder, add data.val_fraction=0.1. It holds: {held}."
    )


def _match(children: Sequence[str], names: Sequence[str]) -> str | None:
    """The child with the first of ``names`` that exists, in any case; "train" wins over "Train"."""
    by_name = {child.lower(): child for child in sorted(children)}
    return next((by_name[name] for name in names if name in by_name), None)


def _suggest_parent(root: Path) -> str:
    parent = Path(os.path.abspath(root)).parent  # noqa: PTH100 (resolve would follow links)
    with suppress(UserError):  # the parent cannot be read
        children = subfolders(parent)
        if _match(children, SPLIT_NAMES["train"]) and _match(children, (*SPLIT_NAMES["validation"], "test")):
            return f" If this is one split, give the folder above: {quote_override('data.root', parent)}."
    return ""


def subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted; none if it does not exist.

    Raises:
        UserError: the folder cannot be read.
    """
    if not os.path.isdir(folder):  # noqa: PTH112 (Path.is_dir raises without permission)
        return []
    return sorted(entry.name for entry in scan_folder(folder) if is_folder(entry) and entry.name not in MACHINE_FOLDERS)


def _check_classes(place: str, tree: ImageTree, by_label: dict[str, list[str]]) -> None:
    """Refuse folders whose class is ambiguous, and classes without images.

    Raises:
        UserError: there are such.
    """
    ambiguous = [
        f"{place}/ is the same folder as {first}/"
        for place, first in tree.same.items()
        if place.partition("/")[0] != first.partition("/")[0]
    ]
    for inner in {path.rpartition("/")[0] for path in tree.images if path.count("/") > 1}:
        label, *below = inner.split("/")
        others = [name for name in below if fer_class(name) not in (None, fer_class(label))]
        ambiguous += [f"{inner}/ is in {label}/ but has the name of another class"] if others else []
    if ambiguous:
        shown = join_first([printable(line) for line in sorted(ambiguous)], _MAX_NAMED, "; ", "; and {} more")
        raise UserError(
            f"{printable(place)}: ambiguous class: {shown}. Move or rename the folder, or list it in data.ignore."
        )
    empty = [printable(f"{label}/") for label, images in by_label.items() if not images]
    if empty or not by_label:
        raise UserError(
            f"{printable(place)}: no images in {join_first(empty, _MAX_NAMED) or 'class folders'}; expected "
            f"{', '.join(sorted(SUFFIXES))}. Add images, or skip the folder with data.ignore=[NAME]. "
            f"It holds: {join_first([printable(name) for name in sorted(tree.folders)], _MAX_NAMED) or 'no folders'}."
        )


def _class_order(label: str) -> str:
    """Sort key that gives FER2013 classes the same order under any of their names."""
    return fer_class(label) or label


def _stamp(entry: os.DirEntry[str]) -> Stamp | None:
    """The stamp of a file; None if it is not a file, zeros if it cannot be looked at (the decoder reports it)."""
    try:
        status = entry.stat()
    except OSError:
        return NO_STAMP
    return stamp_of(status) if S_ISREG(status.st_mode) else None


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def scan_folder(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder that are not hidden.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{printable(folder)}: cannot be read ({error.strerror})") from error
