"""The faces that a network was surest of and wrong about."""

from collections.abc import Sequence

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fer_exp.files import printable
from fer_exp.plots.sheet import MARGIN, draw_face, face_sheet, shortened, text_width

ZOOM = 3  # screen pixels per image pixel; a whole number, so that no face is resampled
GAP, ROW_GAP = 20, 22
LINE = 17  # of a caption
OVERHANG = 12  # of a caption, beyond its face
SIZE, FILE_SIZE = 8.5, 7.5  # points
TRUE, SEEN, FILE = "#8dd3c7", "#fa8174", "0.6"


@style.context("dark_background")
def mistakes_figure(
    images: NDArray[np.uint8],
    files: Sequence[str],
    true: Sequence[str],
    predicted: Sequence[str],
    confidence: NDArray[np.floating],
    title: str,
    subtitle: str,
    columns: int = 8,
) -> Figure:
    """Draw wrongly named faces from left to right and down, in the order given, what they are called under each.

    Args:
        images: K grey images, shape (K, 1, height, width), 0 (black) to 255 (white).
        files: path of each; the last part of it is shown.
        true: name of each one's class.
        predicted: name of the class that the network took it for.
        confidence: probability that the network gave to that class, shape (K,).
        title: first line of the heading.
        subtitle: second line of the heading; either is broken into more lines where it is too long.
        columns: faces in a row.

    Returns:
        The figure, sized so that at its own resolution each image pixel is exactly ``ZOOM`` pixels wide. What is too
        wide for a face is shortened in its middle. Without images it says that there are none.

    Raises:
        ValueError: the shapes or lengths do not fit one another, or ``columns`` is below 1.
    """
    if images.ndim != 4 or images.shape[1] != 1:
        raise ValueError(f"expected images (K, 1, height, width), got {images.shape}")
    lengths = len(files), len(true), len(predicted), len(confidence)
    if set(lengths) != {len(images)}:
        raise ValueError(f"{len(images)} images need as many files, classes, predictions and confidences: {lengths}")
    if columns < 1:
        raise ValueError(f"columns={columns}: expected 1 or more")

    height, width = (ZOOM * side for side in images.shape[2:])
    rows = max(-(-len(images) // columns), 1)
    row_height = height + 3 * LINE + ROW_GAP
    sheet, axes = face_sheet(
        2 * MARGIN + min(columns, len(images)) * (width + GAP) - GAP,
        rows * row_height - ROW_GAP + MARGIN,
        title,
        subtitle,
    )
    if not len(images):
        axes.text(MARGIN, height / 2, "No mistakes.", size=14, color="0.75", va="center")
    for i, image in enumerate(images):
        left, top = MARGIN + i % columns * (width + GAP), i // columns * row_height
        draw_face(axes, image[0], left, top, ZOOM)
        sure, room = f" {_percent(float(confidence[i]))}", width + OVERHANG
        captions = (
            (_fit("true: ", true[i], "", room, SIZE), SIZE, TRUE),
            (_fit("seen as: ", predicted[i], sure, room, SIZE), SIZE, SEEN),
            (_fit("", files[i].rpartition("/")[2], "", room, FILE_SIZE), FILE_SIZE, FILE),
        )
        for line, (text, size, color) in enumerate(captions, start=1):
            axes.text(left, top + height + LINE * line, text, size=size, color=color, parse_math=False)
    return sheet


def _percent(share: float) -> str:
    """Whole percent, but never 100 % for what is less."""
    return f"{share:.0%}".replace("%", " %") if share == 1 or share < 0.995 else ">99 %"


def _fit(before: str, name: str, after: str, width: int, size: float) -> str:
    """Put ``name`` between the others, without its middle where all is wider than ``width`` pixels."""
    short = shortened(printable(name), lambda short: text_width(before + short + after, size) <= width)
    return before + short + after
