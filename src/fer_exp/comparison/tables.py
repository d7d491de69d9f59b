"""Tables and sections of a report, in any format."""

from collections.abc import Sequence
from dataclasses import dataclass

from fer_exp.plots.svg import Figure

GROUPS_PER_TABLE = 6  # columns that fit on a printed page


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        header: names of the columns.
        rows: cells.
        align: an l or an r per column.
        caption: a heading of its own, if a section has several tables.
        group_column: the column that names the row; if its header is "group", a page shows the group's color.
        heat: fractions between 0 and 1 that color the cells after the first column; None for no color.
        is_sortable: whether a page lets the reader sort it.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str
    caption: str = ""
    group_column: int = 0
    heat: Sequence[Sequence[float]] | None = None
    is_sortable: bool = False


@dataclass(frozen=True)
class Section:
    """A heading with paragraphs, tables and figures; ``is_folded`` if a page shows the heading only at first."""

    heading: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    is_folded: bool = False
    has_axis_choice: bool = False


def group_tables(first: str, labels: Sequence[str], rows: Sequence[Sequence[str]], side: str) -> tuple[Table, ...]:
    """Return tables whose columns are groups, at most ``GROUPS_PER_TABLE`` each.

    Args:
        first: name of the first column.
        labels: the groups' names.
        rows: the first cell, then one cell per group.
        side: alignment of the groups' cells, l or r.
    """
    tables = []
    for start in range(0, len(labels), GROUPS_PER_TABLE):
        part = slice(start, start + GROUPS_PER_TABLE)
        header = (first, *labels[part])
        tables.append(Table(header, [(row[0], *row[1:][part]) for row in rows], "l" + side * (len(header) - 1)))
    return tuple(tables)
