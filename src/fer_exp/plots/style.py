"""One look for every plot, light or dark, independent of the user's matplotlibrc and backend.

A plot is a function that returns a ``Figure``. ``save_plot`` and ``render`` call it under a theme; a caller that wants
the figure itself calls it in ``with use_theme(...)``.
"""

import io
import logging
import math
import textwrap
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from matplotlib import font_manager, style
from matplotlib.axis import Axis
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import text_to_path

from fer_exp.errors import one_line
from fer_exp.files import replacing
from fer_exp.plots.svg import fit

log = logging.getLogger(__name__)

DPI = 144  # so that a point is two pixels
TITLE, TEXT, SMALL = 14, 11, 9  # font sizes in points
MARGIN = 1 / 6  # inches around a figure: 24 pixels

# Fonts with characters that DejaVu Sans lacks, on Linux, macOS and Windows. The installed ones are used.
FALLBACK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei", "PingFang SC",
    "Hiragino Sans GB", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Noto Sans Devanagari", "Noto Sans Thai",
    "Nirmala UI", "Noto Emoji", "Symbola", "Segoe UI Emoji",
)  # fmt: skip


@dataclass(frozen=True)
class Theme:
    """The colors of a plot.

    Attributes:
        paper: background.
        ink: text.
        muted: secondary text and axes.
        faint: grid lines, panels.
        palette: the colors of lines and bars, in the order of use: also ``C0``, ``C1``, ...
        shades: a colormap for fractions, from the background to the strongest color.
    """

    paper: str
    ink: str
    muted: str
    faint: str
    palette: tuple[str, ...]
    shades: Colormap


def _shades(*colors: str) -> Colormap:
    return LinearSegmentedColormap.from_list("shades", colors)


THEMES = {
    # Okabe and Ito's palette, which color-blind readers can tell apart. Gray replaces its yellow: too pale on white.
    "light": Theme(
        paper="#ffffff",
        ink="#1b1f24",
        muted="#57606a",
        faint="#d8dee4",
        palette=("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F"),
        shades=_shades("#f6f8fa", "#b3d1e6", "#4d9ccb", "#0072B2", "#003a5c"),
    ),
    # The notebook's look: matplotlib's dark_background.
    "dark": Theme(
        paper="#000000",
        ink="#ffffff",
        muted="#b0b0b0",
        faint="#333333",
        palette=("#8dd3c7", "#feffb3", "#fa8174", "#bfbbd9", "#81b1d2", "#fdb462", "#b3de69", "#ccebc4"),
        shades=_shades("#10161c", "#1d4e5f", "#3f9aa0", "#8dd3c7", "#e8fff6"),
    ),
}
_active = [THEMES["light"]]


def theme() -> Theme:
    """The active theme."""
    return _active[-1]


@contextmanager
def use_theme(name: str) -> Iterator[Theme]:
    """Draw under the theme ``light`` or ``dark``; the user's matplotlibrc has no effect.

    A character without a glyph in any installed font is drawn as a box.
    """
    colors = THEMES[name]
    _active.append(colors)
    with style.context(["default", _rc_params(colors)]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        try:
            yield colors
        finally:
            _active.pop()


def _rc_params(colors: Theme) -> dict[str, Any]:
    return {
        "font.family": ["DejaVu Sans", *_installed_fallback_fonts()],
        "font.size": TEXT,
        "text.color": colors.ink,
        "text.parse_math": False,  # a $ in a name is a dollar sign
        "figure.facecolor": colors.paper,
        "axes.facecolor": colors.paper,
        "axes.edgecolor": colors.muted,
        "axes.labelcolor": colors.ink,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": f"cycler(color={list(colors.palette)})",
        "axes.titlesize": TEXT,
        "grid.color": colors.faint,
        "grid.linewidth": 0.8,
        "xtick.color": colors.muted,
        "ytick.color": colors.muted,
        "xtick.labelcolor": colors.ink,
        "ytick.labelcolor": colors.ink,
        "xtick.labelsize": SMALL,
        "ytick.labelsize": SMALL,
        "legend.fontsize": SMALL,
        "legend.frameon": False,
        "hatch.linewidth": 0.8,
    }


@cache
def _installed_fallback_fonts() -> tuple[str, ...]:
    installed = set(font_manager.get_font_names())
    return tuple(name for name in FALLBACK_FONTS if name in installed)


def render(draw: Callable[[], Figure], theme_name: str) -> bytes:
    """The PNG of the figure that ``draw`` returns under a theme."""
    buffer = io.BytesIO()
    with use_theme(theme_name):
        draw().savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def save_plot(file: Path, draw: Callable[[], Figure], theme_name: str) -> bool:
    """Draw a plot into a PNG file. A plot that fails is logged as a warning and returns False."""
    try:
        png = render(draw, theme_name)
        with replacing(file) as draft:
            draft.write_bytes(png)
    except Exception as error:  # a plot never ends a training or an evaluation
        log.warning("Warning: %s was not drawn: %s", file.name, one_line(error))
        return False
    return True


def new_figure(width: float, height: float, title: str, subtitle: str = "") -> Figure:
    """A figure with a heading, whose layout engine fills the space below the heading.

    Args:
        width: inches.
        height: inches below the heading.
        title: wrapped where it is too long; an empty one leaves no space for a heading.
        subtitle: smaller, wrapped likewise.
    """
    title, subtitle = wrap(title, width - 2 * MARGIN, TITLE, "bold"), wrap(subtitle, width - 2 * MARGIN, TEXT)
    subtitle_top = MARGIN + _text_height(title, TITLE)
    heading = subtitle_top + _text_height(subtitle, TEXT) + MARGIN / 2
    heading = math.ceil(heading * DPI) / DPI if title else 0  # whole pixels, for sheets of images
    total = heading + height
    layout = ConstrainedLayoutEngine(w_pad=MARGIN / 2, h_pad=MARGIN / 2, rect=(0, 0, 1, height / total))
    figure = Figure(figsize=(width, total), dpi=DPI, layout=layout)
    figure.text(MARGIN / width, 1 - MARGIN / total, title, size=TITLE, weight="bold", va="top")
    figure.text(MARGIN / width, 1 - subtitle_top / total, subtitle, size=TEXT, va="top", color=theme().muted)
    return figure


def percent_axis(axis: Axis) -> None:
    """Label the ticks of an axis in percent."""
    axis.set_major_formatter(lambda fraction, _: f"{100 * fraction:g} %")


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Width in inches of the longest line of a text."""
    font = font_manager.FontProperties(size=size, weight=weight)
    return (
        max(text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] for line in text.split("\n")) / 72
    )


def _text_height(text: str, size: float) -> float:
    return 1.4 * size * len(text.splitlines()) / 72


def wrap(text: str, width: float, size: float, weight: str = "normal", max_lines: int | None = None) -> str:
    """Break a text into lines of at most ``width`` inches; after ``max_lines`` it ends in an ellipsis."""
    full = text_width(text, size, weight)
    if full <= width:
        return text
    wrapped = text
    for letters in range(math.ceil(1.5 * len(text) * width / full), 1, -1):  # narrow letters: more than on average
        wrapped = textwrap.fill(text, letters, max_lines=max_lines, placeholder="…", break_on_hyphens=False)
        if text_width(wrapped, size, weight) <= width:
            break
    return wrapped


def shorten(text: str, width: float, size: float, weight: str = "normal") -> str:
    """Replace the middle of a text that is wider than ``width`` inches with an ellipsis."""
    return fit(text, width, lambda short: text_width(short, size, weight))
