"""Atomic writes, paths from configs, and text that is safe in terminals, CSV files and Markdown."""

import os
import re
import shlex
import unicodedata
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DRAFT = ".draft"  # suffix of files that are not complete yet; a killed process leaves them


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a draft to write; on exit, replace ``path`` with it.

    Readers see the old content or the new, never a part. If the writer fails or is killed, the old content remains.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}{DRAFT}")
    try:
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def expand_path(value: object) -> Path:
    """Return a path from a config, with ``~`` expanded. Unlike ``Path.expanduser``, it accepts unknown users."""
    return Path(os.path.expanduser(str(value)))  # noqa: PTH111


def quote_override(key: str, path: object) -> str:
    """Return ``key=path`` as the user types it in a shell; ``cli.quote_paths`` quotes it for Hydra."""
    return shlex.quote(f"{key}={printable(path)}")


def printable(text: object) -> str:
    r"""Return text on one line: control characters and line breaks as ``\n``, bytes that are not UTF-8 as ``\xff``."""
    characters = str(text)
    if characters.isprintable():
        return characters
    return "".join(_escape(c) if unicodedata.category(c) in _UNPRINTABLE else c for c in characters)


_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}  # control characters, surrogates, line and paragraph separators


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # Python's substitute for a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def csv_cell(text: object) -> str:
    """Text for a CSV cell on one line; a quote before ``=``, ``+``, ``-`` and ``@`` stops spreadsheets computing it."""
    cell = printable(text)
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@")) else cell


def markdown_text(text: object) -> str:
    """Text on one line that Markdown, also in a table, shows as it is: no emphasis, code, links, HTML or cells."""
    return re.sub(r"([\\`*_\[\]<>|~])", r"\\\1", " ".join(printable(text).split()))
