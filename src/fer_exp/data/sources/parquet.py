"""Parquet files with one image per row, in the form of Hugging Face data sets or with a column of bytes."""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from fer_exp.data.datamodule import ImageDataModule
from fer_exp.data.decode import CHUNK_SIZE, ImageInput, InvalidImage
from fer_exp.data.sources.base import Entries, ImageSource, NoRowsError, Split, file_stamp, hash_facts, make_entries
from fer_exp.data.sources.table import COLUMN_NAMES, SPLIT_OF, SPLIT_VALUES, find_columns, require_column
from fer_exp.errors import UserError, join_first, one_line
from fer_exp.files import expand_path, printable

log = logging.getLogger(__name__)

IMAGE_COLUMNS = ("image", "img", "image_bytes", "img_bytes", "bytes")
_MAX_NAMED = 12


@dataclass(kw_only=True, eq=False, repr=False)
class ParquetDataModule(ImageDataModule):
    """Serves the images of Parquet files.

    A row has a label, and an image: a struct with ``bytes`` (Hugging Face's form, whose metadata names the classes) or
    bytes. The split of a file is the beginning of its name (``train-00000-of-00001.parquet``), or a column.

    Args:
        root: folder of the files, directly or in ``data/``; or a single file.
        files: split -> file or files; replaces ``root``.
        columns: column names that are not found: ``label``, ``image`` or ``split`` -> name.
        ignore: labels whose rows are skipped.
    """

    choice: ClassVar[str] = "parquet"

    root: str | Path | None = None
    files: dict[str, Any] | None = None
    columns: dict[str, str | None] | None = None
    ignore: list[str] = field(default_factory=list)

    def open_source(self) -> ImageSource:
        """See ``ImageDataModule.open_source``."""
        if (self.root is None) == (self.files is None):
            raise UserError("data.root or data.files: expected one of them: data.root=DIR")
        if self.files is not None:
            listed = {split: [names] if isinstance(names, str) else list(names) for split, names in self.files.items()}
            files = {split: [expand_path(name) for name in names] for split, names in listed.items()}
            if unknown := [split for split in files if split not in SPLIT_VALUES]:
                raise UserError(f"data.files: unknown split {', '.join(unknown)}; expected {', '.join(SPLIT_VALUES)}")
        else:
            files = _find_files(expand_path(self.root))
        ignore = [str(label) for label in self.ignore]
        columns = {key: name for key, name in (self.columns or {}).items() if name is not None}
        return ParquetTable(files, columns, ignore, self.group_by, bool(self.class_names))


@dataclass
class ParquetTable(ImageSource):
    """An image source: Parquet files.

    Args:
        files: split -> files; "" for files whose split column, if any, assigns the rows.
        columns: given column names; after this, those that were found.
        ignore: labels whose rows are skipped.
        group_by: name of the group column, or anything else.
        has_class_names: whether labels keep their values, in place of the class names in the metadata.
    """

    files: Mapping[str, list[Path]]
    columns: Mapping[str, str]
    ignore: list[str]
    group_by: str | None
    has_class_names: bool

    def __post_init__(self) -> None:
        try:
            import pyarrow.parquet
        except ModuleNotFoundError as error:
            raise UserError('data: reading Parquet files needs pyarrow: pip install "fer_exp[parquet]"') from error
        self._parquet = pyarrow.parquet
        first = next(iter(self.files.values()))[0]
        self.root = first.parent
        schema = self._open(first).schema_arrow
        self.columns = _find_columns(first, schema, self.columns)
        self.class_names = [] if self.has_class_names else _class_names(schema, self.columns["label"])
        log.info("Columns: %s", ", ".join(f"{key}={printable(name)}" for key, name in self.columns.items()))

    def location(self, name: str) -> Path | None:
        """See ``ImageSource.location``."""
        is_mixed = "" in self.files and ("split" in self.columns or name == "train")
        files = self.files.get(name) or (self.files[""] if is_mixed else [])
        return files[0] if files else None

    def split(self, name: str) -> Split | None:
        """See ``ImageSource.split``."""
        if (location := self.location(name)) is None:
            return None
        files = self.files.get(name) or self.files[""]
        stamps = [(str(file), file_stamp(file)) for file in files]
        identity = hash_facts(
            name, name in self.files, self.columns, self.ignore, self.group_by, self.class_names, stamps
        )
        return Split(name, location, identity, lambda: self._read(name, files), tuple(self.ignore))

    def _read(self, split: str, files: list[Path]) -> Entries:
        names: list[str] = []
        groups: list[str] = []
        labels: list[tuple[Path, list[str | None]]] = []  # of each file, the label of each row; None: not read
        has_groups = False
        for file in files:
            parquet = self._open(file)
            present = set(parquet.schema_arrow.names)
            wanted = [self.columns[key] for key in ("label", "split") if key in self.columns]
            if missing := [name for name in (*wanted, self.columns["image"]) if name not in present]:
                raise UserError(f"{printable(file)}: no column {', '.join(missing)}")
            if self.group_by is not None and self.group_by in present:
                wanted.append(self.group_by)
                has_groups = True
            table = parquet.read(list(dict.fromkeys(wanted))).to_pydict()
            rows: list[str | None] = [self._label(cell) for cell in table[self.columns["label"]]]
            if split not in self.files and "split" in self.columns:
                splits = [_split_of(file, cell) for cell in table[self.columns["split"]]]
                rows = [label if of_row == split else None for label, of_row in zip(rows, splits, strict=True)]
            rows = [None if label in self.ignore else label for label in rows]
            chosen = [i for i, label in enumerate(rows) if label is not None]
            names += [f"{file.name}:{i + 1}" for i in chosen]
            groups += [str(table[self.group_by][i]) if self.group_by in present else "" for i in chosen]
            labels.append((file, rows))
        if not names:
            raise NoRowsError(f"{printable(files[0])}: no rows of {split}")
        found = [label for _, rows in labels for label in rows if label is not None]
        return make_entries(names, found, _Images(self, labels), groups if has_groups else None)

    def _label(self, value: Any) -> str:
        """The label name of a cell; "" if it has none."""
        if isinstance(value, int) and self.class_names:
            return self.class_names[value] if 0 <= value < len(self.class_names) else ""
        return "" if value is None else str(value)

    def _open(self, file: Path) -> Any:
        try:
            return self._parquet.ParquetFile(file)
        except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
            raise UserError(f"{printable(file)}: cannot be read as a Parquet file ({one_line(error)})") from error

    def images(self, file: Path) -> Iterator[Any]:
        """Yield the cell of the image of each row of a file."""
        for batch in self._open(file).iter_batches(CHUNK_SIZE, columns=[self.columns["image"]]):
            yield from batch.column(0)


@dataclass(frozen=True)
class _Images:
    """The images of the rows that have a label, which may be empty, read batch by batch."""

    table: ParquetTable
    labels: list[tuple[Path, list[str | None]]]

    def __iter__(self) -> Iterator[ImageInput]:
        for file, labels in self.labels:
            for label, cell in zip(labels, self.table.images(file), strict=True):
                if label is not None:
                    yield _content(cell.as_py()) if label else InvalidImage("unknown label")


def _content(cell: Any) -> ImageInput:
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    return content if isinstance(content, bytes) and content else InvalidImage("no image")


def _find_files(root: Path) -> dict[str, list[Path]]:
    """Find the files of each split; "" has those whose names begin with no split.

    Raises:
        UserError: there are none.
    """
    if root.is_file():
        return {"": [root]}
    files = sorted([*root.glob("*.parquet"), *root.glob("data/*.parquet")])
    if not files:
        raise UserError(f"data.root={printable(root)}: no Parquet files (*.parquet) there or in data/")
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(SPLIT_OF.get(re.split(r"[-_.]", file.name.lower())[0], ""), []).append(file)
    if "" in by_split and len(by_split) > 1:
        shown = join_first([printable(file.name) for file in by_split[""]], _MAX_NAMED)
        raise UserError(
            f"data.root={printable(root)}: the names of some files begin with no split: {shown}. List the files: "
            "data.files={train: ..., validation: ...}"
        )
    return by_split


def _find_columns(file: Path, schema: Any, given: Mapping[str, str]) -> dict[str, str]:
    """Find the columns of label, image and split.

    Raises:
        UserError: a column is missing, or is not an image.
    """
    import pyarrow.types as types

    usual = {"label": COLUMN_NAMES["label"], "image": IMAGE_COLUMNS, "split": COLUMN_NAMES["split"]}
    columns = find_columns(printable(file), schema.names, usual, given)
    for key in ("label", "image"):
        require_column(printable(file), schema.names, columns, key)
    kind = schema.field(columns["image"]).type
    has_bytes = types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    if not (has_bytes or types.is_binary(kind) or types.is_large_binary(kind)):
        raise UserError(
            f"{printable(file)}: the column {columns['image']} is {kind}; expected bytes, or a struct with bytes"
        )
    return columns


def _class_names(schema: Any, column: str) -> list[str]:
    """Class names in the metadata that Hugging Face writes; none if there is no such metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[column]["names"]]
    except (KeyError, TypeError, ValueError):
        return []


def _split_of(file: Path, value: Any) -> str:
    """Return the split that a cell names.

    Raises:
        UserError: it names none.
    """
    if (split := SPLIT_OF.get(str(value).strip().lower())) is None:
        raise UserError(f"{printable(file)}: unknown value in the split column: {printable(value)}")
    return split
