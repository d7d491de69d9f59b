"""A grid of faces, one row for each class."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

DPI = 100
ZOOM = 2  # screen pixels per image pixel; a whole number, so that no face is resampled
GAP = 8
MARGIN = 24
BAR_WIDTH = 112
LETTER_WIDTH = 12  # of a class name, at most on average


class Faces(Protocol):
    """N grey images."""

    @property
    def shape(self) -> Sequence[int]:
        """(N, 1, height, width)."""

    def __getitem__(self, index: int, /) -> Any:
        """One image, (1, height, width)."""


@style.context("dark_background")
def samples_figure(
    images: Faces,
    labels: NDArray[np.integer],
    classes: Sequence[str],
    per_class: int = 7,
    seed: int = 0,
) -> Figure:
    """Draw a few random faces of every class beside the class's name, its count and a bar for it.

    Args:
        images: grey images, shape (N, 1, height, width), 0 (black) to 255 (white): an array, a tensor, or whatever is
            indexed by numbers. Only those that are drawn are read.
        labels: class index of each image, shape (N,).
        classes: class names, in the order of their indices.
        per_class: faces in a row; a class with fewer images leaves blanks.
        seed: decides which faces are drawn. The draw of one class does not depend on the other classes.

    Returns:
        The figure, sized so that at its own resolution each image pixel is exactly ``ZOOM`` pixels wide.

    Raises:
        ValueError: if the shapes of ``images`` and ``labels`` do not fit, or a label names no class.
    """
    if len(images.shape) != 4 or images.shape[1] != 1 or labels.shape != tuple(images.shape[:1]):
        raise ValueError(
            f"expected images (N, 1, height, width) and labels (N,), got {tuple(images.shape)} and {labels.shape}"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < len(classes):
        raise ValueError(f"labels go from {labels.min()} to {labels.max()}, but there are {len(classes)} classes")

    height, width = (ZOOM * side for side in images.shape[2:])
    counts = np.bincount(labels, minlength=len(classes))
    label_width = max(BAR_WIDTH, LETTER_WIDTH * max(map(len, classes), default=0)) + 2 * MARGIN
    figure_width = 2 * MARGIN + label_width + per_class * (width + GAP) - GAP
    figure_height = 2 * MARGIN + len(classes) * (height + GAP) - GAP

    figure = Figure(figsize=(figure_width / DPI, figure_height / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")

    for label, name in enumerate(classes):
        top = MARGIN + label * (height + GAP)
        middle = top + height / 2
        axes.text(MARGIN, middle - 14, name, size=14, weight="bold", va="center", parse_math=False)
        count = f"{counts[label]:,} {'image' if counts[label] == 1 else 'images'}"
        axes.text(MARGIN, middle + 10, count, size=10, color="0.65", va="center")
        share = counts[label] / max(counts.max(), 1)
        for fill, color in ((1.0, "0.2"), (share, "#8dd3c7")):
            axes.add_patch(Rectangle((MARGIN, middle + 25), BAR_WIDTH * fill, 4, facecolor=color, linewidth=0))

        members = np.flatnonzero(labels == label)
        rng = np.random.default_rng([seed, label])
        for column, index in enumerate(rng.permutation(members)[:per_class]):
            left = MARGIN + label_width + column * (width + GAP)
            axes.imshow(
                np.asarray(images[int(index)])[0],
                cmap="gray",
                vmin=0,
                vmax=255,
                interpolation="nearest",
                extent=(left, left + width, top + height, top),
            )

    # One unit is one pixel, from the top left; last, because each imshow sets limits and aspect of its own.
    axes.set(xlim=(0, figure_width), ylim=(figure_height, 0), aspect="auto")
    return figure
