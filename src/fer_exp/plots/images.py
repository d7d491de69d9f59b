"""Sheets of images: samples, augmentation, errors, Grad-CAM maps, audit findings."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
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


@dataclass(frozen=True)
class Tile:
    """One image of a sheet.

    Attributes:
        image: (C, H, W) uint8, gray or RGB.
        captions: lines below the image; each is shortened to the tile's width.
    """

    image: NDArray[np.uint8]
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


def sheet_figure(rows: Sequence[Row], title: str, subtitle: str = "") -> Figure:
    """Draw rows of images, each image pixel as a square of screen pixels.

    Args:
        rows: the rows; all images have the same size.
        title: heading.
        subtitle: smaller, below the title.
    """
    tiles = [tile for row in rows for group in row.groups for tile in group]
    height, width = _display_size(tiles[0].image)
    lines = max(len(tile.captions) for tile in tiles)
    pitch = (max(width, CAPTION_WIDTH) if lines else width) + _GAP
    row_height = height + lines * _LINE + (_GROUP_GAP if lines else _GAP)
    labels = [wrap(row.label, 2.0, TEXT, "bold", max_lines=3) for row in rows]
    label_widths = [text_width(label, TEXT, "bold") for label in labels]
    label_widths += [text_width(row.note, SMALL) for row in rows]
    label_width = math.ceil(max(label_widths) / _PIXEL)
    left = _MARGIN + (label_width + _GROUP_GAP if label_width else 0)
    row_widths = [sum(len(group) * pitch + _GROUP_GAP - _GAP for group in row.groups) for row in rows]
    total_width, total_height = max(left + max(row_widths), 5 * DPI), len(rows) * row_height + _MARGIN

    figure = new_figure(total_width * _PIXEL, total_height * _PIXEL, title, subtitle)
    figure.set_layout_engine("none")
    below = total_height * _PIXEL / figure.get_figheight()
    axes = figure.add_axes((0, 0, 1, below), xlim=(0, total_width), ylim=(total_height, 0), autoscale_on=False)
    axes.axis("off")
    for i, (row, label) in enumerate(zip(rows, labels, strict=True)):
        x, top = left, i * row_height + _GAP
        middle = top + height / 2
        axes.text(_MARGIN, middle, label, size=TEXT, weight="bold", va="bottom" if row.note else "center")
        axes.text(_MARGIN, middle + 6, row.note, size=SMALL, color=theme().muted, va="top")
        for group in row.groups:
            if lines and len(group) > 1:
                size = len(group) * pitch + _GAP, height + lines * _LINE + 2 * _GAP
                panel = Rectangle((x - _GAP, top - _GAP), *size, facecolor=theme().faint, alpha=0.5, zorder=-1)
                axes.add_patch(panel)
            for tile in group:
                _draw_tile(axes, tile, x + (pitch - _GAP - width) // 2, top, width, height)
                x += pitch
            x += _GROUP_GAP - _GAP
    return figure


def _display_size(image: NDArray[np.uint8]) -> tuple[int, int]:
    """Height and width in screen pixels."""
    height, width = image.shape[-2:]
    zoom = max(SIDE // max(height, width), 1) if max(height, width) <= MAX_SIDE else MAX_SIDE / max(height, width)
    return round(height * zoom), round(width * zoom)


def _draw_tile(axes: Axes, tile: Tile, left: int, top: int, width: int, height: int) -> None:
    rgb = np.broadcast_to(tile.image, (3, *tile.image.shape[1:]))
    resampling = Image.Resampling.BILINEAR if rgb.shape[2] > width else Image.Resampling.NEAREST
    screen = Image.fromarray(np.moveaxis(rgb, 0, -1)).resize((width, height), resampling)
    axes.imshow(screen, interpolation="none", extent=(left, left + width, top + height, top), aspect="auto")
    for line, caption in enumerate(tile.captions, start=1):
        text = shorten(caption, max(width, CAPTION_WIDTH) * _PIXEL, CAPTION_SIZE)
        color = theme().ink if line == 1 else theme().muted
        y = top + height + _LINE * line - 4
        axes.text(left + width / 2, y, text, size=CAPTION_SIZE, color=color, ha="center")


def samples_figure(
    images: Any, labels: NDArray[np.integer], classes: Sequence[str], per_class: int = 7, seed: int = 0
) -> Figure:
    """Draw random images of every class beside the class's name and number of images.

    Args:
        images: (N, C, H, W) uint8: an array, a tensor, or a dataset on disk, of which only the drawn images are read.
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


def _title(title: str, classes: int) -> str:
    return title if classes <= MAX_ROWS else f"{title} ({MAX_ROWS} of {classes} classes)"
