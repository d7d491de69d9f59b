"""Class folders: ``root/train/angry/1.jpg``. Finds the splits, and lists the images of each."""

import hashlib
import heapq
import logging
import os
from array import array
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG

from fer_exp.data.classes import fer_class
from fer_exp.data.sources.base import Entries, Split
from fer_exp.errors import UserError, join_first
from fer_exp.files import expand_path, printable, quote_override

log = logging.getLogger(__name__)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".jfif"})
NESTINGS = (".", "images", "images/images")
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}
MACHINE_FOLDERS = frozenset({"__MACOSX", "@eaDir"})  # copies and thumbnails that archives and network drives add
_MAX_NAMED = 12

Stamp = tuple[int, int, int, int]  # size, modification time, change time, inode: what a replaced file changes


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
        entries = _scan(folder / place)
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
            elif entry.name in MACHINE_FOLDERS or not (_is_folder(entry) or (entry.is_symlink() and not place)):
                continue
            elif path in ignore:
                tree.ignored.add(path)
            else:
                if not place:
                    tree.folders.append(path)
                if _is_folder(entry):
                    heapq.heappush(pending, (by_link or entry.is_symlink(), path))
    return tree


class ClassFolders:
    """An image source: a folder of splits, each with one folder per class.

    The splits lie directly in ``root`` or nested in ``images/``; ``val``, ``valid`` and ``training`` are recognized.
    Without a validation folder, ``test`` is the validation split. A folder of class folders alone is the training
    split.

    Args:
        root: the folder.
        ignore: folders to skip, by name (``contempt``) or path within a split (``angry/blurred``).
        needs_validation: whether a validation split is required.

    Raises:
        UserError: ``root`` is not a folder, or holds no splits.
    """

    def __init__(self, root: str | Path, ignore: Sequence[str] = (), needs_validation: bool = True) -> None:
        self.root = find_root(root)
        self.ignore = tuple(os.path.normpath(str(name)).replace("\\", "/") for name in ignore)
        self.folders = find_splits(self.root, needs_validation)
        self._matched: set[str] = set()

    def location(self, name: str) -> Path | None:
        """See ``ImageSource.location``."""
        return self.folders.get(name)

    def split(self, name: str) -> Split | None:
        """List one split. See ``ImageSource.split``."""
        if name not in self.folders:
            return None
        split, ignored = list_split(name, self.folders[name], self.root, self.ignore)
        self._matched |= ignored
        return split

    def warnings(self) -> list[str]:
        """See ``ImageSource.warnings``."""
        if not (unmatched := sorted({*self.ignore} - self._matched)):
            return []
        names = join_first([repr(printable(name)) for name in unmatched], _MAX_NAMED)
        return [f"data.ignore: no folder {names} in the splits. Expected a name, or a path in a split: angry/blurred."]


def list_split(name: str, folder: Path, root: Path, ignore: Sequence[str] = ()) -> tuple[Split, set[str]]:
    """List the images of a folder of class folders.

    Args:
        name: of the split.
        folder: the folder.
        root: image names are relative to it if it holds ``folder``, else they are absolute.
        ignore: as in ``ClassFolders``.

    Returns:
        The split, and the ignored folders that it has.

    Raises:
        UserError: the folder cannot be read, a class has no images, or a class is ambiguous.
    """
    tree = walk_images(folder, ignore)
    by_label: dict[str, list[str]] = {label: [] for label in sorted(tree.folders, key=_class_order)}
    for path in tree.images:
        label, separator, _ = path.partition("/")
        if separator:
            by_label[label].append(path)
    _check_classes(folder, tree, by_label)
    paths = [path for images in by_label.values() for path in sorted(images)]
    labels = tuple(i for i, images in enumerate(by_label.values()) for _ in images)
    place = folder.relative_to(root) if folder.is_relative_to(root) else folder
    prefix = "" if place == Path() else f"{place.as_posix()}/"

    def read() -> Entries:
        inputs = [os.path.join(folder, path) for path in paths]  # noqa: PTH118
        return Entries(tuple(prefix + path for path in paths), labels, tuple(by_label), inputs)

    # No name holds a NUL, so different listings give different bytes.
    digest = hashlib.sha256("\0".join([prefix, *paths]).encode(errors="surrogatepass"))
    digest.update(array("Q", (number % 2**64 for path in paths for number in tree.images[path])).tobytes())
    return Split(name, folder, digest.hexdigest(), read), tree.ignored


def find_root(root: str | Path) -> Path:
    """Check ``data.root`` and return it as a path.

    Raises:
        UserError: it is not a folder that can be read.
    """
    if root is None or not str(root):
        raise UserError("data.root is empty; expected the folder that holds train/ and validation/: data.root=DIR")
    path, given = expand_path(root), f"data.root={printable(root)}"
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{given}: no such folder ({printable(path.absolute())})") from error
    except OSError as error:
        raise UserError(f"{given}: cannot be opened ({error.strerror})") from error
    if not path.is_dir():
        raise UserError(f"{given}: this is a file; expected the folder that holds train/ and validation/")
    return path


def find_splits(root: Path, needs_validation: bool = True) -> dict[str, Path]:
    """Find the folders of the splits in ``root`` or nested in ``images/``.

    Raises:
        UserError: there is no training split, or no validation split where one is required.
    """
    for nesting in NESTINGS:
        found = {name: _child(root / nesting, names) for name, names in SPLIT_NAMES.items()}
        splits = {name: folder for name, folder in found.items() if folder}
        if needs_validation and "test" in splits:
            splits.setdefault("validation", splits["test"])
        if "train" in splits and ("validation" in splits or not needs_validation):
            usual = {name: root / name for name in splits}
            if splits != usual:
                log.info(
                    "Splits: %s",
                    ", ".join(f"{name} in {printable(folder)}" for name, folder in splits.items()),
                )
            return splits
    holds_splits = any(_child(root, names) for names in SPLIT_NAMES.values())
    if not needs_validation and not holds_splits and _child(root):
        return {"train": root}
    raise UserError(
        f"data.root={printable(root)}: no train/ and validation/ (or val/, valid/, test/) there or in images/."
        f"{_suggest_parent(root)} To train without a validation folder, add data.val_fraction=0.1. "
        f"The folder holds: {_list_names(root)}."
    )


def _suggest_parent(root: Path) -> str:
    parent = Path(os.path.abspath(root)).parent  # noqa: PTH100 (resolve would follow links)
    with suppress(UserError):  # the parent cannot be read
        if _child(parent, SPLIT_NAMES["train"]) and _child(parent, (*SPLIT_NAMES["validation"], "test")):
            return f" If this is one split, give the folder above: {quote_override('data.root', parent)}."
    return ""


def _check_classes(folder: Path, tree: ImageTree, by_label: dict[str, list[str]]) -> None:
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
            f"{printable(folder)}: ambiguous class: {shown}. Move or rename the folder, or list it in data.ignore."
        )
    empty = [printable(f"{label}/") for label, images in by_label.items() if not images]
    if empty or not by_label:
        raise UserError(
            f"{printable(folder)}: no images in {join_first(empty, _MAX_NAMED) or 'class folders'}; expected "
            f"{', '.join(sorted(SUFFIXES))}. Add images, or skip the folder with data.ignore=[NAME]. "
            f"It holds: {_list_names(folder)}."
        )


def _class_order(label: str) -> str:
    """Sort key that gives FER2013 classes the same order under any of their names."""
    return fer_class(label) or label


def _stamp(entry: os.DirEntry[str]) -> Stamp | None:
    """The stamp of a file; None if it is not a file, zeros if it cannot be looked at (the decoder reports it)."""
    try:
        status = entry.stat()
    except OSError:
        return 0, 0, 0, 0
    is_file = S_ISREG(status.st_mode)
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino) if is_file else None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{printable(folder)}: cannot be read ({error.strerror})") from error


def _child(folder: Path, names: Sequence[str] = ()) -> Path | None:
    """The first of ``names`` that is a folder in ``folder``, in any case; without ``names``, any folder."""
    if not os.path.isdir(folder):  # noqa: PTH112 (Path.is_dir raises without permission)
        return None
    # Sorted, so that "train" wins over "Train".
    found = sorted(entry.name for entry in _scan(folder) if _is_folder(entry) and entry.name not in MACHINE_FOLDERS)
    if not names:
        return folder / found[0] if found else None
    children = {name.lower(): folder / name for name in found}
    return next((children[name] for name in names if name in children), None)


def _list_names(folder: Path) -> str:
    names = sorted(printable(entry.name) + ("/" if _is_folder(entry) else "") for entry in _scan(folder))
    return join_first(names, _MAX_NAMED) or "nothing"
