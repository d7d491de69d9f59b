"""Compare groups of runs: every group with the best one, or with a chosen baseline."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from fer_exp.comparison.grouping import (
    MAX_NAMED,
    Group,
    constant_guess,
    default_measure,
    make_groups,
    pairs,
    split_trials,
    unlike_keys,
)
from fer_exp.comparison.load import Measure, Records, Run
from fer_exp.comparison.settings import Setting, differing_keys, shorten_keys
from fer_exp.comparison.statistics import ALPHA, PairedTest, holm, paired_t_test, seeds_needed, wilson
from fer_exp.comparison.sweeps import Sweep
from fer_exp.comparison.tuning import Tuning, tune_arms
from fer_exp.errors import UserError, join_first
from fer_exp.metrics import describe


@dataclass(frozen=True)
class Difference:
    """A group minus the reference, paired by seed.

    Attributes:
        group: the group.
        test: of the score; None if the two cannot be compared.
        p_adjusted: corrected for the number of comparisons.
        reason: why the two cannot be compared.
        seeds_needed: seeds for 80 % power; None if not known or too many.
    """

    group: Group
    test: PairedTest | None
    p_adjusted: float = math.nan
    reason: str = ""
    seeds_needed: int | None = None


@dataclass(frozen=True)
class Comparison:
    """Groups in the order of their scores, and every group's difference to the reference.

    Attributes:
        group_by: the keys that make the groups.
        metric: name of the metric that is the score.
        measure: the epoch that the score is from.
        groups: best first; groups without a result last.
        reference: the group that the others are compared with; None if no run has a result.
        has_baseline: whether the reference was asked for; otherwise it is the best group.
        differences: of every other group, in the order of ``groups``.
        chance: accuracy of the best constant guess on the validation images; NaN if not known.
        target: the score of time-to-target; NaN for none.
        tunings: the trials of each study's arm.
        sweeps: the sweeps that the runs are from.
        messages: about records that were excluded, repeated or split.
    """

    group_by: tuple[str, ...]
    metric: str
    measure: Measure
    groups: tuple[Group, ...]
    reference: Group | None
    has_baseline: bool
    differences: tuple[Difference, ...]
    chance: float
    target: float
    tunings: tuple[Tuning, ...]
    sweeps: tuple[Sweep, ...]
    messages: tuple[str, ...]

    @property
    def runs(self) -> list[Run]:
        """All runs of all groups."""
        return [run for group in self.groups for run in group.runs]

    @property
    def counted(self) -> list[Run]:
        """The runs that the statistics are made of."""
        return [run for group in self.groups for run in group.counted]

    @cached_property
    def settings(self) -> tuple[dict[str, tuple[Setting, ...]], dict[str, Setting]]:
        """Settings that differ between groups, with a value per group, and those that all groups share."""
        examples = [max(group.runs, key=lambda run: run.counts) for group in self.groups]
        differing = differing_keys(examples)
        shared = {key: value for run in examples for key, value in run.settings.items() if key not in differing}
        return {key: tuple(run.value(key) for run in examples) for key in differing}, dict(sorted(shared.items()))

    def is_significant(self, difference: Difference) -> bool:
        """Whether the corrected p value is below 5 %, and the best group beats a constant guess."""
        return difference.p_adjusted < ALPHA and not self.groups[0].at_chance

    def difference(self, group: Group, other: Group, measure: Measure, name: str) -> PairedTest:
        """Test a metric of a group minus that of another, paired by seed."""
        return paired_t_test(
            [a.metric(measure, name) - b.metric(measure, name) for a, b in pairs(group, other) if _have(name, a, b)]
        )


def compare(
    records: Records,
    group_by: Sequence[str] = ("optimizer",),
    target: float | None = None,
    baseline: str | None = None,
    measure: Measure | None = None,
    metric: str = "val_acc",
) -> Comparison:
    """Compare runs.

    Args:
        records: runs of any sweeps.
        group_by: keys whose values make the groups.
        target: the score of time-to-target; None for 95 % of the best group's median, if that is above chance.
        baseline: label of the group that the others are compared with; None for the group with the best mean.
        measure: the epoch that scores are from; None for the last one if all runs trained for a fixed number of epochs,
            and for the best one if early stopping ended them.
        metric: name of the metric that is the score.

    Raises:
        UserError: no run has a key to group by or the metric, the classes differ, or there is no such baseline.
    """
    messages = list(records.messages)
    trials, reporting = split_trials(records.runs)
    _check(reporting, group_by, metric)
    groups = make_groups(reporting, group_by, messages)
    counted = [run for group in groups for run in group.counted]
    measure = measure or default_measure(counted)
    chance = constant_guess(counted) if metric == "val_acc" else math.nan
    sign = -1 if describe(metric).direction == "min" else 1

    def rank(group: Group) -> float:
        mean = group.summary(measure, metric).mean
        return math.inf if math.isnan(mean) else -sign * mean

    groups = sorted((_mark_chance(group, measure, metric, chance) for group in groups), key=rank)
    labels = [group.label for group in groups]
    if baseline is not None and baseline not in labels:
        raise UserError(f"baseline={baseline}: no such group; expected one of {', '.join(labels)}")
    best = groups[0] if groups[0].counted else None
    reference = best if baseline is None else groups[labels.index(baseline)]
    differences = _differences(groups, reference, group_by, measure, metric) if reference else ()
    if target is None:
        target = _default_target(best, metric, chance, sign)
    return Comparison(
        group_by=tuple(group_by),
        metric=metric,
        measure=measure,
        groups=tuple(groups),
        reference=reference,
        has_baseline=baseline is not None,
        differences=differences,
        chance=chance,
        target=target,
        tunings=tuple(tune_arms(trials, reporting)),
        sweeps=tuple(records.sweeps),
        messages=tuple(messages),
    )


def _check(runs: Sequence[Run], group_by: Sequence[str], metric: str) -> None:
    keys = sorted({group for run in runs for group in run.choices})
    keys += [*differing_keys(runs), *["arm"] * any(run.arm for run in runs), "folder", "seed"]
    if not group_by:
        raise UserError(f"group_by: expected one key or several of {', '.join(keys)}")
    for key in group_by:
        if all(run.value(key) is None for run in runs):
            raise UserError(f"group_by={key}: no run has this key; expected one of {', '.join(keys)}")
    by_classes = {run.classes: run for run in runs if run.classes}
    if len(by_classes) > 1:
        lists = "; ".join(f"{run.folder}: {', '.join(classes)}" for classes, run in by_classes.items())
        raise UserError(f"The runs have different classes, so their results cannot be compared ({lists})")
    metrics = dict.fromkeys(name for run in runs for name in run.history)
    if runs and metric not in metrics and any(run.counts for run in runs):
        raise UserError(f"metric={metric}: no run logged it; expected one of {', '.join(metrics)}")


def _mark_chance(group: Group, measure: Measure, metric: str, chance: float) -> Group:
    if not group.counted or math.isnan(chance):
        return group
    counts = group.counted[0].class_counts
    mean = group.summary(measure, metric).mean
    images = int(counts.sum()) if counts is not None else 0
    lowest = wilson(round(mean * images), images)[0] if images else mean
    return replace(group, at_chance=bool(lowest <= chance))


def _differences(
    groups: Sequence[Group], reference: Group, group_by: Sequence[str], measure: Measure, metric: str
) -> tuple[Difference, ...]:
    found = [_difference(group, reference, group_by, measure, metric) for group in groups if group is not reference]
    adjusted = holm([each.test.p_value if each.test else math.nan for each in found])
    tests = max(1, sum(not math.isnan(p) for p in adjusted))
    return tuple(
        replace(each, p_adjusted=p, seeds_needed=seeds_needed(each.test.differences, tests) if each.test else None)
        for each, p in zip(found, adjusted, strict=True)
    )


def _difference(group: Group, reference: Group, group_by: Sequence[str], measure: Measure, metric: str) -> Difference:
    if unlike := unlike_keys(group, reference, group_by):
        keys = join_first(shorten_keys(unlike, [*group.runs, *reference.runs]), MAX_NAMED)
        return Difference(group, None, reason=f"settings differ in {keys} too")
    if not group.counted or not reference.counted:
        return Difference(group, None, reason="no run has a result")
    both = [(a, b) for a, b in pairs(group, reference) if _have(metric, a, b)]
    if not both:
        return Difference(group, None, reason="no seed in common")
    test = paired_t_test([a.metric(measure, metric) - b.metric(measure, metric) for a, b in both])
    if not math.isfinite(test.mean):
        return Difference(group, None, reason=f"a run has no finite {metric}")
    return Difference(group, test)


def _have(name: str, *runs: Run) -> bool:
    return all(name in run.history for run in runs)


def _default_target(best: Group | None, metric: str, chance: float, sign: int) -> float:
    if best is None:
        return math.nan
    median = best.summary("best", metric).median
    if sign < 0 or not math.isfinite(median):
        return math.nan
    target = math.floor(95 * median) / 100
    return math.nan if target <= chance else target
