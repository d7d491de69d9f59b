"""Decode images of any mode and size to uint8 (C, S, S), in parallel.

Imports neither torch nor lightning: the worker processes import this module, and start fast.
"""

import io
import logging
import multiprocessing
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, Literal, TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from fer_exp.files import printable

log = logging.getLogger(__name__)

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # Pillow's names; no format that runs a program
_TRANSPOSE = {  # by EXIF orientation (CIPA DC-008, 4.6.4)
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
CHUNK_SIZE = 256  # images per task
_PARALLEL_FROM = 2000  # images; with fewer, starting the worker processes takes longer than decoding
_MAX_WORKERS = 16

Part = TypeVar("Part")
Original = tuple[int, int, str]  # width, height and Pillow mode of an image file
Progress = Callable[[int, int], None]  # called with (images done, images in total)


@dataclass(frozen=True)
class PixelText:
    """An image as the text of a table cell: the gray values of a square image, row by row."""

    text: str


@dataclass(frozen=True)
class InvalidImage:
    """An entry that a source knows to be unreadable."""

    reason: str


# A file path, the content of an image file, a table cell, or a known reason why there is no image.
ImageInput = str | bytes | PixelText | InvalidImage


@dataclass(frozen=True)
class ImageFormat:
    """The format of decoded images.

    Attributes:
        size: width and height in pixels.
        color: ``gray`` (one channel) or ``rgb`` (three).
        resize: ``stretch`` ignores the aspect ratio, ``crop`` cuts the center square, ``pad`` adds black borders.
    """

    size: int = 48
    color: Literal["gray", "rgb"] = "gray"
    resize: Literal["stretch", "crop", "pad"] = "stretch"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, S, S)."""
        return (1 if self.color == "gray" else 3), self.size, self.size

    @property
    def mode(self) -> str:
        """Pillow's name of the color mode."""
        return "L" if self.color == "gray" else "RGB"

    def __str__(self) -> str:
        return f"{self.size}x{self.size} {'gray' if self.color == 'gray' else 'RGB'}"


@dataclass(frozen=True)
class Decoded:
    """Decoded images.

    Attributes:
        images: (N, C, S, S) uint8, zeros where an image is unreadable; (0, C, S, S) if they were written elsewhere.
        unreadable: index -> reason.
        originals: N times width, height and Pillow mode; zeros and "" where an image is unreadable.
    """

    images: np.ndarray
    unreadable: dict[int, str]
    originals: list[Original]


class UnreadableImageError(Exception):
    """The input is not an image; the message is the reason."""


def open_image(source: ImageInput) -> Image.Image:
    """Open an image without decoding its pixels.

    Raises:
        UnreadableImageError: the input is not an image.
        Exception: the image is damaged; the type depends on Pillow's reader.
    """
    if isinstance(source, InvalidImage):
        raise UnreadableImageError(source.reason)
    if isinstance(source, PixelText):
        return Image.fromarray(parse_pixels(source.text))
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise UnreadableImageError(_describe_content(source)) from error


def decode_image(image: Image.Image, image_format: ImageFormat) -> np.ndarray:
    """Decode an opened image, or the first frame of an animation, to (C, S, S) uint8.

    The EXIF orientation is applied. Transparent areas become white. 16-bit values keep their upper byte; 32-bit values
    are scaled from the smallest of 0..1, 0..255, 0..65535 and 0..maximum that contains them. Resizing is bilinear with
    antialiasing.
    """
    size = (image_format.size, image_format.size)
    image.draft(image_format.mode, size)  # a large JPEG is decoded at a fraction of its size
    image = _convert(_upright(image), image_format.mode)
    if image_format.resize == "crop":
        image = ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    elif image_format.resize == "pad":
        image = ImageOps.pad(image, size, Image.Resampling.BILINEAR, color=0)
    else:
        image = image.resize(size, Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def parse_pixels(text: str) -> np.ndarray:
    """Parse the gray values of a square image, separated by blanks, to (S, S) uint8.

    Raises:
        UnreadableImageError: a value is not an integer in 0..255, or their number is not a square.
    """
    try:
        values = _parse_integers(text)
    except (ValueError, OverflowError) as error:
        raise UnreadableImageError("expected integers in 0..255, separated by blanks") from error
    side = round(len(values) ** 0.5)
    if side == 0 or side * side != len(values):
        raise UnreadableImageError(f"{len(values)} pixel values are not a square image")
    if values.min() < 0 or values.max() > 255:
        raise UnreadableImageError(f"pixel values from {values.min()} to {values.max()}; expected 0..255")
    return values.reshape(side, side).astype(np.uint8)


def _parse_integers(text: str) -> np.ndarray:
    # At text that is not an integer, some versions of numpy warn and others raise.
    with warnings.catch_warnings(), suppress(ValueError):
        warnings.simplefilter("ignore", DeprecationWarning)
        values = np.fromstring(text, np.int64, sep=" ")  # four times as fast as the line below
        if len(values) == text.count(" ") + 1:
            return values
    return np.array(text.split(), np.int64)


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation."""
    # Not ImageOps.exif_transpose: it rewrites the other EXIF tags, and fails if one is malformed.
    image.load()  # a TIFF is rotated here, and its orientation tag removed
    transpose = _TRANSPOSE.get(image.getexif().get(ExifTags.Base.Orientation))  # type: ignore[arg-type]
    return image if transpose is None else image.transpose(transpose)


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        values = np.nan_to_num(np.asarray(image, np.float64)).clip(0)
        full_scale = next((scale for scale in (1, 255, 65535) if values.max() <= scale), values.max())
        image = Image.fromarray(np.rint(values / full_scale * 255).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    elif image.mode == "LAB":  # Pillow converts it to RGB only
        image = image.convert("RGB")
    return image.convert(mode)


def _describe_content(source: str | bytes) -> str:
    """The reason why Pillow does not recognize an input."""
    if isinstance(source, bytes):
        head = source[:64]
    else:
        with open(source, "rb") as file:  # noqa: PTH123
            head = file.read(64)
    if not head:
        return "empty file"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer; git lfs pull downloads the image"
    return f"not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image, or damaged"


def failure_reason(error: Exception) -> str:
    """One line that says why an image cannot be decoded."""
    if isinstance(error, UnreadableImageError):
        return str(error)
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    if isinstance(error, Image.DecompressionBombError):
        return "too large: more than 178 million pixels"
    detail = printable(" ".join(str(error).split()) or type(error).__name__)
    return getattr(error, "strerror", None) or f"damaged ({detail})"


def decode_images(
    sources: Iterable[ImageInput],
    n: int,
    image_format: ImageFormat,
    progress: Progress | None = None,
    write: Callable[[np.ndarray], None] | None = None,
) -> Decoded:
    """Decode ``n`` images on all available cores, into memory; or pass them to ``write`` chunk by chunk, in order."""
    images = np.zeros((0 if write else n, *image_format.shape), np.uint8)
    unreadable: dict[int, str] = {}
    originals: list[Original] = []
    start = 0
    for part in map_chunks(partial(_decode_chunk, image_format=image_format), sources, n, progress):
        end = start + len(part.images)
        if write:
            write(part.images)
        else:
            images[start:end] = part.images
        unreadable |= {start + i: reason for i, reason in part.unreadable.items()}
        originals += part.originals
        start = end
    return Decoded(images, unreadable, originals)


def _decode_chunk(sources: Sequence[ImageInput], image_format: ImageFormat) -> Decoded:
    images = np.zeros((len(sources), *image_format.shape), np.uint8)
    unreadable: dict[int, str] = {}
    originals: list[Original] = [(0, 0, "")] * len(sources)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's warnings do not name the file
        for i, source in enumerate(sources):
            try:
                with open_image(source) as image:
                    original = (*image.size, image.mode)
                    images[i] = decode_image(image, image_format)
                originals[i] = original
            except Exception as error:  # Pillow's readers raise many types; all unreadable images are reported at once
                unreadable[i] = failure_reason(error)
    return Decoded(images, unreadable, originals)


def map_chunks(
    function: Callable[[Sequence[Any]], Part], items: Iterable[Any], n: int, progress: Progress | None = None
) -> Iterator[Part]:
    """Apply ``function`` to chunks of ``items`` on all available cores, and yield the results in order.

    Args:
        function: can be pickled; its module should not import torch.
        items: can be pickled; a few chunks are in memory at a time.
        n: number of items.
        progress: called with (items done, n).
    """
    iterator = iter(items)
    chunks = iter(lambda: list(islice(iterator, CHUNK_SIZE)), [])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    is_parallel = cores > 1 and n >= _PARALLEL_FROM
    parts = _map_in_processes(function, chunks, min(cores, _MAX_WORKERS)) if is_parallel else map(function, chunks)
    for i, part in enumerate(parts, start=1):
        yield part
        if progress:
            progress(min(i * CHUNK_SIZE, n), n)


def _map_in_processes(
    function: Callable[[Sequence[Any]], Part], chunks: Iterator[Sequence[Any]], workers: int
) -> Iterator[Part]:
    # Spawned, not forked: torch's threads may be running in this process, and a fork would copy their locks.
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    pending: deque[tuple[Sequence[Any], Future[Part]]] = deque()
    try:
        for chunk in chunks:
            pending.append((chunk, pool.submit(function, chunk)))
            if len(pending) > 2 * workers:
                yield pending[0][1].result()
                pending.popleft()
        while pending:
            yield pending[0][1].result()
            pending.popleft()
    except (BrokenProcessPool, OSError) as error:  # for example, a script without `if __name__ == "__main__"`
        log.warning("Decoding in this process: worker processes cannot be used here (%s).", error)
        yield from map(function, chain((chunk for chunk, _ in pending), chunks))
    finally:
        pool.shutdown(cancel_futures=True)
