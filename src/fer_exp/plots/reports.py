"""What reports are made of: tables for the terminal and in Markdown, and the templates of HTML pages."""

import io
import shutil
from collections.abc import Iterable, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fer_exp.files import markdown_text, printable


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str, width: int | None = None) -> str:
    """Format a table for the terminal.

    Args:
        header: column names.
        rows: cells.
        align: ``l`` for each column of text, ``r`` for each of numbers, which are not broken.
        width: maximum width; None for the terminal's. Longer text continues on the next line.

    Control characters in cells are escaped.
    """
    table = Table(box=None, pad_edge=False, header_style="", padding=(0, 2, 0, 0))
    for name, side in zip(header, align, strict=True):
        table.add_column(Text(name), justify="left" if side == "l" else "right", no_wrap=side == "r", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = Console(file=io.StringIO(), width=width or shutil.get_terminal_size((100, 24)).columns, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n"))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> str:
    """Format a Markdown table; ``align`` has ``l`` or ``r`` for each column. Cells are escaped."""
    rule = ["---" if side == "l" else "--:" for side in align]
    first, *others = (list(map(markdown_text, row)) for row in (header, *rows))
    return "\n".join(f"| {' | '.join(row)} |" for row in (first, rule, *others))


def page_templates() -> Environment:
    """The templates, by path in the package: text is escaped for HTML and on one line, a missing value is an error."""
    return Environment(
        loader=PackageLoader("fer_exp", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
