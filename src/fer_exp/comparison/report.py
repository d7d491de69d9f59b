"""The report of a comparison: Markdown, one HTML page, a row a run as CSV, figures, and the words on the terminal."""

import base64
import csv
import io
import math
import os
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from fer_exp.atomic import replacing
from fer_exp.comparison.analysis import MEASURES, UNITS, Comparison, Difference, Group
from fer_exp.comparison.figures import accuracy_figure, curves_figure, learning_rate_figure, target_figure
from fer_exp.comparison.runs import FIGURES, Measure, Run, Setting
from fer_exp.comparison.statistics import CONFIDENCE, RESAMPLES, Spread
from fer_exp.comparison.tuning import Tuning, score
from fer_exp.records import SUMMARY
from fer_exp.tables import column_widths, markdown_table, padded

MARKDOWN, TABLE, PAGE = "comparison.md", "comparison.csv", "report.html"
CURVES, ACCURACY, TARGET, RATES = "curves.png", "accuracy.png", "time_to_target.png", "learning_rate.png"

SHOWN = {"val_acc": "val_acc", "val_loss": "val_loss", "val_macro_f1": "macro-F1"}
CSV_SETTINGS = ("group", "counted", "role", "status", "seed", "optimizer", "model", "lr")
RUN_COLUMNS = (
    *("group", "seed", "role", "status", "counts", "lr", "best val_acc", "at epoch", "final val_acc", "val_loss"),
    *("macro-F1", "epochs", "to target", "training", "in all", "record"),
)
MOST_RUNS = 300  # that the page shows unfolded
MOST_LINES = 20  # of a table of details, likewise
MOST_SENTENCES = 6  # of the answer, likewise
MOST_COLUMNS = 6  # groups that stand beside one another
NOTHING = "\u2013"  # a dash, in a cell without a figure
LINE = 120  # characters on the terminal
NAME = 32  # of a group's name in the terminal's table


@dataclass(frozen=True)
class _Grid:
    """A table of text; ``align`` has an l or an r for each column."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    align: str


@dataclass(frozen=True)
class _Picture:
    file: str
    png: bytes
    alt: str
    caption: str

    @property
    def base64(self) -> str:
        return base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class _Section:
    heading: str
    points: tuple[str, ...] = ()
    grid: _Grid | None = None
    pictures: tuple[_Picture, ...] = ()
    is_detail: bool = True

    @property
    def is_folded(self) -> bool:
        """Whether the page shows the heading only, until it is asked for the rest."""
        return self.is_detail and self.grid is not None and len(self.grid.rows) > MOST_LINES


@dataclass(frozen=True)
class _Row:
    """A run in the page's list."""

    cells: tuple[str, ...]
    links: tuple[tuple[str, str], ...]


def write_report(comparison: Comparison, folder: Path) -> list[Path]:
    """Write ``comparison.md``, ``comparison.csv``, ``report.html`` and the figures as PNG into ``folder``.

    Every file is replaced whole. The same runs give the same bytes. A figure of an earlier report that does not apply
    any more is removed.

    Returns:
        The paths of the files written.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = _pictures(comparison)
    sections = _sections(comparison, pictures)
    contents: dict[str, bytes] = {
        MARKDOWN: _markdown(comparison, sections).encode(),
        TABLE: _csv(comparison, folder).encode(),
        PAGE: _html(comparison, sections, folder).encode(),
        **{picture.file: picture.png for picture in pictures},
    }
    for name, content in contents.items():
        with replacing(folder / name) as draft:
            draft.write_bytes(content)
    for name in (CURVES, ACCURACY, TARGET, RATES):
        if name not in contents:
            (folder / name).unlink(missing_ok=True)
    return [folder / name for name in contents]


def format_answer(comparison: Comparison) -> str:
    """Say on the terminal what came out: the answer, a row a group, and what to know before trusting it."""
    paragraphs = [_filled(sentence) for sentence in _answer(comparison)]
    grid = _main_grid(comparison)
    rows: list[tuple[str, ...]] = []
    for group, row in zip(comparison.groups, grid.rows, strict=True):
        first, *more = textwrap.wrap(row[0], NAME, break_on_hyphens=False) or [""]
        rows.append((first, _statuses(group, short=True), *row[1:-1]))
        rows += [(line, *[""] * (len(row) - 1)) for line in more]
    header = (grid.header[0], "runs*", *grid.header[1:-1])
    widths = column_widths([header, *rows])
    lines = ["  ".join(padded(row, widths, "llrrrrrr")).rstrip() for row in (header, *rows)]
    lines.insert(1, "  ".join("-" * width for width in widths))
    explained = "* completed/diverged/failed/unfinished; n of them count. " + _where(comparison.measure)
    notes = [_filled(note, "- ") for note in comparison.notes]
    blocks = ["\n".join(paragraphs), "\n".join([*lines, _filled(explained)])]
    return "\n\n".join([*blocks, *(["\n".join(["Before you trust this:", *notes])] if notes else [])])


def _filled(text: str, bullet: str = "") -> str:
    return textwrap.fill(
        text,
        LINE,
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_long_words=False,  # a path is to be copied
        break_on_hyphens=False,
    )


def _title(comparison: Comparison) -> str:
    return f"Comparison by {', '.join(comparison.group_by)}"


def _answer(comparison: Comparison) -> list[str]:
    if not any(group.counted for group in comparison.groups):
        return ["No run came to a result: there is nothing to compare."]
    if not comparison.differences:
        return [f"There is one group, {comparison.groups[0].label}, and nothing to compare it with."]
    return [difference.sentence for difference in comparison.differences]


def _sections(comparison: Comparison, pictures: Sequence[_Picture]) -> list[_Section]:
    """All of the report but its title, its answer and the list of runs."""
    sections = [
        _Section("Results", (_where(comparison.measure),), _main_grid(comparison), is_detail=False),
        _Section("Before you trust this", comparison.notes),
        _Section("Plots", pictures=tuple(pictures)),
        _Section("What was measured, and how", tuple(_method(comparison))),
        _Section("Time to target", (_target(comparison),), _time_grid(comparison)),
        _Section("Differences", tuple(_reading(comparison)), _difference_grid(comparison)),
        _Section("How settings were chosen", tuple(_choosing(comparison)), _trial_grid(comparison)),
        _Section(
            "All metrics",
            ("Over the runs that count. The best epoch is the one with the highest val_acc.",),
            _detail_grid(comparison),
        ),
        _Section("Settings that differ", grid=_differing_grid(comparison)),
        _Section("Settings that all groups share", grid=_shared_grid(comparison)),
    ]
    # A table without rows says nothing, and takes along what explains it.
    return [s for s in sections if (s.grid.rows if s.grid else s.points or s.pictures)]


def _where(measure: Measure) -> str:
    epoch = "the epoch with the best val_acc" if measure == "best" else "the last epoch"
    return f"Mean ± standard deviation over seeds; val_loss and macro-F1 at {epoch}."


def _main_grid(comparison: Comparison) -> _Grid:
    measure = comparison.measure
    rows = [
        (
            group.label,
            str(len(group.counted)),
            _mean(group.spreads["best", "val_acc"], "val_acc"),
            _mean(group.spreads["final", "val_acc"], "val_acc"),
            _mean(group.spreads[measure, "val_loss"], "val_loss"),
            _mean(group.spreads[measure, "val_macro_f1"], "val_macro_f1"),
            _count(group.to_target["epochs"].median),
            _statuses(group),
        )
        for group in comparison.groups
    ]
    header = ("group", "n", "best val_acc", "final val_acc", "val_loss", "macro-F1", "epochs to target", "runs")
    return _Grid(header, rows, "lrrrrrrl")


def _statuses(group: Group, short: bool = False) -> str:
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
        f"{len(runs)} {_plural('run', len(runs))} in {groups} by {', '.join(comparison.group_by)}; "
        f"{counted} {'counts' if counted == 1 else 'count'}: one a seed, completed or diverged."
        + (f" {trials} more {_plural('run', trials)} chose settings, and are averaged with none." if trials else "")
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
        yield (
            "The answer is about best val_acc, that of the best epoch, because the last epoch is an accident where "
            "runs stop early. Validation chose the best epoch, so best is optimistic."
        )
    if math.isfinite(comparison.target):
        origin = "as it was asked for" if comparison.target_is_given else "95 % of the best group's median best val_acc"
        yield f"The target of time-to-target is a val_acc of {_points(comparison.target)} %: {origin}."
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
        f"Training until val_acc is first {_points(comparison.target)} % or more, medians over the runs that count. "
        "A run that missed counts as infinitely long; never is a median of such."
    )


def _time_grid(comparison: Comparison) -> _Grid:
    rows = [
        (
            group.label,
            f"{group.reached} of {len(group.counted)}",
            _count(group.to_target["epochs"].median),
            _count(group.to_target["steps"].median),
            _duration(group.to_target["seconds"].median, missing="never"),
        )
        for group in comparison.groups
        if group.counted
    ]
    return _Grid(("group", "reached", "epochs", "steps", "training time"), rows, "lrrrr")


def _reading(comparison: Comparison) -> Iterator[str]:
    if comparison.differences:
        yield (
            f"Each group minus {comparison.differences[0].baseline}, mean over paired seeds; accuracies and macro-F1 "
            "in percentage points. A lower val_loss is better."
        )


def _difference_grid(comparison: Comparison) -> _Grid:
    rows = [
        (
            difference.group,
            SHOWN[name] + (", points" if name != "val_loss" else ""),
            measure,
            str(paired.n),
            _signed(paired.mean, name),
            _interval(paired.low, paired.high, name),
            NOTHING if math.isnan(paired.p_value) else "< 0.001" if paired.p_value < 0.001 else f"{paired.p_value:.3f}",
            "yes" if paired.is_claimed else "no",
        )
        for difference in comparison.differences
        for (measure, name), paired in difference.paired.items()
        if paired.n
    ]
    header = ("group", "metric", "epoch", "pairs", "difference", f"{100 * CONFIDENCE:.0f} % interval", "p", "claimed")
    return _Grid(header, rows, "lllrrrrl")


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


def _trial_grid(comparison: Comparison) -> _Grid:
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
                f"{_points(score(winner, tuning.measure))} %" if winner else NOTHING,
                ", ".join(tuning.edges) or NOTHING,
                f"{sum(trial.epochs for trial in tuning.trials):,}",
                f"{sum(map(_total_seconds, tuning.trials)) / 3600:,.2f}",
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
    return _Grid(header, rows, "lrrrlrlrr")


def _chosen(tuning: Tuning) -> str:
    if tuning.winner is None:
        return NOTHING
    return ", ".join(f"{key}={_setting(tuning.winner.value(key))}" for key in tuning.varied) or NOTHING


def _detail_grid(comparison: Comparison) -> _Grid:
    rows = []
    for group in filter(lambda group: group.counted, comparison.groups):
        for name in FIGURES:
            for measure in MEASURES:
                each = group.spreads[measure, name]
                values = (each.mean, each.std, each.median, each.min, each.max)
                unit = SHOWN[name] + (", %" if name != "val_loss" else "")
                rows.append((group.label, unit, measure, str(each.n), *(_plain(value, name) for value in values)))
    header = ("group", "metric", "epoch", "n", "mean", "std", "median", "min", "max")
    return _Grid(header, rows, "lllrrrrrr")


def _differing_grid(comparison: Comparison) -> _Grid:
    labels = tuple(group.label for group in comparison.groups)
    columns = [(key, *map(_setting, values)) for key, values in comparison.differing.items()]
    if len(labels) <= MOST_COLUMNS:
        return _Grid(("setting", *labels), columns, "l" * (1 + len(labels)))
    rows = list(zip(labels, *(values for _, *values in columns), strict=True)) if columns else []
    return _Grid(("group", *comparison.differing), rows, "l" * (1 + len(columns)))


def _shared_grid(comparison: Comparison) -> _Grid:
    rows = [(key, _setting(value)) for key, value in comparison.shared.items() if value is not None]
    return _Grid(("setting", "value"), rows, "ll")


def _pictures(comparison: Comparison) -> list[_Picture]:
    figures: list[tuple[str, Figure | None, str, str]] = []
    if any(group.counted for group in comparison.groups):
        figures = [
            (
                CURVES,
                curves_figure(comparison),
                "Curves of loss and accuracy over epochs, one colour for each group",
                "Solid: validation, mean over seeds, within a band from the lowest seed to the highest. Dashed: "
                "training. Means go as far as all runs of the group; beyond, runs that went on are thin lines. A run "
                "that diverged is a thin line that ends in an x, and is in no mean.",
            ),
            (
                ACCURACY,
                accuracy_figure(comparison),
                "A row of dots for each group: val_acc of every run at its best and at its last epoch",
                "Every run that counts, each seed at a height of its own: filled dots are best epochs, open dots last "
                "epochs, bars the medians.",
            ),
            (
                TARGET,
                target_figure(comparison),
                "A row of dots for each group: training until the target was reached, in epochs and in time",
                "Every run that counts, and the median as a bar. A run that missed the target stands under never.",
            ),
        ]
    figures.append(
        (
            RATES,
            learning_rate_figure(comparison),
            "val_acc over the learning rate, a dot for each run",
            "How much the learning rate matters: a dot a run, an x where it diverged, a star where it was chosen; "
            "lines join medians over seeds, of the best of the other settings.",
        )
    )
    return [_Picture(file, _png(figure), alt, caption) for file, figure, alt, caption in figures if figure is not None]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _all_runs(comparison: Comparison) -> Iterator[tuple[str, Run, bool]]:
    """Every run with the name of its group, and whether it is among those that count."""
    for group in comparison.groups:
        counted = {id(run) for run in group.counted}
        for run in group.runs:
            yield group.label, run, id(run) in counted
    for tuning in comparison.trials:
        for run in tuning.trials:
            yield tuning.label, run, False


def _csv(comparison: Comparison, folder: Path) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    figures = [f"{measure}_{name}" for name in FIGURES for measure in MEASURES]
    times = [f"{unit}_to_target" for unit in UNITS]
    writer.writerow(
        [*CSV_SETTINGS, "best_epoch", *figures, "epochs", *times, "train_seconds", "total_seconds", "device", "folder"]
    )
    for label, run, counted in _all_runs(comparison):
        best = run.summary.get("best") or {}
        time = run.to_target(comparison.target)
        writer.writerow(
            [
                label,
                "yes" if counted else "no",
                "selection" if run.held_out else "reporting",
                run.status,
                run.seed,
                run.value("optimizer"),
                run.value("model"),
                run.value("optimizer.lr"),
                best.get("epoch"),
                *(run.figure(m, name) if run.epochs else None for name in FIGURES for m in MEASURES),
                run.epochs,
                # A run that came to no result did not miss the target: it might have reached it.
                *(time[unit] if run.counts or math.isfinite(time[unit]) else None for unit in UNITS),
                run.train_seconds,
                _total_seconds(run),
                run.value("environment.device"),
                _relative(run.folder, folder),
            ]
        )
    return text.getvalue()


def _markdown(comparison: Comparison, sections: Sequence[_Section]) -> str:
    blocks = [f"# {_escaped(_title(comparison))}", _bullets(_answer(comparison))]
    for section in sections:
        blocks.append(f"## {section.heading}")
        if section.points:
            single = len(section.points) == 1 and section.grid is not None
            blocks.append(_escaped(section.points[0]) if single else _bullets(section.points))
        if section.grid:
            blocks.append(_markdown_table(section.grid))
        for picture in section.pictures:
            blocks += [f"![{picture.alt}]({picture.file})", picture.caption]
    blocks.append(f"A row a run is in [{TABLE}]({TABLE}), and all of this on one page in [{PAGE}]({PAGE}).")
    return "\n\n".join(blocks) + "\n"


def _bullets(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {_escaped(sentence)}" for sentence in sentences)


def _markdown_table(grid: _Grid) -> str:
    header, *rows = [[_escaped(cell).replace("|", "\\|") for cell in row] for row in (grid.header, *grid.rows)]
    return markdown_table(header, rows, grid.align)


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    text = re.sub(r"([\\*`])", r"\\\1", " ".join(text.split()))
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)


def _html(comparison: Comparison, sections: Sequence[_Section], folder: Path) -> str:
    environment = Environment(
        loader=PackageLoader("fer_exp.comparison", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    claims = {difference.sentence: _claim(difference, comparison.measure) for difference in comparison.differences}
    runs = list(_run_rows(comparison, folder))
    return environment.get_template("report.html.jinja").render(
        title=_title(comparison),
        answer=[(sentence, claims.get(sentence, "")) for sentence in _answer(comparison)],
        unfolded=MOST_SENTENCES,
        sections=sections,
        header=RUN_COLUMNS,
        align="lrlllrrrrrrrrrrl",
        runs=runs,
        folded=len(runs) > MOST_RUNS,
        where=_where(comparison.measure).partition("; ")[2],
        table_file=TABLE,
    )


def _claim(difference: Difference, measure: Measure) -> str:
    """The page's mark beside a sentence."""
    return "claimed" if difference.paired and difference.paired[measure, "val_acc"].is_claimed else "open"


def _run_rows(comparison: Comparison, folder: Path) -> Iterator[_Row]:
    for label, run, counted in _all_runs(comparison):
        figures = {
            (measure, name): _plain(run.figure(measure, name), name) if run.epochs else NOTHING
            for measure in MEASURES
            for name in FIGURES
        }
        reached = run.to_target(comparison.target)["epochs"]
        place = quote(_relative(run.folder, folder))
        cells = (
            label,
            str(run.seed),
            "selection" if run.held_out else "reporting",
            run.status,
            "yes" if counted else "no",
            _setting(run.value("optimizer.lr")),
            figures["best", "val_acc"],
            str((run.summary.get("best") or {}).get("epoch", NOTHING)),
            figures["final", "val_acc"],
            figures[comparison.measure, "val_loss"],
            figures[comparison.measure, "val_macro_f1"],
            str(run.epochs),
            _count(reached) if run.counts or math.isfinite(reached) else NOTHING,
            _duration(run.train_seconds),
            _duration(_total_seconds(run)),
        )
        files = ((SUMMARY, "summary"), ("curves.png", "curves"))
        links = tuple((f"{place}/{file}", text) for file, text in files if (run.folder / file).exists())
        yield _Row(cells, links)


def _relative(folder: Path, start: Path) -> str:
    return Path(os.path.relpath(folder.absolute(), start.absolute())).as_posix()


def _total_seconds(run: Run) -> float:
    seconds = run.summary["seconds"]  # of a run that was killed, the total was never written
    return float(max(seconds["total"], seconds["train"] + seconds["validation"]))


def _mean(values: Spread, name: str) -> str:
    mean, std = _plain(values.mean, name), _plain(values.std, name)
    unit = "" if name == "val_loss" or not math.isfinite(values.mean) else " %"
    return (mean if std == NOTHING else f"{mean} ± {std}") + unit


def _plain(value: float, name: str) -> str:
    """A figure without its unit: accuracies and macro-F1 in percent."""
    if not math.isfinite(value):
        return NOTHING if math.isnan(value) else "∞" if value > 0 else "-∞"
    return f"{value:.3f}" if name == "val_loss" else f"{100 * value:.1f}"


def _signed(value: float, name: str) -> str:
    return ("+" if value > 0 else "") + _plain(value, name)


def _interval(low: float, high: float, name: str) -> str:
    return NOTHING if math.isnan(low) or math.isnan(high) else f"[{_signed(low, name)}, {_signed(high, name)}]"


def _points(fraction: float) -> str:
    """A fraction in percent: a whole number as such."""
    return f"{100 * fraction:.1f}".removesuffix(".0")


def _count(value: float) -> str:
    if not math.isfinite(value):
        return NOTHING if math.isnan(value) else "never"
    return f"{value:,.1f}".removesuffix(".0")


def _duration(seconds: float, missing: str = "∞") -> str:
    if not math.isfinite(seconds):
        return NOTHING if math.isnan(seconds) else missing
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _setting(value: Setting) -> str:
    """A setting as its configuration writes it."""
    if value is None:
        return NOTHING
    return str(value).lower() if isinstance(value, bool) else str(value)


def _plural(word: str, number: int) -> str:
    return word if number == 1 else f"{word}s"
