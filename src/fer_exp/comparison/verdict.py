"""The answer of a comparison as text: the verdict, and what to run next."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fer_exp.comparison.analysis import Comparison, RankedGroup
from fer_exp.comparison.score import format_p, number_range
from fer_exp.comparison.statistics import MAX_SEEDS
from fer_exp.config.paths import as_typed_in_a_shell
from fer_exp.errors import join_first, plural
from fer_exp.files import quote_override

TRAIN = "python -m fer_exp.train -m"


@dataclass(frozen=True)
class Verdict:
    """The answer: a headline, the sentences after it, and whether every difference is significant."""

    headline: str
    detail: str = ""
    is_conclusive: bool = False


def make_verdict(comparison: Comparison) -> Verdict:
    """Return which group is best, and which differences are significant."""
    score, best, reference = comparison.score, comparison.best, comparison.reference
    if not reference.counted:
        return Verdict("No run has a result.")
    reached = score.text(reference.summary.mean)
    if len(comparison.groups) == 1:
        return Verdict(f"{reference.label} reaches {reached}.", "There is no other group to compare it with.")
    ties = [group for group in comparison.groups if group.summary.mean == best.summary.mean]
    holders = f"{_labels(ties)} share" if len(ties) > 1 else f"{best.label} has"
    lead = f"{holders} the {_best_mean(comparison)}, {score.text(best.summary.mean)}"
    if best.at_chance:
        return Verdict(f"No group beats a constant guess ({score.text(comparison.chance)}).", f"{lead}.")
    if all(group.outcome == "one seed" for group in comparison.tested):
        detail = "A test needs at least two seeds that both groups have."
        return Verdict(f"{lead}, but no difference can be tested.", detail)
    better, worse, open_ = _by_outcome(comparison)
    if comparison.has_baseline:
        headline = f"The baseline {reference.label} reaches {reached}: "
        headline += f"{plural(len(better), 'group')} better, {len(worse)} worse"
    elif not worse:
        headline = f"{lead}, but no difference to another group is significant"
    elif not open_:
        scope = "every other group" if len(worse) > 1 else worse[0].label
        headline = f"{lead}, and is significantly better than {scope}"
    else:
        rest = open_[0].label if len(open_) == 1 else f"the other {len(open_)} groups"
        headline = f"{lead}. It is significantly better than {_labels(worse)}, but not than {rest}"
    listed = {"Better": better, "Worse": worse, "Not significant": open_} if comparison.has_baseline else {}
    if worse and len(open_) > 1:  # the headline counts them
        listed = {"Not significant": open_}
    sentences = [f"{outcome}: {_labels(groups)}." for outcome, groups in listed.items() if groups]
    return Verdict(f"{headline}.", " ".join([*sentences, _closest(comparison)]), not open_)


def next_steps(comparison: Comparison) -> tuple[list[str], str]:
    """Return what to do next, and the command to type; empty if there is none."""
    if not comparison.tested:
        return [], ""
    if any(group.outcome == "one seed" for group in comparison.tested):
        n = max(3, len(comparison.reference.counted) + 1)
        return [f"Run at least {n} seeds of every group."], _more_seeds(comparison, n)
    if comparison.best.at_chance:
        return ["Train longer, or tune the learning rate, before comparing."], ""
    *_, open_ = _by_outcome(comparison)
    if not open_:
        run = max(comparison.best.counted, key=lambda run: run.metric("best", "val_acc"))
        return ["Evaluate a run of the best group."], f"python -m fer_exp.evaluate {quote_override('run', run.folder)}"
    needed = sorted((group.seeds_needed, group.label) for group in open_ if group.seeds_needed)
    steps = []
    if needed:
        now = number_range({len(group.counted) for group in comparison.counted_groups})
        listed = join_first([f"{n} for {label}" for n, label in needed])
        steps.append(
            f"Train more seeds; each group has {now} now. Seeds per group in total for a significant "
            f"difference to {comparison.reference.label}, if the observed one is the true one (80 % power): {listed}. "
            "Then compare the old and the new sweep together."
        )
    if beyond := [group for group in open_ if not group.seeds_needed]:
        steps.append(
            f"Undecided: {_labels(beyond)}. If the observed difference to {comparison.reference.label} is the true "
            f"one, a test needs more than {MAX_SEEDS} seeds to find it (80 % power)."
        )
    return steps, _more_seeds(comparison, needed[0][0]) if needed else ""


def made_by(comparison: Comparison) -> str:
    """Return the command that made the runs, if they are from one sweep."""
    if len(comparison.sweeps) != 1:
        return ""
    return _train_command([*comparison.sweeps[0].options, *comparison.sweeps[0].overrides])


def _train_command(overrides: Sequence[str]) -> str:
    return " ".join([TRAIN, *map(as_typed_in_a_shell, overrides)])


def _by_outcome(comparison: Comparison) -> tuple[list[RankedGroup], list[RankedGroup], list[RankedGroup]]:
    """Return the groups that are better, those that are worse, and those without a significant difference."""
    outcomes = (("better",), ("worse",), ("not significant", "one seed"))
    better, worse, open_ = ([group for group in comparison.groups if group.outcome in some] for some in outcomes)
    return better, worse, open_


def _best_mean(comparison: Comparison) -> str:
    return f"{'highest' if comparison.score.sign > 0 else 'lowest'} mean {comparison.score.label}"


def _closest(comparison: Comparison) -> str:
    """Return the smallest difference, and the method."""
    score = comparison.score
    tests = [(group, group.test) for group in comparison.tested if group.test]
    closest, test = min(tests, key=lambda found: abs(found[1].mean))
    seeds = [test.n for _, test in tests if test.n > 1]
    correction = f", Holm-corrected for {len(seeds)} comparisons" if len(seeds) > 1 else ""
    return (
        f"Closest: {closest.label}, {score.estimate(test)}{score.points}, p = {format_p(closest.p_adjusted)}. "
        f"Paired t-tests over {number_range(set(seeds))} seeds{correction}."
    )


def _labels(groups: Sequence[RankedGroup]) -> str:
    labels = [group.label for group in groups]
    return join_first(labels, separator="; " if any("," in label for label in labels) else ", ")


def _more_seeds(comparison: Comparison, n: int) -> str:
    """Return the command that adds runs until every group has ``n`` seeds."""
    first = max(run.seed for run in comparison.counted) + 1
    fewest = min(len(group.counted) for group in comparison.counted_groups)
    seeds = range(first, first + max(1, n - fewest))
    values = ",".join(map(str, seeds)) if len(seeds) <= 6 else f"range({seeds.start},{seeds.stop})"
    if len(comparison.sweeps) != 1:
        return f"{TRAIN} ... seed={values}"
    sweep = comparison.sweeps[0]
    replaced = re.compile(r"seed=|hydra\.sweep\.dir=|hydra\.sweeper\.seeds=")
    others = [each for each in (*sweep.options, *sweep.overrides) if not replaced.match(each)]
    return _train_command([*others, f"hydra.sweeper.seeds={n}" if sweep.arms else f"seed={values}"])
