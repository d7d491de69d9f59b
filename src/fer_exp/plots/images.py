"""Sheets of images: samples, augmentation, mistakes, Grad-CAM maps, audit findings."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from fer_exp.plots.style import DPI, MARGIN, SMALL, TEXT, new_figure, shorten, text_width, theme, wrap

MAX_ROWS = 40  # of a sheet with one row per class
SIDE = 144  # pixels: smaller images are enlarged by an integer factor up to this size
MAX_SIDE = 256  # pixels: larger images are reduced to this size
CAPTION_SIZE = 7.5  # points
CAPTION_WIDTH = 176  # pixels, at least
_PIXEL = 1 / DPI  # inches
_MARGIN = round(MARGIN * DPI)  # pixels
_GAP, _GROUP_GAP = 6, 24  # pixels between the tiles of a group, and between groups
_LINE = 20  # pixels of a caption line
MAP_STRENGTH = 0.6  # of a Grad-CAM map over its image


@dataclass(frozen=True)
class Tile:
    """One image of a sheet.

    Attributes:
        image: (C, H, W) uint8, gray or RGB; None draws an empty frame.
        captions: lines below the image; each is shortened to the tile's width.
    """

    image: NDArray[np.uint8] | None
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A row of a sheet.

    Attributes:
        groups: tiles that belong together, separated by a gap from the next group.
        label: text left of the row.
        note: smaller text below the label.
    """

    groups: Sequence[Sequence[Tile]]
    label: str = ""
    note: str = ""


class Images(Protocol):
    """N images (N, C, H, W) uint8: an array, a tensor, or a dataset that reads an image when it is indexed."""

    @property
    def shape(self) -> Sequence[int]:
        """(N, C, H, W)."""

    def __getitem__(self, index: int, /) -> Any:
        """One image (C, H, W)."""


def sheet_figure(rows: Sequence[Row], title: str, subtitle: str = "", panels: bool = False) -> Figure:
    """Draw rows of images, each image pixel as a square of screen pixels.

    Args:
        rows: the rows; all images have the same size.
        title: heading.
        subtitle: smaller, below the title.
        panels: draw a background behind each group.
    """
    tiles = [tile for row in rows for group in row.groups for tile in group]
    height, width = next((_display_size(tile.image) for tile in tiles if tile.image is not None), (SIDE, SIDE))
    lines = max((len(tile.captions) for tile in tiles), default=0)
    tile_width = max(width, CAPTION_WIDTH) if lines else width
    row_height = height + lines * _LINE + (_GROUP_GAP if lines else _GAP)

    labels = [wrap(row.label, 2.0, TEXT, "bold", max_lines=3) for row in rows]
    label_widths = [text_width(label, TEXT, "bold") for label in labels]
    label_widths += [text_width(row.note, SMALL) for row in rows]
    label_width = math.ceil(max(label_widths, default=0) / _PIXEL)
    left = _MARGIN + (label_width + _GROUP_GAP if label_width else 0)
    row_widths = [_row_width(row, tile_width) for row in rows]
    total_width = max(left + max(row_widths, default=0) + _MARGIN, 5 * DPI)
    total_height = len(rows) * row_height + _MARGIN

    figure, below = new_figure(total_width * _PIXEL, total_height * _PIXEL, title, subtitle)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, below), xlim=(0, total_width), ylim=(total_height, 0), autoscale_on=False)
    axes.axis("off")
    for i, (row, label) in enumerate(zip(rows, labels, strict=True)):
        top = i * row_height + _GAP
        middle = top + height / 2
        axes.text(_MARGIN, middle, label, size=TEXT, weight="bold", va="bottom" if row.note else "center")
        axes.text(_MARGIN, middle + 6, row.note, size=SMALL, color=theme().muted, va="top")
        x = left
        for group in row.groups:
            group_width = len(group) * (tile_width + _GAP) - _GAP
            if panels:
                corner = (x - _GAP, top - _GAP)
                size = (group_width + 2 * _GAP, height + lines * _LINE + 2 * _GAP)
                axes.add_patch(Rectangle(corner, *size, facecolor=theme().faint, alpha=0.5, linewidth=0, zorder=-1))
            for tile in group:
                _draw_tile(axes, tile, (x, top), (width, height), tile_width)
                x += tile_width + _GAP
            x += _GROUP_GAP - _GAP
    return figure


def _row_width(row: Row, tile_width: int) -> int:
    groups = [len(group) * (tile_width + _GAP) - _GAP for group in row.groups]
    return sum(groups) + _GROUP_GAP * (len(groups) - 1)


def _display_size(image: NDArray[np.uint8]) -> tuple[int, int]:
    """Height and width in screen pixels."""
    height, width = image.shape[-2:]
    longest = max(height, width)
    if longest > MAX_SIDE:
        return round(height * MAX_SIDE / longest), round(width * MAX_SIDE / longest)
    zoom = max(SIDE // longest, 1)
    return height * zoom, width * zoom


def _draw_tile(axes: Axes, tile: Tile, corner: tuple[int, int], size: tuple[int, int], tile_width: int) -> None:
    width, height = size
    left, top = corner[0] + (tile_width - width) // 2, corner[1]
    if tile.image is None:
        frame = Rectangle((left, top), width, height, fill=False, edgecolor=theme().muted)
        axes.add_patch(frame)
        axes.text(left + width / 2, top + height / 2, "no image", size=SMALL, ha="center", va="center")
    else:
        rgb = np.broadcast_to(tile.image, (3, *tile.image.shape[1:]))
        resampling = Image.Resampling.BILINEAR if rgb.shape[2] > width else Image.Resampling.NEAREST
        screen = Image.fromarray(np.moveaxis(rgb, 0, -1)).resize((width, height), resampling)
        extent = (left, left + width, top + height, top)
        axes.imshow(screen, interpolation="none", extent=extent, aspect="auto")
    for line, caption in enumerate(tile.captions):
        text = shorten(caption, tile_width * _PIXEL, CAPTION_SIZE)
        color = theme().ink if line == 0 else theme().muted
        y = top + height + _LINE * (line + 1) - 4
        axes.text(corner[0] + tile_width / 2, y, text, size=CAPTION_SIZE, color=color, ha="center")


def samples_figure(
    images: Images, labels: NDArray[np.integer], classes: Sequence[str], per_class: int = 7, seed: int = 0
) -> Figure:
    """Draw random images of every class beside the class's name and number of images.

    Args:
        images: only those that are drawn are read.
        labels: (N,) indices into ``classes``.
        classes: names.
        per_class: images per class.
        seed: selects the images; the selection of one class does not depend on the other classes.
    """
    counts = np.bincount(labels, minlength=len(classes)).tolist()
    rows = []
    for label, name in enumerate(classes[:MAX_ROWS]):
        members = np.flatnonzero(labels == label)
        shown = np.random.default_rng([seed, label]).permutation(members)[:per_class]
        note = f"{counts[label]:,} image{'s' * (counts[label] != 1)}"
        rows.append(Row([[Tile(np.asarray(images[int(i)])) for i in shown]], name, note))
    return sheet_figure(rows, _title("Training images", len(classes)), f"{len(labels):,} images")


def augmentation_figure(
    originals: NDArray[np.uint8], augmented: NDArray[np.uint8], classes: Sequence[str], subtitle: str
) -> Figure:
    """Draw one image of each class and augmented versions of it.

    Args:
        originals: (R, C, H, W).
        augmented: (R, K, C, H, W), K versions of each.
        classes: R names.
        subtitle: what the augmentation does.
    """
    rows = [
        Row([[Tile(original)], [Tile(version) for version in versions]], name)
        for original, versions, name in zip(originals, augmented, classes[:MAX_ROWS], strict=False)
    ]
    return sheet_figure(rows, _title("Training images: original and augmented", len(classes)), subtitle)


def mistakes_figure(
    images: NDArray[np.uint8],
    files: Sequence[str],
    true: Sequence[str],
    predicted: Sequence[str],
    confidence: NDArray[np.floating],
    title: str,
    subtitle: str,
) -> Figure:
    """Draw misclassified images with their true class, predicted class and file name.

    Args:
        images: (K, C, H, W).
        files: K paths; the file name is shown.
        true: K class names.
        predicted: K class names.
        confidence: (K,) probabilities of the predicted class.
        title: heading.
        subtitle: smaller, below the title.
    """
    tiles = [
        Tile(image, (f"true: {label}", f"pred: {guess} {100 * probability:.0f} %", file.rpartition("/")[2]))
        for image, file, label, guess, probability in zip(images, files, true, predicted, confidence, strict=True)
    ]
    rows = [Row([[tile] for tile in tiles[i : i + 8]]) for i in range(0, len(tiles), 8)]
    return sheet_figure(rows, title, subtitle)


def gradcam_figure(
    images: NDArray[np.uint8],
    maps: NDArray[np.floating],
    true: Sequence[str],
    predicted: Sequence[str],
    title: str,
    subtitle: str,
) -> Figure:
    """Draw each image beside its Grad-CAM map, one row per true class.

    Args:
        images: (K, C, H, W).
        maps: (K, H, W), from 0 (no evidence) to 1 (most evidence for the predicted class).
        true: K class names.
        predicted: K captions, for example ``happy 93 %``.
        title: heading.
        subtitle: smaller, below the title.
    """
    groups: dict[str, list[list[Tile]]] = {}
    for image, heat, label, caption in zip(images, maps, true, predicted, strict=True):
        rgb = np.broadcast_to(image / 255, (3, *heat.shape))
        heated = (1 - MAP_STRENGTH) * rgb + MAP_STRENGTH * np.moveaxis(colormaps["inferno"](heat)[..., :3], -1, 0)
        note = "Grad-CAM" if heat.any() else "no evidence"
        pair = [Tile(image, (caption,)), Tile((255 * heated).round().astype(np.uint8), (note,))]
        groups.setdefault(label, []).append(pair)
    rows = [Row(pairs, label) for label, pairs in list(groups.items())[:MAX_ROWS]]
    return sheet_figure(rows, _title(title, len(groups)), subtitle)


def _title(title: str, classes: int) -> str:
    return title if classes <= MAX_ROWS else f"{title} ({MAX_ROWS} of {classes} classes)"
