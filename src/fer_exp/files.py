"""Paths and files: atomic writes, paths as typed, and file names in messages."""

import os
import re
import shlex
import unicodedata
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DRAFT = ".draft"  # the end of a draft's name; one that was left behind was never finished


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the path of a draft beside ``path``, and put the draft in its place once it is on the disk.

    A reader sees the old content or the new, never a part; a writer that fails or is killed leaves the old.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}{DRAFT}")
    try:
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


_BREAKING = {"Cc", "Cs", "Zl", "Zp"}  # Unicode's control characters, halves of characters, and ends of lines


def expand_path(given: object) -> Path:
    """A path as a person gives it: a folder called 2013 comes from the command line as a number, ``~`` is their home.

    Of ``~nobody/list`` ``Path.expanduser`` makes an exception, and this a path that is not there.
    """
    return Path(os.path.expanduser(str(given)))  # noqa: PTH111


def printable(name: object) -> str:
    r"""A name, a path or any text in one line that every terminal and log file takes.

    A line break becomes ``\n``, and a byte that is no text ``\xff``.
    """
    text = str(name)
    if text.isprintable():
        return text
    return "".join(_escape(sign) if unicodedata.category(sign) in _BREAKING else sign for sign in text)


def quote_override(key: str, path: object) -> str:
    """``key=path`` as it is typed: a shell leaves it whole, and Hydra reads that path."""
    text = printable(path)
    if re.fullmatch(r"[A-Za-z0-9_/.-]+", text):
        return f"{key}={text}"
    escaped = text.replace("'", "\\'")
    quoted = f"{key}='{escaped}'"
    return shlex.quote(quoted) if {*quoted} & {*'"$`\\!'} else f'"{quoted}"'


def _escape(sign: str) -> str:
    if "\udc80" <= sign <= "\udcff":  # how Python keeps a byte of a name that is not UTF-8
        return f"\\x{ord(sign) - 0xDC00:02x}"
    return sign.encode("unicode_escape").decode()


def csv_cell(text: object) -> str:
    """Text for a CSV cell on one line; a quote before ``=``, ``+``, ``-`` and ``@`` stops spreadsheets computing it."""
    cell = printable(text)
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@")) else cell


def markdown_text(text: object) -> str:
    """Text on one line that Markdown, also in a table, shows as it is: no emphasis, code, links, HTML or cells."""
    return re.sub(r"([\\`*_\[\]<>|~])", r"\\\1", " ".join(printable(text).split()))
