"""Labels that are shares of several classes: votes of annotators, or what another network predicts."""

import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fer_exp.data.dataset import ImageDataset
from fer_exp.errors import UserError, join_first, one_line
from fer_exp.files import expand_path, printable

_MAX_NAMED = 20  # files in an error message


def read_soft_labels(file: str | Path, images: ImageDataset, folder: Path) -> tuple[Tensor, int]:
    """Read the labels of a training set.

    Args:
        file: CSV with a header: ``file``, the path of an image relative to the data folder, and a column for each class
            with its votes or its probability, from 0 up; rows are divided by their sums. Other columns are passed
            over, and so are images of other folders.
        images: the training set.
        folder: of the training set, relative to the data folder.

    Returns:
        (N, C) float32, rows that sum to 1; an image without a row has its folder's class alone. And the number of
        images that have a row.

    Raises:
        UserError: the file cannot be read, or a row is not as it must be.
    """
    name = f"data.soft_labels={printable(file)}"
    expected = f"expected a CSV file with the columns file, {', '.join(images.classes)}"
    try:
        with expand_path(file).open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            if absent := [column for column in ("file", *images.classes) if column not in (reader.fieldnames or ())]:
                raise UserError(f"{name}: has no column {', '.join(absent)}; {expected}.")
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else one_line(error)
        raise UserError(f"{name}: cannot be read ({reason}); {expected}.") from error
    place = {f"{folder.as_posix()}/{path}": i for i, path in enumerate(images.files)}
    labels = torch.nn.functional.one_hot(images.labels, len(images.classes)).float()
    labelled: set[str] = set()
    wrong, again = [], []
    for line, row in rows:
        path = row["file"]
        if path not in place:
            continue
        votes = _votes(row, images.classes)
        if votes is None:
            wrong.append(f"  line {line}: {printable(path)}")
            continue
        if path in labelled:
            again.append(f"  line {line}: {printable(path)}")
        labels[place[path]] = votes / votes.sum()
        labelled.add(path)
    if wrong:
        shown = join_first(wrong, _MAX_NAMED, "\n", "\n  and {} more")
        raise UserError(f"{name}: expected numbers from 0 up, and one of them more than 0, in\n{shown}")
    if again:
        shown = join_first(again, _MAX_NAMED, "\n", "\n  and {} more")
        raise UserError(
            f"{name}: expected one row for each file, with the votes of all annotators; these had one before:\n{shown}"
        )
    if not labelled:
        example = rows[0][1]["file"] if rows else "none"
        raise UserError(
            f"{name}: none of its {len(rows)} rows names a training image (the first is of {printable(example)}). "
            f"Paths are relative to data.root, as {printable(next(iter(place)))}."
        )
    return labels, len(labelled)


def _votes(row: dict[str, str | None], classes: Sequence[str]) -> Tensor | None:
    """(C,) float32; None where they are no votes."""
    try:
        votes = torch.tensor([float(row[name] or "nan") for name in classes])
    except ValueError:
        return None
    return votes if bool(votes.isfinite().all() and (votes >= 0).all() and votes.sum() > 0) else None
