"""The figures of a comparison: the data of each, drawn as SVG by ``plots.comparison``."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fer_exp.comparison import formats
from fer_exp.comparison.analysis import Comparison
from fer_exp.comparison.formats import is_percent
from fer_exp.comparison.grouping import Group
from fer_exp.comparison.load import Floats, Measure, Run
from fer_exp.comparison.statistics import t_interval
from fer_exp.metrics import describe
from fer_exp.plots.comparison import (
    NARROW,
    WIDE,
    Cost,
    Curve,
    ForestRow,
    Response,
    cost_panel,
    curves_panel,
    forest_plot,
    learning_rate_panel,
)

MAX_SINGLES = 10  # curves of single runs in a panel, per group


@dataclass(frozen=True)
class Figure:
    """A drawn figure.

    ``narrow`` is a version for a phone, if it needs one. ``is_numbered`` if it shows the groups' places in place of
    their names, so that a file of its own needs a legend.
    """

    name: str
    svg: str
    narrow: str = ""
    is_numbered: bool = False


def forest(comparison: Comparison) -> Figure | None:
    """Draw the differences of the score to the reference; None without any."""
    reference, metric = comparison.reference, comparison.metric
    tested = {each.group.label: each for each in comparison.differences if each.test}
    if reference is None or not tested:
        return None
    rows = []
    for place, group in enumerate(comparison.groups):
        name = f"{place + 1} {group.label}"
        if group is reference:
            mean = group.summary(comparison.measure, metric).mean
            kind = "baseline" if comparison.has_baseline else "best"
            rows.append(
                ForestRow(name, place, 0, 0, 0, (), f"{kind}, {formats.score(mean, metric)}", is_reference=True)
            )
        elif each := tested.get(group.label):
            test = each.test
            assert test
            p = "" if math.isnan(each.p_adjusted) else f", p {formats.p_value(each.p_adjusted)}"
            note = f"{formats.difference(test.mean, metric)}{p}"
            significant = comparison.is_significant(each)
            rows.append(ForestRow(name, place, test.mean, test.low, test.high, test.differences, note, significant))
    axis = f"difference to {reference.label}{formats.unit(metric)}"
    values = "; ".join(f"{row.name}: {row.note}" for row in rows)
    description = f"Difference of {describe(metric).label} to {reference.label}. {values}"

    wide, narrow = (forest_plot(rows, axis, is_percent(metric), width, description) for width in (WIDE, NARROW))
    return Figure("forest", wide, narrow)


def curves(comparison: Comparison) -> list[Figure]:
    """Draw the metrics over epochs, one panel each, those of validation first."""
    names = dict.fromkeys(name for run in comparison.counted for name in run.history)
    shown = [name for name in names if name.startswith(("val_", "train_")) and not name.endswith("_seconds")]
    order: list[str] = [name for name in ("val_acc", "val_loss", "train_acc", "train_loss") if name in shown]
    order += sorted({*shown} - {*order})
    figures = []
    for name in order:
        groups = [_curve(place, group, name) for place, group in enumerate(comparison.groups) if group.counted]
        is_loss = describe(name).direction == "min"
        chance = comparison.chance if name.endswith("_acc") else math.nan
        ceiling = _loss_ceiling(groups, comparison) if is_loss else math.inf
        svg = curves_panel(groups, describe(name).label, is_percent(name), chance, ceiling)
        figures.append(Figure(f"curves_{name}", svg, is_numbered=True))
    return figures


def _curve(place: int, group: Group, name: str) -> Curve:
    """The mean goes as far as all runs that did not diverge; longer and diverged runs are single lines."""
    whole = [run for run in group.counted if run.status != "diverged" and name in run.history]
    shared = min((run.epochs for run in whole), default=0)
    values = np.array([_finite(run, name)[:shared] for run in whole]).reshape(len(whole), shared)
    low, high = t_interval(values)
    diverged = [run for run in group.counted if run.status == "diverged" and name in run.history]
    longer = [run for run in whole if run.epochs > shared]
    ends = []
    for run in diverged:
        known = np.flatnonzero(np.isfinite(run.history[name]))
        if len(known):
            ends.append((float(known[-1] + 1), float(run.history[name][known[-1]])))
    steps = [float(run.history["step"][-1]) / run.epochs for run in group.counted if "step" in run.history]
    minutes = [float(run.train_seconds[-1]) / 60 / run.epochs for run in group.counted]
    return Curve(
        name=group.label,
        group=place,
        mean=values.mean(0).tolist() if len(whole) else [],
        low=low.tolist(),
        high=high.tolist(),
        steps=float(np.mean(steps)) if steps else math.nan,
        minutes=float(np.mean(minutes)),
        singles=[_finite(run, name).tolist() for run in (*longer, *diverged)[:MAX_SINGLES]],
        ends=ends,
    )


def _finite(run: Run, name: str) -> Floats:
    return np.where(np.isfinite(run.history[name]), run.history[name], np.nan)


def _loss_ceiling(groups: Sequence[Curve], comparison: Comparison) -> float:
    """Twice the loss of a uniform guess, or more if all groups are above: outliers must not flatten the rest."""
    classes = next((len(run.classes) for run in comparison.counted if run.classes), 7)
    medians = [float(np.nanmedian(curve.mean)) for curve in groups if len(curve.mean) and np.isfinite(curve.mean).any()]
    return max(2 * math.log(max(2, classes)), 4 * min(medians, default=0.0))


def learning_rates(comparison: Comparison) -> Figure | None:
    """Draw the score over the learning rate; None if no optimizer ran with more than one."""
    responses = _tuned(comparison) if comparison.tunings else _swept(comparison)
    if not any(len(each.rates) > 1 for each in responses):
        return None
    measure = comparison.tunings[0].measure if comparison.tunings else comparison.measure
    what = " of trials" if comparison.tunings else ""
    metric = "val_acc" if comparison.tunings else comparison.metric
    title = f"{describe(metric).label}{what}, {measure} epoch"
    return Figure("learning_rate", learning_rate_panel(responses, title, is_percent(metric)))


def _tuned(comparison: Comparison) -> list[Response]:
    places = {group.label: place for place, group in enumerate(comparison.groups)}
    responses = []
    for number, tuning in enumerate(comparison.tunings):
        group = places.get(tuning.label, len(places) + number)
        runs = [run for run in tuning.trials if _has_rate(run)]
        chosen = _rate(tuning.winner) if tuning.winner and _has_rate(tuning.winner) else None
        at_boundary = "optimizer.lr" in tuning.boundary_hits
        label = tuning.label + (f": {chosen:g} chosen" if chosen else "")
        label += ", at the end of the range" if at_boundary else ""
        if response := _response(label, group, runs, tuning.measure, "val_acc", chosen, at_boundary):
            responses.append(response)
    return responses


def _swept(comparison: Comparison) -> list[Response]:
    """Groups that differ in the learning rate make one line, in the colour of the best of them."""
    lines: dict[str, list[tuple[int, Run]]] = {}
    for place, group in enumerate(comparison.groups):
        for run in filter(_has_rate, group.counted):
            label = re.sub(r"(, )?optimizer\.lr=[^,]+", "", group.label)
            lines.setdefault(label.removeprefix(", ") or str(run.value("optimizer")), []).append((place, run))
    found = []
    for label, members in lines.items():
        runs = [run for _, run in members]
        if response := _response(label, members[0][0], runs, comparison.measure, comparison.metric):
            found.append(response)
    return found


def _response(
    label: str,
    group: int,
    runs: Sequence[Run],
    measure: Measure,
    metric: str,
    chosen: float | None = None,
    at_boundary: bool = False,
) -> Response | None:
    by_rate: dict[float, list[float]] = {}
    for run in runs:
        value = run.metric(measure, metric)
        if math.isfinite(value):
            by_rate.setdefault(_rate(run), []).append(value)
    if not by_rate:
        return None
    rates = sorted(by_rate)
    return Response(
        name=label,
        group=group,
        rates=rates,
        mean=[float(np.mean(by_rate[rate])) for rate in rates],
        low=[min(by_rate[rate]) for rate in rates],
        high=[max(by_rate[rate]) for rate in rates],
        chosen=chosen if chosen in by_rate else None,
        at_boundary=at_boundary,
        diverged=[_rate(run) for run in runs if run.status == "diverged"],
    )


def _has_rate(run: Run) -> bool:
    rate = run.value("optimizer.lr")
    return run.counts and isinstance(rate, int | float) and 0 < rate < math.inf


def _rate(run: Run) -> float:
    return float(run.value("optimizer.lr") or 0)


def cost(comparison: Comparison) -> Figure | None:
    """Draw the score over minutes of training; None if no times are recorded."""
    costs = []
    for place, group in enumerate(comparison.groups):
        found = [
            (float(run.train_seconds[-1]) / 60, run.metric(comparison.measure, comparison.metric))
            for run in group.counted
        ]
        known = [pair for pair in found if all(map(math.isfinite, pair))]
        if known:
            minutes, scores = zip(*known, strict=True)
            costs.append(Cost(group.label, place, minutes, scores))
    if not costs:
        return None
    label = describe(comparison.metric).label
    svg = cost_panel(costs, f"{label}, {comparison.measure} epoch", is_percent(comparison.metric), comparison.chance)
    return Figure("cost", svg, is_numbered=True)
