"""Trials of a study: which settings of an arm scored best, and whether the range of its search was wide enough."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fer_exp.comparison.grouping import default_measure
from fer_exp.comparison.load import Measure, Run
from fer_exp.comparison.score import Score
from fer_exp.comparison.settings import OUTCOMES, differing_keys, shorten_keys


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


def tune(label: str, trials: Sequence[Run], measure: Measure, reporting: Sequence[Run] = ()) -> Tuning:
    """Find the winner among the trials of one arm: the highest score, the first of equals.

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
    winner = max(chosen or with_result, key=score.of, default=None)
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
