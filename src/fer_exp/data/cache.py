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
from fer_exp.data.folders import CLASSES, Listing, without
from fer_exp.data.imageset import ImageSet, make_image_set

log = logging.getLogger(__name__)

VERSION = 2  # of the cache's files and of the decoding; raise it when either changes


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


def load_split(listing: Listing, cache_dir: Path, progress: Progress | None = None) -> tuple[ImageSet, dict[str, str]]:
    """Read a split from the cache; decode it, and write the cache, where it is not there yet.

    A cache that cannot be read is decoded anew, and one that cannot be written is done without. Two processes at
    once do the work twice, and the second replaces the first's file with its like.

    Returns:
        The images that can be read; and of each file that cannot, its name in the listing and the reason.
    """
    path, key = cache_file(listing, cache_dir), cache_key(listing)
    cached = _read(path, key, listing)
    if cached is not None:
        image_set, unreadable = cached
        # What could not be read may have been locked, or away: its stamp is the same once it is back.
        bad = [str(listing.folder / file) for file in unreadable]
        if not bad or len(decode_files(bad)[1]) == len(bad):
            return image_set, unreadable
    faces, failures = decode_files([str(listing.folder / file) for file in listing.files], progress)
    place = {str(listing.folder / file): i for i, file in enumerate(listing.files)}
    reasons = {place[file]: reason for file, reason in failures}
    unreadable = {listing.files[i]: reason for i, reason in reasons.items()}
    image_set = _bundle(np.delete(faces, list(reasons), axis=0) if reasons else faces, without(listing, unreadable))
    _write(path, key, image_set, unreadable)
    return image_set, unreadable


def _bundle(faces: np.ndarray, listing: Listing) -> ImageSet:
    images = torch.from_numpy(faces).reshape(len(listing.files), 1, SIZE, SIZE)
    return make_image_set(images, torch.tensor(listing.labels, dtype=torch.int64), CLASSES, listing.files)


def _read(path: Path, key: str, listing: Listing) -> tuple[ImageSet, dict[str, str]] | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if str(arrays["key"]) != key:
                log.warning(
                    "%s has changed since it was decoded, or another version decoded it: decoding the images anew.",
                    listing.folder,
                )
                return None
            unreadable = json.loads(str(arrays["unreadable"]))
            image_set = _bundle(arrays["images"], without(listing, unreadable))
            if image_set.fingerprint != str(arrays["fingerprint"]):
                raise ValueError("its contents do not fit its fingerprint")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # whatever a damaged file makes the reader raise, the images are still there
        log.warning("The cache %s cannot be read (%s): decoding the images anew.", path, error)
        return None
    return image_set, unreadable


def _write(path: Path, key: str, image_set: ImageSet, unreadable: dict[str, str]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft, draft.open("xb") as file:
            np.savez(
                file,
                images=image_set.images.numpy(),
                key=key,
                fingerprint=image_set.fingerprint,
                unreadable=json.dumps(unreadable),
            )
    except OSError as error:
        log.warning(
            "The decoded images cannot be kept in %s (%s): they will be decoded again next time. "
            "Set data.cache_dir or FER_EXP_CACHE to a folder that can be written.",
            path.parent,
            error.strerror or error,
        )
