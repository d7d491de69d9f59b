"""Write a comparison: on the terminal, as Markdown, as one HTML page, as CSV, as SVG figures, and as LaTeX."""

import base64
import csv
import hashlib
import io
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from fer_exp.comparison.analysis import Comparison
from fer_exp.comparison.content import Report, all_runs, make_report, relative
from fer_exp.comparison.latex import latex
from fer_exp.comparison.load import MEASURES
from fer_exp.comparison.tables import Section, Table
from fer_exp.files import csv_cell, markdown_text, printable, replacing
from fer_exp.plots import svg

MARKDOWN, CSV, HTML, LATEX, FIGURES = "comparison.md", "comparison.csv", "report.html", "comparison.tex", "figures"
MAX_CAVEATS = 4  # on the terminal and on the first screen


def write_report(
    comparison: Comparison,
    folder: Path,
    title: str | None = None,
    with_latex: bool = False,
    refresh: int | None = None,
) -> tuple[Report, list[Path]]:
    """Write the report into ``folder``; the same runs give the same bytes.

    Args:
        comparison: the comparison.
        folder: is created; files of an earlier report are replaced.
        title: of the report; None for one made from the keys and the data.
        with_latex: also write ``comparison.tex``.
        refresh: seconds after which a browser reloads the page; None for never.

    Returns:
        The content of the report, and the files written.

    Raises:
        OSError: a file cannot be written.
    """
    report = make_report(comparison, folder, title)
    table = render_csv(comparison, folder)
    contents = {
        MARKDOWN: render_markdown(report),
        CSV: table,
        HTML: render_html(report, table, refresh),
        **{f"{FIGURES}/{name}.svg": text for name, text in _figure_files(report).items()},
    }
    if with_latex:
        contents[LATEX] = latex(comparison, report)
    (folder / FIGURES).mkdir(parents=True, exist_ok=True)
    for old in (folder / FIGURES).glob("*.svg"):
        if f"{FIGURES}/{old.name}" not in contents:
            old.unlink()
    for name, content in contents.items():
        with replacing(folder / name) as draft:
            draft.write_text(content, encoding="utf-8")
    return report, [folder / name for name in contents]


def render_text(report: Report, width: int) -> str:
    """Return the verdict, the ranking and the next step for a terminal of ``width`` columns."""
    text = io.StringIO()
    console = Console(file=text, width=width, color_system=None, highlight=False, emoji=False)
    console.print(Text(printable(report.title)), Text(printable(report.verdict.headline)), sep="\n")
    if report.verdict.detail:
        console.print(Text(printable(report.verdict.detail)))
    table = RichTable(box=box.SIMPLE, pad_edge=False)
    for name, side in zip(report.ranking.header, report.ranking.align, strict=True):
        is_text = name in ("group", "result")
        table.add_column(
            name,
            justify="left" if side == "l" else "right",
            no_wrap=not is_text,
            overflow="fold" if is_text else "crop",
        )
    for row in report.ranking.rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console.print(table)
    for caveat in report.caveats[:MAX_CAVEATS]:
        console.print(Text(textwrap.fill(printable(caveat), width, initial_indent="- ", subsequent_indent="  ")))
    if more := len(report.caveats) - MAX_CAVEATS:
        console.print(f"- {more} more in the report") if more > 0 else None
    for step in report.next_steps:
        console.print(Text(printable(f"Next: {step}")))
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    return "\n".join([*lines, *([f"  {report.next_command}"] if report.next_command else [])])


def render_csv(comparison: Comparison, folder: Path) -> str:
    """Return a row per run: its settings, its metrics at the best and at the last epoch, and its times."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    metrics = dict.fromkeys(name for run in comparison.runs for name in run.history if name.startswith("val_"))
    metrics.pop("val_seconds", None)
    columns = [(measure, name) for name in metrics for measure in MEASURES]
    writer.writerow(
        ["group", "counted", "role", "status", "seed", "optimizer", "model", "lr", "best_epoch"]
        + [f"{measure}_{name}" for measure, name in columns]
        + ["epochs", "epochs_to_target", "steps_to_target", "seconds_to_target", "train_seconds", "total_seconds"]
        + ["device", "folder"]
    )
    for label, run, counted in all_runs(comparison):
        times = run.to_target(comparison.metric, comparison.target)
        has_target = run.counts and not math.isnan(comparison.target)
        row: list[object] = [
            label,
            "yes" if counted else "no",
            "selection" if run.held_out else "reporting",
            run.status,
            run.seed,
        ]
        row += [run.value("optimizer"), run.value("model"), run.value("optimizer.lr"), run.best_epoch]
        row += [run.metric(measure, name) if name in run.history else None for measure, name in columns]
        row += [run.epochs, *(time if has_target else None for time in times.values())]
        row += [float(run.train_seconds[-1]) if run.epochs else None, run.total_seconds]
        row += [run.value("environment.device"), relative(run.folder, folder)]
        writer.writerow([csv_cell(cell) if isinstance(cell, str) else cell for cell in row])
    return text.getvalue()


def render_markdown(report: Report) -> str:
    """Return the report as Markdown."""
    blocks = [
        f"# {markdown_text(report.title)}",
        markdown_text(" · ".join(report.provenance)),
        f"**{markdown_text(report.verdict.headline)}** {markdown_text(report.verdict.detail)}".strip(),
        _markdown_table(report.ranking),
    ]
    if report.forest:
        blocks.append(f"![{markdown_text(report.forest.name)}]({FIGURES}/{report.forest.name}.svg)")
    if report.next_steps:
        blocks += ["## Next", _bullets(report.next_steps), *_code(report.next_command)]
    if report.caveats:
        blocks += ["## Before you trust this", _bullets(report.caveats)]
    for section in report.sections:
        blocks += _markdown_section(section)
    if report.command:
        blocks += ["## Command", *_code(report.command)]
    return "\n\n".join(blocks) + "\n"


def _markdown_section(section: Section) -> list[str]:
    blocks = [f"## {markdown_text(section.heading)}", *map(markdown_text, section.paragraphs)]
    blocks += [f"![{figure.name}]({FIGURES}/{figure.name}.svg)" for figure in section.figures]
    for table in section.tables:
        blocks += [f"### {markdown_text(table.caption)}"] if table.caption else []
        blocks.append(_markdown_table(table))
    return blocks


def _markdown_table(table: Table) -> str:
    rule = ["---" if side == "l" else "--:" for side in table.align]
    rows = [list(map(markdown_text, row)) for row in (table.header, *table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {markdown_text(sentence)}" for sentence in sentences)


def _code(command: str) -> list[str]:
    return [f"```sh\n{printable(command)}\n```"] if command else []


def render_html(report: Report, table: str, refresh: int | None = None) -> str:
    """Return the report as one self-contained page; ``table`` is the CSV file that the page offers to save."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("fer_exp.comparison", "."), PackageLoader("fer_exp.plots", ".")]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    script = environment.get_template("report.js").render()
    groups = len(report.groups)
    return environment.get_template("report.html.jinja").render(
        report=report,
        refresh=refresh,
        max_caveats=MAX_CAVEATS,
        shown=groups if groups <= 10 else 8,
        csv=base64.b64encode(table.encode()).decode(),
        csv_name=CSV,
        svg_style=svg.stylesheet(groups, "var(--ink)", "var(--muted)", "var(--faint)", "var(--paper)"),
        dark_groups=svg.group_colors(groups, dark=True),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _figure_files(report: Report) -> dict[str, str]:
    figures = [figure for section in report.sections for figure in section.figures]
    figures += [report.forest] if report.forest else []
    groups = len(report.groups)
    return {
        figure.name: svg.standalone(figure.svg, groups, report.groups if figure.is_numbered else ())
        for figure in figures
    }
