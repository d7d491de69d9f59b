"""Class folders, ``root/train/angry/1.jpg``, or a zip archive of them."""

import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from fer_exp.data.datamodule import ImageDataModule
from fer_exp.data.decode import ImageInput, InvalidImage
from fer_exp.data.folders import MACHINE_FOLDERS, SUFFIXES, ImageTree, find_splits, list_split, split_tree, subfolders
from fer_exp.data.sources.base import ImageSource, Split
from fer_exp.errors import UserError, join_first
from fer_exp.files import expand_path, printable

MAX_IMAGE_BYTES = 100 * 2**20  # of an image in an archive, unpacked
_MAX_NAMED = 12


@dataclass(kw_only=True, eq=False, repr=False)
class FolderDataModule(ImageDataModule):
    """Serves images in class folders.

    The splits lie directly in ``root`` or nested in ``images/``; ``val``, ``valid`` and ``training`` are recognized.
    Without a validation folder, ``test`` is the validation split. With ``val_fraction``, a folder of class folders
    alone is the training split.

    Args:
        root: folder or zip archive that holds ``train/`` and ``validation/``.
        ignore: folders to skip, by name (``contempt``) or path in a split (``angry/blurred``).
    """

    root: str | Path
    ignore: list[str] | str = field(default_factory=list)

    def open_source(self) -> ImageSource:
        """See ``ImageDataModule.open_source``."""
        names = [self.ignore] if isinstance(self.ignore, str | int) else self.ignore
        ignore = [os.path.normpath(str(name).replace("\\", "/")) for name in names]
        root = find_root(self.root)
        kind = ClassFolders if root.is_dir() else ZipArchive
        return kind(root, ignore, needs_validation=not self.val_fraction)


class ClassFolders(ImageSource):
    """An image source: a folder of splits, each with one folder per class. For the arguments see the data module."""

    _base = ""  # folder below the root that holds everything

    def __init__(self, root: str | Path, ignore: Sequence[str] = (), needs_validation: bool = True) -> None:
        self.root, self.ignore = Path(root), tuple(ignore)
        found = find_splits(self.root, self._subfolders, needs_validation)
        self.folders = {name: self.root / self._base / place for name, place in found.items()}
        self._matched: set[str] = set()

    def location(self, name: str) -> Path | None:
        """See ``ImageSource.location``."""
        return self.folders.get(name)

    def split(self, name: str) -> Split | None:
        """See ``ImageSource.split``."""
        if name not in self.folders:
            return None
        split, ignored = self._list(name, self.folders[name])
        self._matched |= ignored
        return replace(split, ignore=self.ignore)

    def warnings(self) -> list[str]:
        """See ``ImageSource.warnings``."""
        if not (unmatched := sorted({*self.ignore} - self._matched)):
            return []
        names = join_first([repr(printable(name)) for name in unmatched], _MAX_NAMED)
        return [f"data.ignore: no folder {names} in the splits. Expected a name, or a path in a split: angry/blurred."]

    def _subfolders(self, place: str) -> list[str]:
        return subfolders(self.root / place)

    def _list(self, name: str, folder: Path) -> tuple[Split, set[str]]:
        return list_split(name, folder, self.root, self.ignore)


class ZipArchive(ClassFolders):
    """An image source: a zip archive of class folders, read without unpacking it."""

    def __init__(self, root: Path, ignore: Sequence[str] = (), needs_validation: bool = True) -> None:
        try:
            with zipfile.ZipFile(root) as archive:
                self._images = {file.filename: file for file in archive.infolist() if _is_image(file.filename)}
        except (OSError, zipfile.BadZipFile) as error:
            raise UserError(f"data.root={printable(root)}: cannot be read as a zip archive ({error})") from error
        for name in self._images:
            if name.startswith("/") or ".." in PurePosixPath(name).parts or "\\" in name:
                raise UserError(f"data.root={printable(root)}: unsafe path in the archive: {printable(name)}")
        self._folders = {f"{folder}" for name in self._images for folder in PurePosixPath(name).parents} - {"."}
        tops = [folder for folder in self._folders if "/" not in folder]
        self._base = f"{tops[0]}/" if len(tops) == 1 and tops[0] not in ("train", "images") else ""
        super().__init__(root, ignore, needs_validation)

    def _subfolders(self, place: str) -> list[str]:
        start = self._base + place
        inner = (folder.removeprefix(start) for folder in self._folders if folder.startswith(start))
        return sorted({path.partition("/")[0] for path in inner if path})

    def _list(self, name: str, folder: Path) -> tuple[Split, set[str]]:
        start = "" if folder == self.root else f"{folder.relative_to(self.root).as_posix()}/"
        tree = ImageTree()
        for full_name, member in self._images.items():
            path = full_name.removeprefix(start)
            skipped = [ignored for ignored in self.ignore if path.startswith(f"{ignored}/")]
            tree.ignored.update(skipped)
            if full_name.startswith(start) and not skipped:
                tree.images[path] = (member.file_size, member.CRC, 0, 0)  # replaces size and times of a file
        tree.folders = sorted({path.partition("/")[0] for path in tree.images if "/" in path})

        def contents(paths: list[str]) -> _Contents:
            return _Contents(self.root, [self._images[start + path] for path in paths])

        return split_tree(name, folder, tree, start.removeprefix(self._base), contents), tree.ignored


def find_root(root: str | Path) -> Path:
    """Check ``data.root`` and return it as a path.

    Raises:
        UserError: it is neither a folder nor a zip archive, or cannot be read.
    """
    expected = "expected the folder (or zip archive) that holds train/ and validation/"
    if root is None or not str(root):
        raise UserError(f"data.root is empty; {expected}: data.root=DIR")
    path, given = expand_path(root), f"data.root={printable(root)}"
    try:
        is_archive = not path.is_dir() and path.stat() and zipfile.is_zipfile(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{given}: no such folder ({printable(path.absolute())})") from error
    except OSError as error:
        raise UserError(f"{given}: cannot be opened ({error.strerror})") from error
    if not path.is_dir() and not is_archive:
        raise UserError(f"{given}: this is a file; {expected}")
    return path


@dataclass(frozen=True)
class _Contents:
    """The contents of members of an archive, read one after the other."""

    archive: Path
    members: list[zipfile.ZipInfo]

    def __iter__(self) -> Iterator[ImageInput]:
        with zipfile.ZipFile(self.archive) as archive:
            for member in self.members:
                if member.file_size > MAX_IMAGE_BYTES:
                    yield InvalidImage(f"too large: {member.file_size:,} bytes")
                    continue
                try:
                    yield archive.read(member)
                except (RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error, OSError) as error:
                    yield InvalidImage(f"cannot be unpacked ({printable(error)})")


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    is_hidden = any((part.startswith(".") and part != "..") or part in MACHINE_FOLDERS for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not is_hidden
