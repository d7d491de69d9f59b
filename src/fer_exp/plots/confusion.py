"""The confusion matrix, with the scores that follow from it."""

from collections.abc import Sequence

import numpy as np
from matplotlib import style
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fer_exp.plots.sheet import white_ticks

# Inches.
CELL, MARGIN, HEADER = 0.85, 0.35, 1.05
LETTER = 0.085  # of a class name
SHADES = LinearSegmentedColormap.from_list("share", ["#10161c", "#1d4e5f", "#3f9aa0", "#8dd3c7", "#e8fff6"])


@style.context("dark_background")
def confusion_figure(confusion: NDArray[np.integer], classes: Sequence[str], title: str) -> Figure:
    """Draw a confusion matrix, each cell shaded by its share of the true class.

    Args:
        confusion: counts, shape (C, C); rows are true classes, columns are predicted ones.
        classes: C class names.
        title: first line of the heading. The second gives accuracy, macro-F1 and the number of images.

    Returns:
        The figure. A class without images has n/a in place of its percentages.

    Raises:
        ValueError: if ``confusion`` is not square or does not fit ``classes``.
    """
    if confusion.shape != (len(classes), len(classes)):
        raise ValueError(f"{len(classes)} classes need a square matrix of that side, got {confusion.shape}")

    support = confusion.sum(axis=1)
    share = confusion / np.maximum(support, 1)[:, None]
    accuracy, macro_f1 = _scores(confusion)

    longest = max(map(len, classes), default=0)
    names_rotated = longest > 10
    side = CELL * len(classes)
    left, bottom = 0.75 + LETTER * max(longest, 9), 0.8 + names_rotated * LETTER * longest
    width, height = max(left + side + MARGIN, 6.0), bottom + side + HEADER
    left += (width - left - side - MARGIN) / 2  # a small matrix stands in the middle

    figure = Figure(figsize=(width, height), dpi=100)
    axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
    axes.pcolormesh(share, cmap=SHADES, vmin=0, vmax=1, edgecolors="black", linewidth=2)
    axes.invert_yaxis()

    for (row, column), count in np.ndenumerate(confusion):
        percent = f"{share[row, column]:.1%}" if support[row] else "n/a"
        place = (column + 0.5, row + 0.5)
        color = _ink(share[row, column])
        axes.annotate(
            percent, place, (0, 2), textcoords="offset points", ha="center", va="bottom", size=11, color=color
        )
        axes.annotate(
            f"{count:,}",
            place,
            (0, -3),
            textcoords="offset points",
            ha="center",
            va="top",
            size=8,
            color=color,
        )

    centres = np.arange(len(classes)) + 0.5
    rows = [f"{name}\nn = {images:,}" for name, images in zip(classes, support, strict=True)]
    axes.set_xticks(centres, classes, rotation=90 if names_rotated else 0, parse_math=False)
    axes.set_yticks(centres, rows, parse_math=False)
    white_ticks(axes, length=0, labelsize=10)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("Predicted class", size=12, labelpad=8)
    axes.set_ylabel("True class", size=12, labelpad=8)
    figure.suptitle(title, y=1 - 0.4 / height, va="center", size=15, weight="bold", parse_math=False)
    scores = f"Accuracy {accuracy:.2%}  ·  Macro-F1 {macro_f1:.4f}  ·  {support.sum():,} images"
    figure.text(0.5, 1 - 0.75 / height, scores, ha="center", va="center", size=11, color="0.75")
    return figure


def _scores(confusion: NDArray[np.integer]) -> tuple[float, float]:
    """Return accuracy and macro-F1, each 0 where there is nothing to divide by."""
    hits = np.diag(confusion)
    # 2 tp + fp + fn is the number of images of the class plus the number of predictions of it.
    claims = confusion.sum(axis=0) + confusion.sum(axis=1)
    f1 = 2 * hits / np.maximum(claims, 1)
    return float(hits.sum() / max(confusion.sum(), 1)), float(f1.mean())


def _ink(share: float) -> str:
    """Return the text colour that stands out from the shade of ``share``."""
    encoded = np.array(SHADES(share)[:3])
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    # Relative luminance (WCAG 2): black and white are in equal contrast with 0.179.
    return "black" if linear @ [0.2126, 0.7152, 0.0722] > 0.179 else "white"
