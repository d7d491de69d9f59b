"""Write predictions as CSV."""

import csv
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from fer_exp.files import csv_cell, replacing


def write_predictions(
    path: Path, classes: Sequence[str], names: Sequence[object], probabilities: Tensor, labels: Tensor | None = None
) -> None:
    """Write one row per image: file, true class if known, predicted class, and the probability of each class.

    Args:
        path: the CSV file.
        classes: C names.
        names: N names of images.
        probabilities: (N, C).
        labels: (N,) true classes; None if unknown.

    Raises:
        OSError: the file cannot be written.
    """
    cells = [csv_cell(name) for name in classes]
    columns = {"file": map(csv_cell, names)}
    if labels is not None:
        columns["label"] = map(cells.__getitem__, labels.tolist())
    columns["predicted"] = map(cells.__getitem__, probabilities.argmax(dim=1).tolist())
    with replacing(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*columns, *cells])
        for *texts, row in zip(*columns.values(), probabilities.tolist(), strict=True):
            writer.writerow([*texts, *(f"{value:.6f}" for value in row)])
