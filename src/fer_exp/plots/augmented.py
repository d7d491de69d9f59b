"""Faces beside what augmentation makes of them."""

from collections.abc import Sequence

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fer_exp.plots.sheet import MARGIN, NAME_SIZE, break_name, draw_face, face_sheet, text_width

# Pixels of the figure at its own resolution.
GAP = 8
ZOOM = 2  # screen pixels per image pixel; a whole number, so that no face is resampled
SPACE = 3 * GAP  # between a face and its versions
CAPTION = 22  # above the first row


@style.context("dark_background")
def augmented_figure(
    originals: NDArray[np.uint8],
    augmented: NDArray[np.uint8],
    row_names: Sequence[str],
    title: str,
    subtitle: str,
) -> Figure:
    """Draw faces, a row each: the face as it is, and beside it what augmentation made of it.

    Args:
        originals: grey images, shape (R, 1, height, width), 0 (black) to 255 (white).
        augmented: K versions of each, shape (R, K, 1, height, width).
        row_names: what stands left of each row, e.g. the class of the face; R of them.
        title: first line of the heading.
        subtitle: second line of the heading; either is broken into more lines where it is too long.

    Returns:
        The figure, sized so that at its own resolution each image pixel is exactly ``ZOOM`` pixels wide.

    Raises:
        ValueError: the shapes do not fit one another.
    """
    rows, *face = originals.shape
    if originals.ndim != 4 or augmented.ndim != 5 or augmented.shape != (rows, augmented.shape[1], *face):
        raise ValueError(
            f"expected faces (R, 1, height, width) and K versions of each (R, K, 1, height, width), "
            f"got {originals.shape} and {augmented.shape}"
        )
    if len(row_names) != rows:
        raise ValueError(f"{rows} rows of faces need as many names, got {len(row_names)}")

    versions = augmented.shape[1]
    height, width = (ZOOM * side for side in originals.shape[2:])
    names = [break_name(name) for name in row_names]
    left = MARGIN + max((text_width(name, NAME_SIZE, "bold") for name in names), default=0) + 2 * GAP
    begin = left + width + SPACE  # of the versions
    sheet, axes = face_sheet(
        begin + versions * (width + GAP) - GAP + MARGIN,
        CAPTION + rows * (height + GAP) - GAP + MARGIN,
        title,
        subtitle,
    )
    for place, caption in ((left, "original"), (begin, "augmented")):
        axes.text(place, CAPTION - GAP, caption, size=10, color="0.65", va="baseline")
    for row, (name, original, others) in enumerate(zip(names, originals, augmented, strict=True)):
        top = CAPTION + row * (height + GAP)
        axes.text(MARGIN, top + height / 2, name, size=NAME_SIZE, weight="bold", va="center", parse_math=False)
        draw_face(axes, original[0], left, top, ZOOM)
        for column, version in enumerate(others):
            draw_face(axes, version[0], begin + column * (width + GAP), top, ZOOM)
    return sheet
