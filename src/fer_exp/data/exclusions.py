"""Lists of files that are to be left out: one path a line, relative to the data folder, with the reason beside it.

For example ``train/angry/123.jpg  # same pixels as validation/sad/7.jpg``.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from fer_exp.atomic import replacing
from fer_exp.errors import UserError

_MOST_NAMED = 20  # lines in an error message


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
        text = Path(str(file)).expanduser().read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(
            f"data.exclude={file}: the list cannot be read ({error.strerror or error}). Give a file that "
            "python -m fer_exp.audit wrote, or another with one path a line, or data.exclude=null."
        ) from error
    lines = (line.strip().replace("\\", "/") for line in text.splitlines())
    files = dict.fromkeys(_path(line, root) for line in lines if line and not line.startswith("#"))
    absent = [path for path in files if not os.path.lexists(root / path)]
    if absent:
        shown = "\n".join(f"  {path}" for path in absent[:_MOST_NAMED])
        more = f"\n  and {len(absent) - _MOST_NAMED} more" if len(absent) > _MOST_NAMED else ""
        raise UserError(
            f"data.exclude={file}: {len(absent)} of its {len(files)} lines name no file in data.root={root}:\n"
            f"{shown}{more}\nThe list may be that of another folder, or the folder has changed: make it anew with "
            f"python -m fer_exp.audit, or take these lines out."
        )
    return frozenset(files)


def _path(line: str, root: Path) -> str:
    """The path at the beginning of a line; a name may itself hold a blank and a ``#``."""
    words = line.split(" #")
    beginnings = [" #".join(words[:n]).rstrip() for n in range(1, len(words) + 1)]
    return next((path for path in beginnings if os.path.lexists(root / path)), beginnings[0])


def write_exclusions(file: Path, lines: Iterable[str]) -> None:
    """Write a list, whole or not at all."""
    with replacing(file) as draft:
        draft.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="surrogateescape")
