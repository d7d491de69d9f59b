"""The content of a comparison report, independent of the format it is written in."""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from fer_exp.comparison import figures
from fer_exp.comparison.analysis import Comparison, paired_test
from fer_exp.comparison.caveats import find_caveats
from fer_exp.comparison.classes import class_sections
from fer_exp.comparison.grouping import differing_keys
from fer_exp.comparison.load import MEASURES, Run
from fer_exp.comparison.score import (
    NO_VALUE,
    Score,
    format_count,
    format_duration,
    format_p,
    format_setting,
    number_range,
)
from fer_exp.comparison.statistics import ALPHA, holm, summarize
from fer_exp.comparison.tables import Section, Table, group_tables
from fer_exp.comparison.verdict import Verdict, made_by, make_verdict, next_steps
from fer_exp.errors import plural
from fer_exp.plots.svg import Figure


@dataclass(frozen=True)
class Report:
    """Everything that a report shows.

    Attributes:
        title: what was compared, and on which data.
        provenance: short facts: runs, data, device, version, date, hours.
        command: the command that made the runs.
        verdict: the answer.
        caveats: what to know before trusting it.
        forest: figure of the differences.
        forest_note: how to read it.
        ranking: a row per group, best first.
        next_steps: what to do next.
        next_command: the command for it.
        sections: the rest.
        groups: the groups' names, in the order of their colors.
        runs: a row per run, trials last.
    """

    title: str
    provenance: tuple[str, ...]
    command: str
    verdict: Verdict
    caveats: tuple[str, ...]
    forest: Figure | None
    forest_note: str
    ranking: Table
    next_steps: tuple[str, ...]
    next_command: str
    sections: tuple[Section, ...] = field(repr=False)
    groups: tuple[str, ...]
    runs: tuple[Mapping[str, Any], ...] = field(repr=False)

    @property
    def figures(self) -> list[Figure]:
        """All figures."""
        found = [figure for section in self.sections for figure in section.figures]
        return [self.forest, *found] if self.forest else found


def make_report(comparison: Comparison, folder: Path, title: str | None = None) -> Report:
    """Collect the content of a report that will be written to ``folder``."""
    steps, command = next_steps(comparison)
    runs = _run_rows(comparison, folder)
    sections = [
        _curves(comparison),
        _learning_rate(comparison),
        *class_sections(comparison),
        _cost(comparison),
        _pairs(comparison),
        _metrics(comparison),
        _trials(comparison),
        _settings(comparison),
        _runs(comparison, runs[: len(comparison.runs)]),
        _method(comparison),
    ]
    return Report(
        title=title or f"Comparison of {_group_names(comparison)} on {_data_name(comparison)}",
        provenance=tuple(_provenance(comparison)),
        command=made_by(comparison),
        verdict=make_verdict(comparison),
        caveats=tuple(find_caveats(comparison)),
        forest=figures.forest(comparison),
        forest_note=_forest_note(comparison),
        ranking=_ranking(comparison),
        next_steps=tuple(steps),
        next_command=command,
        sections=tuple(section for section in sections if section),
        groups=tuple(group.label for group in comparison.groups),
        runs=tuple(runs),
    )


def _group_names(comparison: Comparison) -> str:
    names = {"arm": "the arms of a study", "folder": "folders"}
    return ", ".join(names.get(key, key) for key in comparison.group_by)


def _ranking(comparison: Comparison) -> Table:
    score = comparison.score
    rows = [
        (
            str(group.place + 1),
            group.label,
            str(len(group.counted)),
            score.mean_std(group.summary),
            score.estimate(group.test) if group.test else "",
            format_p(group.p_adjusted) if group.test else "",
            comparison.result(group),
        )
        for group in comparison.groups
    ]
    header = ("rank", "group", "n", score.column, f"to {comparison.reference_name} [95 %]", "p", "result")
    return Table(header, rows, "rlrrrrl", group_column=1)


def _forest_note(comparison: Comparison) -> str:
    note = "Lines: 95 % t intervals. Dots: seeds. Filled squares: significant."
    if (tests := len(comparison.tested)) < 2:
        return note
    return (
        f"{note} Only the p values are corrected for {tests} comparisons (Holm), so an interval can be clear of 0 "
        "although the difference is not significant."
    )


def _provenance(comparison: Comparison) -> Iterator[str]:
    runs = comparison.runs
    seeds = {run.seed for run in runs}
    counts = {"run": len(runs), "group": len(comparison.groups), "seed": len(seeds)}
    yield ", ".join(plural(n, word) for word, n in counts.items())
    if epochs := {run.epochs for run in comparison.counted}:
        yield f"{number_range(epochs)} epoch{'s' * (epochs != {1})}"
    images = {(run.value("data.train"), run.value("data.validation")) for run in runs} - {(None, None)}
    for train, validation in images if len(images) == 1 else ():
        yield f"{_data_name(comparison)}: {train:,} training and {validation:,} validation images"
    if devices := sorted({str(run.value("environment.device")) for run in runs if run.value("environment.device")}):
        yield ", ".join(devices)
    commit = str(runs[0].value("environment.git_commit") or "")
    dirty = "-dirty" * commit.endswith("-dirty")
    yield f"fer_exp {runs[0].value('environment.versions.fer_exp') or ''} {commit[:7]}{dirty}".strip()
    if spans := [run.span for run in runs if run.span]:
        yield f"{max(end for _, end in spans):%Y-%m-%d}"
    yield f"{format_duration(sum(run.total_seconds for run in runs))} in all"


def _data_name(comparison: Comparison) -> str:
    names = {_data_name_of(run) for run in comparison.runs}
    return names.pop() if len(names) == 1 else f"{len(names)} data sets"


def _data_name_of(run: Run) -> str:
    """The last part of the data's path that is a name of its own; the name of the data module if it has no path."""
    source = str(run.value("data._target_")).rpartition(".")[2]
    if source == "SyntheticDataModule":
        return "synthetic images"
    place = next((str(path) for key in ("root", "file", "file.train") if (path := run.value(f"data.{key}"))), "")
    parts = [part for part in Path(place).parts if part not in ("images", "data", "train", os.sep)]
    return Path(parts[-1]).stem if parts else place or source


def _curves(comparison: Comparison) -> Section | None:
    if not comparison.counted:
        return None
    notes = [
        "Mean over seeds with its 95 % t interval, and the group's rank. Thin lines are single runs that trained "
        "longer, or diverged and end in a cross."
    ]
    if not math.isnan(comparison.chance):
        notes.append(f"Dashed: a constant guess ({comparison.score.text(comparison.chance)}).")
    return Section("Curves", (" ".join(notes),), figures=tuple(figures.curves(comparison)), has_axis_choice=True)


def _learning_rate(comparison: Comparison) -> Section | None:
    figure = figures.learning_rates(comparison)
    if figure is None:
        return None
    note = "Mean, and a band from the lowest to the highest run; a cross is a learning rate at which a run diverged."
    return Section("Learning rate", (note,), figures=(figure,))


def _cost(comparison: Comparison) -> Section | None:
    figure = figures.cost(comparison)
    if figure is None:
        return None
    note = "Times are of training alone, without validation."
    if math.isnan(comparison.target):
        return Section("Cost", (note,), figures=(figure,))
    rows = []
    for group in comparison.counted_groups:
        times = [run.to_target(comparison.score.metric, comparison.target) for run in group.counted]
        epochs, steps, seconds = (summarize([time[unit] for time in times]).median for unit in times[0])
        reached = f"{sum(math.isfinite(time['epochs']) for time in times)} of {len(times)}"
        rows.append((group.label, reached, format_count(epochs), format_count(steps), format_duration(seconds)))
    target = f"{comparison.score.metric} {comparison.score.text(comparison.target)}"
    notes = (note, f"Time to {target}: medians over seeds; a miss counts as infinite.")
    header = ("group", "reached it", "epochs", "steps", "time")
    return Section("Cost", notes, (Table(header, rows, "llrrr"),), (figure,))


def _pairs(comparison: Comparison) -> Section | None:
    score = comparison.score
    pairs = combinations(comparison.counted_groups, 2)
    tests = [(f"{a.label} - {b.label}", paired_test(a, b, score)) for a, b in pairs]
    if len(tests) < 2:
        return None
    adjusted = holm([test.p_value for _, test in tests])
    rows = [
        (pair, str(test.n), score.estimate(test), format_p(test.p_value), format_p(p))
        for (pair, test), p in zip(tests, adjusted, strict=True)
        if test.n
    ]
    note = f"Paired t-tests of {score.measure} {score.column}; the last column is corrected for all pairs."
    header = ("pair", "n", "difference [95 %]", "p", "p (Holm)")
    return Section("All pairs", (note,), (Table(header, rows, "lrrrr"),), is_folded=True)


def _metrics(comparison: Comparison) -> Section | None:
    names = dict.fromkeys(name for run in comparison.counted for name in run.metrics)
    groups = comparison.counted_groups
    rows = [
        (f"{measure} {score.column}", *(score.mean_std(score.summarize(group.counted)) for group in groups))
        for name in names
        for measure in MEASURES
        for score in [Score(name, measure)]
    ]
    note = "Mean ± standard deviation over seeds; best: the epoch of best.ckpt, final: the last epoch."
    tables = group_tables("metric", [group.label for group in groups], rows, "r")
    return Section("All metrics", (note,), tables, is_folded=True) if rows else None


def _trials(comparison: Comparison) -> Section | None:
    rows = []
    for each in comparison.tunings:
        values = [f"{key}={format_setting(each.winner.value(key))}" for key in each.varied] if each.winner else []
        rows.append(
            (
                each.label,
                f"{sum(trial.counts for trial in each.trials)} of {len(each.trials)}",
                ", ".join(values) or NO_VALUE,
                each.score.text(each.score.of(each.winner)) if each.winner else NO_VALUE,
                ", ".join(each.boundary_hits) or NO_VALUE,
                format_duration(sum(trial.total_seconds for trial in each.trials)),
            )
        )
    header = ("group", "trials with a result", "chosen", "score", "at the end of its range", "time")
    note = "Trials chose the settings on images held out of training; they are not averaged with the runs above."
    return Section("Trials", (note,), (Table(header, rows, "lrlrlr"),), is_folded=True) if rows else None


def _settings(comparison: Comparison) -> Section:
    examples = [max(group.runs, key=lambda run: run.counts) for group in comparison.groups]
    differing = differing_keys(examples)
    labels = [group.label for group in comparison.groups]
    rows = [(key, *(format_setting(run.value(key)) for run in examples)) for key in differing]
    tables = group_tables("setting that differs", labels, rows, "l") if rows else ()
    shared = {key: value for run in examples for key, value in run.settings.items() if key not in differing}
    rows = [(key, format_setting(value)) for key, value in sorted(shared.items()) if value is not None]
    return Section("Settings", (), (*tables, Table(("setting of all groups", "value"), rows, "ll")), is_folded=True)


def _runs(comparison: Comparison, rows: Sequence[Mapping[str, Any]]) -> Section:
    score = comparison.score
    best, final = f"best_{score.metric}", f"final_{score.metric}"
    columns = ["group", "seed", "status", "counted", "lr", "best_epoch", best, final, "epochs"]
    columns += ["epochs_to_target", "train_seconds", "folder"]
    formatters: dict[str, Callable[[Any], str]] = {best: score.number, final: score.number}
    formatters |= {"epochs_to_target": format_count, "train_seconds": format_duration}
    cells = [[formatters.get(name, format_setting)(row[name]) for name in columns] for row in rows]
    table = Table([name.replace("_", " ") for name in columns], cells, "lrllrrrrrrrl", is_sortable=True)
    return Section("Runs", (), (table,), is_folded=True)


def _run_rows(comparison: Comparison, folder: Path) -> list[dict[str, Any]]:
    """Return what the CSV file says of each run; a study's trials last. NaN is a value that is not known."""
    counted = set(map(id, comparison.counted))
    metrics = dict.fromkeys(name for run in comparison.runs for name in run.metrics)
    metrics[comparison.score.metric] = None  # also if no run got as far as its first epoch
    labeled = [(group.label, run) for group in comparison.groups for run in group.runs]
    labeled += [(each.label, run) for each in comparison.tunings for run in each.trials]
    rows = []
    for label, run in labeled:
        times = run.to_target(comparison.score.metric, comparison.target)
        has_target = run.counts and not math.isnan(comparison.target)
        rows.append(
            {
                "group": label,
                "counted": "yes" if id(run) in counted else "no",
                "role": "selection" if run.held_out else "reporting",
                "status": run.status,
                "seed": run.seed,
                "optimizer": run.value("optimizer"),
                "model": run.value("model"),
                "lr": run.value("optimizer.lr"),
                "best_epoch": run.best_epoch,
                **{f"{measure}_{name}": run.metric(measure, name) for name in metrics for measure in MEASURES},
                "epochs": run.epochs,
                **{f"{unit}_to_target": value if has_target else math.nan for unit, value in times.items()},
                "train_seconds": float(run.train_seconds[-1]) if run.epochs else math.nan,
                "total_seconds": run.total_seconds,
                "device": run.value("environment.device"),
                "folder": Path(os.path.relpath(run.folder.absolute(), folder.absolute())).as_posix(),
            }
        )
    return rows


def _method(comparison: Comparison) -> Section:
    score, tests, runs = comparison.score, len(comparison.tested), comparison.counted
    lines = [f"{len(runs)} of {len(comparison.runs)} runs count: one per seed and group, completed or diverged."]
    epoch = "the last epoch, which validation did not choose"
    if score.measure == "best":
        epoch = "the epoch of the best checkpoint, which validation chose, so it is optimistic"
    lines.append(f"The score is {score.label} at {epoch}.")
    if trials := sum(len(tuning.trials) for tuning in comparison.tunings):
        lines.append(f"Settings were chosen in {plural(trials, 'trial')} on images held out of training.")
    if tests:
        lines.append(
            "Runs with the same seed share initial weights and data order, so differences are paired by seed. Each "
            f"group is compared with {comparison.reference.label}: mean difference with its 95 % t interval, and a "
            "paired t-test (a sign test if all differences are equal). The p values are corrected for "
            f"{plural(tests, 'comparison')} (Holm), the intervals are not. A difference is significant if the "
            f"corrected p is below {ALPHA}."
        )
    if not math.isnan(comparison.chance):
        lines.append(
            f"Always guessing the most frequent validation class gives {score.text(comparison.chance)}. A group is at "
            "chance if the Wilson interval of its accuracy reaches down to that."
        )
    return Section("How it was measured", tuple(lines), is_folded=True)
