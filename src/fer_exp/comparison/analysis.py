"""Compare groups of runs: every group with the best one, or with a chosen baseline."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fer_exp.comparison.grouping import (
    Group,
    Tuning,
    constant_guess,
    default_measure,
    differing_keys,
    make_groups,
    pairs,
    shorten_keys,
    split_trials,
    tune_arms,
    unlike_keys,
)
from fer_exp.comparison.load import Measure, Records, Run
from fer_exp.comparison.score import Score
from fer_exp.comparison.statistics import ALPHA, PairedTest, Summary, holm, paired_t_test, seeds_needed, wilson
from fer_exp.errors import UserError, join_first
from fer_exp.runs.sweep_record import Sweep

Outcome = Literal["reference", "better", "worse", "not significant", "one seed", "not compared", "no result"]


@dataclass(frozen=True)
class RankedGroup(Group):
    """A group with its score, and its difference to the reference, paired by seed.

    Attributes:
        place: from 0 for the best; decides the group's color in every figure and table.
        summary: of the score.
        at_chance: whether the score is not above that of a constant guess.
        outcome: the result of the comparison with the reference.
        test: of the score; None for the reference, and if the two cannot be compared.
        p_adjusted: corrected for the number of comparisons.
        reason: why the two cannot be compared.
        seeds_needed: seeds for 80 % power; None if not known or too many.
    """

    place: int
    summary: Summary
    at_chance: bool
    outcome: Outcome
    test: PairedTest | None
    p_adjusted: float
    reason: str
    seeds_needed: int | None

    @property
    def is_significant(self) -> bool:
        """Whether the group is better or worse than the reference."""
        return self.outcome in ("better", "worse")


@dataclass(frozen=True)
class Comparison:
    """Groups in the order of their scores.

    Attributes:
        group_by: the keys that make the groups.
        score: what is compared.
        groups: best first; groups without a result last.
        reference: the group that the others are compared with.
        has_baseline: whether the reference was asked for; otherwise it is the best group.
        chance: accuracy of the best constant guess on the validation images; NaN if not known.
        target: the score of time-to-target; NaN for none.
        tunings: the trials of each study's arm.
        sweeps: the sweeps that the runs are from.
        messages: about records that were excluded, repeated or split.
    """

    group_by: tuple[str, ...]
    score: Score
    groups: tuple[RankedGroup, ...]
    reference: RankedGroup
    has_baseline: bool
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

    @property
    def best(self) -> RankedGroup:
        """The group with the best score."""
        return self.groups[0]

    @property
    def reference_name(self) -> str:
        """What the reference is."""
        return "baseline" if self.has_baseline else "best"

    def result(self, group: RankedGroup) -> str:
        """The outcome of a group as a table shows it."""
        outcome = self.reference_name if group.outcome == "reference" else group.outcome
        return outcome + (", at chance" if group.at_chance and group.test else "")

    @property
    def counted_groups(self) -> list[RankedGroup]:
        """The groups with a result."""
        return [group for group in self.groups if group.counted]

    @property
    def tested(self) -> list[RankedGroup]:
        """The groups that are compared with the reference."""
        return [group for group in self.groups if group.test]


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
    score = Score(metric, measure or default_measure(counted))
    chance = constant_guess(counted) if metric == "val_acc" else math.nan
    means = {group.label: score.summarize(group.counted).mean for group in groups}
    groups.sort(key=lambda group: math.inf if math.isnan(means[group.label]) else -score.sign * means[group.label])
    labels = [group.label for group in groups]
    if baseline is not None and baseline not in labels:
        raise UserError(f"baseline={baseline}: no such group; expected one of {', '.join(labels)}")
    reference = groups[labels.index(baseline or labels[0])]
    ranked = _rank(groups, reference, group_by, score)
    return Comparison(
        group_by=tuple(group_by),
        score=score,
        groups=ranked,
        reference=ranked[groups.index(reference)],
        has_baseline=baseline is not None,
        chance=chance,
        target=_default_target(groups, score, chance) if target is None else target,
        tunings=tuple(tune_arms(trials, reporting)),
        sweeps=tuple(records.sweeps),
        messages=tuple(messages),
    )


def paired_test(group: Group, other: Group, score: Score) -> PairedTest:
    """Test the score of a group minus that of another, paired by seed."""
    both = [(score.of(a), score.of(b)) for a, b in pairs(group, other)]
    return paired_t_test([a - b for a, b in both if not (math.isnan(a) or math.isnan(b))])


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


def _rank(groups: Sequence[Group], reference: Group, group_by: Sequence[str], score: Score) -> tuple[RankedGroup, ...]:
    compared = [_compare_with(group, reference, group_by, score) for group in groups]
    adjusted = holm([test.p_value if test else math.nan for test, _ in compared])
    comparisons = max(1, sum(not math.isnan(p) for p in adjusted))
    summaries = [score.summarize(group.counted) for group in groups]
    at_chance = [_is_at_chance(group, each.mean, score) for group, each in zip(groups, summaries, strict=True)]
    return tuple(
        RankedGroup(
            **vars(group),
            place=place,
            summary=summaries[place],
            at_chance=at_chance[place],
            outcome="reference" if group is reference else _outcome(group, test, p, score, claims=not at_chance[0]),
            test=test,
            p_adjusted=p,
            reason=reason,
            seeds_needed=seeds_needed(test.differences, comparisons) if test else None,
        )
        for place, (group, (test, reason), p) in enumerate(zip(groups, compared, adjusted, strict=True))
    )


def _compare_with(
    group: Group, reference: Group, group_by: Sequence[str], score: Score
) -> tuple[PairedTest | None, str]:
    """Return the test of a group against the reference, or None and the reason why there is none."""
    if group is reference:
        return None, ""
    if unlike := unlike_keys(group, reference, group_by):
        return None, f"settings differ in {join_first(shorten_keys(unlike, [*group.runs, *reference.runs]))} too"
    if not group.counted or not reference.counted:
        return None, "no run has a result"
    test = paired_test(group, reference, score)
    if not test.n:
        return None, "no seed in common"
    if not math.isfinite(test.mean):
        return None, f"a run has no finite {score.metric}"
    return test, ""


def _outcome(group: Group, test: PairedTest | None, p_adjusted: float, score: Score, claims: bool) -> Outcome:
    """Return the outcome of a test; without ``claims``, no difference is significant."""
    if test is None:
        return "not compared" if group.counted else "no result"
    if test.n < 2:
        return "one seed"
    if not p_adjusted < ALPHA or not claims:
        return "not significant"
    return "better" if score.sign * test.mean > 0 else "worse"


def _is_at_chance(group: Group, mean: float, score: Score) -> bool:
    """Whether the Wilson interval of the mean accuracy reaches down to a constant guess."""
    chance = constant_guess(group.counted)
    if score.metric != "val_acc" or not group.counted or math.isnan(chance):
        return False
    counts = group.counted[0].class_counts
    images = int(counts.sum()) if counts is not None else 0
    return bool((wilson(round(mean * images), images)[0] if images else mean) <= chance)


def _default_target(groups: Sequence[Group], score: Score, chance: float) -> float:
    median = Score(score.metric, "best").summarize(groups[0].counted).median
    if score.sign < 0 or not math.isfinite(median):
        return math.nan
    target = math.floor(95 * median) / 100
    return math.nan if target <= chance else target
