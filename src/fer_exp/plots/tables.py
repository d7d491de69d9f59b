"""Tables of text: columns of even width, for terminals and as Markdown."""

from collections.abc import Iterable, Sequence


def column_widths(rows: Iterable[Sequence[str]]) -> list[int]:
    """The widest cell of each column."""
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def padded(row: Sequence[str], widths: Sequence[int], align: str) -> list[str]:
    """A row's cells filled up to their columns' widths; ``align`` has an l or an r for each column."""
    return [
        cell.ljust(width) if side == "l" else cell.rjust(width)
        for cell, width, side in zip(row, widths, align, strict=True)
    ]


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> str:
    """A table that is printable as it stands; cells are taken as they are, ``align`` has an l or an r for each column."""  # noqa: E501
    lines = [header, *rows]
    widths = [max(3, width) for width in column_widths(lines)]
    rule = ["-" * (width - 1) + ("-" if side == "l" else ":") for width, side in zip(widths, align, strict=True)]
    lines.insert(1, rule)
    return "\n".join(f"| {' | '.join(padded(line, widths, align))} |" for line in lines)
