"""Image files of any mode and size to 48x48 grey, in parallel.

Imports neither torch nor lightning: the worker processes start with this module, and start fast.
"""

import logging
import multiprocessing
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

log = logging.getLogger(__name__)

SIZE = 48  # pixels a side
_CHUNK = 256  # files a task
_PARALLEL_FROM = 2000  # files; below, starting the worker processes takes longer than the decoding

Failure = tuple[str, str]  # (file, reason)
Progress = Callable[[int, int], None]  # called with (files done, files in all)
Part = TypeVar("Part")


def decode_file(path: str | Path | IO[bytes]) -> np.ndarray:
    """Read one image, or the first frame of an animation, as (48, 48) uint8 grey.

    The EXIF rotation is applied and transparency is laid on white. 16-bit values keep their upper byte; 32-bit ones
    are scaled from the narrowest of 0..1, 0..255, 0..65535 and 0..maximum that holds them. Other sizes are squeezed
    to the square, whatever their proportions (as Keras's ``flow_from_directory`` does), with antialiasing.

    Raises:
        Exception: the file cannot be read as an image; which one depends on what Pillow's many readers stumble over.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # a large picture is no attack here
        with Image.open(path) as image:
            image.draft("L", (SIZE, SIZE))  # a large JPEG is decoded at a fraction of its size
            grey = _to_grey(ImageOps.exif_transpose(image))
    return np.asarray(grey.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def _to_grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        values = np.nan_to_num(np.asarray(image, np.float64)).clip(0)
        full_scale = next((scale for scale in (1, 255, 65535) if values.max() <= scale), values.max())
        return Image.fromarray(np.rint(values / full_scale * 255).astype(np.uint8))
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
        except Exception as error:  # one odd file must not hide the others from the list
            failures.append((path, failure_reason(error)))
    return faces, failures


def failure_reason(error: Exception) -> str:
    """What ``decode_file`` stumbled over, in words that stand beside the file's name."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def decode_files(paths: Sequence[str], progress: Progress | None = None) -> tuple[np.ndarray, list[Failure]]:
    """Decode all files, on all cores that this process may use.

    Args:
        paths: N files.
        progress: called with (files done, N) as the work goes on.

    Returns:
        (N, 48, 48) uint8 in the order of ``paths``, and the files that could not be read, whose places are blank.
    """
    faces = np.zeros((len(paths), SIZE, SIZE), np.uint8)
    failures: list[Failure] = []
    done = 0
    for part, bad in work_through(_decode_chunk, paths):
        faces[done : done + len(part)] = part
        failures += bad
        done += len(part)
        if progress:
            progress(done, len(paths))
    return faces, failures


def work_through(work: Callable[[Sequence[str]], Part], paths: Sequence[str]) -> Iterator[Part]:
    """Give ``work`` the files in chunks, on all cores that this process may use.

    Args:
        work: a function of a module, which worker processes can import; that module had better import no torch.
        paths: the files.

    Yields:
        What ``work`` returned for each chunk, in the order of the files.
    """
    from fer_exp.hardware import available_cores  # here, because it imports torch, and workers import this module

    workers = min(available_cores(), 16)
    chunks = [paths[i : i + _CHUNK] for i in range(0, len(paths), _CHUNK)]
    done = 0
    if workers > 1 and len(paths) >= _PARALLEL_FROM:
        try:
            for part in _work_in_parallel(work, chunks, workers):
                done += 1
                yield part
        except (BrokenProcessPool, OSError) as error:
            # Such as a script that has no `if __name__ == "__main__"`, which every worker would run again.
            log.warning("The images are decoded by one process, as worker processes cannot work here (%s).", error)
    for chunk in chunks[done:]:
        yield work(chunk)


def _work_in_parallel(
    work: Callable[[Sequence[str]], Part], chunks: Sequence[Sequence[str]], workers: int
) -> Iterator[Part]:
    # Spawned, not forked: torch's threads may be running in this process, and a fork would copy their locks.
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield from pool.map(work, chunks)
    finally:
        pool.shutdown(cancel_futures=True)
