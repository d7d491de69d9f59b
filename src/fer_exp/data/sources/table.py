"""Tables with one image per row: CSV files with pixel values or paths."""

import csv
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from fer_exp.data.datamodule import ImageDataModule
from fer_exp.data.decode import ImageInput, InvalidImage, PixelText
from fer_exp.data.sources.base import Entries, ImageSource, NoRowsError, Split, file_stamp, hash_facts, make_entries
from fer_exp.errors import UserError, join_first, one_line
from fer_exp.files import expand_path, printable

log = logging.getLogger(__name__)

# Names that columns have in data sets in circulation, in lower case.
COLUMN_NAMES = {
    "label": ("emotion", "label", "class", "expression"),
    "pixels": ("pixels",),
    "path": ("path", "file", "image", "filename", "file_name", "image_path", "subdirectory_filepath"),
    "split": ("usage", "split", "subset"),
}
SPLIT_VALUES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev", "publictest"),
    "test": ("test", "testing", "privatetest"),
}
FER2013_LABELS = {"0": "angry", "1": "disgust", "2": "fear", "3": "happy", "4": "sad", "5": "surprise", "6": "neutral"}
SPLIT_OF = {value: split for split, values in SPLIT_VALUES.items() for value in values}
_MAX_CELL = 2**24  # characters: the pixels of a 2,000 x 2,000 image
_MAX_NAMED = 12


@dataclass(kw_only=True, eq=False, repr=False)
class CsvDataModule(ImageDataModule):
    """Serves the images of a CSV file with a header.

    A row has a label, and pixels (the gray values of a square image) or a path. A split column assigns rows to
    ``train``, ``validation`` and ``test``, also as FER2013's Training, PublicTest and PrivateTest. Labels 0 to 6 of
    pixel rows are FER2013's unless ``class_names`` is set.

    Args:
        file: the file; or split -> file.
        root: folder of the paths; None for the folder of the file.
        columns: column names that are not found: ``label``, ``pixels``, ``path`` or ``split`` -> name.
        ignore: labels whose rows are skipped.
    """

    choice: ClassVar[str] = "csv"

    file: str | Path | dict[str, str | None]
    root: str | Path | None = None
    columns: dict[str, str | None] | None = None
    ignore: list[str] = field(default_factory=list)

    def open_source(self) -> ImageSource:
        """See ``ImageDataModule.open_source``."""
        files = self.files()
        unknown = [f"data.file.{split}" for split in files if split and split not in SPLIT_VALUES]
        if unknown or not files:
            raise UserError(
                f"{', '.join(unknown) or 'data.file is empty'}: expected a CSV file, data.file=FILE, or one for each "
                "split: data.file.train=FILE data.file.validation=FILE"
            )
        return CsvTable(
            files,
            next(iter(files.values())).parent if self.root is None else expand_path(self.root),
            {key: name for key, name in (self.columns or {}).items() if name is not None},
            [str(label) for label in self.ignore],
            self.group_by,
            {} if self.class_names else FER2013_LABELS,
        )

    def files(self) -> dict[str, Path]:
        """Split -> file; "" for a file of all splits."""
        files = self.file if isinstance(self.file, Mapping) else {"": self.file}
        return {split: expand_path(file) for split, file in files.items() if file is not None}


@dataclass
class CsvTable(ImageSource):
    """An image source: CSV files.

    Args:
        files: split -> file; "" for a file whose split column, if any, assigns the rows.
        root: folder of the paths.
        columns: given column names.
        ignore: labels whose rows are skipped.
        group_by: name of the group column, or anything else.
        pixel_labels: label name of each label in pixel tables; empty for the labels themselves.
    """

    files: Mapping[str, Path]
    root: Path
    columns: Mapping[str, str]
    ignore: list[str]
    group_by: str | None
    pixel_labels: Mapping[str, str]

    def __post_init__(self) -> None:
        self.headers = {split: self._read_header(file) for split, file in self.files.items()}
        found = next(iter(self.headers.values()))
        log.info("Columns: %s", ", ".join(f"{key}={printable(name)}" for key, name in found.columns.items()))

    def location(self, name: str) -> Path | None:
        """See ``ImageSource.location``."""
        if name in self.files:
            return self.files[name]
        is_mixed = "" in self.files and ("split" in self.headers[""].columns or name == "train")
        return self.files[""] if is_mixed else None

    def split(self, name: str) -> Split | None:
        """See ``ImageSource.split``."""
        if (file := self.location(name)) is None:
            return None
        header = self.headers[name if name in self.files else ""]
        images = self._read(name, file, header).inputs if "path" in header.columns else ()
        stamps = [file_stamp(image) for image in images if isinstance(image, str)]
        if stamps and not any(map(any, stamps)):
            raise UserError(
                f"data.file={printable(file)}: none of the {len(stamps)} paths of {name} exists in "
                f"{printable(self.root)}. Give the folder of the paths: data.root=DIR"
            )
        identity = hash_facts(
            name, name in self.files, header.columns, self.columns, self.ignore, self.group_by,
            self.pixel_labels, str(self.root), file_stamp(file), stamps,
        )  # fmt: skip
        return Split(name, file, identity, lambda: self._read(name, file, header), tuple(self.ignore))

    def _read_header(self, file: Path) -> "_Header":
        given = f"data.file={printable(file)}"
        try:
            with file.open(newline="", encoding="utf-8-sig") as lines:
                line = lines.readline()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{given}: cannot be read ({getattr(error, 'strerror', None) or 'not text'})") from error
        delimiter = max(",;\t", key=line.count)
        names = [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]
        columns = find_columns(given, names, COLUMN_NAMES, self.columns)
        if "pixels" in columns:
            columns.pop("path", None)
        require_column(given, names, columns, "label")
        require_column(given, names, columns, "path" if "pixels" not in columns else "pixels", "pixels or path")
        return _Header(names, columns, delimiter)

    def _read(self, split: str, file: Path, header: "_Header") -> Entries:
        """Read the rows of a split.

        Raises:
            UserError: the file cannot be read, has no rows of the split, or unknown values in the split column.
        """
        given = f"data.file={printable(file)}"
        names: list[str] = []
        labels: list[str] = []
        inputs: list[ImageInput] = []
        groups: list[str] = []
        unknown_splits: dict[str, int] = {}
        pixels = _PixelColumn()
        for line, cells in header.rows(file):
            name, label, group = f"{file.name}:{line}", "", ""
            source: ImageInput = InvalidImage(f"expected {len(header.names)} cells")
            row_split: str | None = "train"
            if cells is not None:
                label, group = cells[header.columns["label"]], cells.get(self.group_by or "", "")
                value = cells.get(header.columns.get("split", ""))
                row_split = "train" if value is None else SPLIT_OF.get(value.lower())
                if row_split is None:
                    unknown_splits.setdefault(str(value), line)
            if (row_split != split and split not in self.files) or label in self.ignore:
                continue
            if cells is not None:
                if "path" in header.columns:
                    name = cells[header.columns["path"]].replace("\\", "/")
                    source = os.path.join(self.root, name)  # noqa: PTH118
                else:
                    source = pixels.check(cells[header.columns["pixels"]])
                    label = self.pixel_labels.get(label, "" if self.pixel_labels else label)
                if not label:
                    source = InvalidImage(f"unknown label {cells[header.columns['label']]!r}")
            names.append(name)
            labels.append(label)
            inputs.append(source)
            groups.append(group)
        if unknown_splits:
            shown = join_first([f"{value!r} (line {line})" for value, line in unknown_splits.items()], _MAX_NAMED)
            raise UserError(f"{given}: unknown values in the column {header.columns['split']}: {shown}")
        if not names:
            column = f" of {split} (column {header.columns['split']})" if "split" in header.columns else ""
            raise NoRowsError(f"{given}: no rows{column}")
        return make_entries(names, labels, inputs, groups if self.group_by in header.names else None)


def find_columns(
    place: str, names: Sequence[str], usual: Mapping[str, Sequence[str]], given: Mapping[str, str]
) -> dict[str, str]:
    """Find the columns of a table.

    Args:
        place: the file, for messages.
        names: of all columns.
        usual: key -> names that the column may have, in lower case.
        given: key -> name that it has.

    Returns:
        Key -> name, of the columns that exist.

    Raises:
        UserError: a given column does not exist.
    """
    if unknown := [key for key in given if key not in usual]:
        raise UserError(f"data.columns: unknown key {', '.join(unknown)}; expected {', '.join(usual)}")
    if absent := [f"{name!r} (data.columns.{key})" for key, name in given.items() if name not in names]:
        raise UserError(f"{place}: no column {', '.join(absent)}; it has {_shorten(names)}")
    by_name = {name.lower(): name for name in reversed(names)}
    found = {key: next((by_name[name] for name in usual[key] if name in by_name), None) for key in usual}
    return {key: name for key, name in {**found, **given}.items() if name is not None}


def require_column(place: str, names: Sequence[str], columns: Mapping[str, str], key: str, what: str = "") -> None:
    """Check that a column was found.

    Raises:
        UserError: it was not.
    """
    if key not in columns:
        raise UserError(
            f"{place}: no {what or key} column; it has {_shorten(names)}. Give its name: data.columns.{key}=NAME"
        )


@dataclass(frozen=True)
class _Header:
    """The first line of a CSV file: all column names, and those of the columns that are used."""

    names: list[str]
    columns: dict[str, str]
    delimiter: str

    def rows(self, file: Path) -> Iterator[tuple[int, dict[str, str] | None]]:
        """Yield the line number and the cells of each row; None for a row with another number of cells."""
        csv.field_size_limit(_MAX_CELL)
        number = 1
        try:
            with file.open(encoding="utf-8-sig") as lines:
                next(lines)
                for number, line in enumerate(lines, 2):
                    cells = self._split(line)
                    if len(cells) == len(self.names):
                        yield number, {name: cell.strip() for name, cell in zip(self.names, cells, strict=True)}
                    elif not line.isspace():
                        yield number, None
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            place = f"data.file={printable(file)}, line {number}"
            raise UserError(f"{place}: cannot be read ({one_line(error)})") from error

    def _split(self, line: str) -> list[str]:
        # Only quotes need the csv module, which is several times as slow.
        return next(csv.reader([line], delimiter=self.delimiter)) if '"' in line else line.split(self.delimiter)


class _PixelColumn:
    """Checks that all images of a column have the same number of pixels."""

    def __init__(self) -> None:
        self.expected: int | None = None

    def check(self, text: str) -> PixelText | InvalidImage:
        """Return the cell as an input of the decoder, which checks the values."""
        count = text.count(" ") + 1
        if count != self.expected:
            count = len(text.split())
        if self.expected is None and round(count**0.5) ** 2 == count > 0:
            self.expected = count
        if count != (self.expected or 0):
            return InvalidImage(f"{count} pixel values; expected {self.expected or 'a square'}")
        return PixelText(text)


def _shorten(names: Sequence[str]) -> str:
    return join_first([printable(name[:30]) for name in names], _MAX_NAMED) or "no columns"
