"""The report of a comparison: Markdown, one HTML page, a row a run as CSV, figures, and the words on the terminal."""

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

from fer_exp.comparison import formats
from fer_exp.comparison.analysis import MEASURES, UNITS, Comparison, Difference
from fer_exp.comparison.load import FIGURES, Measure, Run
from fer_exp.comparison.pictures import ACCURACY, CURVES, RATES, TARGET, draw_pictures
from fer_exp.comparison.sections import Grid, Section, answer, footnote, main_grid, make_sections, statuses, title
from fer_exp.files import replacing
from fer_exp.plots.tables import column_widths, markdown_table, padded
from fer_exp.runs.record import SUMMARY

MARKDOWN, TABLE, PAGE = "comparison.md", "comparison.csv", "report.html"

CSV_SETTINGS = ("group", "counted", "role", "status", "seed", "optimizer", "model", "lr")
RUN_COLUMNS = (
    *("group", "seed", "role", "status", "counts", "lr", "best val_acc", "at epoch", "final val_acc", "val_loss"),
    *("macro-F1", "epochs", "to target", "training", "in all", "record"),
)
UNFOLDED_RUNS = 300  # on the page
UNFOLDED_SENTENCES = 6  # of the answer, on the page
LINE = 120  # characters on the terminal
NAME = 32  # of a group's name in the terminal's table


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
    pictures = draw_pictures(comparison)
    sections = make_sections(comparison, pictures)
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
    paragraphs = [_filled(sentence) for sentence in answer(comparison)]
    grid = main_grid(comparison)
    rows: list[tuple[str, ...]] = []
    for group, row in zip(comparison.groups, grid.rows, strict=True):
        first, *more = textwrap.wrap(row[0], NAME, break_on_hyphens=False) or [""]
        rows.append((first, statuses(group, short=True), *row[1:-1]))
        rows += [(line, *[""] * (len(row) - 1)) for line in more]
    header = (grid.header[0], "runs*", *grid.header[1:-1])
    widths = column_widths([header, *rows])
    lines = ["  ".join(padded(row, widths, "llrrrrrr")).rstrip() for row in (header, *rows)]
    lines.insert(1, "  ".join("-" * width for width in widths))
    explained = "* completed/diverged/failed/unfinished; n of them count. " + footnote(comparison.measure)
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
                run.best_epoch,
                *(run.figure(m, name) if run.epochs else None for name in FIGURES for m in MEASURES),
                run.epochs,
                # A run that came to no result did not miss the target: it might have reached it.
                *(time[unit] if run.counts or math.isfinite(time[unit]) else None for unit in UNITS),
                run.train_seconds,
                run.total_seconds,
                run.value("environment.device"),
                _relative(run.folder, folder),
            ]
        )
    return text.getvalue()


def _markdown(comparison: Comparison, sections: Sequence[Section]) -> str:
    blocks = [f"# {_escaped(title(comparison))}", _bullets(answer(comparison))]
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


def _markdown_table(grid: Grid) -> str:
    header, *rows = [[_escaped(cell).replace("|", "\\|") for cell in row] for row in (grid.header, *grid.rows)]
    return markdown_table(header, rows, grid.align)


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    text = re.sub(r"([\\*`])", r"\\\1", " ".join(text.split()))
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)


def _html(comparison: Comparison, sections: Sequence[Section], folder: Path) -> str:
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
        title=title(comparison),
        answer=[(sentence, claims.get(sentence, "")) for sentence in answer(comparison)],
        unfolded=UNFOLDED_SENTENCES,
        sections=sections,
        header=RUN_COLUMNS,
        align="lrlllrrrrrrrrrrl",
        runs=runs,
        folded=len(runs) > UNFOLDED_RUNS,
        where=footnote(comparison.measure).partition("; ")[2],
        table_file=TABLE,
    )


def _claim(difference: Difference, measure: Measure) -> str:
    """The page's mark beside a sentence."""
    return "claimed" if difference.paired and difference.paired[measure, "val_acc"].is_claimed else "open"


def _run_rows(comparison: Comparison, folder: Path) -> Iterator[_Row]:
    for label, run, counted in _all_runs(comparison):
        figures = {
            (measure, name): formats.plain(run.figure(measure, name), name) if run.epochs else formats.NOTHING
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
            formats.setting(run.value("optimizer.lr")),
            figures["best", "val_acc"],
            str(run.best_epoch or formats.NOTHING),
            figures["final", "val_acc"],
            figures[comparison.measure, "val_loss"],
            figures[comparison.measure, "val_macro_f1"],
            str(run.epochs),
            formats.count(reached) if run.counts or math.isfinite(reached) else formats.NOTHING,
            formats.duration(run.train_seconds),
            formats.duration(run.total_seconds),
        )
        files = ((SUMMARY, "summary"), ("curves.png", "curves"))
        links = tuple((f"{place}/{file}", text) for file, text in files if (run.folder / file).exists())
        yield _Row(cells, links)


def _relative(folder: Path, start: Path) -> str:
    return Path(os.path.relpath(folder.absolute(), start.absolute())).as_posix()
