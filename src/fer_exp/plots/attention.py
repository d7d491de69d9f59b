"""Faces, and beside each where a network looked."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps, style
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fer_exp.plots.sheet import MARGIN, NAME_SIZE, break_name, draw_face, face_sheet, shortened, text_width

# Pixels of the figure at its own resolution.
ZOOM = 2  # screen pixels per image pixel; a whole number, so that no face is resampled
GAP, PAIR_GAP, ROW_GAP = 4, 24, 12
CAPTION, CAPTION_SIZE = 20, 8.5  # height in pixels, letters in points
BAR_WIDTH, BAR_HEIGHT, FOOT = 192, 10, 70
COLORS = colormaps["inferno"]
STRENGTH = 0.6  # of the map over the face


@style.context("dark_background")
def attention_figure(
    images: NDArray[np.uint8],
    maps: NDArray[np.floating],
    rows: Sequence[str],
    captions: Sequence[str],
    title: str,
    subtitle: str,
) -> Figure:
    """Draw each face as it is and beside it under its map, a row a class.

    Args:
        images: K grey images, shape (K, 1, height, width), 0 (black) to 255 (white).
        maps: of each what speaks for the class that is explained, shape (K, height, width), 0 (nothing) to 1 (most).
        rows: name of the row that each face stands in, e.g. its class; rows are in the order in which they occur.
        captions: what stands below each face, e.g. ``seen as: happy 93 %``; its end is cut off where it is too long.
        title: first line of the heading.
        subtitle: second line of the heading; either is broken into more lines where it is too long.

    Returns:
        The figure, sized so that at its own resolution each image pixel is exactly ``ZOOM`` pixels wide. A bar at its
        foot tells the colours; a map that is 0 everywhere says ``no evidence``.

    Raises:
        ValueError: the shapes or lengths do not fit one another, or a map is not in [0, 1].
    """
    if images.ndim != 4 or images.shape[1] != 1 or maps.shape != (len(images), *images.shape[2:]):
        raise ValueError(
            f"expected images (K, 1, height, width) and maps (K, height, width), got {images.shape} and {maps.shape}"
        )
    if not len(images) == len(rows) == len(captions):
        raise ValueError(f"{len(images)} images need as many rows and captions, got {len(rows)} and {len(captions)}")
    if not ((maps >= 0) & (maps <= 1)).all():
        raise ValueError("expected maps in [0, 1]")

    members = {name: [i for i, row in enumerate(rows) if row == name] for name in dict.fromkeys(rows)}
    names = {name: break_name(name) for name in members}
    height, width = (ZOOM * side for side in images.shape[2:])
    pair = 2 * width + GAP
    begin = MARGIN + max((text_width(name, NAME_SIZE, "bold") for name in names.values()), default=0) + 16
    row_height = height + CAPTION + ROW_GAP
    foot = len(members) * row_height
    sheet, axes = face_sheet(
        begin + max(map(len, members.values()), default=0) * (pair + PAIR_GAP) - PAIR_GAP + MARGIN,
        foot + FOOT,
        title,
        subtitle,
    )
    for row, (name, indices) in enumerate(members.items()):
        top = row * row_height
        axes.text(MARGIN, top + height / 2, names[name], size=NAME_SIZE, weight="bold", va="center", parse_math=False)
        for column, i in enumerate(indices):
            left = begin + column * (pair + PAIR_GAP)
            face = np.repeat(images[i, 0, :, :, None] / 255, 3, axis=2)
            draw_face(axes, images[i, 0], left, top, ZOOM)
            draw_face(axes, (1 - STRENGTH) * face + STRENGTH * COLORS(maps[i])[..., :3], left + width + GAP, top, ZOOM)
            if not maps[i].any():
                middle = left + width + GAP + width / 2
                axes.text(middle, top + height / 2, "no evidence", size=CAPTION_SIZE, ha="center", va="center")
            caption = shortened(captions[i], lambda short: text_width(short, CAPTION_SIZE) <= pair, kept_end=0)
            axes.text(left, top + height + 15, caption, size=CAPTION_SIZE, color="0.75", parse_math=False)

    shades = np.linspace(0, 1, BAR_WIDTH)[None].repeat(BAR_HEIGHT, axis=0)
    draw_face(axes, COLORS(shades)[..., :3], begin, foot + 8, 1)
    look: dict[str, Any] = {"size": CAPTION_SIZE, "color": "0.75"}
    axes.text(begin, foot + 34, "0", **look)
    axes.text(begin + BAR_WIDTH, foot + 34, "1", ha="right", **look)
    axes.text(begin, foot + 52, "evidence for the class, each face on its own scale", **look)
    return sheet
