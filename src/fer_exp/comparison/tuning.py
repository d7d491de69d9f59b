"""Choosing among trials: which settings of an optimizer were best, and whether its range was wide enough."""

from collections.abc import Sequence
from dataclasses import dataclass

from fer_exp.comparison.load import OUTCOMES, Measure, Run, differing_keys, in_short


@dataclass(frozen=True)
class Tuning:
    """The trials of one group.

    Attributes:
        label: the group's name.
        measure: the epoch whose val_acc is the score.
        trials: all its trials, failed ones included.
        winner: the one that was chosen; None if none came to a result.
        best: the one with the highest score: another, where it came to its result after the choice.
        varied: the settings that the trials differ in.
        edges: those whose best value is the lowest or highest that was tried, so that a better may lie beyond.
    """

    label: str
    measure: Measure
    trials: tuple[Run, ...]
    winner: Run | None
    best: Run | None
    varied: tuple[str, ...]
    edges: tuple[str, ...]

    @property
    def is_overtaken(self) -> bool:
        """Whether another trial has a higher score than the one that was chosen."""
        if self.winner is None or self.best is None:
            return False
        return score(self.best, self.measure) > score(self.winner, self.measure)


def score(trial: Run, measure: Measure) -> float:
    """The val_acc of a trial that came to a result, on the images held out of training."""
    return trial.figure(measure, "val_acc")


def tune(label: str, trials: Sequence[Run], measure: Measure, reporting: Sequence[Run] = ()) -> Tuning:
    """Find the winner among the trials of one group: the highest score, the first of equals.

    Args:
        label: the group's name.
        trials: of the group.
        measure: the epoch whose val_acc is the score.
        reporting: the runs that were made with what was chosen, where there are any: they tell what that was.
    """
    varied = tuple(in_short(differing_keys(trials), trials))
    with_result = [trial for trial in trials if trial.counts]
    best = max(with_result, key=lambda trial: score(trial, measure), default=None)
    settings = [key for key in varied if key not in OUTCOMES]
    reported = {tuple(run.value(key) for key in settings) for run in reporting}
    chosen = [trial for trial in with_result if tuple(trial.value(key) for key in settings) in reported]
    winner = max(chosen, key=lambda trial: score(trial, measure), default=best)
    edges = tuple(key for key in varied if winner and _is_edge(winner.value(key), [t.value(key) for t in trials]))
    return Tuning(label, measure, tuple(trials), winner, best, varied, edges)


def _is_edge(value: object, tried: Sequence[object]) -> bool:
    numbers = [v for v in tried if isinstance(v, int | float) and not isinstance(v, bool)]
    # Of two values, a choice and no range, each would be at an end.
    return len(numbers) == len(tried) and len(set(numbers)) > 2 and value in (min(numbers), max(numbers))
