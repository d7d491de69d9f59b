"""What a report of a comparison says: sentences, tables and pictures, in whichever form they are written."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fer_exp.comparison import formats
from fer_exp.comparison.analysis import MEASURES, Comparison, Group, default_measure
from fer_exp.comparison.load import FIGURES, Measure
from fer_exp.comparison.pictures import Picture
from fer_exp.comparison.statistics import CONFIDENCE, RESAMPLES
from fer_exp.comparison.tuning import Tuning, score

UNFOLDED_ROWS = 20  # of a table of details, on a page
MOST_COLUMNS = 6  # groups that stand beside one another


@dataclass(frozen=True)
class Grid:
    """A table of text; ``align`` has an l or an r for each column."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    align: str


@dataclass(frozen=True)
class Section:
    """A heading, and what stands below it: sentences, a table, pictures; ``is_detail`` if it can be skipped."""

    heading: str
    points: tuple[str, ...] = ()
    grid: Grid | None = None
    pictures: tuple[Picture, ...] = ()
    is_detail: bool = True

    @property
    def is_folded(self) -> bool:
        """Whether the page shows the heading only, until it is asked for the rest."""
        return self.is_detail and self.grid is not None and len(self.grid.rows) > UNFOLDED_ROWS


def title(comparison: Comparison) -> str:
    """What is compared."""
    return f"Comparison by {', '.join(comparison.group_by)}"


def answer(comparison: Comparison) -> list[str]:
    """What came out, a sentence for each group against the baseline."""
    if not any(group.counted for group in comparison.groups):
        return ["No run came to a result: there is nothing to compare."]
    if not comparison.differences:
        return [f"There is one group, {comparison.groups[0].label}, and nothing to compare it with."]
    return [difference.sentence for difference in comparison.differences]


def make_sections(comparison: Comparison, pictures: Sequence[Picture]) -> list[Section]:
    """All of the report but its title, its answer and the list of runs."""
    sections = [
        Section("Results", (footnote(comparison.measure),), main_grid(comparison), is_detail=False),
        Section("Before you trust this", comparison.notes),
        Section("Plots", pictures=tuple(pictures)),
        Section("What was measured, and how", tuple(_method(comparison))),
        Section("Time to target", (_target(comparison),), _time_grid(comparison)),
        Section("Differences", tuple(_reading(comparison)), _difference_grid(comparison)),
        Section("How settings were chosen", tuple(_choosing(comparison)), _trial_grid(comparison)),
        Section(
            "All metrics",
            ("Over the runs that count. The best epoch is the one with the highest val_acc.",),
            _detail_grid(comparison),
        ),
        Section("Settings that differ", grid=_differing_grid(comparison)),
        Section("Settings that all groups share", grid=_shared_grid(comparison)),
    ]
    # A table without rows says nothing, and takes along what explains it.
    return [s for s in sections if (s.grid.rows if s.grid else s.points or s.pictures)]


def footnote(measure: Measure) -> str:
    """What the figures of the main table are."""
    epoch = "the epoch with the best val_acc" if measure == "best" else "the last epoch"
    return f"Mean ± standard deviation over seeds; val_loss and macro-F1 at {epoch}."


def main_grid(comparison: Comparison) -> Grid:
    """A row a group."""
    measure = comparison.measure
    rows = [
        (
            group.label,
            str(len(group.counted)),
            formats.mean(group.spreads["best", "val_acc"], "val_acc"),
            formats.mean(group.spreads["final", "val_acc"], "val_acc"),
            formats.mean(group.spreads[measure, "val_loss"], "val_loss"),
            formats.mean(group.spreads[measure, "val_macro_f1"], "val_macro_f1"),
            formats.count(group.to_target["epochs"].median),
            statuses(group),
        )
        for group in comparison.groups
    ]
    header = ("group", "n", "best val_acc", "final val_acc", "val_loss", "macro-F1", "epochs to target", "runs")
    return Grid(header, rows, "lrrrrrrl")


def statuses(group: Group, short: bool = False) -> str:
    """How many runs of each status; ``short``: completed/diverged/failed/unfinished."""
    by_status = group.statuses
    numbers = {status: by_status[status] for status in ("completed", "diverged", "failed")}
    numbers["unfinished"] = len(group.runs) - sum(numbers.values())
    if short:
        return "/".join(map(str, numbers.values()))
    return ", ".join(f"{number} {status}" for status, number in numbers.items() if number)


def _method(comparison: Comparison) -> Iterator[str]:
    runs = comparison.runs
    counted = sum(len(group.counted) for group in comparison.groups)
    trials = sum(len(tuning.trials) for tuning in comparison.trials)
    groups = "1 group" if len(comparison.groups) == 1 else f"{len(comparison.groups)} groups"
    yield (
        f"{len(runs)} {formats.plural('run', len(runs))} in {groups} by {', '.join(comparison.group_by)}; "
        f"{counted} {'counts' if counted == 1 else 'count'}: one a seed, completed or diverged."
        + (
            f" {trials} more {formats.plural('run', trials)} chose settings, and are averaged with none."
            if trials
            else ""
        )
    )
    if comparison.differences:
        baseline = comparison.differences[0].baseline
        yield f"The baseline is {baseline}: every other group is compared with it, run by run with the same seed."
    if comparison.measure == "final":
        yield (
            "The answer is about final val_acc, that of the last epoch: where all runs train for the same number of "
            "epochs, validation does not choose it. The best epoch is chosen by validation, so its figures are "
            "optimistic."
        )
    else:
        stops_early = default_measure([run for group in comparison.groups for run in group.counted]) == "best"
        reason = "because the last epoch is an accident where runs stop early" if stops_early else "as it was asked for"
        yield (
            f"The answer is about best val_acc, that of the best epoch, {reason}. Validation chose the best epoch, so "
            "best is optimistic."
        )
    if math.isfinite(comparison.target):
        origin = "as it was asked for" if comparison.target_is_given else "95 % of the best group's median best val_acc"
        yield f"The target of time-to-target is a val_acc of {formats.points(comparison.target)} %: {origin}."
    if comparison.differences:
        level = f"{100 * CONFIDENCE:.0f} %"
        yield (
            f"Brackets hold the {level} percentile bootstrap interval of the mean difference over paired seeds "
            f"({RESAMPLES:,} resamples)."
        )
        yield (
            "A difference is claimed where the interval excludes zero and the paired t-test agrees "
            f"(p < {1 - CONFIDENCE:.2f}): of few seeds, the bootstrap alone is too sure."
        )
    if len(comparison.groups) > 2:
        yield (
            f"Each statement holds at {100 * CONFIDENCE:.0f} % by itself: the more groups, the more likely that "
            "one of the statements is wrong."
        )


def _target(comparison: Comparison) -> str:
    return (
        f"Training until val_acc is first {formats.points(comparison.target)} % or more, medians over the runs that "
        "count. A run that missed counts as infinitely long; never is a median of such."
    )


def _time_grid(comparison: Comparison) -> Grid:
    rows = [
        (
            group.label,
            f"{group.reached} of {len(group.counted)}",
            formats.count(group.to_target["epochs"].median),
            formats.count(group.to_target["steps"].median),
            formats.duration(group.to_target["seconds"].median, missing="never"),
        )
        for group in comparison.groups
        if group.counted
    ]
    return Grid(("group", "reached", "epochs", "steps", "training time"), rows, "lrrrr")


def _reading(comparison: Comparison) -> Iterator[str]:
    if comparison.differences:
        yield (
            f"Each group minus {comparison.differences[0].baseline}, mean over paired seeds; accuracies and macro-F1 "
            "in percentage points. A lower val_loss is better."
        )


def _difference_grid(comparison: Comparison) -> Grid:
    rows = [
        (
            difference.group,
            formats.SHOWN[name] + (", points" if name != "val_loss" else ""),
            measure,
            str(paired.n),
            formats.signed(paired.mean, name),
            formats.interval(paired.low, paired.high, name),
            formats.p_value(paired.p_value),
            "yes" if paired.is_claimed else "no",
        )
        for difference in comparison.differences
        for (measure, name), paired in difference.paired.items()
        if paired.n
    ]
    header = ("group", "metric", "epoch", "pairs", "difference", f"{100 * CONFIDENCE:.0f} % interval", "p", "claimed")
    return Grid(header, rows, "lllrrrrl")


def _choosing(comparison: Comparison) -> Iterator[str]:
    if comparison.trials:
        yield (
            "Trials were validated on images held out of the training folder; those that report were not looked at. "
            f"The score is {comparison.trials[0].measure} val_acc there."
        )
    for tuning in comparison.trials:
        if tuning.edges:
            yield (
                f"{tuning.label}: the best {' and '.join(tuning.edges)} is at the end of the range that was tried; "
                "a better value may lie beyond."
            )


def _trial_grid(comparison: Comparison) -> Grid:
    rows = []
    for tuning in comparison.trials:
        winner = tuning.winner
        rows.append(
            (
                tuning.label,
                str(len(tuning.trials)),
                str(sum(trial.status == "diverged" for trial in tuning.trials)),
                str(sum(not trial.counts for trial in tuning.trials)),
                _chosen(tuning),
                f"{formats.points(score(winner, tuning.measure))} %" if winner else formats.NOTHING,
                ", ".join(tuning.edges) or formats.NOTHING,
                f"{sum(trial.epochs for trial in tuning.trials):,}",
                f"{sum(trial.total_seconds for trial in tuning.trials) / 3600:,.2f}",
            )
        )
    header = (
        "group",
        "trials",
        "diverged",
        "no result",
        "chosen",
        "score",
        "at the end of its range",
        "epochs",
        "hours",
    )
    return Grid(header, rows, "lrrrlrlrr")


def _chosen(tuning: Tuning) -> str:
    if tuning.winner is None:
        return formats.NOTHING
    return ", ".join(f"{key}={formats.setting(tuning.winner.value(key))}" for key in tuning.varied) or formats.NOTHING


def _detail_grid(comparison: Comparison) -> Grid:
    rows = []
    for group in filter(lambda group: group.counted, comparison.groups):
        for name in FIGURES:
            for measure in MEASURES:
                each = group.spreads[measure, name]
                values = (each.mean, each.std, each.median, each.min, each.max)
                unit = formats.SHOWN[name] + (", %" if name != "val_loss" else "")
                rows.append(
                    (group.label, unit, measure, str(each.n), *(formats.plain(value, name) for value in values))
                )
    header = ("group", "metric", "epoch", "n", "mean", "std", "median", "min", "max")
    return Grid(header, rows, "lllrrrrrr")


def _differing_grid(comparison: Comparison) -> Grid:
    labels = tuple(group.label for group in comparison.groups)
    columns = [(key, *map(formats.setting, values)) for key, values in comparison.differing.items()]
    if len(labels) <= MOST_COLUMNS:
        return Grid(("setting", *labels), columns, "l" * (1 + len(labels)))
    rows = list(zip(labels, *(values for _, *values in columns), strict=True)) if columns else []
    return Grid(("group", *comparison.differing), rows, "l" * (1 + len(columns)))


def _shared_grid(comparison: Comparison) -> Grid:
    rows = [(key, formats.setting(value)) for key, value in comparison.shared.items() if value is not None]
    return Grid(("setting", "value"), rows, "ll")
