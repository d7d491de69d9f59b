r"""Files that refer to images by name: lists of images to exclude, and tables of soft labels.

Names are paths relative to ``data.root``, with forward slashes. An exclusion list has one name per line and an optional
reason, ``train/angry/123.jpg  # same pixels as validation/sad/7.jpg``. A name with special characters is a JSON string,
``"train/angry/two\nlines.jpg"``.
"""

import csv
import json
import logging
import math
import os
import posixpath
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from fer_exp.errors import UserError, join_first, one_line
from fer_exp.files import expand_path, printable, replacing

log = logging.getLogger(__name__)

_MAX_NAMED = 20


def read_exclusions(file: str | Path | None) -> frozenset[str]:
    """Read the names in an exclusion list; none without one. Empty lines, and what follows ``#``, are comments.

    Raises:
        UserError: the list cannot be read.
    """
    if file is None:
        return frozenset()
    try:
        text = expand_path(file).read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(
            f"data.exclude={printable(file)}: cannot be read ({error.strerror or error}). Expected a list as "
            "python -m fer_exp.audit writes it: one path per line, relative to data.root."
        ) from error
    lines = (line.strip() for line in text.split("\n"))  # str.splitlines also splits at characters that names may hold
    return frozenset(_parse_line(line) for line in lines if line and not line.startswith("#"))


def check_exclusions(file: str | Path | None, excluded: frozenset[str], names: Iterable[str], root: Path) -> None:
    """Warn about names in an exclusion list that are neither in ``names`` nor files in ``root``.

    A list may cover splits that are not loaded.

    Raises:
        UserError: no name matches; the list belongs to other data.
    """
    given, unmatched = f"data.exclude={printable(file)}", excluded.difference(names)
    absent = [printable(name) for name in sorted(unmatched) if not os.path.lexists(root / name)]
    if not absent:
        return
    if len(absent) == len(excluded):
        shown = join_first([f"  {name}" for name in absent], _MAX_NAMED, "\n", "\n  and {} more")
        raise UserError(
            f"{given}: none of its {len(excluded)} lines names an image in {printable(root)}:\n"
            f"{shown}\nExpected paths relative to data.root. python -m fer_exp.audit writes a list for this data."
        )
    shown = join_first(absent, _MAX_NAMED)
    log.warning("Warning: %s: %d of %d lines match no image: %s", given, len(absent), len(excluded), shown)


def format_exclusion(name: str) -> str:
    """Return the line of an exclusion list for an image: its name, or a JSON string if it has special characters."""
    is_plain = printable(name) == name == name.strip() and "#" not in name and "\\" not in name
    return name if is_plain and not name.startswith(('"', "\ufeff")) else json.dumps(name)


def write_exclusions(file: Path, lines: Iterable[str]) -> None:
    """Write an exclusion list atomically."""
    with replacing(file) as draft:
        draft.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _parse_line(line: str) -> str:
    if line.startswith('"'):
        with suppress(ValueError):  # not JSON: a name that begins with a quotation mark
            return posixpath.normpath(str(json.JSONDecoder().raw_decode(line)[0]))
    return posixpath.normpath(line.partition(" #")[0].rstrip().replace("\\", "/"))


def read_soft_labels(
    file: str | Path, names: Sequence[str], labels: Sequence[int], classes: Sequence[str]
) -> tuple[np.ndarray, int]:
    """Read soft labels: votes of annotators, or probabilities that another network predicts.

    Args:
        file: CSV with the columns ``file`` (an image name) and one per class, with its votes or its probability. Each
            row is divided by its sum. Other columns, and rows of other images, are ignored.
        names: N names of the training images.
        labels: N indices into ``classes``.
        classes: C class names.

    Returns:
        (N, C) float32, rows that sum to 1; an image without a row has the one-hot vector of its label. And the number
        of images with a row.

    Raises:
        UserError: the file cannot be read, a row is invalid, or no row matches.
    """
    given = f"data.soft_labels={printable(file)}"
    rows = read_csv(expand_path(file), given, ("file", *classes))
    place = {name: i for i, name in enumerate(names)}
    soft_labels = np.eye(len(classes), dtype=np.float32)[np.asarray(labels)]
    first_line: dict[str, int] = {}
    invalid: list[str] = []
    for line, row in rows:
        name = row["file"]
        votes = [_number(row[column]) for column in classes]
        total = sum(votes) if all(0 <= vote < math.inf for vote in votes) else math.nan
        if None in row:
            invalid.append(f"  line {line}: more cells than the header")
        elif name not in place:
            continue
        elif not 0 < total < math.inf:
            invalid.append(f"  line {line}: expected finite numbers >= 0 with a sum > 0: {printable(name)}")
        elif name in first_line:
            invalid.append(f"  line {line}: {printable(name)} is also in line {first_line[name]}; expected one row")
        else:
            first_line[name] = line
            soft_labels[place[name]] = np.array(votes) / total
    if invalid:
        shown = join_first(invalid, _MAX_NAMED, "\n", "\n  and {} more")
        raise UserError(f"{given}: invalid rows:\n{shown}")
    if not first_line:
        raise UserError(
            f"{given}: none of its {len(rows)} rows names a training image. Expected paths relative to data.root, like "
            f"{printable(names[0])}."
        )
    return soft_labels, len(first_line)


def read_csv(file: Path, given: str, columns: Sequence[str]) -> list[tuple[int, dict[str, Any]]]:
    """Read the line number and the cells of each row of a CSV file.

    Args:
        file: the file, with a header.
        given: the setting that names it, for messages.
        columns: names that the header has to hold.

    Raises:
        UserError: the file cannot be read, has no rows, or does not have each of the columns once.
    """
    expected = f"expected a CSV file with the columns {', '.join(columns)}"
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, skipinitialspace=True)
            header = reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            for column in columns:
                if (count := header.count(column)) != 1:
                    raise UserError(f"{given}: the column {column} occurs {count} times in line 1; {expected}.")
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else one_line(error)
        raise UserError(f"{given}: cannot be read ({reason}); {expected}.") from error
    if not rows:
        raise UserError(f"{given}: has no rows; {expected}.")
    return rows


def _number(cell: str | None) -> float:
    try:
        return float(cell or "nan")
    except ValueError:
        return math.nan
