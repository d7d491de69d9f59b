"""Class folders, ``root/train/angry/1.jpg``, or a zip archive of them."""

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fer_exp.data.datamodule import ImageDataModule
from fer_exp.data.folders import find_splits, list_split, subfolders
from fer_exp.data.sources.base import ImageSource, Split
from fer_exp.data.sources.zip_archive import ZipArchive
from fer_exp.errors import UserError, join_first
from fer_exp.files import expand_path, printable

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

    def __init__(self, root: str | Path, ignore: Sequence[str] = (), needs_validation: bool = True) -> None:
        self.root, self.ignore = Path(root), tuple(ignore)
        found = find_splits(self.root, lambda place: subfolders(self.root / place), needs_validation)
        self.folders = {name: self.root / place for name, place in found.items()}
        self._matched: set[str] = set()

    def location(self, name: str) -> Path | None:
        """See ``ImageSource.location``."""
        return self.folders.get(name)

    def split(self, name: str) -> Split | None:
        """See ``ImageSource.split``."""
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
