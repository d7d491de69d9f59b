"""Class folders in a zip archive, read without unpacking it."""

import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fer_exp.data.decode import ImageInput, InvalidImage
from fer_exp.data.folders import MACHINE_FOLDERS, SUFFIXES, ImageTree, find_splits, split_tree
from fer_exp.data.sources.base import ImageSource, Split
from fer_exp.errors import UserError
from fer_exp.files import printable

MAX_IMAGE_BYTES = 100 * 2**20  # unpacked


class ZipArchive(ImageSource):
    """An image source: a zip archive of class folders. For the arguments see ``ClassFolders``."""

    def __init__(self, root: Path, ignore: Sequence[str] = (), needs_validation: bool = True) -> None:
        self.root, self.ignore = root, tuple(ignore)
        try:
            with zipfile.ZipFile(root) as archive:
                images = [member for member in archive.infolist() if _is_image(member.filename)]
        except (OSError, zipfile.BadZipFile) as error:
            raise UserError(f"data.root={printable(root)}: cannot be read as a zip archive ({error})") from error
        self._images = {member.filename: member for member in images}
        for name in self._images:
            if name.startswith("/") or ".." in PurePosixPath(name).parts or "\\" in name:
                raise UserError(f"data.root={printable(root)}: unsafe path in the archive: {printable(name)}")
        folders = {f"{folder}" for name in self._images for folder in PurePosixPath(name).parents} - {"."}
        # An archive may hold one folder that holds everything.
        tops = sorted({folder.partition("/")[0] for folder in folders})
        self._base = f"{tops[0]}/" if len(tops) == 1 and tops[0] not in ("train", "images") else ""
        self._places = find_splits(root, lambda place: _children(folders, self._base + place), needs_validation)
        self._matched: set[str] = set()

    def location(self, name: str) -> Path | None:
        """See ``ImageSource.location``."""
        return self.root / self._base / self._places[name] if name in self._places else None

    def split(self, name: str) -> Split | None:
        """See ``ImageSource.split``."""
        if (location := self.location(name)) is None:
            return None
        start = self._base + (f"{self._places[name]}/" if self._places[name] else "")
        tree = ImageTree()
        for full_name, member in self._images.items():
            path = full_name.removeprefix(start)
            skipped = [ignored for ignored in self.ignore if path.startswith(f"{ignored}/")]
            self._matched.update(skipped)
            if full_name.startswith(start) and not skipped:
                tree.images[path] = (member.file_size, member.CRC, 0, 0)  # replaces size and times of a file
        tree.folders = sorted({path.partition("/")[0] for path in tree.images if "/" in path})
        prefix = start.removeprefix(self._base)
        members = {path: self._images[start + path] for path in tree.images}
        return split_tree(
            name, location, tree, prefix, lambda paths: _Contents(self.root, [members[path] for path in paths])
        )

    def warnings(self) -> list[str]:
        """See ``ImageSource.warnings``."""
        unmatched = [name for name in self.ignore if name not in self._matched]
        return [f"data.ignore: no folder {', '.join(map(printable, unmatched))} in the splits."] if unmatched else []


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


def _children(folders: Iterable[str], place: str) -> list[str]:
    """Names of the folders directly in ``place``, which is empty or ends in a slash."""
    inner = (folder.removeprefix(place) for folder in folders if folder.startswith(place))
    return sorted({path.partition("/")[0] for path in inner if path})
