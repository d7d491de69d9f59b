"""Decoded splits on disk: the images as a ``.npy`` file, and a JSON file that describes them."""

import errno
import glob
import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from platformdirs import user_cache_path
from torch import Tensor

from fer_exp.data.dataset import ImageDataset, MemmapImages, hash_images
from fer_exp.data.decode import Decoded, ImageFormat, Progress, decode_images
from fer_exp.data.sources.base import Entries, Split, hash_facts
from fer_exp.errors import UserError
from fer_exp.files import printable, replacing

log = logging.getLogger(__name__)

VERSION = 8  # of the cache files and of the decoding; increase it when either changes

MAX_BYTES_IN_MEMORY = 2_500_000_000  # of one split: 1,085,069 images of 1x48x48


class _OutdatedError(Exception):
    pass


def default_cache_dir() -> Path:
    """``$FER_EXP_CACHE``, or the user's cache folder (``~/.cache/fer_exp`` on Linux)."""
    return Path(os.environ.get("FER_EXP_CACHE") or user_cache_path("fer_exp")).expanduser()


def cache_file(split: Split, image_format: ImageFormat, cache_dir: Path) -> Path:
    """The JSON file of a split: one per location, name, ``ignore`` and format. Outdated images are replaced."""
    place = hashlib.sha256(os.fsencode("\0".join([str(split.location.resolve()), *split.ignore]))).hexdigest()[:16]
    kind = f"{image_format.size}{image_format.color}-{image_format.resize}"
    return cache_dir / f"{split.name}-{place}-{kind}.json"


def load_split(
    split: Split,
    image_format: ImageFormat,
    cache_dir: Path,
    in_memory: bool | None = None,
    progress: Progress | None = None,
) -> ImageDataset:
    """Read the images of a split from the cache, or decode and cache them.

    A damaged cache is replaced. If the cache cannot be written, images in memory are used without it.

    Args:
        split: the split.
        image_format: format of the decoded images.
        cache_dir: folder of the cache.
        in_memory: whether the images are read into memory, or stay in the cache; None reads up to
            ``MAX_BYTES_IN_MEMORY``.
        progress: called while images are decoded.

    Raises:
        UserError: ``in_memory`` is false and the cache cannot be written.
    """
    path, key = cache_file(split, image_format, cache_dir), cache_key(split, image_format)
    if cached := _read(path, key, in_memory):
        return cached
    entries = split.read()
    n = len(entries.names)
    try:
        _decode_to_disk(path, key, split, entries, image_format, progress)
        return _load(path, key, in_memory)
    except OSError as error:
        problem = f"The decoded images cannot be cached in {printable(path.parent)} ({error.strerror or error})"
        remedy = "Set data.cache_dir or FER_EXP_CACHE to a folder with enough space"
        if not _is_in_memory(in_memory, n, image_format.shape):
            raise UserError(f"{problem}. {remedy}, or data.in_memory=true.") from error
        log.warning("%s: they are decoded again next time. %s.", problem, remedy)
    decoded = decode_images(entries.inputs, n, image_format, progress)
    images = torch.from_numpy(decoded.images)
    digests = hash_images(images)
    return _assemble(_describe(key, split, entries, digests, decoded), images, digests)


def cache_key(split: Split, image_format: ImageFormat) -> str:
    """A key that changes when an image of the split or its format changes."""
    return hash_facts(VERSION, split.identity, image_format.shape, image_format.resize)


def _is_in_memory(in_memory: bool | None, images: int, shape: Sequence[int]) -> bool:
    return images * math.prod(shape) <= MAX_BYTES_IN_MEMORY if in_memory is None else in_memory


def _read(path: Path, key: str, in_memory: bool | None) -> ImageDataset | None:
    """Read a cached split; None if there is none, or a warning was logged because it is outdated or damaged."""
    try:
        return _load(path, key, in_memory)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except _OutdatedError as error:
        log.info("%s has changed: decoding its images again.", printable(error))
    except Exception as error:  # a damaged file can make the readers raise anything
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        log.warning("The cache %s cannot be read (%s): decoding the images again.", printable(path), printable(reason))
    return None


def _load(path: Path, key: str, in_memory: bool | None) -> ImageDataset:
    details = json.loads(path.read_bytes())
    if details["key"] != key:
        raise _OutdatedError(details["location"])
    file = _images_file(path, key)
    shape = (len(details["names"]), *details["shape"])
    is_in_memory = _is_in_memory(in_memory, shape[0], shape[1:])
    images = torch.from_numpy(np.load(file)) if is_in_memory else MemmapImages(file)
    if tuple(images.shape) != shape:
        raise ValueError(f"it holds {tuple(images.shape)} values")
    digests = hash_images(images)
    if _hash_digests(digests) != details["sha256"]:
        raise ValueError("its images do not have the recorded hash")
    return _assemble(details, images, digests)


def _assemble(details: dict[str, Any], images: Tensor | MemmapImages, digests: np.ndarray) -> ImageDataset:
    """Combine the content of both files, without the unreadable images."""
    names, originals = details["names"], [tuple(original) for original in details["originals"]]
    unreadable = {int(index): reason for index, reason in details["unreadable"].items()}
    dataset = ImageDataset(
        images,
        torch.tensor(details["labels"], dtype=torch.int64),
        tuple(details["label_names"]),
        tuple(names),
        digests,
        groups=tuple(details["groups"]) if details["groups"] else None,
        originals=tuple(originals[i] for i in details["original"]),
        unreadable={names[i]: reason for i, reason in unreadable.items()},
    )
    if not unreadable:
        return dataset
    return dataset.select(torch.tensor([i for i in range(len(names)) if i not in unreadable], dtype=torch.int64))


def _describe(key: str, split: Split, entries: Entries, digests: np.ndarray, decoded: Decoded) -> dict[str, Any]:
    """The content of the JSON file."""
    originals = {original: i for i, original in enumerate(dict.fromkeys(decoded.originals))}
    return {
        "key": key,
        "location": str(split.location),
        "shape": decoded.images.shape[1:],
        "sha256": _hash_digests(digests),
        "label_names": entries.label_names,
        "unreadable": decoded.unreadable,
        "originals": list(originals),
        "original": [originals[original] for original in decoded.originals],  # indices into originals
        "labels": entries.labels,
        "names": entries.names,
        "groups": entries.groups,
    }


def _decode_to_disk(
    path: Path, key: str, split: Split, entries: Entries, image_format: ImageFormat, progress: Progress | None
) -> None:
    """Decode chunk by chunk into the cache, so that the images need not fit into memory."""
    n, shape = len(entries.names), image_format.shape
    size = n * math.prod(shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if size > 1e9:
        where = printable(path.parent)
        log.info("The decoded images take %.1f GB in %s (%.1f GB free).", size / 1e9, where, free / 1e9)
    if size > free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    digests: list[np.ndarray] = []
    # Images get a name of their own, so that the JSON file never describes images of another version.
    with replacing(_images_file(path, key)) as draft, draft.open("xb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (n, *shape)}
        np.lib.format.write_array_header_1_0(file, header)

        def write(images: np.ndarray) -> None:
            digests.append(hash_images(torch.from_numpy(images)))
            file.write(images.data)

        decoded = decode_images(entries.inputs, n, image_format, progress, write)
    details = _describe(key, split, entries, np.concatenate(digests), decoded)
    with replacing(path) as draft:
        draft.write_text(json.dumps(details))
    for outdated in {*path.parent.glob(f"{glob.escape(path.stem)}-*.npy")} - {_images_file(path, key)}:
        with suppress(OSError):  # another process reads it (Windows)
            outdated.unlink()


def _images_file(path: Path, key: str) -> Path:
    return path.with_name(f"{path.stem}-{key[:8]}.npy")


def _hash_digests(digests: np.ndarray) -> str:
    return hashlib.sha256(digests.tobytes()).hexdigest()
