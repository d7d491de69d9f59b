"""What pictures share: a figure below a heading, faces drawn pixel by pixel, and text that is measured."""

import math
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from numpy.typing import NDArray

# Pixels of the figure at its own resolution.
DPI = 100
MARGIN = 24
NARROWEST = 560  # a heading needs room, however few the faces
NAME_SIZE, NAME_LETTERS, NAME_LINES = 12, 16, 4  # of a row's name: points, letters in a line, lines


def headed_figure(width: int, height: int, title: str, subtitle: str) -> tuple[Figure, float]:
    """A figure with a heading, and room below it.

    Args:
        width: of the figure, in pixels.
        height: of the room below the heading, in pixels.
        title: first line of the heading.
        subtitle: second line of the heading; either is broken into more lines where it is too long.

    Returns:
        The figure, and the share of its height that is below the heading.
    """
    title = fill_lines(title, width - 2 * MARGIN, 15, "bold")
    subtitle = fill_lines(subtitle, width - 2 * MARGIN, 11)
    subtitle_top = MARGIN + 25 * (title.count("\n") + 1) + 5
    total = subtitle_top + 19 * (subtitle.count("\n") + 1) + 15 + height

    figure = Figure(figsize=(width / DPI, total / DPI), dpi=DPI)
    left = MARGIN / width
    figure.text(left, 1 - MARGIN / total, title, size=15, weight="bold", va="top", parse_math=False)
    figure.text(left, 1 - subtitle_top / total, subtitle, size=11, color="0.75", va="top", parse_math=False)
    return figure, height / total


def face_sheet(width: int, height: int, title: str, subtitle: str) -> tuple[Figure, Axes]:
    """A figure as ``headed_figure`` makes it, at least ``NARROWEST`` wide, with room that is measured in pixels.

    Returns:
        The figure, and axes from edge to edge below the heading: one unit is one pixel, from the top left.
    """
    width = max(width, NARROWEST)
    figure, below = headed_figure(width, height, title, subtitle)
    axes = figure.add_axes((0, 0, 1, below), xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    axes.axis("off")
    return figure, axes


def draw_face(axes: Axes, face: NDArray[np.generic], left: int, top: int, zoom: int) -> None:
    """Draw a face on a sheet, each pixel of it ``zoom`` pixels wide.

    Args:
        axes: of the sheet.
        face: grey (height, width) uint8, or coloured (height, width, 3) with values in [0, 1].
        left: its left edge, in pixels.
        top: its upper edge, in pixels.
        zoom: a whole number: then no face is resampled.
    """
    height, width = (zoom * side for side in face.shape[:2])
    extent = (left, left + width, top + height, top)
    axes.imshow(face, cmap="gray", vmin=0, vmax=255, interpolation="nearest", extent=extent, aspect="auto")


def text_width(text: str, size: float, weight: str = "normal") -> int:
    """Width of the longest line of ``text`` in pixels, ``size`` in points."""
    font = FontProperties(size=size, weight=weight)
    widths = [text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] for line in text.split("\n")]
    return math.ceil(max(widths) * DPI / 72)


def fill_lines(text: str, width: int, size: float, weight: str = "normal") -> str:
    """Break ``text`` into lines that are at most ``width`` pixels wide, ``size`` in points."""
    filled = text
    # A line has more letters than the average where they are narrow ones.
    letters = math.ceil(1.3 * len(text) * width / max(text_width(text, size, weight), 1))
    while text_width(filled, size, weight) > width and letters > 1:
        filled = textwrap.fill(text, letters)
        letters -= 1
    return filled


def break_name(name: str) -> str:
    """Break a row's name into lines of ``NAME_LETTERS``, and end it after ``NAME_LINES``."""
    return "\n".join(textwrap.wrap(name, NAME_LETTERS, max_lines=NAME_LINES, placeholder="…"))


def shortened(text: str, fits: Callable[[str], bool], kept_end: float = 0.5, mark: str = "…") -> str:
    """The text, or as much of it as fits, with a mark in the place of what is left out.

    Args:
        text: names mostly, which differ at either end.
        fits: whether a text has room.
        kept_end: share of what is kept that is from the end: 0 leaves out the end, 1 the beginning.
        mark: of what is left out.
    """
    short, kept = text, len(text)
    while not fits(short) and kept > 0:
        kept -= 1
        end = int(kept * kept_end)
        short = f"{text[: kept - end]}{mark}{text[len(text) - end :]}"
    return short


def white_ticks(axes: Axes, **more: Any) -> None:
    """Draw ticks and grid in white on black: they are made when the figure is drawn, outside the style it is made in.

    Args:
        axes: of the ticks.
        more: settings of ``Axes.tick_params``.
    """
    axes.tick_params(colors="white", grid_color="white", **more)
