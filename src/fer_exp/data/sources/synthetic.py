"""Synthetic images of seven facial expressions, to try the software without a download.

An expression is a row of ``EXPRESSIONS``. It is drawn on a random face in a random pose, light and sharpness.

Coordinates: the origin is the middle of the face, x points right, y points down, and 1 is half the width of a head.
Tones are gray levels, 0 (black) to 255 (white).
"""

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fer_exp.data.datamodule import ImageDataModule
from fer_exp.data.sources.class_folders import ClassFolders
from fer_exp.errors import UserError
from fer_exp.files import printable
from fer_exp.plots.terminal import progress_bar

log = logging.getLogger(__name__)

VERSION = 2  # increase it when a change draws other images for the same seed
SIZE = 48  # pixels
CHUNK_SIZE = 64  # images that are drawn at once
CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")

# 0 is a relaxed face, 1 or -1 is the full movement. An expression with several rows is shown in one of these ways.
UNITS = ("inner_brow", "outer_brow", "eyes", "corners", "jaw", "width", "teeth", "wrinkles")  # positive: up, open, wide
EXPRESSIONS = (
    ("angry", -1.0, 0.0, -0.4, -0.3, 0.0, -0.1, 0.0, 0.2),
    ("angry", -1.0, 0.1, 0.2, -0.3, 0.45, 0.1, 1.0, 0.2),
    ("disgust", -0.4, -0.2, -0.7, -0.6, 0.0, 0.0, 0.0, 1.0),
    ("disgust", -0.4, -0.2, -0.7, -0.4, 0.3, 0.0, 0.7, 1.0),
    ("fear", 1.0, 0.2, 0.9, -0.3, 0.35, 0.5, 0.6, 0.0),
    ("happy", 0.0, 0.0, -0.2, 0.9, 0.0, 0.3, 0.0, 0.0),
    ("happy", 0.0, 0.0, -0.3, 1.0, 0.5, 0.4, 0.9, 0.0),
    ("neutral", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    ("sad", 0.9, -0.5, -0.5, -1.0, 0.0, -0.1, 0.0, 0.0),
    ("surprise", 0.9, 0.9, 0.9, 0.0, 1.0, -0.5, 0.0, 0.0),
)

# What differs between two images of an expression: each value is drawn uniformly from its range.
RANGES = {
    "background": (10, 245), "skin": (95, 225), "hair": (0.1, 0.6), "shirt": (20, 235),  # hair: relative to the skin
    "face_width": (0.84, 1.04), "face_height": (1.16, 1.34), "hair_size": (1.02, 1.2), "hairline": (-0.95, -0.7),
    "eye_x": (0.38, 0.46), "eye_y": (-0.2, -0.06), "eye_width": (0.17, 0.24), "eye_height": (0.09, 0.13),
    "brow_gap": (0.26, 0.34), "brow_thickness": (0.035, 0.075), "nose_y": (0.22, 0.34), "nose_width": (0.1, 0.18),
    "mouth_y": (0.6, 0.72), "mouth_width": (0.3, 0.42), "lip": (0.04, 0.09),
    "glasses": (-4, 1), "moustache": (-5, 1), "fringe": (-2, 1),  # drawn where positive
    "strength": (0.65, 1.15), "variant": (0, 1),
    "roll": (-0.2, 0.2), "yaw": (-0.16, 0.16), "pitch": (-0.07, 0.07), "scale": (14.5, 18.0),
    "shift_x": (-0.15, 0.15), "shift_y": (-0.15, 0.15),
    "light_x": (-0.25, 0.25), "light_y": (-0.25, 0.25), "contrast": (0.7, 1.1), "brightness": (-25, 25),
    "noise": (1, 8), "softness": (0.8, 1.6),  # softness: width of an edge in pixels
}  # fmt: skip


@dataclass(kw_only=True, eq=False, repr=False)
class SyntheticDataModule(ImageDataModule):
    """Serves synthetic images of the seven FER2013 classes, written to the cache once as class folders.

    Args:
        train: number of training images.
        validation: number of validation images.
        generator_seed: seed of the images.
    """

    train: int
    validation: int
    generator_seed: int

    def open_source(self) -> ClassFolders:
        """Write the images if they are not there yet.

        Raises:
            UserError: there are too few images for the classes, or they cannot be written.
        """
        name = f"v{VERSION}-{self.train}-{self.validation}-seed{self.generator_seed}"
        root = self.cache_path / "synthetic" / name
        if not root.exists():
            log.info("Writing %d + %d synthetic images to %s", self.train, self.validation, printable(root))
        with progress_bar("synthetic images") as progress:
            try:
                write_images(root, self.train, self.validation, self.generator_seed, progress)
            except ValueError as error:
                raise UserError(f"data.train={self.train} data.validation={self.validation}: {error}") from error
            except OSError as error:
                raise UserError(
                    f"The synthetic images cannot be written to {printable(root)} ({error.strerror or error}). Set "
                    "data.cache_dir or FER_EXP_CACHE to a folder that can be written."
                ) from error
        return ClassFolders(root, needs_validation=not self.val_fraction)


def draw_images(labels: NDArray[np.integer], seeds: Sequence[Sequence[int]]) -> NDArray[np.uint8]:
    """Draw one image per label.

    Args:
        labels: (N,) indices into ``CLASSES``.
        seeds: N seeds; an image depends on its label and its seed alone.

    Returns:
        (N, 48, 48) gray levels.
    """
    generators = [np.random.default_rng(seed) for seed in seeds]
    low, high = np.array(list(RANGES.values())).T
    values = [low + (high - low) * rng.random(len(RANGES)) for rng in generators]
    face = SimpleNamespace(**dict(zip(RANGES, _columns(values), strict=True)))
    stray = np.array([rng.normal(0, 0.06, len(UNITS)) for rng in generators])
    pull = _pull(labels, face, stray)

    canvas = _Canvas(face)
    _draw_head(canvas, face)
    _draw_eyes(canvas, face, pull)
    _draw_mouth(canvas, face, pull)
    image = canvas.image * (1 + face.light_x * canvas.head[0] + face.light_y * canvas.head[1])
    image = (image - 128) * face.contrast + 128 + face.brightness
    noise = np.stack([rng.standard_normal((SIZE, SIZE), np.float32) for rng in generators])
    noisy: NDArray[np.float32] = np.clip(image + face.noise * noise, 0, 255)
    return noisy.astype(np.uint8)


def write_images(
    root: Path, train: int, validation: int, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> None:
    """Write images to ``root/{train,validation}/CLASS/00000.png``, or do nothing if they are already there.

    An image depends on the seed, its split and its place: a larger dataset begins with the images of a smaller one.
    ``root`` appears when all images are written.

    Args:
        root: folder to create.
        train: number of training images, distributed evenly among the classes.
        validation: number of validation images, distributed likewise.
        seed: seed of the images.
        progress: called with (images written, images in total).

    Raises:
        ValueError: a split has fewer images than classes.
        FileExistsError: ``root`` has other content.
    """
    counts = {"train": train, "validation": validation}
    if min(counts.values()) < len(CLASSES):
        raise ValueError(f"expected at least {len(CLASSES)} training and validation images, one per class")
    if (root / "train").is_dir():
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(f"{root} has other content: choose another folder")
    root.parent.mkdir(parents=True, exist_ok=True)
    done, total = 0, sum(counts.values())
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as temporary:
        draft = Path(temporary) / root.name  # a folder inside, because only the owner can read the temporary one
        for s, (split, count) in enumerate(counts.items()):
            for name in CLASSES:
                (draft / split / name).mkdir(parents=True)
            for start in range(0, count, CHUNK_SIZE):
                places = np.arange(start, min(start + CHUNK_SIZE, count))
                images = draw_images(places % len(CLASSES), [[seed, s, int(k)] for k in places])
                for k, image in zip(places, images, strict=True):
                    file = draft / split / CLASSES[k % len(CLASSES)] / f"{k // len(CLASSES):05d}.png"
                    Image.fromarray(image).save(file)
                done += len(places)
                if progress is not None:
                    progress(done, total)
        try:
            draft.rename(root)
        except OSError:
            if not (root / "train").is_dir():  # otherwise another process was faster
                raise


def _columns(rows: Sequence[NDArray[np.float64]]) -> NDArray[np.float32]:
    """Each column of (N, K) as (N, 1, 1), to be broadcast over pixels."""
    return np.asarray(rows, np.float32).T[:, :, None, None]


def _pull(labels: NDArray[np.integer], face: SimpleNamespace, stray: NDArray[np.float64]) -> SimpleNamespace:
    """How far each unit moves in each image: one row of ``EXPRESSIONS``, weaker or stronger, and a little more."""
    rows = [[row[1:] for row in EXPRESSIONS if row[0] == name] for name in CLASSES]
    typical = [rows[c][int(v * len(rows[c]))] for c, v in zip(labels, face.variant.ravel(), strict=True)]
    units = _columns(typical) * face.strength + _columns(stray)  # type: ignore[arg-type]
    return SimpleNamespace(**dict(zip(UNITS, units, strict=True)))


class _Canvas:
    """N images on which shapes are painted one over another.

    A shape is the distance of each pixel from its edge, (N, 48, 48), positive inside.
    """

    def __init__(self, face: SimpleNamespace) -> None:
        pixels = np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2
        x, y = pixels[None, None, :] / face.scale - face.shift_x, pixels[None, :, None] / face.scale - face.shift_y
        cos, sin = np.cos(face.roll), np.sin(face.roll)
        self.head = x * cos + y * sin, y * cos - x * sin
        # Turning the head moves its features. They are symmetric: one shape is drawn on both sides.
        self.features = np.abs(self.head[0] - face.yaw), self.head[1] - face.pitch
        self.sharpness = face.scale / face.softness
        self.image = np.broadcast_to(face.background, self.head[0].shape).astype(np.float32)

    def paint(self, shape: Any, tone: Any, opacity: Any = 1.0) -> None:
        mask = np.clip(shape * self.sharpness + 0.5, 0, 1) * np.clip(opacity, 0, 1)
        self.image += mask * (tone - self.image)


def _ellipse(frame: tuple[Any, Any], x: Any, y: Any, half_width: Any, half_height: Any) -> Any:
    distance = 1 - np.sqrt(np.square((frame[0] - x) / half_width) + np.square((frame[1] - y) / half_height))
    return distance * np.minimum(half_width, half_height)


def _stroke(
    frame: tuple[Any, Any], x: Any, y: Any, half_width: Any, thickness: Any, rise: Any = 0, bend: Any = 0
) -> Any:
    """A line around (x, y); its right end is higher by ``rise``, and both ends by ``bend``."""
    t = (frame[0] - x) / half_width
    return np.minimum(thickness - np.abs(frame[1] - y + rise * t + bend * t**2), (1 - np.abs(t)) * half_width)


def _draw_head(canvas: _Canvas, face: SimpleNamespace) -> None:
    frame, skin, hair = canvas.head, face.skin, face.hair * face.skin
    width, height = face.face_width, face.face_height
    canvas.paint(_ellipse(frame, 0, 2.35, 1.7, 0.85), face.shirt)
    canvas.paint(_ellipse(frame, 0, 1.2, 0.5, 0.7), 0.75 * skin)
    canvas.paint(_ellipse(frame, 0, -0.1, width * face.hair_size, height * face.hair_size), hair)
    outline = _ellipse(frame, 0, 0, width, height)
    canvas.paint(outline, 0.85 * skin)
    canvas.paint(outline - 0.06, skin)
    hairline = face.hairline + 0.2 * (face.fringe > 0) + 0.5 * np.square(np.square(frame[0] / width))
    canvas.paint(np.minimum(outline + 0.03, hairline - frame[1]), hair)


def _draw_eyes(canvas: _Canvas, face: SimpleNamespace, pull: SimpleNamespace) -> None:
    frame, skin, x, y, width = canvas.features, face.skin, face.eye_x, face.eye_y, face.eye_width
    height = face.eye_height * np.maximum(1 + 0.7 * pull.eyes, 0.3)
    canvas.paint(_ellipse(frame, x, y, width + 0.03, height + 0.04), 0.35 * skin)
    canvas.paint(_ellipse(frame, x, y, width, height), 0.4 * skin + 150)
    canvas.paint(_ellipse(frame, x, y, 0.09, np.minimum(height, 0.1)), 20)
    canvas.paint(0.03 - np.abs(_ellipse(frame, x, y, 0.32, 0.28)), 30, face.glasses > 0)

    rise = 0.14 * (pull.outer_brow - pull.inner_brow)
    height = face.brow_gap + 0.13 * (pull.outer_brow + pull.inner_brow)
    brow = _stroke(frame, x, y - height, 1.2 * width, face.brow_thickness, rise, -0.05)
    canvas.paint(brow, np.minimum(face.hair, 0.5) * skin)


def _draw_mouth(canvas: _Canvas, face: SimpleNamespace, pull: SimpleNamespace) -> None:
    frame, skin = canvas.features, face.skin
    canvas.paint(_ellipse(frame, face.nose_width, face.nose_y, 0.05, 0.04), 0.4 * skin)
    canvas.paint(_stroke(frame, face.nose_width, face.nose_y - 0.1, 0.03, 0.14), 0.8 * skin)
    for place in (0.05, 0.18):
        canvas.paint(_stroke(frame, 0, face.eye_y + place, 0.2, 0.03, 0, -0.08), 0.45 * skin, pull.wrinkles)
    fold = _stroke(frame, face.mouth_width + 0.12, face.mouth_y - 0.25, 0.06, 0.2, -0.2)
    canvas.paint(fold, 0.6 * skin, np.maximum(pull.wrinkles, pull.corners))

    width = face.mouth_width * (1 + 0.35 * pull.width)
    bend = 0.2 * pull.corners
    opening = 0.3 * np.maximum(pull.jaw, 0)
    y = face.mouth_y + 0.1 * pull.corners + 0.3 * opening
    t = np.clip(frame[0] / width, -1, 1)
    lens = opening * np.sqrt(1 - t**2)
    middle = frame[1] - y + bend * t**2
    ends = width - np.abs(frame[0])
    canvas.paint(np.minimum(0.08 - np.abs(middle + lens + 0.15), ends), face.hair * skin, face.moustache > 0)
    canvas.paint(np.minimum(lens + face.lip - np.abs(middle), ends + face.lip), 0.65 * skin)
    canvas.paint(np.minimum(lens + 0.02 - np.abs(middle), ends), 0.2 * skin)
    teeth = np.minimum(lens - np.abs(middle), 0.5 * lens - middle - 0.3 * opening)
    canvas.paint(teeth, 0.3 * skin + 170, pull.teeth * (opening > 0.05))
