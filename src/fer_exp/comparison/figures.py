"""The figures of a comparison: forest plot, curves, learning-rate sensitivity, cost.

``g0``, ``g1``, ... are the classes of the groups in the order of scores; they decide the color, in every figure.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from fer_exp.comparison.analysis import Comparison, RankedGroup
from fer_exp.comparison.load import Floats, Run
from fer_exp.comparison.score import Score, format_p, format_setting
from fer_exp.comparison.statistics import t_interval
from fer_exp.plots import svg
from fer_exp.plots.svg import Figure, Scale

FOREST_WIDTH, ROW = 400, 38  # fits a phone without small text: names and values are above the intervals
WIDTH, HEIGHT = 430, 270  # of a panel; a page shows two of them side by side
LEFT, RIGHT, TOP, BOTTOM = 60, 370, 26, 226  # the axes of a panel
MAX_SINGLES = 10  # curves of single runs in a panel, per group


def forest(comparison: Comparison) -> Figure | None:
    """Draw the differences to the reference: intervals, means (filled if significant) and seeds; None without any.

    Values far outside the typical range end at the border with an arrow.
    """
    if not comparison.tested:
        return None
    score, reference = comparison.score, comparison.reference
    shown = [group for group in comparison.groups if group.test or group is reference]
    x = Scale(*_forest_range(shown), 10, FOREST_WIDTH - 10)
    height = ROW * len(shown) + 12
    body, notes = [], []
    for tick in svg.nice_ticks(x.low, x.high, 6):
        text = f"{100 * tick if score.is_percent else tick:+g}" if tick else "0"
        body.append(svg.line(x(tick), 4, x(tick), height, "grid" if tick else "zero"))
        body.append(svg.label(text, x(tick), height + 16, "middle", "t"))
    axis = f"difference to {reference.label}{',' * bool(score.points)}{score.points}"
    body.append(svg.label(svg.fit(axis, FOREST_WIDTH), FOREST_WIDTH / 2, height + 36, "middle", "t"))
    for row, group in enumerate(shown):
        top = ROW * row
        if group.test:
            note = score.difference(group.test.mean)
            note += "" if math.isnan(group.p_adjusted) else f", p {format_p(group.p_adjusted)}"
        else:
            note = f"{comparison.reference_name}, {score.text(group.summary.mean)}"
        bold = "b" if group is reference or group.is_significant else None
        name = svg.fit(group.label, FOREST_WIDTH - svg.text_width(note) - 20)
        value = svg.element("tspan", escape(note), dx=10, class_="t")
        text = svg.element("text", escape(name), value, x=2, y=top + 17, class_=bold)
        notes.append(f"{group.label}: {note}")
        marks = _forest_marks(group, x, top + 29)
        body.append(svg.element("g", svg.tooltip(notes[-1]), text, *marks, class_=f"g{group.place}"))
    description = f"Difference of {score.label} to {reference.label}. {'; '.join(notes)}"
    return Figure("forest", body, FOREST_WIDTH, height + 44, description)


def _forest_range(groups: Sequence[RankedGroup]) -> tuple[float, float]:
    """Limits for all intervals, but at most five times the typical difference of a seed."""
    tests = [group.test for group in groups if group.test]
    ends = [end for test in tests for end in (test.low, test.high, *test.differences) if math.isfinite(end)]
    bound = 5 * max(float(np.median([max(map(abs, test.differences)) for test in tests])), 1e-4)
    low, high = max(min([0, *ends]), -bound), min(max([0, *ends]), bound)
    margin = 0.04 * (high - low) or 1e-4
    return low - margin, high + margin


def _forest_marks(group: RankedGroup, x: Scale, y: int) -> list[str]:
    test = group.test
    if test is None:
        return [svg.element("circle", cx=x(0), cy=y, r=5, class_="dot")]
    marks = [] if math.isnan(test.low) else [svg.line(x(test.low), y, x(test.high), y, "ci")]
    marks += [svg.element("circle", cx=x(one), cy=y, r=3, class_="seed") for one in test.differences if x.contains(one)]
    for end in {test.low, test.high, test.mean}:
        if end < x.low or end > x.high:
            marks.append(svg.element("path", d=f"M{x(end):.1f} {y}l{-7 if end > 0 else 7} -4v8z", class_="dot"))
    if x.contains(test.mean):
        kind = "dot" if group.is_significant else "open"
        marks.append(svg.element("rect", x=x(test.mean) - 4, y=y - 4, width=8, height=8, class_=kind))
    return marks


@dataclass(frozen=True)
class _Curve:
    """A metric of a group over epochs: the mean over seeds and its interval, all (E,), and single runs.

    ``singles`` are runs that the mean does not cover to their end: those that trained longer or diverged.
    """

    group: RankedGroup
    mean: Floats
    low: Floats
    high: Floats
    singles: Sequence[Run]

    def per_epoch(self, unit: str) -> float:
        """Steps or minutes of training of one epoch."""
        runs = self.group.counted
        totals = [run.history["step"][-1] if unit == "steps" else run.train_seconds[-1] / 60 for run in runs]
        return float(np.mean(np.array(totals) / [run.epochs for run in runs]))


def curves(comparison: Comparison) -> list[Figure]:
    """Draw the metrics over epochs, one panel each, accuracy and loss first."""
    first = ["val_acc", "val_loss", "train_acc", "train_loss"]
    logged = {name for run in comparison.counted for name in run.metrics}
    names = [name for name in first if name in logged] + sorted(logged.difference(first))
    return [_curves_panel(comparison, Score(name, comparison.score.measure)) for name in names]


def _curves_panel(comparison: Comparison, score: Score) -> Figure:
    """Draw one line per group with its interval, and the group's rank at the right end.

    The groups carry the factors that the page's stylesheet uses to show steps or minutes in place of epochs.
    """
    name = score.metric
    drawn = [_curve(group, name) for group in comparison.counted_groups]
    ceiling = _loss_ceiling(drawn, comparison) if score.sign < 0 else math.inf
    chance = comparison.chance if name.endswith("_acc") else math.nan
    lines = [values for curve in drawn for values in (curve.mean, *(run.finite(name) for run in curve.singles))]
    y = _y_scale([chance, *np.minimum(np.concatenate(lines), ceiling)])
    inner, last = RIGHT - LEFT, max(map(len, lines))
    longest = {unit: max(curve.per_epoch(unit) * len(curve.mean) for curve in drawn) for unit in ("steps", "minutes")}
    longest = {unit: end for unit, end in longest.items() if math.isfinite(end) and end > 0}
    body = [
        *_y_axis(y, score, score.label),
        *(_x_axis(unit, end, f"axis {unit}") for unit, end in {"epochs": last, **longest}.items()),
    ]
    if math.isfinite(chance):
        body.append(svg.line(LEFT, y(chance), RIGHT, y(chance), "chance"))
    xs = [inner * epoch / last for epoch in range(1, last + 1)]
    for curve in reversed(drawn):  # the best on top
        factors = [f"--{unit}:{curve.per_epoch(unit) * last / end:.4f}" for unit, end in longest.items()]
        shapes = svg.element("g", *_curve_shapes(curve, name, xs, y), class_="x", style=";".join(factors))
        body.append(svg.element("g", shapes, class_=f"g{curve.group.place}", transform=f"translate({LEFT} 0)"))
    body += _end_labels([(curve.mean[-1], curve.group) for curve in drawn if len(curve.mean)], y)
    slope = (y.high - y.low) / (y.end - y.start)
    data = {"zero": f"{y.low - slope * y.start:.6g}", "slope": f"{slope:.6g}", "epoch": f"{inner / last:.6g}"}
    description = f"{score.label} over epochs, one line per group. The tables hold the values."
    return Figure(f"curves_{name}", body, WIDTH, HEIGHT, description, True, {**data, "percent": int(score.is_percent)})


def _curve(group: RankedGroup, name: str) -> _Curve:
    logged = [run for run in group.counted if name in run.history]
    whole = [run for run in logged if run.status != "diverged"]
    shared = min((run.epochs for run in whole), default=0)
    values = np.array([run.finite(name)[:shared] for run in whole]).reshape(len(whole), shared)
    mean = values.mean(0) if len(whole) else np.empty(0)
    singles = [run for run in logged if run.status == "diverged" or run.epochs > shared]
    return _Curve(group, mean, *t_interval(values), singles[:MAX_SINGLES])


def _loss_ceiling(drawn: Sequence[_Curve], comparison: Comparison) -> float:
    """Twice the loss of a uniform guess, or more if all groups are above: outliers must not flatten the rest."""
    classes = next((len(run.classes) for run in comparison.counted if run.classes), 7)
    medians = [float(np.nanmedian(curve.mean)) for curve in drawn if np.isfinite(curve.mean).any()]
    return max(2 * math.log(max(2, classes)), 4 * min(medians, default=0.0))


def _curve_shapes(curve: _Curve, name: str, xs: Sequence[float], y: Scale) -> list[str]:
    def path(values: Floats, class_: str) -> str:
        return svg.element("path", d=svg.points(xs[: len(values)], [y(value) for value in values]), class_=class_)

    area = svg.band(xs[: len(curve.mean)], [y(value) for value in curve.low], [y(value) for value in curve.high])
    shapes = [svg.element("path", d=area, class_="band")] if area else []
    for run in curve.singles:
        values = run.finite(name)
        shapes.append(path(values, "thin"))
        known = np.flatnonzero(np.isfinite(values))
        if run.status == "diverged" and len(known):
            shapes.append(_cross(xs[known[-1]], y(values[known[-1]])))
    if len(curve.mean) == 1:
        shapes.append(svg.element("circle", cx=xs[0], cy=y(curve.mean[0]), r=4, class_="dot"))
    return [*shapes, path(curve.mean, "mean")]


def learning_rates(comparison: Comparison) -> Figure | None:
    """Draw the score over the learning rate, of a study's trials or else of the runs; None for one rate per line.

    A line is the mean, with a band from the lowest to the highest run. Groups that differ in the learning rate make one
    line, in the color of the best of them.
    """
    score = comparison.tunings[0].score if comparison.tunings else comparison.score
    lines: dict[str, tuple[int, dict[float, list[Run]]]] = {}
    for name, place, run in _tuned(comparison) if comparison.tunings else _swept(comparison):
        rate = run.value("optimizer.lr")
        if run.counts and isinstance(rate, int | float) and 0 < rate < math.inf and math.isfinite(score.of(run)):
            lines.setdefault(name, (place, {}))[1].setdefault(float(rate), []).append(run)
    if not any(len(by_rate) > 1 for _, by_rate in lines.values()):
        return None
    rates = [rate for _, by_rate in lines.values() for rate in by_rate]
    x = Scale(min(rates), max(rates), LEFT + 8, RIGHT - 8, log=True)
    y = _y_scale([score.of(run) for _, by_rate in lines.values() for runs in by_rate.values() for run in runs])
    body = _y_axis(y, score, f"{score.label}{' of trials' * bool(comparison.tunings)}, {score.measure} epoch")
    body += [svg.label(f"{tick:g}", x(tick), HEIGHT - 26, "middle", "t") for tick in svg.log_ticks(x.low, x.high)]
    body.append(svg.label("learning rate", (LEFT + RIGHT) / 2, HEIGHT - 7, "middle", "t"))
    for name, (place, by_rate) in lines.items():
        body.append(
            svg.element("g", *_line_shapes(name, dict(sorted(by_rate.items())), score, x, y), class_=f"g{place}")
        )
    body += svg.legend([(place, name) for name, (place, _) in lines.items()], WIDTH, HEIGHT + 4)
    height = HEIGHT + 20 * len(lines) + 8
    return Figure("learning_rate", body, WIDTH, height, f"{score.label} over the learning rate, one line per group")


def _tuned(comparison: Comparison) -> Iterator[tuple[str, int, Run]]:
    places = {group.label: group.place for group in comparison.groups}
    for number, tuning in enumerate(comparison.tunings):
        name = f"{tuning.label}: {format_setting(tuning.winner.value('optimizer.lr'))} chosen" if tuning.winner else ""
        name += ", at the end of the range" if "optimizer.lr" in tuning.boundary_hits else ""
        for run in tuning.trials:
            yield name or tuning.label, places.get(tuning.label, len(places) + number), run


def _swept(comparison: Comparison) -> Iterator[tuple[str, int, Run]]:
    for group in comparison.groups:
        name = re.sub(r"(, )?optimizer\.lr=[^,]+", "", group.label).removeprefix(", ")
        for run in group.counted:
            yield name or str(run.value("optimizer")), group.place, run


def _line_shapes(name: str, by_rate: dict[float, list[Run]], score: Score, x: Scale, y: Scale) -> list[str]:
    values = {rate: [score.of(run) for run in runs] for rate, runs in by_rate.items()}
    xs, means = [x(rate) for rate in values], [float(np.mean(scores)) for scores in values.values()]
    area = svg.band(xs, [y(min(scores)) for scores in values.values()], [y(max(scores)) for scores in values.values()])
    shapes = [svg.element("path", d=area, class_="band")]
    shapes.append(svg.element("path", d=svg.points(xs, list(map(y, means))), class_="mean"))
    for rate, at, mean in zip(values, xs, means, strict=True):
        hint = svg.tooltip(f"{name}, learning rate {rate:g}: {score.text(mean)}")
        shapes.append(svg.element("circle", hint, cx=at, cy=y(mean), r=3.5, class_="dot"))
        if any(run.status == "diverged" for run in by_rate[rate]):
            shapes.append(_cross(at, y.start - 6))
    return shapes


def cost(comparison: Comparison) -> Figure | None:
    """Draw the score over minutes of training, a dot per run and group; None if no times are recorded."""
    score = comparison.score
    drawn = []
    for group in comparison.counted_groups:
        values = np.array([(run.train_seconds[-1] / 60, score.of(run)) for run in group.counted])
        values = values[np.isfinite(values).all(1)]
        if len(values):
            drawn.append((group, values))
    if not drawn:
        return None
    minutes, scores = np.concatenate([values for _, values in drawn]).T
    x = Scale(0, 1.05 * max(minutes) or 1, LEFT, RIGHT)
    y = _y_scale(scores)
    body = [*_y_axis(y, score, f"{score.label}, {score.measure} epoch"), _x_axis("minutes", x.high, "fixed")]
    if y.low <= comparison.chance <= y.high:
        body.append(svg.line(LEFT, y(comparison.chance), RIGHT, y(comparison.chance), "chance"))
    for group, values in reversed(drawn):
        shapes = [svg.element("circle", cx=x(a), cy=y(b), r=3, class_="seed") for a, b in values]
        a, b = values.mean(0)
        shapes += [svg.element("circle", cx=x(a), cy=y(b), r=4.5, class_="dot"), svg.tooltip(group.label)]
        body.append(svg.element("g", *shapes, class_=f"g{group.place}"))
    body += _end_labels([(values.mean(0)[1], group) for group, values in drawn], y)
    return Figure("cost", body, WIDTH, HEIGHT, f"{score.label} over minutes, a dot per run and group", has_ranks=True)


def _y_scale(values: Iterable[float]) -> Scale:
    """A scale for values from 0 up, with a margin; values that are not finite do not count."""
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    margin = 0.05 * (max(known) - min(known)) or 0.01
    return Scale(max(0.0, min(known) - margin), max(known) + margin, BOTTOM, TOP)


def _y_axis(y: Scale, score: Score, title: str) -> list[str]:
    parts = [svg.label(title, 2, 14, class_="b")]
    for tick in svg.nice_ticks(y.low, y.high, 6):
        text = f"{100 * tick:g} %" if score.is_percent else f"{tick:g}"
        parts += [svg.line(LEFT, y(tick), RIGHT, y(tick), "grid"), svg.label(text, LEFT - 6, y(tick) + 4.5, "end", "t")]
    return parts


def _x_axis(unit: str, end: float, class_: str) -> str:
    """An axis that begins at 0; the page shows one of those of the class ``axis``, and any other."""
    x = Scale(0, end, LEFT, RIGHT)
    shown = [tick for tick in svg.nice_ticks(0, end, 6) if unit == "minutes" or tick.is_integer()]
    ticks = {tick: f"{tick:g}" if tick < 10_000 else f"{tick / 1000:g}k" for tick in shown}
    parts = [svg.label(text, x(tick), HEIGHT - 26, "middle", "t") for tick, text in ticks.items()]
    name = "minutes of training" if unit == "minutes" else unit
    parts.append(svg.label(name, (LEFT + RIGHT) / 2, HEIGHT - 7, "middle", "t"))
    return svg.element(
        "g", *parts, class_=class_, display="none" if class_.startswith("axis") and unit != "epochs" else None
    )


def _end_labels(values: Sequence[tuple[float, RankedGroup]], y: Scale) -> list[str]:
    """The groups' ranks at the right border, at the heights of their values but never on top of each other."""
    ends = sorted((y(value), group.place) for value, group in values if not math.isnan(value))
    height = min(13.0, (y.start - y.end + 12) / max(1, len(ends)))
    texts, lowest = [], y.end - height
    for row, (wanted, place) in enumerate(ends):
        latest = y.start - height * (len(ends) - 1 - row)  # leaves room for those below
        lowest = max(lowest + height, min(wanted, latest))
        texts.append(svg.element("g", svg.label(f"#{place + 1}", RIGHT + 5, lowest + 4, None, "g"), class_=f"g{place}"))
    return texts


def _cross(x: float, y: float) -> str:
    return svg.element("path", d=f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8", class_="ci")
