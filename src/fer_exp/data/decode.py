"""Image files of any mode and size to 48x48 grey, in parallel.

Imports neither torch nor lightning: the worker processes start with this module, and start fast.
"""

import multiprocessing
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

SIZE = 48  # pixels a side
_CHUNK = 256  # files a task
_PARALLEL_FROM = 2000  # files; below, starting the worker processes takes longer than the decoding

Failure = tuple[str, str]  # (file, reason)


def decode_file(path: str | Path) -> np.ndarray:
    """Read one image as (48, 48) uint8 grey.

    The EXIF rotation is applied, transparency is laid on white, 16-bit values keep their upper byte, and other
    sizes are squeezed to the square with antialiasing, as Keras's ``flow_from_directory`` does.

    Raises:
        OSError, ValueError, SyntaxError, Image.DecompressionBombError: the file cannot be read as an image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            if image.mode == "L" and image.size == (SIZE, SIZE) and image.format != "MPO":
                face = image if not image.getexif() else ImageOps.exif_transpose(image)
                return np.asarray(face)
            image.draft("L", (SIZE, SIZE))  # a large JPEG is decoded at a fraction of its size
            face = _to_grey(ImageOps.exif_transpose(image))
    return np.asarray(face.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def _to_grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L")


def _decode_chunk(paths: Sequence[str]) -> tuple[np.ndarray, list[Failure]]:
    faces = np.zeros((len(paths), SIZE, SIZE), np.uint8)
    failures: list[Failure] = []
    for i, path in enumerate(paths):
        try:
            faces[i] = decode_file(path)
        except UnidentifiedImageError:
            failures.append((path, "not an image"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Warning) as error:
            failures.append((path, str(error)))
    return faces, failures


def decode_files(
    paths: Sequence[str], progress: Callable[[int, int], None] | None = None
) -> tuple[np.ndarray, list[Failure]]:
    """Decode all files, on all cores that this process may use.

    Args:
        paths: N files.
        progress: called with (files done, N) as the work goes on.

    Returns:
        (N, 48, 48) uint8 in the order of ``paths``, and the files that could not be read, whose places are blank.
    """
    chunks = [paths[i : i + _CHUNK] for i in range(0, len(paths), _CHUNK)]
    workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 16)
    faces, failures, done = [], [], 0
    pool = None
    if workers > 1 and len(paths) >= _PARALLEL_FROM:
        # Spawned, not forked: torch's threads may be running in this process, and a fork would copy their locks.
        pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        for part, bad in (pool.map if pool else map)(_decode_chunk, chunks):
            faces.append(part)
            failures += bad
            done += len(part)
            if progress:
                progress(done, len(paths))
    finally:
        if pool:
            pool.shutdown(cancel_futures=True)
    return np.concatenate(faces) if faces else np.zeros((0, SIZE, SIZE), np.uint8), failures
