"""The answer of a comparison as text: the verdict, and what to run next."""

import math
import re
import shlex
from dataclasses import dataclass

from fer_exp.comparison import formats
from fer_exp.comparison.analysis import Comparison, Difference
from fer_exp.comparison.grouping import MAX_NAMED, Group
from fer_exp.comparison.statistics import MAX_SEEDS
from fer_exp.errors import join_first
from fer_exp.files import quote_override
from fer_exp.metrics import describe


@dataclass(frozen=True)
class Verdict:
    """The answer: a headline, the sentences after it, and whether every difference is significant."""

    headline: str
    detail: str
    is_conclusive: bool


def summary_sentence(comparison: Comparison) -> Verdict:
    """Return which group is best, and which differences are significant."""
    reference, metric = comparison.reference, comparison.metric
    if reference is None or not reference.counted:
        return Verdict("No run has a result.", "", False)
    score = _score(comparison, reference)
    if len(comparison.groups) == 1:
        return Verdict(f"{reference.label} reaches {score}.", "There is no other group to compare it with.", False)
    best = comparison.groups[0]
    if best.at_chance:
        guess = formats.score(comparison.chance, metric)
        detail = f"The highest {describe(metric).label} is {_score(comparison, best)}, by {best.label}."
        return Verdict(f"No group beats a constant guess ({guess}).", detail, False)
    if max((each.test.n for each in comparison.differences if each.test), default=0) < 2:
        lead = f"{best.label} has the {_best(comparison)} {describe(metric).label}, {_score(comparison, best)}"
        return Verdict(
            f"{lead}, but no difference can be tested.", "A test needs at least two seeds that both groups have.", False
        )
    return _tested(comparison, score)


def result(comparison: Comparison, group: Group) -> str:
    """Return the verdict of one group, for a table."""
    if group is comparison.reference:
        return "baseline" if comparison.has_baseline else "best"
    if not group.counted or comparison.reference is None:
        return "no result"
    each = next(each for each in comparison.differences if each.group is group)
    if each.test is None:
        return "not compared"
    at_chance = ", at chance" if group.at_chance else ""
    if each.test.n < 2:
        return f"one seed{at_chance}"
    if not comparison.is_significant(each):
        return f"not significant{at_chance}"
    return ("better" if _is_better(comparison, each) else "worse") + at_chance


def next_steps(comparison: Comparison) -> tuple[list[str], str]:
    """Return what to do next, and the command to type; empty if there is none."""
    reference = comparison.reference
    if reference is None or not any(each.test for each in comparison.differences):
        return [], ""
    untested = [each for each in comparison.differences if each.test and each.test.n < 2]
    if untested:
        n = max(3, len(reference.counted) + 1)
        return [f"Run at least {n} seeds of every group."], _more_seeds(comparison, n)
    if comparison.groups[0].at_chance:
        return ["Train longer, or tune the learning rate, before comparing."], ""
    open_ = [each for each in comparison.differences if each.test and not comparison.is_significant(each)]
    if not open_:
        run = max(comparison.groups[0].counted, key=lambda run: run.metric("best", "val_acc"))
        return ["Evaluate a run of the best group."], f"python -m fer_exp.evaluate {quote_override('run', run.folder)}"
    needed = sorted((each.seeds_needed, each.group.label) for each in open_ if each.seeds_needed)
    beyond = [each.group.label for each in open_ if not each.seeds_needed]
    steps = []
    if needed:
        listed = join_first([f"{n} for {label}" for n, label in needed], MAX_NAMED)
        steps.append(f"Seeds per group that would make the observed difference significant (80 % power): {listed}.")
    if beyond:
        listed = join_first(beyond, MAX_NAMED)
        steps.append(f"More than {MAX_SEEDS} seeds: {listed}. Regard these as equal to {reference.label}.")
    if not needed:
        return steps, ""
    return [*steps, "Then compare the old and the new sweep together."], _more_seeds(comparison, needed[0][0])


def made_by(comparison: Comparison) -> str:
    """Return the command that made the runs, if they are from one sweep."""
    if len(comparison.sweeps) != 1:
        return ""
    return shlex.join(["python", "-m", "fer_exp.train", "-m", *comparison.sweeps[0].overrides])


def _tested(comparison: Comparison, score: str) -> Verdict:
    assert comparison.reference
    name, metric = comparison.reference.label, describe(comparison.metric)
    tested = [each for each in comparison.differences if each.test]
    open_ = [each for each in tested if not comparison.is_significant(each)]
    better = [each for each in tested if each not in open_ and _is_better(comparison, each)]
    worse = [each for each in tested if each not in open_ and each not in better]
    parts = {"Better": better, "Worse": worse * comparison.has_baseline, "Not significant": open_}
    detail = " ".join(f"{part}: {_labels(some)}." for part, some in parts.items() if some)
    lead = f"{name} has the {_best(comparison)} {metric.label}, {score}"
    if comparison.has_baseline:
        headline = (
            f"The baseline {name} reaches {score}: {formats.plural(len(better), 'group')} better, {len(worse)} worse"
        )
    elif not worse:
        headline = f"{lead}, but no difference to another group is significant"
    elif not open_:
        scope = "every other group" if len(worse) > 1 else worse[0].group.label
        headline = f"{lead}, and is significantly better than {scope}"
    else:
        rest = _labels(open_) if len(open_) == 1 else f"the other {len(open_)} groups"
        headline = f"{lead}. It is significantly better than {_labels(worse)}, but not than {rest}"
    return Verdict(f"{headline}.", f"{detail} {_method(comparison)}".strip(), not open_)


def _method(comparison: Comparison) -> str:
    tests = [each.test for each in comparison.differences if each.test and not math.isnan(each.test.p_value)]
    seeds = sorted({test.n for test in tests})
    number = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    correction = f", Holm-corrected for {len(tests)} comparisons" if len(tests) > 1 else ""
    label, test, p_value = min(
        ((each.group.label, each.test, each.p_adjusted) for each in comparison.differences if each.test),
        key=lambda found: abs(found[1].mean),
    )
    unit = " points" if formats.is_percent(comparison.metric) else ""
    return (
        f"Closest: {label}, {formats.estimate(test, comparison.metric)}{unit}, p = "
        f"{formats.p_value(p_value)}. Paired t-tests over {number} seeds{correction}."
    )


def _is_better(comparison: Comparison, each: Difference) -> bool:
    assert each.test
    return (each.test.mean > 0) == (describe(comparison.metric).direction == "max")


def _best(comparison: Comparison) -> str:
    return "highest mean" if describe(comparison.metric).direction == "max" else "lowest mean"


def _score(comparison: Comparison, group: Group) -> str:
    return formats.score(group.summary(comparison.measure, comparison.metric).mean, comparison.metric)


def _labels(differences: list[Difference]) -> str:
    labels = [each.group.label for each in differences]
    return join_first(labels, MAX_NAMED, "; " if any("," in label for label in labels) else ", ")


def _more_seeds(comparison: Comparison, n: int) -> str:
    """Return the command that adds runs until every group has ``n`` seeds."""
    used = {run.seed for run in comparison.counted}
    first = max(used) + 1
    seeds = range(first, first + max(1, n - min(len(group.counted) for group in comparison.groups if group.counted)))
    values = ",".join(map(str, seeds)) if len(seeds) <= 6 else f"range({seeds.start},{seeds.stop})"
    if len(comparison.sweeps) != 1:
        return f"python -m fer_exp.train -m ... seed={values}"
    sweep = comparison.sweeps[0]
    others = [
        text for text in sweep.overrides if not re.match(r"seed=|hydra\.sweep\.dir=|hydra\.sweeper\.seeds=", text)
    ]
    more = f"hydra.sweeper.seeds={n}" if sweep.arms else f"seed={values}"
    return shlex.join(["python", "-m", "fer_exp.train", "-m", *others, more])
