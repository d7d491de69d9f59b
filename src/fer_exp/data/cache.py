"""Decoded splits on disk, each known by the identity of the files it was made from."""

import hashlib
import json
import logging
import math
import os
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from platformdirs import user_cache_path
from torch import Tensor

from fer_exp.data.dataset import CHUNK_SIZE, ImageDataset, MemmapImages, begin_fingerprint, fingerprint, make_dataset
from fer_exp.data.decode import SIZE, Progress, decode_files
from fer_exp.data.sources.class_folders import CLASSES, Listing, without
from fer_exp.errors import UserError
from fer_exp.files import printable, replacing

log = logging.getLogger(__name__)

VERSION = 4  # of the cache's files and of the decoding; raise it when either changes


@dataclass(frozen=True)
class CacheEntry:
    """What a cache file holds.

    Attributes:
        path: of the file.
        key: of the listing that it was made from (see ``cache_key``).
        labels: (N,) int64, of the images that can be read.
        unreadable: of each file that cannot be read, its name in the listing and the reason.
        stated: the fingerprint that the file was given.
        offset: where in the file the images begin, in bytes.
        ahead: its ``contents``, where they are being read into memory.
    """

    path: Path
    key: str
    labels: Tensor
    unreadable: dict[str, str]
    stated: str
    offset: int
    ahead: Future[tuple[Tensor, str]] | None = None

    def contents(self, in_memory: bool) -> tuple[Tensor | MemmapImages, str]:
        """The images, (N, 1, 48, 48) uint8, and the fingerprint of what the file holds.

        Raises:
            OSError, ValueError: they cannot be read.
        """
        if in_memory:
            return self.ahead.result() if self.ahead is not None else self.begin_to_read()()
        images = MemmapImages(self.path, self.offset, (len(self.labels), 1, SIZE, SIZE))
        return images, fingerprint(images, self.labels, CLASSES)

    def begin_to_read(self) -> Callable[[], tuple[Tensor, str]]:
        """What reads the contents into memory, in few calls: beside a busy thread another waits at each one.

        Raises:
            OSError: the file cannot be opened.
        """
        pixels = np.empty((len(self.labels), 1, SIZE, SIZE), np.uint8)
        digest = begin_fingerprint(self.labels, CLASSES)
        file = self.path.open("rb", buffering=0)
        file.seek(self.offset)

        def read() -> tuple[Tensor, str]:
            left = pixels.reshape(-1).data
            with file:
                while left and (count := file.readinto(left)):  # once, but for more than 2 GiB
                    left = left[count:]
            if left:
                raise ValueError("it ends before its images do")
            digest.update(pixels.data)
            return torch.from_numpy(pixels), digest.hexdigest()

        return read


def default_cache_dir() -> Path:
    """``$FER_EXP_CACHE``, or the user's cache folder of the platform (``~/.cache/fer_exp`` on Linux)."""
    return Path(os.environ.get("FER_EXP_CACHE") or user_cache_path("fer_exp")).expanduser()


def cache_file(folder: Path, cache_dir: Path) -> Path:
    """The one file for this folder: what was made from its earlier contents is replaced, and does not pile up."""
    place = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    return cache_dir / f"{folder.name}-{place}.npz"


def kept_size(folder: Path, cache_dir: Path) -> int:
    """Size of what is kept of a split, in bytes; 0 where nothing is."""
    with suppress(OSError):
        return cache_file(folder, cache_dir).stat().st_size
    return 0


def cache_key(listing: Listing) -> str:
    """A key that changes when a file is changed, added or removed: the names, sizes and times of all files."""
    return hashlib.sha256(json.dumps([VERSION, SIZE, CLASSES, listing.identity]).encode()).hexdigest()


def load_split(
    listing: Listing,
    cache_dir: Path,
    progress: Progress | None = None,
    in_memory: bool = True,
    kept: CacheEntry | None = None,
) -> tuple[ImageDataset, dict[str, str]]:
    """Read a split from the cache; decode it, and write the cache, where it is not there yet.

    A cache that cannot be read is decoded anew, and one that cannot be written is done without. Two processes at
    once do the work twice, and the second replaces the first's file with its like.

    Args:
        listing: of the split.
        cache_dir: where the cache lies.
        progress: called with (files decoded, files in all).
        in_memory: false leaves the images in the cache's file, and decodes them there.
        kept: what ``read_ahead`` found, where the images are to be in memory.

    Returns:
        The images that can be read; and of each file that cannot, its name in the listing and the reason.

    Raises:
        UserError: the images are to stay in the cache's file, and it cannot be written.
    """
    path, key = cache_file(listing.folder, cache_dir), cache_key(listing)
    if kept is None or kept.key != key:  # another process may have renewed it since
        kept = _read_or_tell(path)
    cached = _of(listing, key, kept, in_memory)
    if cached is not None:
        dataset, unreadable = cached
        # What could not be read may have been locked, or away: its stamp is the same once it is back.
        bad = [str(listing.folder / file) for file in unreadable]
        if not bad or len(decode_files(bad)[1]) == len(bad):
            return dataset, unreadable
    paths = [str(listing.folder / file) for file in listing.files]
    faces, failures = decode_files(paths, progress, None if in_memory else _blank_on_disk(path.parent, len(paths)))
    place = {path: i for i, path in enumerate(paths)}
    reasons = {place[file]: reason for file, reason in failures}
    unreadable = {listing.files[i]: reason for i, reason in reasons.items()}
    images = torch.from_numpy(_without_rows(faces, reasons)).reshape(-1, 1, SIZE, SIZE)
    readable = without(listing, unreadable)
    dataset = make_dataset(images, _labels(readable), CLASSES, readable.files)
    try:
        _write(path, key, dataset, unreadable)
    except OSError as error:
        if not in_memory:
            raise _cannot_stay_on_disk(path.parent, error) from error
        log.warning(
            "The decoded images cannot be kept in %s (%s): they will be decoded again next time. "
            "Set data.cache_dir or FER_EXP_CACHE to a folder that can be written.",
            printable(path.parent),
            error.strerror or error,
        )
    if in_memory:
        return dataset, unreadable
    stored = _of(listing, key, _read_or_tell(path), in_memory)
    if stored is None:
        raise _cannot_stay_on_disk(path.parent, OSError("what is read there is not what was written"))
    return stored


def _blank_on_disk(folder: Path, n: int) -> np.ndarray:
    """(n, 48, 48) uint8 in a file without a name, which is gone when nobody holds the array."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # to miss the room now, and not as a bus error in the middle
                os.posix_fallocate(file.fileno(), 0, n * SIZE * SIZE)
            return np.memmap(file, np.uint8, "w+", shape=(n, SIZE, SIZE))
    except OSError as error:
        raise _cannot_stay_on_disk(folder, error) from error


def _cannot_stay_on_disk(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"The decoded images cannot be kept in {printable(folder)} ({error.strerror or error}), and they are not to be "
        "kept in memory. Set data.cache_dir or FER_EXP_CACHE to a folder that can be written and has room, or give "
        "data.in_memory=true."
    )


def _without_rows(faces: np.ndarray, rows: Iterable[int]) -> np.ndarray:
    """``faces`` with the others moved up over ``rows``, in place: there may be more than fit into memory."""
    kept = np.delete(np.arange(len(faces)), list(rows))
    if len(kept) < len(faces):
        for start in range(0, len(kept), CHUNK_SIZE):
            part = kept[start : start + CHUNK_SIZE]
            faces[start : start + len(part)] = faces[part]
    return faces[: len(kept)]


def _labels(listing: Listing) -> Tensor:
    return torch.tensor(listing.labels, dtype=torch.int64)


def read_ahead(folder: Path, cache_dir: Path, pool: Executor) -> CacheEntry | None:
    """Let a thread of ``pool`` read and hash the images that are kept of a split, while its files are being listed.

    Returns:
        None where nothing is kept, or it cannot be read: that is told where it is read again, when it is its turn.
    """
    with suppress(Exception):
        kept = _read(cache_file(folder, cache_dir))
        return replace(kept, ahead=pool.submit(kept.begin_to_read()))
    return None


def _read_or_tell(path: Path) -> CacheEntry | None:
    try:
        return _read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # whatever a damaged file makes the reader raise, the images are still there
        _tell_damaged(path, error)
        return None


def _read(path: Path) -> CacheEntry:
    """Read all but the images of a cache file."""
    with zipfile.ZipFile(path) as archive:
        if "labels.npy" not in archive.namelist():
            raise ValueError("another version wrote it")
        key, stated = (str(_array(archive, name, path)) for name in ("key", "fingerprint"))
        unreadable = json.loads(str(_array(archive, "unreadable", path)))
        if not isinstance(unreadable, dict):
            raise ValueError("it names no files")
        labels = torch.from_numpy(_array(archive, "labels", path))
        if labels.dtype != torch.int64:
            raise ValueError(f"its labels are {labels.dtype}")
        return CacheEntry(path, key, labels, unreadable, stated, _find_images(archive, path, len(labels)))


def _of(
    listing: Listing, key: str, kept: CacheEntry | None, in_memory: bool
) -> tuple[ImageDataset, dict[str, str]] | None:
    """What is kept, as the images of ``listing``; None where nothing is, or, after a warning, where it is not those."""
    if kept is None:
        return None
    if kept.key != key:
        log.warning(
            "%s has changed since it was decoded, or another version decoded it: decoding the images anew.",
            printable(listing.folder),
        )
        return None
    readable = without(listing, kept.unreadable)
    try:
        images, found = kept.contents(in_memory)
        if found != kept.stated:
            raise ValueError("its contents do not fit its fingerprint")
        named = len(readable.files) + len(kept.unreadable)
        if named != len(listing.files) or not torch.equal(kept.labels, _labels(readable)):
            raise ValueError("it names other files")
    except (OSError, ValueError) as error:
        _tell_damaged(kept.path, error)
        return None
    return ImageDataset(images, kept.labels, CLASSES, readable.files, found), kept.unreadable


def _tell_damaged(path: Path, error: Exception) -> None:
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    log.warning("The cache %s cannot be read (%s): decoding the images anew.", printable(path), printable(why))


def _find_images(archive: zipfile.ZipFile, path: Path, n: int) -> int:
    """Where in an ``.npz`` file its ``n`` images begin, in bytes: from there they are read at once, or by the batch.

    Raises:
        ValueError: they are not so many, no images, compressed, or larger than the file.
    """
    shape, dtype, header = _header(archive, "images", path)
    if dtype != np.uint8 or shape != (n, 1, SIZE, SIZE):
        raise ValueError(f"it holds {shape} values of {dtype} for {n} images")
    member = archive.getinfo("images.npy")
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError("its images are compressed")
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)  # of the two lengths in a local header: name, and extra field
        lengths = struct.unpack("<HH", file.read(4))
    start: int = member.header_offset + 30 + sum(lengths) + header
    return start


def _header(archive: zipfile.ZipFile, name: str, path: Path) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape and kind of one array of an ``.npz`` file, and the size of what tells them, in bytes.

    Raises:
        ValueError: it is larger than the file: ``np.load`` takes what memory a header asks for.
    """
    with archive.open(f"{name}.npy") as member:
        np.lib.format.read_magic(member)
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        size = member.tell()
    if math.prod(shape) * dtype.itemsize > path.stat().st_size:
        raise ValueError(f"it declares {shape} values of {dtype}, more than it can hold")
    return shape, dtype, size


def _array(archive: zipfile.ZipFile, name: str, path: Path) -> np.ndarray:
    """Read one array of an ``.npz`` file.

    Raises:
        ValueError: it is larger than the file, or no array of plain values.
    """
    _header(archive, name, path)
    with archive.open(f"{name}.npy") as member:
        array: np.ndarray = np.lib.format.read_array(member, allow_pickle=False)
    return array


def _write(path: Path, key: str, dataset: ImageDataset, unreadable: dict[str, str]) -> None:
    assert isinstance(dataset.images, Tensor)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft, draft.open("xb") as file:
        np.savez(
            file,
            images=dataset.images.numpy(),
            labels=dataset.labels.numpy(),
            key=key,
            fingerprint=dataset.fingerprint,
            unreadable=json.dumps(unreadable),
        )
