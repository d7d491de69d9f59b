"""What an image source provides: for each split, the names, labels and inputs of its images."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fer_exp.data.decode import ImageInput
from fer_exp.errors import UserError

Stamp = tuple[int, int, int, int]  # of a file: size, modification time, change time, inode
NO_STAMP: Stamp = (0, 0, 0, 0)  # of a file that cannot be looked at


@dataclass(frozen=True)
class Entries:
    """The images of one split before decoding.

    Attributes:
        names: N unique names: paths relative to the source's ``root``, or ``table.csv:LINE``.
        labels: N indices into ``label_names``.
        label_names: label names as the source spells them.
        inputs: N inputs of the decoder; can be iterated several times.
        groups: N groups of images that belong together (a subject, a video), or None.
    """

    names: tuple[str, ...]
    labels: tuple[int, ...]
    label_names: tuple[str, ...]
    inputs: Iterable[ImageInput]
    groups: tuple[str, ...] | None = None


class NoRowsError(UserError):
    """A table has no rows of a split."""


def make_entries(
    names: Sequence[str], labels: Sequence[str], inputs: Iterable[ImageInput], groups: Sequence[str] | None = None
) -> Entries:
    """Make entries from N label names; an image without a label ("") has an invalid input, and gets any label."""
    label_names = tuple(sorted({*labels} - {""}))
    index = {label: i for i, label in enumerate(label_names)}
    groups = None if groups is None else tuple(groups)
    return Entries(tuple(names), tuple(index.get(label, 0) for label in labels), label_names, inputs, groups)


def file_stamp(file: str | Path) -> Stamp:
    """What a replaced file changes; zeros if the file cannot be looked at, which the decoder reports."""
    try:
        return stamp_of(os.stat(file))  # noqa: PTH116 (faster than Path.stat)
    except OSError:
        return NO_STAMP


def stamp_of(status: os.stat_result) -> Stamp:
    """The stamp of a file that was looked at."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def hash_facts(*facts: Any) -> str:
    """SHA-256 of plain values, for ``Split.identity``."""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@dataclass(frozen=True)
class Split:
    """One split of an image source; its entries are read only if the cache does not hold its images.

    Attributes:
        name: ``train``, ``validation`` or ``test``.
        location: folder or file that holds the images.
        identity: changes whenever an image or a label may have changed.
        read: reads the entries.
        ignore: labels or folders that are skipped; the cache has a place for each choice of them.
    """

    name: str
    location: Path
    identity: str
    read: Callable[[], Entries]
    ignore: tuple[str, ...] = ()


class ImageSource(Protocol):
    """Where labeled images come from.

    Attributes:
        root: folder to which the names of images, and the paths in lists of images, are relative.
    """

    root: Path

    def location(self, name: str) -> Path | None:
        """Return the folder or file of a split without reading it; None if the source does not have the split."""

    def split(self, name: str) -> Split | None:
        """Return the split ``train``, ``validation`` or ``test``; None if the source does not have it.

        Raises:
            UserError: the split is incomplete or cannot be read.
        """

    def warnings(self) -> list[str]:
        """Return settings that had no effect, after the splits were listed; the user sees them as warnings."""
        return []
