"""The comparison itself: runs into groups, groups against a baseline, and all that speaks against trusting it."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from fer_exp.comparison.load import (
    FIGURES,
    OUTCOMES,
    RESOLVED,
    Measure,
    Run,
    Setting,
    differing_keys,
    in_short,
)
from fer_exp.comparison.statistics import PairedDifference, SummaryStats, paired_difference, spread
from fer_exp.comparison.tuning import Tuning, tune
from fer_exp.errors import UserError, join_first
from fer_exp.runs.record import FINISHED, natural

MEASURES: tuple[Measure, Measure] = ("best", "final")
UNITS = ("epochs", "steps", "seconds")
_MAX_NAMED = 5  # runs or settings in a sentence
# Keys by which a person asks for groups that were trained on unlike images.
_OF_IMAGES = ("root", "exclude", "ignore", "on_unreadable", "soft_labels", "train", "generator_seed")
_DECIDE_IMAGES = frozenset({"folder", "data", *(f"data.{key}" for key in _OF_IMAGES)})


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed.

    Attributes:
        label: its name: the value it is grouped by.
        runs: all its runs, also those that came to no result.
        counted: those that the figures are made of: one a seed, completed or diverged.
        spreads: over ``counted``, of each figure at the best and at the last epoch.
        to_target: over ``counted``, of epochs, steps and seconds of training to the target; a miss is infinity.
        reached: how many of ``counted`` reached the target.
    """

    label: str
    runs: tuple[Run, ...]
    counted: tuple[Run, ...]
    spreads: Mapping[tuple[Measure, str], SummaryStats]
    to_target: Mapping[str, SummaryStats]
    reached: int

    @property
    def statuses(self) -> Counter[str]:
        """Number of runs of each status."""
        return Counter(run.status for run in self.runs)


@dataclass(frozen=True)
class Difference:
    """A group against the baseline, run by run with the same seed.

    Attributes:
        group: the group's label.
        baseline: the baseline's label.
        paired: group minus baseline, for each figure at the best and at the last epoch; empty where the two cannot
            be compared.
        sentence: what may be said of ``val_acc``.
    """

    group: str
    baseline: str
    paired: Mapping[tuple[Measure, str], PairedDifference]
    sentence: str


@dataclass(frozen=True)
class Comparison:
    """What a report shows.

    Attributes:
        group_by: the keys that make the groups.
        measure: which epoch's val_acc the sentences are about.
        target: the val_acc of time-to-target.
        target_is_given: False if ``target`` was derived from the runs.
        groups: in the order of their first runs.
        differences: of every group but the baseline against it.
        notes: what to know before trusting the figures, a sentence each.
        differing: settings that differ between groups, each with its value in each group.
        shared: settings that all groups share.
        trials: runs validated on a part of the training folder, by group: they chose settings, and are not averaged
            with those that report.
    """

    group_by: tuple[str, ...]
    measure: Measure
    target: float
    target_is_given: bool
    groups: tuple[Group, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
    differing: Mapping[str, tuple[Setting, ...]]
    shared: Mapping[str, Setting]
    trials: tuple[Tuning, ...]

    @property
    def runs(self) -> list[Run]:
        """All runs of all groups."""
        return [run for group in self.groups for run in group.runs]


def compare(
    runs: Sequence[Run],
    group_by: Sequence[str] = ("optimizer",),
    target: float | None = None,
    baseline: str | None = None,
    measure: Measure | None = None,
    notes: Iterable[str] = (),
) -> Comparison:
    """Compare runs.

    Args:
        runs: of any sweeps.
        group_by: keys whose values make the groups.
        target: the val_acc of time-to-target, a fraction; None for 95 % of the best group's median, in whole percent.
        baseline: label of the group that the others are compared with; None for the first that has a result.
        measure: the epoch that the sentences are about; None for the last where all runs trained for a fixed number
            of epochs (it is not chosen by the validation images), and for the best where early stopping ended them.
        notes: what is to be said before these runs are trusted.

    Raises:
        UserError: no run has a key to group by, or there is no group called ``baseline``.
    """
    notes = list(notes)

    def is_trial(run: Run) -> bool:
        return run.held_out and run.arm is not None

    alone = all(map(is_trial, runs))  # then they are what there is to be compared
    trials = [] if alone else [run for run in runs if is_trial(run)]
    reporting = [run for run in runs if alone or not is_trial(run)]
    if held_out := sum(run.held_out for run in reporting):
        which = "All" if held_out == len(reporting) else f"{held_out} of {len(reporting)}"
        notes.append(
            f"{which} runs were validated on a part of the training folder (data.val_fraction): such figures are for "
            "choosing settings, not for reporting."
        )
    if not group_by:
        raise UserError(f"group_by: expected a key or several; {_keys_that_differ(runs)}")
    for key in group_by:
        if all(run.value(key) is None for run in runs):
            raise UserError(f"group_by={key}: no run has such a key; {_keys_that_differ(runs)}")
    grouped = list(_split_unlike(_by_value(reporting, group_by), notes))
    counted = {label: _one_a_seed(label, members, notes) for label, members in grouped}
    measure = measure or default_measure([run for members in counted.values() for run in members])
    target_is_given = target is not None
    if target is None:
        target = _default_target(counted.values())
    groups = tuple(_group(label, members, counted[label], target) for label, members in grouped)
    labels = [group.label for group in groups]
    if baseline is not None and baseline not in labels:
        raise UserError(f"baseline={baseline}: there is no such group; there are {', '.join(labels)}")
    with_result = next((group for group in groups if group.counted), groups[0])
    base = with_result if baseline is None else groups[labels.index(baseline)]
    differences = tuple(_difference(group, base, group_by, measure) for group in groups if group is not base)
    all_counted = [run for group in groups for run in group.counted]
    notes += [*_unfinished(reporting), *_unlike_circumstances(all_counted)]
    notes += [*_shared_machines(runs), *_incomplete_records(reporting), *_led_by_validation(groups)]
    differing, shared = _settings_of(groups)
    tunings = tuple(_tunings(trials, reporting))
    notes += [*_unlike_trials(tunings)]
    return Comparison(
        tuple(group_by), measure, target, target_is_given, groups, differences, tuple(notes), differing, shared, tunings
    )


def _by_value(runs: Sequence[Run], group_by: Sequence[str]) -> list[tuple[str, list[Run]]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_label(run, group_by), []).append(run)
    return list(groups.items())


def _label(run: Run, keys: Sequence[str]) -> str:
    first, *others = keys
    return ", ".join([_shown(run.value(first)), *(f"{key}={_shown(run.value(key))}" for key in others)])


def _tunings(trials: Sequence[Run], reporting: Sequence[Run]) -> Iterator[Tuning]:
    """The trials of each arm of each study, and what was chosen from them."""

    def arm_of(run: Run) -> tuple[Path, str] | None:
        if run.arm is None:
            return None
        return run.arm.study, run.arm.name or _label(run, run.arm.fixed or ("optimizer",))

    by_arm: dict[tuple[Path, str], list[Run]] = {}
    for trial in trials:
        if arm := arm_of(trial):
            by_arm.setdefault(arm, []).append(trial)
    measure = default_measure([trial for trial in trials if trial.counts])  # as the study chose
    several = len({study for study, _ in by_arm}) > 1
    for (study, name), members in by_arm.items():
        label = f"{name} ({study.name})" if several else name
        yield tune(label, members, measure, [run for run in reporting if arm_of(run) == (study, name)])


def _split_unlike(grouped: Sequence[tuple[str, list[Run]]], notes: list[str]) -> Iterator[tuple[str, list[Run]]]:
    """Runs of one name with unlike settings become groups of their own: only like things are averaged."""
    for label, members in grouped:
        unlike = in_short(differing_keys(members), members)
        if not unlike:
            yield label, members
            continue
        notes.append(
            f"Runs of {label} differ in {_listed(unlike)}: they are not averaged, but shown as groups of their own."
        )
        parts: dict[tuple[Setting, ...], list[Run]] = {}
        for run in members:
            parts.setdefault(tuple(run.told(key) for key in unlike), []).append(run)
        # A name that says the difference, where that is short; the report's table of settings says it all.
        names = [
            ", ".join([label, *(f"{key}={_shown(value)}" for key, value in zip(unlike, values, strict=True))])
            for values in parts
        ]
        if len(unlike) > 2 or len(set(names)) < len(names):
            names = [f"{label} (variant {number})" for number in range(1, len(parts) + 1)]
        yield from zip(names, parts.values(), strict=True)


def _one_a_seed(label: str, members: Sequence[Run], notes: list[str]) -> tuple[Run, ...]:
    """The runs that count; of several with one seed the latest, for they are repetitions and not new evidence."""
    by_seed: dict[int, Run] = {}
    repeated: set[int] = set()
    # Older records do not tell when; among those the order of folders decides, and not that of the arguments.
    for run in sorted(
        (run for run in members if run.counts), key=lambda run: (bool(run.span), run.span, natural(str(run.folder)))
    ):
        if run.seed in by_seed:
            repeated.add(run.seed)
        by_seed[run.seed] = run
    for seed in sorted(repeated):
        notes.append(f"{label} has several runs with seed {seed}: only the latest counts, {by_seed[seed].folder}.")
    return tuple(by_seed[seed] for seed in sorted(by_seed))


def default_measure(runs: Sequence[Run]) -> Measure:
    """The last epoch where all runs trained for a fixed number of epochs, else the best: see ``compare``."""
    fixed_budget = all(run.has_config and "callbacks.early_stopping.patience" not in run.settings for run in runs)
    return "final" if runs and fixed_budget else "best"


def _default_target(groups: Iterable[Sequence[Run]]) -> float:
    medians = [spread([run.figure("best", "val_acc") for run in runs]).median for runs in groups if runs]
    return math.floor(95 * max(medians)) / 100 if medians else math.nan


def _group(label: str, members: Sequence[Run], counted: tuple[Run, ...], target: float) -> Group:
    spreads = {
        (measure, name): spread([run.figure(measure, name) for run in counted])
        for measure in MEASURES
        for name in FIGURES
    }
    times = [run.to_target(target) for run in counted]
    to_target = {unit: spread([time[unit] for time in times]) for unit in UNITS}
    reached = sum(math.isfinite(time["epochs"]) for time in times)
    return Group(label, tuple(members), counted, spreads, to_target, reached)


def _difference(group: Group, base: Group, group_by: Sequence[str], measure: Measure) -> Difference:
    both = [*group.runs, *base.runs]
    asked_for = [*group_by, *_set_by_studies(both, group_by)]
    unlike = [key for key in differing_keys(both) if not _is_asked_for(key, both, asked_for)]
    if unlike:
        reasons = _listed(in_short(unlike, both))
        sentence = f"{group.label} and {base.label} are not compared: they differ in {reasons} too."
        return Difference(group.label, base.label, {}, sentence)
    theirs = {run.seed: run for run in base.counted}
    pairs = [(run, theirs[run.seed]) for run in group.counted if run.seed in theirs]
    paired = {
        (when, name): paired_difference([a.figure(when, name) - b.figure(when, name) for a, b in pairs])
        for when in MEASURES
        for name in FIGURES
    }
    return Difference(
        group.label, base.label, paired, verdict(group.label, base.label, paired[measure, "val_acc"], measure)
    )


def _set_by_studies(runs: Sequence[Run], group_by: Sequence[str]) -> frozenset[str]:
    """The keys in which groups may differ because each run has them from its study: they were tuned for its arm.

    Where the arms themselves are compared, what they fix is among them.
    """
    compares_arms = "arm" in group_by
    keys = [{*run.arm.tuned, *(run.arm.fixed if compares_arms else ())} if run.arm else set() for run in runs]
    return frozenset(set.intersection(*keys))


def _is_asked_for(key: str, runs: Sequence[Run], group_by: Sequence[str]) -> bool:
    """Whether a difference in ``key`` is what the groups are made by, and leaves accuracies that can be compared."""
    wanted = [RESOLVED.get(name, name) for name in group_by]
    if key == "data.fingerprint":  # whatever is asked for: accuracies on unlike images are not compared
        validation = {str(run.settings[key]).partition("/")[2] for run in runs if run.settings[key]}
        # Which images are trained on follows from the settings of the data, and from what lies in their folder.
        return len(validation) == 1 and not _DECIDE_IMAGES.isdisjoint(wanted)
    if {"experiment", "folder"} & {*wanted} and key not in OUTCOMES:  # either may differ in keys of any group
        return True
    return any(key == name or key.startswith(f"{name}.") for name in wanted)


def verdict(group: str, baseline: str, difference: PairedDifference, measure: Measure) -> str:
    """Say in plain words what a paired difference of accuracies (fractions) allows to say."""
    n = difference.n
    if n == 0:
        return f"{group} and {baseline} have no finished runs with the same seed: nothing can be claimed."
    if not math.isfinite(difference.mean):
        return f"{group} and {baseline} have runs without a finite figure: nothing can be claimed."
    ahead, behind, sign = (group, baseline, 1) if difference.mean >= 0 else (baseline, group, -1)
    points = 100 * abs(difference.mean)
    digits = next((digits for digits in (1, 2, 3) if round(points, digits)), 1)  # no difference is told as 0.0 points
    by = f"by {points:.{digits}f} points"
    if n == 1:
        lead = f"{ahead} is ahead of {behind} {by}" if points else f"{group} and {baseline} are level"
        return f"{lead} ({measure} val_acc), but with one seed nothing can be claimed; add e.g. seed=0,1,2."
    low, high = sorted((100 * sign * difference.low, 100 * sign * difference.high))
    # "z": an end that rounds to zero has no sign.
    figures = f"{by} [{low:z.{digits}f}, {high:z.{digits}f}], {n} paired seeds ({measure} val_acc)"
    if difference.is_claimed:
        return f"{ahead} beats {behind} {figures}."
    if difference.excludes_zero:
        test = "sign test" if difference.is_constant else "paired t-test"
        return (
            f"{ahead} is ahead of {behind} {figures}, but the {test} does not confirm it "
            f"(p = {difference.p_value:.3f}): more seeds are needed to claim a difference."
        )
    lead = f"{ahead} is ahead" if points else "they differ"
    return f"No difference between {group} and {baseline} can be claimed: {lead} {figures}, and zero is within."


def _unfinished(runs: Sequence[Run]) -> Iterator[str]:
    meanings = {
        "running": "Running still, or killed",
        "interrupted": "Interrupted",
        "failed": "Failed",
        "diverged": "Diverged",
    }
    for status, meaning in meanings.items():
        of_status = [run for run in runs if run.status == status and (run.counts or status != "diverged")]
        if of_status:
            reasons = sorted({str(run.summary["error"]) for run in of_status if run.summary.get("error")})
            shown = f" ({'; '.join(reasons[:_MAX_NAMED])})" if reasons and status == "failed" else ""
            kept = "counted as they ended" if status == "diverged" else "in no figure"
            places = _listed([str(run.folder) for run in of_status])
            yield f"{meaning}: {len(of_status)} of {len(runs)} runs, {kept}: {places}{shown}."
    if empty := [run for run in runs if run.status in FINISHED and not run.counts]:
        places = _listed([str(run.folder) for run in empty])
        yield f"{len(empty)} of {len(runs)} runs ended without an epoch, and are in no figure: {places}."


def _unlike_circumstances(runs: Sequence[Run]) -> Iterator[str]:
    """What makes seconds, and perhaps results, differ for another reason than the settings."""
    for key, meaning in (
        ("environment.device", "their seconds are not comparable"),
        ("environment.threads", "their seconds are not comparable"),
        ("environment.versions.torch", "results may differ for that reason"),
        ("environment.versions.fer_exp", "results may differ for that reason"),
        ("environment.git_commit", "results may differ for that reason"),
    ):
        values = {_shown(run.value(key)) for run in runs if run.value(key) is not None}
        if len(values) > 1:
            name = key.rpartition(".")[2].replace("_", " ")
            yield f"The runs had different values of {name} ({_listed(sorted(values))}): {meaning}."


def _shared_machines(runs: Sequence[Run]) -> Iterator[str]:
    if shared := _hosts_with_overlap(runs):
        yield (
            f"Runs shared a machine at the same time ({', '.join(shared)}): the seconds of parallel jobs are not "
            f"comparable."
        )


def _hosts_with_overlap(runs: Sequence[Run]) -> list[str]:
    spans: dict[str, set[tuple[datetime, datetime]]] = {}
    for run in runs:
        host = run.value("environment.host")
        if run.span and host:
            spans.setdefault(str(host), set()).add(run.span)  # a set: a copy of a record is the same run
    # By start, a run that overlaps any later one overlaps the next, which starts before that one.
    return sorted(host for host, times in spans.items() if any(b[0] < a[1] for a, b in pairwise(sorted(times))))


def _incomplete_records(runs: Sequence[Run]) -> Iterator[str]:
    if without := [run for run in runs if not run.has_config]:
        yield (
            f"{len(without)} of {len(runs)} records lack their configuration: whether epochs, batch size and schedule "
            f"agree cannot be checked: {_listed([str(run.folder) for run in without])}."
        )


def _led_by_validation(groups: Sequence[Group]) -> Iterator[str]:
    """Where some of the groups, and not all, let the validation images decide on the learning rate."""
    led = [
        group.label
        for group in groups
        if any(
            str(run.value("scheduler._target_")).endswith("ReduceLROnPlateau")
            and str(run.value("monitor")).startswith("val_")
            for run in group.counted
        )
    ]
    if led and len(led) < sum(bool(group.counted) for group in groups):
        yield (
            f"The validation images cut the learning rate of {_listed(led)}, and not that of the others: their figures "
            "are a little more optimistic."
        )


def _settings_of(groups: Sequence[Group]) -> tuple[dict[str, tuple[Setting, ...]], dict[str, Setting]]:
    # Of each group the run whose record tells most.
    best_told = [max(group.runs, key=lambda run: (run.has_config, run.counts)) for group in groups]
    differing = differing_keys(best_told)
    shared = {key: value for run in best_told for key, value in run.settings.items() if key not in differing}
    return (
        {key: tuple(run.told(key) for run in best_told) for key in differing},
        {key: shared[key] for key in sorted(shared)},
    )


def _unlike_trials(tunings: Sequence[Tuning]) -> Iterator[str]:
    for tuning in tunings:
        if tuning.is_overtaken:
            yield (
                f"{tuning.label}: a trial that came to its result after the choice has a higher score; the runs that "
                "report have the settings that were chosen before."
            )
        if "data.fingerprint" in tuning.varied:
            yield f"Trials of {tuning.label} were validated on unlike images: their scores cannot be compared."
    results = {tuning.label: sum(trial.counts for trial in tuning.trials) for tuning in tunings}
    if len(set(results.values())) > 1:
        told = ", ".join(f"{label} {count}" for label, count in results.items())
        yield f"The groups were tuned with unequal numbers of trials that came to a result: {told}."


def _keys_that_differ(runs: Sequence[Run]) -> str:
    differing = differing_keys(runs)
    choices = sorted({group for run in runs for group in run.choices})
    arm = ["arm"] * any(run.value("arm") for run in runs)
    return f"there are {', '.join([*choices, *differing, *arm, 'folder', 'seed'])}"


def _listed(names: Sequence[str]) -> str:
    return join_first(names, _MAX_NAMED)


def _shown(value: Setting) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e6:
        return str(int(value))  # 1 and 1.0 are one value, and have one name
    return "none" if value is None else str(value)
