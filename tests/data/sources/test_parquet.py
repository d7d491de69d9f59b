"""Parquet files in Hugging Face's form, and with a column of bytes."""

import json

import numpy as np
import pytest

from fer_exp.data.sources.class_folders import FolderDataModule
from fer_exp.data.sources.parquet import ParquetDataModule
from fer_exp.errors import UserError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

CLASS_NAMES = ["sad", "angry", "happy", "neutral", "surprise", "fear", "disgust"]


def load(**settings):
    data = ParquetDataModule(**{"batch_size": 1, "seed": 0, **settings})
    data.setup()
    return data


@pytest.fixture
def folders(data_root, make_split):
    make_split(data_root / "test", 1)
    data = FolderDataModule(root=data_root, batch_size=1, seed=0)
    data.setup()
    return data


@pytest.fixture
def rows(data_root, folders):
    """Split -> (content, class name) of each image, in random order."""
    splits = {}
    for split in ("train", "validation", "test"):
        paths = sorted((data_root / split).glob("*/*.png"))
        np.random.default_rng(0).shuffle(paths)
        splits[split] = [(path.read_bytes(), path.parent.name) for path in paths]
    return splits


def write_hugging_face(path, rows, **changes):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({
        "image": [{"bytes": content, "path": "x.png"} for content, _ in rows],
        "label": [CLASS_NAMES.index(name) for _, name in rows],
    } | changes)  # fmt: skip
    features = {"image": {"_type": "Image"}, "label": {"names": CLASS_NAMES, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=5)
    return path


def assert_same_images(data, folders):
    assert data.train_set.fingerprint == folders.train_set.fingerprint
    assert data.val_set.fingerprint == folders.val_set.fingerprint
    assert data.load_split("test").fingerprint == folders.load_split("test").fingerprint


@pytest.mark.parametrize("folder", [".", "data"])
def test_hugging_face_files_have_the_images_of_the_folders(tmp_path, folders, rows, folder):
    root = tmp_path / "set"
    write_hugging_face(root / folder / "train-00000-of-00002.parquet", rows["train"][:8])
    write_hugging_face(root / folder / "train-00001-of-00002.parquet", rows["train"][8:])
    for split in ("validation", "test"):
        write_hugging_face(root / folder / f"{split}-00000-of-00001.parquet", rows[split])
    for _ in range(2):  # decoded, and from the cache
        assert_same_images(load(root=root), folders)
    train = sorted((root / folder).glob("train*"))
    files = {"train": list(map(str, train)), "validation": str(root / folder / "validation-00000-of-00001.parquet")}
    assert load(files=files).train_set.fingerprint == folders.train_set.fingerprint


def test_one_file_with_a_split_column_and_bytes(tmp_path, folders, rows):
    all_rows = [(*row, split.upper()) for split, part in rows.items() for row in part]
    table = {"img_bytes": [row[0] for row in all_rows], "expression": [row[1] for row in all_rows]}
    pq.write_table(pa.table({**table, "subset": [row[2] for row in all_rows]}), tmp_path / "all.parquet")
    assert_same_images(load(root=tmp_path / "all.parquet"), folders)
    pq.write_table(pa.table(table), tmp_path / "all.parquet")
    with pytest.raises(UserError, match=r"data\.val_fraction"):
        load(root=tmp_path / "all.parquet")
    names = {name: "ab"[i % 2] for i, name in enumerate(CLASS_NAMES[1:])}
    settings = {"val_fraction": 0.3, "group_by": "expression", "ignore": ["sad"], "class_names": names}
    data = load(root=tmp_path / "all.parquet", **settings)
    assert data.train_set.classes == ("a", "b")
    assert len(data.train_set) + len(data.val_set) == 36


def test_numbers_are_labels_where_class_names_are_given(tmp_path, rows):
    for split in ("train", "validation"):
        write_hugging_face(tmp_path / f"{split}.parquet", rows[split])
    data = load(root=tmp_path, class_names={str(i): f"c{i}" for i in range(7)})
    assert data.train_set.classes == tuple(f"c{i}" for i in range(7))


def test_rows_without_an_image_or_a_label_are_listed(tmp_path, rows):
    labels = [CLASS_NAMES.index(name) for _, name in rows["train"]]
    labels[4], labels[5] = None, 9
    images = [{"bytes": content, "path": ""} for content, _ in rows["train"]]
    images[1], images[2], images[3] = None, {"bytes": None, "path": "x"}, {"bytes": b"no image", "path": ""}
    write_hugging_face(tmp_path / "train.parquet", rows["train"], label=labels, image=images)
    write_hugging_face(tmp_path / "validation.parquet", rows["validation"])
    with pytest.raises(UserError, match="5 images cannot be read") as error:
        load(root=tmp_path)
    for part in (
        "train.parquet:2: no image",
        ":3: no image",
        ":4: not a JPEG",
        ":5: unknown label",
        ":6: unknown label",
    ):
        assert part in str(error.value)
    assert len(load(root=tmp_path, on_unreadable="skip").train_set) == 16


def other_columns(path):
    pq.write_table(pa.table({"picture": [b""], "label": [1]}), path)


def text_images(path):
    pq.write_table(pa.table({"image": ["a.png"], "label": [1]}), path)


def no_rows(path):
    pq.write_table(pa.table({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}), path)


@pytest.mark.parametrize(
    ("name", "write", "settings", "said"),
    [
        ("train.parquet", lambda path: path.write_bytes(b"no table"), {}, "cannot be read as a Parquet file"),
        ("notes.txt", lambda path: path.touch(), {}, "no Parquet files"),
        ("train.parquet", other_columns, {}, r"no image column; it has picture, label.*data\.columns\.image"),
        ("train.parquet", other_columns, {"columns": {"image": "x"}}, r"no column 'x' \(data\.columns\.image\)"),
        ("train.parquet", other_columns, {"columns": {"pixels": "x"}}, "unknown key pixels"),
        ("train.parquet", text_images, {}, "the column image is string"),
        ("train.parquet", no_rows, {"val_fraction": 0.1}, "no rows of train"),
        ("train.parquet", no_rows, {"files": {"train": "x"}}, "expected one of them"),
        ("train.parquet", no_rows, {"root": None, "files": {"training": "x"}}, "unknown split training"),
        ("train.parquet", no_rows, {"root": None, "files": {"train": "missing.parquet"}}, "cannot be read"),
    ],
)
def test_wrong_files_get_one_message(tmp_path, name, write, settings, said):
    write(tmp_path / name)
    with pytest.raises(UserError, match=said):
        load(**{"root": tmp_path, **settings})


def test_files_of_no_split_beside_others_are_refused(tmp_path, rows):
    write_hugging_face(tmp_path / "train.parquet", rows["train"])
    write_hugging_face(tmp_path / "more.parquet", rows["train"])
    with pytest.raises(UserError, match=r"more\.parquet.*data\.files"):
        load(root=tmp_path)
