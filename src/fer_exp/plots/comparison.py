"""Figures of a comparison as SVG: forest plot, curves, learning-rate sensitivity, cost.

``group`` is the place of a group in the order of scores; it decides the colour, in every figure.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fer_exp.plots.svg import (
    Scale,
    band,
    element,
    figure,
    fit,
    label,
    legend,
    line,
    log_ticks,
    nice_ticks,
    points,
    text_width,
    tooltip,
)

WIDTH, HEIGHT = 430, 270  # of a panel; a page shows two of them side by side
LEFT, RIGHT, TOP, BOTTOM = 52, 30, 26, 44  # margins of a panel
WIDE, NARROW = 620, 345  # of the forest plot


@dataclass(frozen=True)
class ForestRow:
    """A group's difference to the reference: its mean, the ends of its interval, and one value per seed.

    ``note`` is the text beside it; ``is_reference`` marks the group that the others are compared with.
    """

    name: str
    group: int
    mean: float
    low: float
    high: float
    seeds: Sequence[float]
    note: str
    is_significant: bool = False
    is_reference: bool = False


@dataclass(frozen=True)
class Curve:
    """A metric over epochs: the mean over seeds and its interval, all (E,).

    ``steps`` and ``minutes`` are the number of steps and the minutes of training in one epoch. ``ends`` are the last
    points (epoch, value) of diverged runs, and ``singles`` the curves of runs that trained longer than the mean goes.
    """

    name: str
    group: int
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    steps: float
    minutes: float
    singles: Sequence[Sequence[float]] = ()
    ends: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Response:
    """The score over the learning rate: (L,) rates, their means, and the lowest and highest run at each.

    ``chosen`` is the rate that a study chose, and ``at_boundary`` whether it is the lowest or highest tried.
    ``diverged`` are rates at which a run diverged.
    """

    name: str
    group: int
    rates: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    chosen: float | None = None
    at_boundary: bool = False
    diverged: Sequence[float] = ()


@dataclass(frozen=True)
class Cost:
    """A group's score and minutes of training, one value per run."""

    name: str
    group: int
    minutes: Sequence[float]
    scores: Sequence[float]


def forest_plot(rows: Sequence[ForestRow], axis: str, percent: bool, width: float, description: str) -> str:
    """Draw one row per group: the interval, the mean (filled if significant) and the seeds as dots.

    A narrow plot has names and notes above the intervals, a wide one beside them. Values far outside the typical range
    end at the border with an arrow.
    """
    is_narrow = width < 500
    names = 0.0 if is_narrow else min(0.36 * width, max(text_width(row.name) for row in rows) + 12)
    notes = 0.0 if is_narrow else max(text_width(row.note) for row in rows) + 12
    row_height, bottom = (42, 20) if is_narrow else (26, 8)
    height = row_height * len(rows) + bottom
    low, high = _forest_range(rows)
    x = Scale(low, high, names + 10, width - notes - 10)
    body = []
    for tick in nice_ticks(low, high, 6 if is_narrow else 9):
        body.append(line(x(tick), 4, x(tick), height, "zero" if tick == 0 else "grid"))
        body.append(label(_tick(percent, tick, "+"), x(tick), height + 16, "middle", "t"))
    body.append(label(fit(axis, width), width / 2, height + 36, "middle", "t"))
    for place, row in enumerate(rows):
        top = row_height * place
        y = top + (30 if is_narrow else 17)
        bold = "b" if row.is_reference or row.is_significant else None
        if is_narrow:
            name = fit(row.name, width - text_width(row.note) - 16)
            texts = [label(name, 2, top + 17, class_=bold), label(row.note, width - 2, top + 17, "end", "t")]
        else:
            name = fit(row.name, names - 8)
            note_class = f"t {bold}" if bold else "t"
            texts = [
                label(name, names - 2, y + 4.5, "end", bold),
                label(row.note, x.end + 14, y + 4.5, None, note_class),
            ]
        parts = [tooltip(f"{row.name}: {row.note}"), *texts, *_forest_marks(row, x, y)]
        body.append(element("g", *parts, class_=f"g{row.group}"))
    return figure(body, width, height + 44, description)


def _forest_range(rows: Sequence[ForestRow]) -> tuple[float, float]:
    means = [abs(row.mean) for row in rows if not row.is_reference and math.isfinite(row.mean)]
    ends = [value for row in rows for value in (row.low, row.high, row.mean, *row.seeds) if math.isfinite(value)]
    spread = [abs(seed - row.mean) for row in rows for seed in row.seeds if math.isfinite(seed)]
    bound = max(10 * float(np.median(means or [0])), 4 * float(np.median(spread or [0])), 1e-4)
    low, high = max(min([0, *ends]), -bound), min(max([0, *ends]), bound)
    margin = 0.04 * (high - low) or 1e-4
    return low - margin, high + margin


def _forest_marks(row: ForestRow, x: Scale, y: float) -> list[str]:
    if row.is_reference:
        return [element("circle", cx=x(0), cy=y, r=5, class_="dot")]
    if not math.isfinite(row.mean):
        return []
    marks = []
    if math.isfinite(row.low):
        marks.append(line(x(row.low), y, x(row.high), y, "ci"))
        marks += [_arrow(x(end), y, end > 0) for end in (row.low, row.high) if not x.low <= end <= x.high]
    inside = [seed for seed in row.seeds if x.low <= seed <= x.high]
    marks += [element("circle", cx=x(seed), cy=y, r=3, class_="seed") for seed in inside]
    if x.low <= row.mean <= x.high:
        kind = "dot" if row.is_significant else "open"
        marks.append(element("rect", x=x(row.mean) - 4, y=y - 4, width=8, height=8, class_=kind))
    elif not math.isfinite(row.low):
        marks.append(_arrow(x(row.mean), y, row.mean > 0))
    return marks


def _arrow(x: float, y: float, right: bool) -> str:
    back = -7 if right else 7
    return element("path", d=f"M{x:.1f} {y}l{back} -4v8z", class_="dot")


def curves_panel(
    curves: Sequence[Curve], title: str, percent: bool, chance: float = math.nan, ceiling: float = math.inf
) -> str:
    """Draw a metric over epochs, one line per group with its interval, and its place in the order at the right end.

    The groups carry the factors that a page's stylesheet uses to show steps or minutes in place of epochs.

    Args:
        curves: in the order of scores.
        title: the metric, above the panel.
        percent: whether values are fractions that are shown in %.
        chance: value of a constant guess, drawn as a dashed line.
        ceiling: largest value shown.
    """
    last = max((len(each) for curve in curves for each in (curve.mean, *curve.singles)), default=1)
    y = _y_scale([chance, *(min(v, ceiling) for c in curves for part in (c.mean, *c.singles) for v in part)])
    inner = WIDTH - LEFT - RIGHT
    body = [label(title, 2, 14, class_="b"), *_y_axis(y, percent)]
    longest = {"epochs": float(last)}
    for unit in ("steps", "minutes"):
        longest[unit] = max((getattr(curve, unit) * len(curve.mean) for curve in curves), default=0.0)
    body += [_x_axis(unit, end, inner) for unit, end in longest.items() if math.isfinite(end) and end > 0]
    if math.isfinite(chance):
        body.append(line(LEFT, y(chance), WIDTH - RIGHT, y(chance), "chance"))
    xs = [inner * epoch / last for epoch in range(1, last + 1)]
    for curve in reversed(curves):  # the best on top
        factors = [
            f"--{unit}:{getattr(curve, unit) * last / longest[unit]:.4f}"
            for unit in ("steps", "minutes")
            if math.isfinite(longest[unit]) and longest[unit] > 0
        ]
        shapes = element("g", *_curve_shapes(curve, xs, y), class_="x", style=";".join(factors))
        body.append(element("g", shapes, class_=f"g{curve.group}", transform=f"translate({LEFT} 0)"))
    body += _end_labels([(curve.mean[-1], curve.group) for curve in curves if len(curve.mean)], y)
    return figure(
        body,
        WIDTH,
        HEIGHT,
        f"{title} over epochs, one line per group. The tables hold the values.",
        data_low=f"{y.low:.6g}",
        data_high=f"{y.high:.6g}",
        data_epochs=last,
        data_percent=1 if percent else None,
    )


def _y_scale(values: Sequence[float]) -> Scale:
    """A scale for values from 0 up, with a margin; values that are not finite do not count."""
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    margin = 0.05 * (max(known) - min(known)) or 0.01
    return Scale(max(0.0, min(known) - margin), max(known) + margin, HEIGHT - BOTTOM, TOP)


def _y_axis(y: Scale, percent: bool) -> list[str]:
    parts = []
    for tick in nice_ticks(y.low, y.high, 6):
        parts.append(line(LEFT, y(tick), WIDTH - RIGHT, y(tick), "grid"))
        parts.append(label(_tick(percent, tick), LEFT - 6, y(tick) + 4.5, "end", "t"))
    return parts


def _x_axis(unit: str, end: float, inner: float) -> str:
    parts = [
        label(
            f"{tick:g}" if tick < 10_000 else f"{tick / 1000:g}k", LEFT + inner * tick / end, HEIGHT - 26, "middle", "t"
        )
        for tick in nice_ticks(0, end, 6)
    ]
    name = "minutes of training" if unit == "minutes" else unit
    parts.append(label(name, LEFT + inner / 2, HEIGHT - 7, "middle", "t"))
    return element("g", *parts, class_=f"axis {unit}", display=None if unit == "epochs" else "none")


def _curve_shapes(curve: Curve, xs: Sequence[float], y: Scale) -> list[str]:
    def places(values: Sequence[float]) -> list[float]:
        return [math.nan if math.isnan(value) else y(value) for value in values]

    shapes = []
    if area := band(xs[: len(curve.mean)], places(curve.low), places(curve.high)):
        shapes.append(element("path", d=area, class_="band"))
    shapes += [element("path", d=points(xs[: len(one)], places(one)), class_="thin") for one in curve.singles]
    if len(curve.mean) == 1:
        shapes.append(element("circle", cx=xs[0], cy=y(curve.mean[0]), r=4, class_="dot"))
    shapes.append(element("path", d=points(xs[: len(curve.mean)], places(curve.mean)), class_="mean"))
    for epoch, value in curve.ends:
        shapes.append(element("path", d=_cross(xs[int(epoch) - 1], y(value)), class_="ci"))
    return shapes


def _cross(x: float, y: float) -> str:
    return f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"


def _end_labels(values: Sequence[tuple[float, int]], y: Scale) -> list[str]:
    """The groups' places at the right border, at the heights of their values but never on top of each other."""
    ends = sorted((y(value), group) for value, group in values if not math.isnan(value))
    height = min(13.0, (y.start - y.end + 12) / max(1, len(ends)))
    texts, lowest = [], y.end - height
    for place, (wanted, group) in enumerate(ends):
        latest = y.start - height * (len(ends) - 1 - place)  # leaves room for those below
        lowest = max(lowest + height, min(wanted, latest))
        texts.append(element("g", label(str(group + 1), WIDTH - RIGHT + 5, lowest + 4, None, "g"), class_=f"g{group}"))
    return texts


def learning_rate_panel(responses: Sequence[Response], title: str, percent: bool) -> str:
    """Draw the score over the learning rate: means with a band from the lowest to the highest run.

    A ring is the chosen learning rate; an arrow beside it says that a better one may lie beyond the range tried.
    """
    rates = [rate for each in responses for rate in (*each.rates, *each.diverged)]
    low, high = min(rates), max(rates)
    x = Scale(low, high, LEFT + 8, WIDTH - RIGHT - 8, log=True)
    y = _y_scale([value for each in responses for value in (*each.low, *each.high)])
    body = [label(title, 2, 14, class_="b"), *_y_axis(y, percent)]
    for tick in log_ticks(low, high):
        body.append(label(f"{tick:g}", x(tick), HEIGHT - 26, "middle", "t"))
    body.append(label("learning rate", (x.start + x.end) / 2, HEIGHT - 7, "middle", "t"))
    for each in responses:
        xs, ys = [x(rate) for rate in each.rates], [y(value) for value in each.mean]
        lows, highs = [y(value) for value in each.low], [y(value) for value in each.high]
        parts = [element("path", d=band(xs, lows, highs), class_="band")] * (len(xs) > 1)
        parts.append(element("path", d=points(xs, ys), class_="mean"))
        for place, rate in enumerate(each.rates):
            hint = tooltip(f"{each.name}, learning rate {rate:g}: {_tick(percent, each.mean[place])}")
            parts.append(element("circle", hint, cx=xs[place], cy=ys[place], r=3.5, class_="dot"))
        parts += [element("path", d=_cross(x(rate), y.start - 6), class_="ci") for rate in each.diverged]
        if each.chosen is not None:
            at, height = x(each.chosen), y(max(each.mean[i] for i, r in enumerate(each.rates) if r == each.chosen))
            parts.append(element("circle", cx=at, cy=height, r=7, class_="open"))
            if each.at_boundary:
                is_high = each.chosen == max(each.rates)
                parts.append(_arrow(at + (16 if is_high else -16), round(height, 1), is_high))
        body.append(element("g", *parts, class_=f"g{each.group}"))
    body += legend([(each.group, each.name) for each in responses], WIDTH, HEIGHT + 4)
    return figure(body, WIDTH, HEIGHT + 20 * len(responses) + 8, f"{title}, one line per group")


def cost_panel(costs: Sequence[Cost], title: str, percent: bool, chance: float = math.nan) -> str:
    """Draw the score over minutes of training: a dot per run, and the group's place at its mean."""
    minutes = [value for cost in costs for value in cost.minutes]
    x = Scale(0, 1.05 * max(minutes) or 1, LEFT, WIDTH - RIGHT)
    y = _y_scale([score for cost in costs for score in cost.scores])
    body = [label(title, 2, 14, class_="b"), *_y_axis(y, percent), _x_axis("minutes", x.high, x.end - x.start)]
    body[-1] = body[-1].replace(' display="none"', "").replace("axis minutes", "fixed")
    if y.low <= chance <= y.high:
        body.append(line(LEFT, y(chance), WIDTH - RIGHT, y(chance), "chance"))
    for cost in reversed(costs):
        dots = [
            element("circle", cx=x(a), cy=y(b), r=3, class_="seed")
            for a, b in zip(cost.minutes, cost.scores, strict=True)
        ]
        at, height = x(float(np.mean(cost.minutes))), y(float(np.mean(cost.scores)))
        center = [element("circle", cx=at, cy=height, r=4.5, class_="dot"), tooltip(cost.name)]
        body.append(element("g", *dots, *center, class_=f"g{cost.group}"))
    body += _end_labels([(float(np.mean(cost.scores)), cost.group) for cost in costs], y)
    return figure(body, WIDTH, HEIGHT, f"{title}, a dot per run and group")


def _tick(percent: bool, value: float, sign: str = "") -> str:
    if sign:  # of a difference: points, without a unit
        return f"{100 * value if percent else value:{sign}g}" if value else "0"
    return f"{100 * value:g} %" if percent else f"{value:g}"
