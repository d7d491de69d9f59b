"""Decoded splits on disk, each known by the identity of the files it was made from."""

import hashlib
import json
import logging
import os
from pathlib import Path

import numpy as np
import torch
from platformdirs import user_cache_path

from fer_exp.atomic import replacing
from fer_exp.data.decode import SIZE, Progress, decode_files
from fer_exp.data.folders import CLASSES, Listing
from fer_exp.data.imageset import ImageSet, make_image_set
from fer_exp.errors import UserError

log = logging.getLogger(__name__)

VERSION = 1  # of the cache's files and of the decoding; raise it when either changes
_MOST_NAMED = 20  # unreadable files in an error message


def default_cache_dir() -> Path:
    """``$FER_EXP_CACHE``, or the user's cache folder of the platform (``~/.cache/fer_exp`` on Linux)."""
    return Path(os.environ.get("FER_EXP_CACHE") or user_cache_path("fer_exp")).expanduser()


def cache_file(listing: Listing, cache_dir: Path) -> Path:
    """The one file for this folder: what was made from its earlier contents is replaced, and does not pile up."""
    place = hashlib.sha256(os.fsencode(listing.folder.resolve())).hexdigest()[:16]
    return cache_dir / f"{listing.folder.name}-{place}.npz"


def cache_key(listing: Listing) -> str:
    """A key that changes when a file is changed, added or removed: the names, sizes and times of all files."""
    identity = json.dumps([VERSION, SIZE, CLASSES, listing.files, listing.labels, listing.stamps])
    return hashlib.sha256(identity.encode()).hexdigest()


def load_split(listing: Listing, cache_dir: Path, progress: Progress | None = None) -> ImageSet:
    """Read a split from the cache; decode it, and write the cache, where it is not there yet.

    A cache that cannot be read is decoded anew, and one that cannot be written is done without. Two processes at
    once do the work twice, and the second replaces the first's file with its like.

    Raises:
        UserError: files that are no readable images, all of them named.
    """
    path, key = cache_file(listing, cache_dir), cache_key(listing)
    cached = _read(path, key, listing)
    if cached is not None:
        return cached
    faces, failures = decode_files([str(listing.folder / file) for file in listing.files], progress)
    if failures:
        shown = "\n".join(f"  {file}: {reason}" for file, reason in failures[:_MOST_NAMED])
        more = f"\n  and {len(failures) - _MOST_NAMED} more" if len(failures) > _MOST_NAMED else ""
        raise UserError(
            f"{listing.folder}: {len(failures)} of {len(listing.files)} files cannot be read as images:\n"
            f"{shown}{more}\nRepair or remove them, or set data.root to a sound copy."
        )
    image_set = _bundle(faces, listing)
    _write(path, key, image_set)
    return image_set


def _bundle(faces: np.ndarray, listing: Listing) -> ImageSet:
    images = torch.from_numpy(faces).reshape(len(listing.files), 1, SIZE, SIZE)
    return make_image_set(images, torch.tensor(listing.labels), CLASSES, listing.files)


def _read(path: Path, key: str, listing: Listing) -> ImageSet | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if str(arrays["key"]) != key:
                log.warning(
                    "%s has changed since it was decoded, or another version decoded it: decoding the images anew.",
                    listing.folder,
                )
                return None
            image_set = _bundle(arrays["images"], listing)
            if image_set.fingerprint != str(arrays["fingerprint"]):
                raise ValueError("its contents do not fit its fingerprint")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # whatever a damaged file makes the reader raise, the images are still there
        log.warning("The cache %s cannot be read (%s): decoding the images anew.", path, error)
        return None
    return image_set


def _write(path: Path, key: str, image_set: ImageSet) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft, draft.open("xb") as file:
            np.savez(file, images=image_set.images.numpy(), key=key, fingerprint=image_set.fingerprint)
    except OSError as error:
        log.warning(
            "The decoded images cannot be kept in %s (%s): they will be decoded again next time. "
            "Set data.cache_dir or FER_EXP_CACHE to a folder that can be written.",
            path.parent,
            error.strerror or error,
        )
