"""The content of a comparison report, independent of the format it is written in."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from fer_exp.comparison import figures, formats
from fer_exp.comparison.analysis import Comparison
from fer_exp.comparison.caveats import find_caveats
from fer_exp.comparison.classes import class_sections
from fer_exp.comparison.figures import Figure
from fer_exp.comparison.grouping import Group
from fer_exp.comparison.load import MEASURES, Run
from fer_exp.comparison.statistics import ALPHA, holm, summarize
from fer_exp.comparison.tables import Section, Table, group_tables
from fer_exp.comparison.tuning import score
from fer_exp.comparison.verdict import Verdict, made_by, next_steps, result, summary_sentence

RUN_HEADER = ("group", "seed", "status", "lr", "best", "epoch", "final", "epochs", "to target", "training", "folder")


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
        ranking: a row per group, best first.
        next_steps: what to do next.
        next_command: the command for it.
        sections: the rest.
        groups: the groups' names, in the order of their colours.
    """

    title: str
    provenance: tuple[str, ...]
    command: str
    verdict: Verdict
    caveats: tuple[str, ...]
    forest: Figure | None
    ranking: Table
    next_steps: tuple[str, ...]
    next_command: str
    sections: tuple[Section, ...] = field(repr=False)
    groups: tuple[str, ...]


def make_report(comparison: Comparison, folder: Path, title: str | None = None) -> Report:
    """Collect the content of a report that will be written to ``folder``."""
    steps, command = next_steps(comparison)
    sections = [
        _curves(comparison),
        _learning_rate(comparison),
        *class_sections(comparison),
        _cost(comparison),
        _pairs(comparison),
        _metrics(comparison),
        _trials(comparison),
        *_settings(comparison),
        _runs(comparison, folder),
        _method(comparison),
    ]
    return Report(
        title=title or f"Comparison of {', '.join(comparison.group_by)} on {_data_name(comparison)}",
        provenance=tuple(_provenance(comparison)),
        command=made_by(comparison),
        verdict=summary_sentence(comparison),
        caveats=tuple(find_caveats(comparison)),
        forest=figures.forest(comparison),
        ranking=ranking(comparison),
        next_steps=tuple(steps),
        next_command=command,
        sections=tuple(section for section in sections if section),
        groups=tuple(group.label for group in comparison.groups),
    )


def ranking(comparison: Comparison) -> Table:
    """Return a row per group: its score and its difference to the reference."""
    metric, measure = comparison.metric, comparison.measure
    by_group = {each.group.label: each for each in comparison.differences}
    rows = []
    for place, group in enumerate(comparison.groups, 1):
        each = by_group.get(group.label)
        test = each.test if each else None
        rows.append(
            (
                str(place),
                group.label,
                str(len(group.counted)),
                formats.mean_std(group.summary(measure, metric), metric),
                formats.estimate(test, metric) if test else "",
                formats.p_value(each.p_adjusted) if each and test else "",
                result(comparison, group),
            )
        )
    percent = ", %" if formats.is_percent(metric) else ""
    to = f"to {'baseline' if comparison.has_baseline else 'best'} [95 %]"
    header = ("#", "group", "n", f"{metric}{percent}", to, "p", "result")
    return Table(header, rows, "rlrrrrl", groups=tuple(range(len(rows))), group_column=1)


def _provenance(comparison: Comparison) -> Iterator[str]:
    runs = comparison.runs
    seeds = {run.seed for run in runs}
    numbers = (formats.plural(len(runs), "run"), formats.plural(len(comparison.groups), "group"))
    yield ", ".join([*numbers, formats.plural(len(seeds), "seed")])
    if epochs := sorted({run.epochs for run in comparison.counted}):
        lowest = f"{epochs[0]} to " if len(epochs) > 1 else ""
        yield lowest + formats.plural(epochs[-1], "epoch")
    run = runs[0]
    counts = [run.value(f"data.{split}") for split in ("train", "validation")]
    if all(isinstance(count, int) for count in counts):
        yield f"{_data_name(comparison)}: {counts[0]:,} training and {counts[1]:,} validation images"
    devices = sorted({str(run.value("environment.device")) for run in runs if run.value("environment.device")})
    if devices:
        yield ", ".join(devices)
    commit = str(run.value("environment.git_commit") or "")
    dirty = "-dirty" * commit.endswith("-dirty")
    yield f"fer_exp {run.value('environment.versions.fer_exp') or ''} {commit[:7]}{dirty}".strip()
    if spans := [run.span for run in runs if run.span]:
        yield f"{max(end for _, end in spans):%Y-%m-%d}"
    yield f"{formats.duration(sum(run.total_seconds for run in runs))} in all"


def _data_name(comparison: Comparison) -> str:
    """The last part of the data's path that is a name of its own."""
    root = comparison.runs[0].value("data.root") if comparison.runs else None
    if not root:
        return "synthetic images"
    parts = [part for part in Path(str(root)).parts if part not in ("images", "data", "train", os.sep)]
    return Path(parts[-1]).stem if parts else str(root)


def _curves(comparison: Comparison) -> Section | None:
    if not comparison.counted:
        return None
    has_chance = not math.isnan(comparison.chance)
    note = (
        "Mean over seeds with its 95 % t interval. Thin lines are single runs: longer ones, and diverged ones, which "
        "end in a cross. The number at the right is the group's place."
        + (f" Dashed: a constant guess ({formats.score(comparison.chance, 'val_acc')})." if has_chance else "")
    )
    return Section("Curves", (note,), figures=tuple(figures.curves(comparison)), has_axis_choice=True)


def _learning_rate(comparison: Comparison) -> Section | None:
    figure = figures.learning_rates(comparison)
    if figure is None:
        return None
    note = "Mean, and a band from the lowest to the highest run; a cross is a learning rate at which a run diverged."
    ring = "A ring is the chosen one; an arrow beside it: the end of the range tried, a better one may lie beyond."
    return Section("Learning rate", (note, ring) if comparison.tunings else (note,), figures=(figure,))


def _cost(comparison: Comparison) -> Section | None:
    figure = figures.cost(comparison)
    counted = [group for group in comparison.groups if group.counted]
    if figure is None:
        return None
    notes, tables = ["Times are of training alone, without validation."], []
    if not math.isnan(comparison.target):
        rows = []
        for group in counted:
            times = [run.to_target(comparison.metric, comparison.target) for run in group.counted]
            reached = sum(math.isfinite(time["epochs"]) for time in times)
            medians = {unit: summarize([time[unit] for time in times]).median for unit in times[0]}
            rows.append(
                (
                    group.label,
                    f"{reached} of {len(times)}",
                    formats.count(medians["epochs"]),
                    formats.count(medians["steps"]),
                    formats.duration(medians["seconds"]),
                )
            )
        target = formats.score(comparison.target, comparison.metric)
        notes.append(f"Time to {comparison.metric} {target}: medians over seeds; a miss counts as infinite.")
        places = tuple(comparison.groups.index(group) for group in counted)
        tables.append(Table(("group", "reached it", "epochs", "steps", "time"), rows, "llrrr", groups=places))
    return Section("Cost", tuple(notes), tuple(tables), (figure,))


def _pairs(comparison: Comparison) -> Section | None:
    counted = [group for group in comparison.groups if group.counted]
    pairs = list(combinations(counted, 2))
    if len(pairs) < 2:
        return None
    metric = comparison.metric
    tests = [comparison.difference(a, b, comparison.measure, metric) for a, b in pairs]
    rows = [
        (
            f"{a.label} - {b.label}",
            str(test.n),
            formats.difference(test.mean, metric),
            formats.interval(test.low, test.high, metric),
            formats.p_value(test.p_value),
            formats.p_value(p),
        )
        for (a, b), test, p in zip(pairs, tests, holm([test.p_value for test in tests]), strict=True)
        if test.n
    ]
    note = (
        f"Paired t-tests of {comparison.measure} {metric}{formats.unit(metric)}; the last column is corrected for all "
    )
    header = ("pair", "seeds", "difference", "95 % interval", "p", "p (Holm)")
    return Section("All pairs", (f"{note}{len(pairs)} pairs.",), (Table(header, rows, "lrrrrr"),), is_folded=True)


def _metrics(comparison: Comparison) -> Section | None:
    counted = [group for group in comparison.groups if group.counted]
    names = dict.fromkeys(name for run in comparison.counted for name in run.history)
    skipped = {"epoch", "step", "lr", "train_seconds", "val_seconds"}
    keys = [(measure, name) for name in names if name not in skipped for measure in MEASURES]
    rows = [
        (
            f"{measure} {name}{', %' if formats.is_percent(name) else ''}",
            *(formats.mean_std(group.summary(measure, name), name) for group in counted),
        )
        for measure, name in keys
    ]
    note = "Mean ± standard deviation over seeds; best: the epoch of best.ckpt, final: the last epoch."
    tables = group_tables("metric", [group.label for group in counted], rows, "r")
    return Section("All metrics", (note,), tables, is_folded=True) if rows else None


def _trials(comparison: Comparison) -> Section | None:
    rows = []
    for tuning in comparison.tunings:
        winner = tuning.winner
        values = [f"{key}={formats.setting(winner.value(key))}" for key in tuning.varied] if winner else []
        rows.append(
            (
                tuning.label,
                str(len(tuning.trials)),
                str(sum(trial.status == "diverged" for trial in tuning.trials)),
                str(sum(not trial.counts for trial in tuning.trials)),
                ", ".join(values) or formats.NO_VALUE,
                formats.score(score(winner, tuning.measure), "val_acc") if winner else formats.NO_VALUE,
                ", ".join(tuning.boundary_hits) or formats.NO_VALUE,
                formats.duration(sum(trial.total_seconds for trial in tuning.trials)),
            )
        )
    header = ("group", "trials", "diverged", "no result", "chosen", "score", "at the end of its range", "time")
    note = "Trials chose the settings on images held out of training; they are not averaged with the runs above."
    return Section("Trials", (note,), (Table(header, rows, "lrrrlrlr"),), is_folded=True) if rows else None


def _settings(comparison: Comparison) -> Iterator[Section]:
    differing, shared = comparison.settings
    rows = [(key, *map(formats.setting, values)) for key, values in differing.items()]
    if rows:
        tables = group_tables("setting", [group.label for group in comparison.groups], rows, "l")
        yield Section("Settings that differ", (), tables, is_folded=True)
    rows = [(key, formats.setting(value)) for key, value in shared.items() if value is not None]
    yield Section("Settings that all groups share", (), (Table(("setting", "value"), rows, "ll"),), is_folded=True)


def _runs(comparison: Comparison, folder: Path) -> Section:
    rows, places = [], []
    for place, group in enumerate(comparison.groups):
        for run in group.runs:
            rows.append(_run_row(comparison, group, run, folder))
            places.append(place)
    metric = comparison.metric
    percent = ", %" if formats.is_percent(metric) else ""
    note = f"best and final: {metric}{percent}, at the epoch of best.ckpt and at the last epoch; to target: epochs."
    table = Table(RUN_HEADER, rows, "lrlrrrrrrrl", groups=tuple(places), is_sortable=True)
    return Section("Runs", (note, "Runs in brackets are not counted."), (table,), is_folded=True)


def _run_row(comparison: Comparison, group: Group, run: Run, folder: Path) -> tuple[str, ...]:
    metric = comparison.metric
    reached = run.to_target(metric, comparison.target)["epochs"] if run.counts else math.nan
    counts = any(run is counted for counted in group.counted)
    return (
        group.label,
        str(run.seed),
        run.status if counts else f"({run.status})",
        formats.setting(run.value("optimizer.lr")),
        formats.number(run.metric("best", metric), metric),
        str(run.best_epoch or formats.NO_VALUE),
        formats.number(run.metric("final", metric), metric),
        str(run.epochs),
        formats.NO_VALUE if math.isnan(comparison.target) else formats.count(reached),
        formats.duration(float(run.train_seconds[-1])) if run.epochs else formats.NO_VALUE,
        relative(run.folder, folder),
    )


def _method(comparison: Comparison) -> Section:
    counted, tests = len(comparison.counted), [each for each in comparison.differences if each.test]
    lines = [f"{counted} of {len(comparison.runs)} runs are counted: one per seed and group, completed or diverged."]
    epoch = "the last epoch, which validation did not choose"
    if comparison.measure == "best":
        epoch = "the epoch of best.ckpt, which validation chose, so it is optimistic"
    lines.append(f"The score is {comparison.metric} at {epoch}.")
    if tests and comparison.reference:
        lines.append(
            f"Each group is compared with {comparison.reference.label}, run by run with the same seed: mean difference "
            f"with its 95 % t interval, and paired t-test. The p values are corrected "
            f"for {len(tests)} comparisons (Holm); a difference is significant if the corrected p is below {ALPHA}. "
            "The intervals are not corrected."
        )
    if not math.isnan(comparison.chance):
        guess = formats.score(comparison.chance, "val_acc")
        lines.append(
            f"Always guessing the most frequent validation class gives {guess}. A group is at chance if the "
            "Wilson interval of its accuracy reaches down to that."
        )
    return Section("How it was measured", tuple(lines), is_folded=True)


def relative(folder: Path, start: Path) -> str:
    """Return the path of a folder relative to another."""
    return Path(os.path.relpath(folder.absolute(), start.absolute())).as_posix()


def all_runs(comparison: Comparison) -> Iterator[tuple[str, Run, bool]]:
    """Yield every run with the name of its group, and whether it is counted; trials last."""
    for group in comparison.groups:
        for run in group.runs:
            yield group.label, run, any(run is counted for counted in group.counted)
    for tuning in comparison.tunings:
        for run in tuning.trials:
            yield tuning.label, run, False
