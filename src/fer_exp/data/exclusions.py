r"""Lists of files that are to be left out: one path a line, relative to the data folder, with the reason beside it.

For example ``train/angry/123.jpg  # same pixels as validation/sad/7.jpg``. A name that no line can hold as it is, for
its line break for instance, stands in quotes, as a JSON string: ``"train/angry/two\nlines.jpg"``.
"""

import json
import os
import posixpath
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from fer_exp.errors import UserError, join_first
from fer_exp.files import expand_path, printable, replacing

_MAX_NAMED = 20  # lines in an error message


def read_exclusions(file: str | Path, root: Path) -> frozenset[str]:
    """Read a list.

    Args:
        file: the list. Empty lines, lines that begin with ``#``, and what follows a blank and a ``#`` are passed over.
        root: the folder that the paths are relative to; each must lie there.

    Returns:
        The paths, with forward slashes.

    Raises:
        UserError: the list cannot be read, or names files that are not there.
    """
    try:
        text = expand_path(file).read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(
            f"data.exclude={printable(file)}: the list cannot be read ({error.strerror or error}). Give a file that "
            "python -m fer_exp.audit wrote, or another with one path a line, or data.exclude=null."
        ) from error
    lines = (line.strip() for line in text.split("\n"))  # splitlines would part names at odd separators too
    files = dict.fromkeys(_path(line, root) for line in lines if line and not line.startswith("#"))
    absent = [path for path in files if not _names_a_file(path, root)]
    if absent:
        shown = join_first([f"  {printable(path)}" for path in absent], _MAX_NAMED, "\n", "\n  and {} more")
        raise UserError(
            f"data.exclude={printable(file)}: {len(absent)} of its {len(files)} lines name no file in "
            f"data.root={printable(root)}:\n{shown}\nPaths are relative to data.root. The list may be that of "
            "another folder, or the folder has changed: make it anew with python -m fer_exp.audit, or take these "
            "lines out."
        )
    return frozenset(files)


def as_line(path: str) -> str:
    """A path as it stands in a list: as it is, or in quotes where ``read_exclusions`` would take it for another."""
    is_plain = printable(path) == path == path.strip() and " #" not in path and "\\" not in path
    return path if is_plain and not path.startswith(("#", '"', "\ufeff")) else json.dumps(path)


def write_exclusions(file: Path, lines: Iterable[str]) -> None:
    """Write a list, whole or not at all."""
    with replacing(file) as draft:
        draft.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _path(line: str, root: Path) -> str:
    """The path at the beginning of a line; a name may itself hold a blank and a ``#``."""
    if line.startswith('"'):
        with suppress(ValueError):  # no JSON: a name that begins with a quotation mark
            path, end = json.JSONDecoder().raw_decode(line)
            if not (rest := line[end:].strip()) or rest.startswith("#"):
                return posixpath.normpath(str(path))
    words = line.replace("\\", "/").split(" #")
    beginnings = [posixpath.normpath(" #".join(words[:n]).rstrip()) for n in range(1, len(words) + 1)]
    return next((path for path in beginnings if _names_a_file(path, root)), beginnings[0])


def _names_a_file(path: str, root: Path) -> bool:
    """Whether this can be the path of a listed file; a link that leads nowhere can be, too."""
    is_below = not path.startswith("../") and not Path(path).is_absolute()
    # Path.is_dir raises where it may not look, as behind a link.
    return is_below and os.path.lexists(root / path) and not os.path.isdir(root / path)  # noqa: PTH112
