"""Sort runs into groups whose members differ in nothing but the seed, and a study's trials by arm."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fer_exp.comparison.load import RESOLVED, Measure, Records, Run
from fer_exp.comparison.score import Score
from fer_exp.comparison.settings import OUTCOMES, Setting
from fer_exp.errors import join_first
from fer_exp.files import printable
from fer_exp.runs.record import natural

# Grouping by one of these asks for groups that were trained on different images.
_IMAGE_KEYS = (
    "root", "file", "files", "source", "exclude", "ignore", "on_unreadable", "soft_labels", "ferplus.file",
    "ferplus.labels", "ferplus.contempt", "train", "generator_seed",
)  # fmt: skip
_DECIDE_IMAGES = frozenset({"folder", "data", *(f"data.{key}" for key in _IMAGE_KEYS)})


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed.

    Attributes:
        label: the value of the keys it is grouped by.
        runs: all its runs, also those without a result.
        counted: the runs that the statistics are made of: one per seed, completed or diverged.
    """

    label: str
    runs: tuple[Run, ...]
    counted: tuple[Run, ...]


@dataclass(frozen=True)
class Tuning:
    """The trials of one arm.

    Attributes:
        label: the arm's name.
        score: of the trials, on images held out of training.
        trials: all its trials, failed ones included.
        winner: the trial whose settings were used; None if no trial has a result.
        varied: settings that differ between the trials.
        boundary_hits: varied settings whose best value is the lowest or highest that was tried.
    """

    label: str
    score: Score
    trials: tuple[Run, ...]
    winner: Run | None
    varied: tuple[str, ...]
    boundary_hits: tuple[str, ...]


def make_groups(runs: Sequence[Run], group_by: Sequence[str], messages: list[str]) -> list[Group]:
    """Group runs by the values of ``group_by``, in the order of their first runs.

    Args:
        runs: all runs.
        group_by: keys of ``Run.value``.
        messages: gets one for each group that is split and each seed that was repeated.
    """
    members = _split_unlike(_by_value(runs, group_by), messages)
    return [Group(label, tuple(runs), _one_per_seed(label, runs, messages)) for label, runs in members]


def default_measure(runs: Sequence[Run]) -> Measure:
    """Return the last epoch if all runs trained for a fixed number of epochs, otherwise the best."""
    fixed_budget = all("callbacks.early_stopping.patience" not in run.settings for run in runs)
    return "final" if runs and fixed_budget else "best"


def default_keys(records: Records) -> list[str]:
    """Return the keys to group by if none are given: a study's arms, what the sweeps swept, or the optimizer."""
    if all(run.arm for run in records.runs):
        return ["arm"]
    swept = dict.fromkeys(key for sweep in records.sweeps for key in sweep.swept)
    return [key for key in swept if any(run.value(key) is not None for run in records.runs)] or ["optimizer"]


def differing_keys(runs: Sequence[Run]) -> list[str]:
    """Return the settings that differ between runs. An outcome that a failed run did not reach is no difference."""
    values: dict[str, set[Setting]] = {}
    for key in dict.fromkeys(key for run in runs for key in run.settings):
        values[key] = {run.settings.get(key) for run in runs}
    for key in OUTCOMES:
        values.get(key, set()).discard(None)
    return sorted(key for key, different in values.items() if len(different) > 1)


def shorten_keys(keys: Sequence[str], runs: Sequence[Run]) -> list[str]:
    """Replace the keys that a group's choice decides by the group: ``scheduler.factor`` etc. by ``scheduler``."""
    keys = list(keys)
    for group in sorted({group for run in runs for group in run.choices}):
        own = [key for key in keys if (key == group or key.startswith(f"{group}.")) and key not in OUTCOMES]
        decided = {(run.choices.get(group), tuple(run.settings.get(key) for key in own)) for run in runs}
        choices = {choice for choice, _ in decided}
        if own and None not in choices and 1 < len(choices) == len(decided):
            keys = sorted({group, *keys} - set(own))
    return keys


def pairs(group: Group, other: Group) -> list[tuple[Run, Run]]:
    """Return the counted runs of two groups that share a seed."""
    others = {run.seed: run for run in other.counted}
    return [(run, others[run.seed]) for run in group.counted if run.seed in others]


def constant_guess(runs: Sequence[Run]) -> float:
    """Return the accuracy of always guessing the most frequent validation class; NaN if it is not known."""
    counts = next((run.class_counts for run in runs if run.class_counts is not None), None)
    if counts is not None and counts.sum():
        return float(counts.max() / counts.sum())
    classes = next((run.classes for run in runs if run.classes), ())
    return 1 / len(classes) if classes else math.nan


def split_trials(runs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """Return a study's trials and the runs that report; trials alone are compared like other runs."""
    trials = [run for run in runs if run.held_out and run.arm is not None]
    if len(trials) == len(runs):
        return [], trials
    return trials, [run for run in runs if not (run.held_out and run.arm is not None)]


def tune(label: str, trials: Sequence[Run], measure: Measure, reporting: Sequence[Run] = ()) -> Tuning:
    """Find the winner among the trials of one arm: the highest score, of equals the one with the lowest val_loss.

    Args:
        label: the arm's name.
        trials: of the arm.
        measure: the epoch whose val_acc is the score.
        reporting: runs made with the chosen settings, if there are any; they show what was chosen.
    """
    score = Score("val_acc", measure)
    varied = tuple(shorten_keys(differing_keys(trials), trials))
    settings = [key for key in varied if key not in OUTCOMES]
    reported = {tuple(run.value(key) for key in settings) for run in reporting}
    with_result = [trial for trial in trials if trial.counts and not math.isnan(score.of(trial))]
    chosen = [trial for trial in with_result if tuple(trial.value(key) for key in settings) in reported]
    winner = max(chosen or with_result, key=lambda t: (score.of(t), -t.metric(measure, "val_loss")), default=None)
    hits = [key for key in varied if winner and is_boundary(winner.value(key), [trial.value(key) for trial in trials])]
    return Tuning(label, score, tuple(trials), winner, varied, tuple(hits))


def tune_arms(trials: Sequence[Run], reporting: Sequence[Run]) -> list[Tuning]:
    """Return the trials of each arm of each study, with what was chosen from them."""
    by_arm: dict[tuple[Path, str], list[Run]] = {}
    for trial in trials:
        if trial.arm:
            by_arm.setdefault((trial.arm.study.folder, trial.arm.name), []).append(trial)
    measure = default_measure([trial for trial in trials if trial.counts])  # as the study chose
    several = len({study for study, _ in by_arm}) > 1
    tunings = []
    for (study, name), members in by_arm.items():
        chosen = [run for run in reporting if run.arm and (run.arm.study.folder, run.arm.name) == (study, name)]
        tunings.append(tune(f"{name} ({study.name})" if several else name, members, measure, chosen))
    return tunings


def is_boundary(value: object, tried: Sequence[object]) -> bool:
    """Whether a number is the lowest or highest of those tried; two values are a choice and not a range."""
    numbers = {v for v in tried if isinstance(v, int | float) and not isinstance(v, bool)}
    return numbers == set(tried) and len(numbers) > 2 and value in (min(numbers), max(numbers))


def unlike_keys(group: Group, other: Group, group_by: Sequence[str]) -> list[str]:
    """Return the settings that differ between two groups without having been asked for by ``group_by``."""
    runs = [*group.runs, *other.runs]
    studies = [run.arm.study if run.arm else None for run in runs]
    tuned = [{*study.tuned, *(study.swept if "arm" in group_by else ())} if study else set() for study in studies]
    wanted = {RESOLVED.get(key, key) for key in (*group_by, *set.intersection(*tuned))}
    return [key for key in differing_keys(runs) if not _is_asked_for(key, runs, wanted)]


def _is_asked_for(key: str, runs: Sequence[Run], wanted: set[str]) -> bool:
    if key == "data.fingerprint":  # accuracies on different validation images are never compared
        validation = {str(run.settings.get(key)).partition("/")[2] for run in runs if run.settings.get(key)}
        return len(validation) == 1 and not _DECIDE_IMAGES.isdisjoint(wanted)
    if not wanted.isdisjoint({"experiment", "folder"}) and key not in OUTCOMES:
        return True  # either may differ in any key
    return any(key == name or key.startswith(f"{name}.") for name in wanted)


def _by_value(runs: Sequence[Run], group_by: Sequence[str]) -> list[tuple[str, list[Run]]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_label(run, group_by), []).append(run)
    return list(groups.items())


def _label(run: Run, keys: Sequence[str]) -> str:
    values = {key: run.value(key) for key in keys}
    return ", ".join(
        printable(value) if isinstance(value, str) else f"{key}={_shown(value)}" for key, value in values.items()
    )


def _shown(value: Setting) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e6:
        return str(int(value))  # 1 and 1.0 are one value
    return "none" if value is None else printable(value)


def _split_unlike(grouped: Sequence[tuple[str, list[Run]]], messages: list[str]) -> Iterator[tuple[str, list[Run]]]:
    """Split groups whose runs have different settings: only runs with equal settings are averaged."""
    for label, members in grouped:
        unlike = shorten_keys(differing_keys(members), members)
        if not unlike:
            yield label, members
            continue
        messages.append(f"Runs of {label} differ in {join_first(unlike)}; they are shown as groups of their own")
        parts: dict[tuple[Setting, ...], list[Run]] = {}
        for run in members:
            parts.setdefault(tuple(run.value(key) for key in unlike), []).append(run)
        names = [
            ", ".join([label, *(f"{key}={_shown(value)}" for key, value in zip(unlike, values, strict=True))])
            for values in parts
        ]
        if len(unlike) > 2 or len(set(names)) < len(names):
            names = [f"{label} (variant {number})" for number in range(1, len(parts) + 1)]
        yield from zip(names, parts.values(), strict=True)


def _one_per_seed(label: str, members: Sequence[Run], messages: list[str]) -> tuple[Run, ...]:
    """Return the runs with a result, the latest of each seed: repetitions of a seed are no new evidence."""
    by_seed: dict[int, Run] = {}
    repeated: set[int] = set()
    with_result = (run for run in members if run.counts)
    for run in sorted(with_result, key=lambda run: (bool(run.span), run.span, natural(str(run.folder)))):
        if run.seed in by_seed:
            repeated.add(run.seed)
        by_seed[run.seed] = run
    if repeated:
        latest = join_first([str(by_seed[seed].folder) for seed in sorted(repeated)])
        seeds = ", ".join(map(str, sorted(repeated)))
        messages.append(f"{label} has several runs with the same seed ({seeds}); only the latest count: {latest}")
    return tuple(by_seed[seed] for seed in sorted(by_seed))
