"""Compare the runs in folders, and write the report: text, Markdown, one HTML page, CSV, SVG figures, LaTeX."""

import base64
import csv
import hashlib
import io
import math
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from fer_exp.comparison.analysis import Comparison, compare
from fer_exp.comparison.grouping import default_keys
from fer_exp.comparison.load import Measure, find_records
from fer_exp.comparison.sections import Report, make_report
from fer_exp.comparison.tables import Section
from fer_exp.errors import UserError
from fer_exp.files import csv_cell, markdown_text, printable, replacing
from fer_exp.metrics import describe
from fer_exp.plots import svg
from fer_exp.plots.reports import markdown_table, page_templates, text_table

MARKDOWN, CSV, HTML, LATEX, FIGURES = "comparison.md", "comparison.csv", "report.html", "comparison.tex", "figures"
MAX_CAVEATS = 4  # on the terminal and on the first screen
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "∞": r"$\infty$",
}


def compare_folders(
    places: Sequence[Path],
    output: Path,
    group_by: Sequence[str] | None = None,
    target: float | None = None,
    baseline: str | None = None,
    measure: Measure | None = None,
    metric: str = "val_acc",
    title: str | None = None,
    latex: bool = False,
    reload_seconds: int | None = None,
) -> bool:
    """Compare all runs in and below ``places``, print the answer, and write the report to ``output``.

    Args:
        places: folders of runs, of sweeps, or above them.
        output: the report's folder.
        group_by: keys whose values make the groups; None for the arms of studies, or what the sweeps swept, and the
            optimizer otherwise.
        target: the score of time-to-target, a fraction for an accuracy; None for one that suits the runs.
        baseline: label of the group that the others are compared with; None for the best.
        measure: ``best`` or ``final``, the epoch that scores are from; None for the one that suits the runs.
        metric: name of the metric that is the score.
        title: of the report.
        latex: also write a table and a paragraph on methods for a paper.
        reload_seconds: interval at which a browser loads the page again while runs are unfinished; None for never.

    Returns:
        Whether runs are unfinished or jobs of a sweep are missing.

    Raises:
        UserError: there are no runs, no such key or group, or the report cannot be written.
    """
    if target is not None and describe(metric).unit == "%" and not 0 < target <= 1:
        raise UserError(f"target={target}: expected a fraction in (0, 1], e.g. target=0.6")
    records = find_records(places)
    is_unfinished = any(sweep.missing_jobs for sweep in records.sweeps)
    is_unfinished |= any(run.status == "running" for run in records.runs)
    comparison = compare(records, group_by or default_keys(records), target, baseline, measure, metric)
    try:
        report, written = write_report(comparison, output, title, latex, reload_seconds if is_unfinished else None)
    except OSError as error:
        raise UserError(
            f"{output}: cannot write the report ({error.strerror or error}). Choose another folder: "
            f"{shlex.join(['python', '-m', 'fer_exp.compare', *map(str, places)])} --output DIR"
        ) from error
    print(render_text(report, shutil.get_terminal_size((100, 24)).columns))
    others = ", ".join(path.name for path in written if path.parent == output and path.name != HTML)
    print(f"\nReport: {output / HTML} (also {others}, figures/)")
    return is_unfinished


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
    contents = {MARKDOWN: render_markdown(report), CSV: render_csv(report), HTML: render_html(report, refresh)}
    contents |= {f"{FIGURES}/{figure.name}.svg": figure.file(report.groups) for figure in report.figures}
    if with_latex:
        contents[LATEX] = render_latex(report)
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
    caveats = [f"- {caveat}" for caveat in report.caveats[:MAX_CAVEATS]]
    if len(report.caveats) > MAX_CAVEATS:
        caveats.append(f"- {len(report.caveats) - MAX_CAVEATS} more in the report")
    answer = _wrap([report.title, report.verdict.headline, report.verdict.detail], width)
    ranking = text_table(report.ranking.header, report.ranking.rows, report.ranking.align, width)
    rest = _wrap([*caveats, *(f"Next: {step}" for step in report.next_steps)], width)
    command = f"\n  {report.next_command}" if report.next_command else ""
    return f"{answer}\n\n{ranking}\n\n{rest}{command}".rstrip()


def _wrap(sentences: Sequence[str], width: int) -> str:
    """Break sentences into lines, indented from the second on."""
    console = Console(width=width)
    wrapped = [Text(printable(sentence)).wrap(console, width - 2) for sentence in sentences if sentence]
    return "\n".join("\n  ".join(line.plain.rstrip() for line in lines) for lines in wrapped)


def render_csv(report: Report) -> str:
    """Return a row per run: its settings, its metrics at the best and at the last epoch, and its times."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(report.runs[0])
    for row in report.runs:
        writer.writerow([_csv_value(value) for value in row.values()])
    return text.getvalue()


def _csv_value(value: object) -> object:
    if isinstance(value, float) and math.isnan(value):
        return None
    return csv_cell(value) if isinstance(value, str) else value


def render_markdown(report: Report) -> str:
    """Return the report as Markdown."""
    blocks = [
        f"# {markdown_text(report.title)}",
        markdown_text(" · ".join(report.provenance)),
        f"**{markdown_text(report.verdict.headline)}** {markdown_text(report.verdict.detail)}".strip(),
        markdown_table(report.ranking.header, report.ranking.rows, report.ranking.align),
    ]
    if report.forest:
        blocks += [_image(report.forest), markdown_text(report.forest_note)]
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
    blocks += map(_image, section.figures)
    for table in section.tables:
        blocks += [f"### {markdown_text(table.caption)}"] if table.caption else []
        blocks.append(markdown_table(table.header, table.rows, table.align))
    return blocks


def _image(figure: svg.Figure) -> str:
    return f"![{figure.name}]({FIGURES}/{figure.name}.svg)"


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {markdown_text(sentence)}" for sentence in sentences)


def _code(command: str) -> list[str]:
    return [f"```sh\n{printable(command)}\n```"] if command else []


def render_html(report: Report, refresh: int | None = None) -> str:
    """Return the report as one self-contained page."""
    environment = page_templates()
    script = environment.get_template("comparison/report.js").render()
    groups = len(report.groups)
    return environment.get_template("comparison/report.html.jinja").render(
        report=report,
        refresh=refresh,
        max_caveats=MAX_CAVEATS,
        shown=groups if groups <= 10 else 8,
        csv=base64.b64encode(render_csv(report).encode()).decode(),
        csv_name=CSV,
        svg_style=svg.stylesheet(groups, "var(--ink)", "var(--muted)", "var(--faint)", "var(--paper)"),
        dark_groups=svg.group_colors(groups, dark=True),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def render_latex(report: Report) -> str:
    """Return a LaTeX table (package booktabs) and a paragraph that says how it was measured."""
    methods = [f"Compared: {'; '.join(report.provenance)}.", *report.sections[-1].paragraphs]
    header, *rows = [" & ".join(map(latex_escape, row[1:-1])) for row in (report.ranking.header, *report.ranking.rows)]
    caption = f"{report.verdict.headline} Mean ± standard deviation over n seeds; difference with 95 % t interval; "
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            f"  \\caption{{{latex_escape(caption + 'p values with the correction of Holm.')}}}",
            r"  \begin{tabular}{lrrrr}",
            r"  \toprule",
            f"  {header} \\\\",
            r"  \midrule",
            *(f"  {row} \\\\" for row in rows),
            r"  \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
            r"\paragraph{Methods.} " + latex_escape(" ".join(methods)),
            "",
        ]
    )


def latex_escape(text: str) -> str:
    """Return text that LaTeX prints as it is."""
    return re.sub(r"[\\~^±∞]|[&%$#_{}]", lambda sign: _SPECIAL.get(sign[0], "\\" + sign[0]), printable(text))
