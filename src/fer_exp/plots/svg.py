"""Build SVG figures as text: elements, scales, ticks, and the colors of groups.

A figure inside a page takes its colors from the page's stylesheet, which follows the reader's light or dark theme.
``Figure.file`` has a stylesheet of its own, with colors for white paper.
"""

import colorsys
import html
import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

FONT_SIZE = 14
# Distinct for most color-blind readers, with a contrast of at least 3:1; more groups get colors around the circle.
_LIGHT = ("#0072b2", "#d55e00", "#00855f", "#b3407f", "#8a6a00", "#6a51c8", "#5f6b76", "#8c4a2f")
_DARK = ("#6bb8f0", "#ff9e5e", "#4fd0a5", "#f29ac7", "#e0c04c", "#b3a4ff", "#b8c2cc", "#e0a184")
_DASHES = ("none", "7 3", "2 3")


@dataclass(frozen=True)
class Figure:
    """A drawn figure.

    Attributes:
        name: of its file, without ``.svg``.
        body: elements.
        width: in pixels.
        height: in pixels.
        description: text for readers who do not see the figure.
        has_ranks: whether it shows the groups' ranks only, so that a file of its own needs a legend.
        data: ``data-*`` attributes for the page's script.
    """

    name: str
    body: Sequence[str] = field(repr=False)
    width: int
    height: int
    description: str
    has_ranks: bool = False
    data: Mapping[str, object] = field(default_factory=dict)

    @property
    def svg(self) -> str:
        """The ``<svg>`` element for a page that has ``stylesheet``."""
        return self._element(self.body, self.height, **{f"data_{key}": value for key, value in self.data.items()})

    def file(self, names: Sequence[str]) -> str:
        """The text of an SVG file, with the groups' ``names`` below if it needs them."""
        entries = [(i, f"#{i + 1} {name}") for i, name in enumerate(names)] if self.has_ranks else []
        style = element("style", stylesheet(len(names)), "svg{background:#fff}")
        body = [style, *self.body, *legend(entries, self.width, self.height)]
        height = self.height + 20 * len(entries) + 6
        svg = self._element(body, height, xmlns="http://www.w3.org/2000/svg")
        return f'<?xml version="1.0" encoding="utf-8"?>\n{svg}\n'

    def _element(self, body: Sequence[str], height: int, **attributes: object) -> str:
        box = f"0 0 {self.width} {height}"
        return element(
            "svg", *body, **attributes, viewBox=box, width=self.width, role="img", aria_label=self.description
        )


@dataclass(frozen=True)
class Scale:
    """Maps values between ``low`` and ``high`` to pixels between ``start`` and ``end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of a value; values outside are clipped to the ends, and NaN stays NaN."""
        if math.isnan(value):
            return math.nan
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        position = math.log(max(value, self.low)) if self.log else value
        fraction = 0.5 if high == low else min(1.0, max(0.0, (position - low) / (high - low)))
        return self.start + fraction * (self.end - self.start)

    def contains(self, value: float) -> bool:
        """Whether a value is between ``low`` and ``high``."""
        return self.low <= value <= self.high


def element(name: str, *children: str, **attributes: object) -> str:
    """Return an element. ``class_`` is ``class``, other underscores are hyphens; None leaves an attribute out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{given}>{''.join(children)}</{name}>" if children else f"<{name}{given}/>"


def label(content: str, x: float, y: float, anchor: str | None = None, class_: str | None = None) -> str:
    """Return a text; ``anchor`` is middle or end."""
    return element("text", html.escape(content), x=x, y=y, text_anchor=anchor, class_=class_)


def tooltip(content: str) -> str:
    """Return a title, which browsers show when the pointer is over the element around it."""
    return element("title", html.escape(content))


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    """Return a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def points(xs: Sequence[float], ys: Sequence[float]) -> str:
    """Return the ``d`` of a path through points; NaN interrupts it."""
    parts, pen_down = [], False
    for x, y in zip(xs, ys, strict=True):
        if math.isnan(x) or math.isnan(y):
            pen_down = False
            continue
        parts.append(f"{'L' if pen_down else 'M'}{_text(float(x))} {_text(float(y))}")
        pen_down = True
    return "".join(parts)


def band(xs: Sequence[float], lows: Sequence[float], highs: Sequence[float]) -> str:
    """Return the ``d`` of the area between two curves, where both are known."""
    known = [(x, a, b) for x, a, b in zip(xs, lows, highs, strict=True) if not math.isnan(a + b)]
    if not known:
        return ""
    x, low, high = map(list, zip(*known, strict=True))
    return points([*x, *x[::-1]], [*low, *high[::-1]]) + "Z"


def nice_ticks(low: float, high: float, most: int) -> list[float]:
    """Return at most ``most`` round numbers between two values."""
    if not high > low:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(step * k for k in (1, 2, 5, 10, 20, 50) if (high - low) / (step * k) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return powers of ten between two positive values, with 3 times each of them if those are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [k * 10.0**power for power in powers for k in (1, 3) if low <= k * 10.0**power * (1 + 1e-9) <= high * 1.01]
    return ticks if len(ticks) <= most else [tick for tick in ticks if math.log10(tick) % 1 < 1e-9]


def text_width(text: str) -> float:
    """Estimate the width of a text in pixels; East Asian characters and emoji are wide."""
    return FONT_SIZE * sum(1.05 if unicodedata.east_asian_width(sign) in "WF" else 0.58 for sign in text)


def fit(text: str, width: float, measure: Callable[[str], float] = text_width) -> str:
    """Replace the middle of a text that is wider than ``width`` with an ellipsis: names often differ at their ends."""
    if measure(text) <= width:
        return text
    for letters in range(len(text) - 1, 0, -1):
        end = letters // 2
        short = f"{text[: letters - end]}…{text[len(text) - end :]}"
        if measure(short) <= width:
            return short
    return "…"


def legend(names: Sequence[tuple[int, str]], width: float, top: float) -> list[str]:
    """Return the names of groups below each other, each with a square in the group's color."""
    return [
        element(
            "g",
            element("rect", x=2, y=top + 20 * i, width=10, height=10, class_="dot"),
            label(fit(name, width - 20), 18, top + 20 * i + 10),
            class_=f"g{group}",
        )
        for i, (group, name) in enumerate(names)
    ]


def stylesheet(
    groups: int, ink: str = "#1b1f24", muted: str = "#57606a", grid: str = "#d8dee4", paper: str = "#fff"
) -> str:
    """Return the CSS of all figures, with the light colors of the groups."""
    rules = [
        f"svg{{font:{FONT_SIZE}px system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',sans-serif}}",
        f"svg text{{fill:{ink};paint-order:stroke;stroke:{paper};stroke-width:3px}}",
        f"svg .t{{fill:{muted}}}svg .b{{font-weight:700}}",
        f".grid{{stroke:{grid}}}.zero{{stroke:{ink}}}.chance{{stroke:{muted};stroke-dasharray:4 4}}",
        ".ci,.mean{stroke:currentColor;stroke-width:2;fill:none;vector-effect:non-scaling-stroke}",
        ".thin{stroke:currentColor;stroke-width:1;fill:none;vector-effect:non-scaling-stroke;opacity:.6}",
        ".band{fill:currentColor;opacity:.15;stroke:none}.dot,.seed{stroke:currentColor}.dot{fill:currentColor}",
        ".seed{fill:none;stroke-width:1.2}.open{stroke:currentColor;stroke-width:2;fill:none}",
        "svg .g{fill:currentColor}",
    ]
    dashes = [f".g{n} .mean{{stroke-dasharray:{_DASHES[n // 8 % 3]}}}" for n in range(8, groups)]
    return "".join([*rules, group_colors(groups), *dashes])


def group_colors(groups: int, dark: bool = False) -> str:
    """Return the CSS of the groups' colors, classes ``g0``, ``g1``, ..."""
    fixed = _DARK if dark else _LIGHT
    return "".join(f".g{n}{{color:{fixed[n] if n < len(fixed) else _color(n, dark)}}}" for n in range(groups))


def _color(n: int, dark: bool) -> str:
    red, green, blue = colorsys.hls_to_rgb((n * 0.381966 + 0.45) % 1, 0.72 if dark else 0.36, 0.55)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def _text(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
