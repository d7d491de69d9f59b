"""Image files of any mode and size to 48x48 grey, in parallel.

Imports neither torch nor lightning: the worker processes start with this module, and start fast.
"""

import codecs
import logging
import multiprocessing
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from fer_exp.files import printable

log = logging.getLogger(__name__)

SIZE = 48  # pixels a side
# Of an image. To decode so many takes 140 MB of grey, 420 MB of colour, 750 MB of colour with transparency and 1.5 GB
# of 32-bit values, and each worker process decodes one at a time.
MOST_PIXELS = 50_000_000
MOST_REDUCED_PIXELS = 8 * MOST_PIXELS  # of a JPEG that is decoded at an eighth of its width and height
_TURNS = {  # by EXIF orientation (CIPA DC-008, 4.6.4)
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_NOT_READ = ("EPS", "FITS")  # the one is a program, which need not end; the other unpacks to any size
_HEAD = 1024  # bytes that tell what a file is
_DAMAGED = "damaged or cut off"

# What is given the suffix of an image and is none that Pillow knows, by how it begins.
_BEGINNINGS = {
    b"%PDF": "a PDF document, not an image",
    b"PK\3\4": "an archive or an office document, not an image",
    b"version https://git-lfs": "a pointer of Git LFS, not the image: git lfs pull fetches that",
    **dict.fromkeys((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*"), _DAMAGED),
}
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis")

_CHUNK = 256  # files a task
_PARALLEL_FROM = 2000  # files; below, starting the worker processes takes longer than the decoding

Failure = tuple[str, str]  # (file, reason)
Progress = Callable[[int, int], None]  # called with (files done, files in all)
Part = TypeVar("Part")


class UnreadableImageError(Exception):
    """A file is no image, or one that is not decoded; the message says which, in words that stand beside its name."""


def decode_file(path: str | Path | IO[bytes]) -> np.ndarray:
    """Read one image, or the first frame of an animation, as (48, 48) uint8 grey.

    The EXIF rotation is applied and transparency is laid on white. 16-bit values keep their upper byte; 32-bit ones
    are scaled from the narrowest of 0..1, 0..255, 0..65535 and 0..maximum that holds them. Other sizes are squeezed
    to the square, whatever their proportions (as Keras's ``flow_from_directory`` does), with antialiasing.

    Raises:
        UnreadableImageError: the file is no image, or too large: it has more than ``MOST_PIXELS``, or as a JPEG that is
            decoded at a fraction of its size more than ``MOST_REDUCED_PIXELS``.
        Exception: it is damaged; which one depends on what Pillow's many readers stumble over.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's name no file
        with open_image(path) as image:
            image.draft("L", (SIZE, SIZE))  # a large JPEG is decoded at a fraction of its size
            grey = _to_grey(_upright(image))
    return np.asarray(grey.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says.

    Not by Pillow's ``exif_transpose``, which also writes all other notes of the camera anew, and fails at odd ones.
    """
    image.load()  # by which a TIFF turns itself, and forgets its orientation
    orientation: Any = image.getexif().get(ExifTags.Base.Orientation)
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def open_image(path: str | Path | IO[bytes]) -> Image.Image:
    """Open an image, without decoding it.

    Raises:
        UnreadableImageError: the file is no image, or too large.
    """
    pillows_most, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # which knows of no reduction
    try:
        image = Image.open(path)
    except UnidentifiedImageError as error:
        raise UnreadableImageError(_what_it_is(_head(path))) from error
    finally:
        Image.MAX_IMAGE_PIXELS = pillows_most
    if reason := _why_not_decoded(image):
        image.close()
        raise UnreadableImageError(reason)
    return image


def _why_not_decoded(image: Image.Image) -> str:
    if image.format in _NOT_READ:
        return f"of the format {image.format}, which is not read here: save it as JPEG or PNG"
    width, height = image.size
    # Of a progressive JPEG all coefficients are in memory before the first pixel, however small the result.
    is_reduced = isinstance(image, JpegImageFile) and "progressive" not in image.info
    most = MOST_REDUCED_PIXELS if is_reduced else MOST_PIXELS
    if width * height > most:
        return f"too large: {width:,} x {height:,} pixels, and {most // 10**6} million are the most; scale it down"
    return ""


def _head(path: str | Path | IO[bytes]) -> bytes:
    if isinstance(path, str | Path):
        with Path(path).open("rb") as file:
            return file.read(_HEAD)
    path.seek(0)
    return path.read(_HEAD)


def _what_it_is(head: bytes) -> str:
    """In words, what a file is that begins with ``head`` and that Pillow does not know."""
    if not any(head):
        return "nothing but zeros, not an image" if head else "an empty file"
    for beginning, words in _BEGINNINGS.items():
        if head.startswith(beginning):
            return words
    if head[4:8] == b"ftyp":
        return "a HEIC or AVIF image, which is not read here: save it as JPEG" if head[8:12] in _HEIC else "a film"
    if b"<svg" in head.lower():
        return "an SVG drawing, not an image of pixels"
    if b"<!doctype html" in head.lower() or b"<html" in head.lower():
        return "a web page, not an image"
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # minds no character that is cut at the end
    except UnicodeDecodeError:
        return "not an image"
    return "text, not an image" if all(sign.isprintable() or sign.isspace() for sign in text) else "not an image"


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
    """What ``decode_file`` stumbled over, in one line of words that stands beside the file's name."""
    if isinstance(error, UnreadableImageError):
        return str(error)
    if isinstance(error, MemoryError):
        return "more memory is needed to decode it than there is"
    detail = printable(" ".join(str(error).split()) or type(error).__name__)
    if isinstance(error, Image.DecompressionBombError):  # a part of the file is larger than the whole declares
        return f"too large ({detail})"
    return getattr(error, "strerror", None) or f"{_DAMAGED} ({detail})"


def decode_files(
    paths: Sequence[str], progress: Progress | None = None, faces: np.ndarray | None = None
) -> tuple[np.ndarray, list[Failure]]:
    """Decode all files, on all cores that this process may use.

    Args:
        paths: N files.
        progress: called with (files done, N) as the work goes on.
        faces: (N, 48, 48) uint8 to decode them into; None for a new array.

    Returns:
        (N, 48, 48) uint8 in the order of ``paths``, and the files that could not be read, whose places are blank.
    """
    if faces is None:
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
    from fer_exp.training.hardware import (
        available_cores,  # here, because it imports torch, and workers import this module
    )

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
