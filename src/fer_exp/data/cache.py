"""Decoded splits on disk, keyed by the identity of the files they came from."""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from platformdirs import user_cache_path

from fer_exp.data.decode import SIZE, decode_files
from fer_exp.data.folders import CLASSES, Listing
from fer_exp.data.imageset import ImageSet, make_image_set
from fer_exp.errors import UserError

log = logging.getLogger(__name__)

VERSION = 1  # of the cache's files and of the decoding; raise it when either changes


def default_cache_dir() -> Path:
    """``$FER_EXP_CACHE``, or the user's cache folder of the platform (``~/.cache/fer_exp`` on Linux)."""
    return Path(os.environ.get("FER_EXP_CACHE") or user_cache_path("fer_exp"))


def cache_key(listing: Listing) -> str:
    """A key that changes when a file is changed, added or removed: the names, sizes and times of all files."""
    identity = json.dumps([VERSION, SIZE, str(listing.folder.resolve()), listing.files, listing.stamps])
    return hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()[:32]


def load_split(listing: Listing, cache_dir: Path, progress: Callable[[int, int], None] | None = None) -> ImageSet:
    """Read a split from the cache; decode it, and write the cache, where it is not there yet.

    A cache that cannot be read is decoded anew, and one that cannot be written is done without. Two processes at
    once do the work twice, and the second replaces the first's file with its like.

    Raises:
        UserError: files that are no readable images, all of them named.
    """
    path = cache_dir / f"{cache_key(listing)}.npz"
    cached = _read(path, listing)
    if cached is not None:
        return cached
    faces, failures = decode_files([str(listing.folder / file) for file in listing.files], progress)
    if failures:
        shown = "\n".join(f"  {file}: {reason}" for file, reason in failures[:20])
        more = f"\n  and {len(failures) - 20} more" if len(failures) > 20 else ""
        raise UserError(
            f"{listing.folder}: {len(failures)} of {len(listing.files)} files cannot be read as images:\n{shown}{more}\n"
            "Remove or repair them and start again."
        )
    image_set = make_image_set(
        torch.from_numpy(faces).unsqueeze(1), torch.tensor(listing.labels), CLASSES, listing.files
    )
    _write(path, image_set)
    return image_set


def _read(path: Path, listing: Listing) -> ImageSet | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])
            fingerprint = str(arrays["fingerprint"])
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever a damaged file makes the reader raise, the images are still there
        log.warning("The cache %s cannot be read (%s): decoding the images anew.", path, error)
        return None
    expected = (len(listing.files), 1, SIZE, SIZE)
    if tuple(images.shape) != expected or labels.tolist() != list(listing.labels):
        log.warning("The cache %s does not fit its images: decoding them anew.", path)
        return None
    return ImageSet(images, labels, CLASSES, listing.files, fingerprint)


def _write(path: Path, image_set: ImageSet) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            try:
                np.savez(
                    file,
                    images=image_set.images.numpy(),
                    labels=image_set.labels.numpy(),
                    fingerprint=np.array(image_set.fingerprint),
                )
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        log.warning(
            "The decoded images cannot be kept in %s (%s): they will be decoded again next time. "
            "Set data.cache_dir or FER_EXP_CACHE to a folder that can be written.",
            path.parent,
            error.strerror or error,
        )
