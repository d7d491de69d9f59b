"""CSV files in the forms in circulation."""

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.utils import instantiate
from PIL import Image

from fer_exp.config.schema import CONFIG_DIR
from fer_exp.data.classes import FER_CLASSES
from fer_exp.data.sources.class_folders import FolderDataModule
from fer_exp.data.sources.table import FER2013_LABELS, CsvDataModule
from fer_exp.errors import UserError

CODES = {name: code for code, name in FER2013_LABELS.items()}
USAGES = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}


def load(file, **settings):
    data = CsvDataModule(**{"file": file, "batch_size": 1, "seed": 0, **settings})
    data.setup()
    return data


def pixels_of(path):
    return " ".join(map(str, np.asarray(Image.open(path)).ravel().tolist()))


def write(path, rows, delimiter=","):
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return path


@pytest.fixture
def folders(data_root, make_split):
    make_split(data_root / "test", 1)
    data = FolderDataModule(root=data_root, batch_size=1, seed=0)
    data.setup()
    return data


@pytest.fixture
def rows(data_root, folders):
    """The rows of fer2013.csv with the images of ``folders``, in random order."""
    paths = sorted(data_root.glob("*/*/*.png"))
    np.random.default_rng(0).shuffle(paths)
    return [(CODES[path.parent.name], pixels_of(path), USAGES[path.parts[-3]]) for path in paths]


def assert_same_images(data, folders):
    assert data.train_set.classes == FER_CLASSES
    assert data.train_set.fingerprint == folders.train_set.fingerprint
    assert data.val_set.fingerprint == folders.val_set.fingerprint
    assert data.load_split("test").fingerprint == folders.load_split("test").fingerprint


def fer2013(rows):
    return [("emotion", "pixels", "Usage"), *rows]


def icml_face_data(rows):
    return [("emotion", " Usage", " pixels"), *((label, f" {usage}", f" {text}") for label, text, usage in rows)]


def other_names(rows):
    return [("x", "what", "gray", "part"), *((0, label, text, usage.lower()) for label, text, usage in rows)]


@pytest.mark.parametrize(
    ("form", "settings"),
    [
        (fer2013, {}),
        (icml_face_data, {}),
        (other_names, {"columns": {"label": "what", "pixels": "gray", "split": "part"}}),
    ],
)
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_pixel_tables_have_the_images_of_the_folders(tmp_path, folders, rows, form, settings, delimiter):
    file = write(tmp_path / "fer2013.csv", form(rows), delimiter)
    for _ in range(2):  # decoded, and from the cache
        assert_same_images(load(file, **settings), folders)


def test_real_rows_have_the_labels_of_the_csv_order(tmp_path):
    """Rows 1 to 5 of fer2013.csv start with these values; their labels are angry, angry, fear, sad, neutral."""
    rows = [
        ("0", "70 80 82 72"),
        ("0", "151 150 147 155"),
        ("2", "231 212 156 164"),
        ("4", "24 32 36 30"),
        ("6", "4 0 0 0"),
    ]
    file = write(tmp_path / "train.csv", [("emotion", "pixels"), *rows * 3])
    train = load(file, val_fraction=0.4).train_set
    by_pixel = {
        int(image[0, 0, 0]): train.classes[label] for image, label in zip(train.images, train.labels, strict=True)
    }
    expected = {70: "angry", 151: "angry", 231: "fear", 24: "sad", 4: "neutral"}
    assert by_pixel.items() <= expected.items()
    assert len(by_pixel) >= 4


def test_the_path_table_and_a_file_for_each_split(tmp_path, data_root, folders):
    table = [("path", "label", "split")]
    for path in sorted(data_root.glob("*/*/*.png")):
        table.append((path.relative_to(data_root).as_posix(), path.parent.name, path.parts[-3]))
    file = write(tmp_path / "table.csv", table)
    assert_same_images(load(file, root=data_root), folders)
    assert load(file, root=data_root).train_set.names[0] == "train/angry/000.png"
    beside = shutil.copy(file, data_root / "table.csv")
    assert_same_images(load(beside), folders)
    # A file that was replaced is noticed, although the table is the same.
    before = load(beside).train_set.fingerprint
    shutil.copy(data_root / "train/sad/000.png", data_root / "train/fear/000.png")
    assert load(beside).train_set.fingerprint != before
    shutil.copytree(data_root, tmp_path / "copy")
    files = {}
    for split in ("train", "validation"):
        split_rows = [row[:2] for row in table if row[2] in (split, "split")]
        files[split] = str(write(tmp_path / f"{split}.csv", split_rows))
    parts = load(files, root=data_root)
    assert parts.val_set.fingerprint == folders.val_set.fingerprint
    assert parts.load_split("test") is None
    # A file for each split: its split column does not matter.
    both = load({"train": str(file), "validation": str(file)}, root=data_root)
    assert both.train_set.fingerprint == both.val_set.fingerprint


def test_kaggle_train_and_test_files(tmp_path, rows):
    labeled = [row for row in rows if row[2] == "Training"]
    train = write(tmp_path / "train.csv", [("emotion", "pixels"), *(row[:2] for row in labeled)])
    with pytest.raises(UserError, match=r"data\.val_fraction"):
        load(train)
    assert len(load(train, val_fraction=0.34).train_set) == 13
    test = write(tmp_path / "test.csv", [("pixels",), *((row[1],) for row in labeled)])
    with pytest.raises(UserError, match=r"no label column; it has pixels.*data\.columns\.label"):
        load(test)


def test_malformed_rows_are_listed_with_their_lines(tmp_path, rows):
    rows = sorted(rows, key=lambda row: row[2] != "Training")
    good = len(rows)
    rows[3] = (rows[3][0], rows[3][1].rpartition(" ")[0], "Training")
    rows[5] = (rows[5][0], rows[5][1].replace(" ", " 300 ", 1).rpartition(" ")[0], "Training")
    rows[7] = ("9", *rows[7][1:])
    rows[9] = (rows[9][0], "", "Training")
    file = write(tmp_path / "fer2013.csv", fer2013(rows))
    with file.open("a") as lines:
        lines.write('0,"12 13')  # a broken download
    with pytest.raises(UserError, match="5 images cannot be read") as error:
        load(file)
    for part in ("fer2013.csv:5: 2303 pixel values", "fer2013.csv:7", "300", "fer2013.csv:9: unknown label '9'",
                 "fer2013.csv:11: 0 pixel values", f"fer2013.csv:{good + 2}: expected 3 cells"):  # fmt: skip
        assert part in str(error.value)
    data = load(file, on_unreadable="skip")
    assert data.skipped["train"] == {"excluded": 0, "unreadable": 5}
    assert len(data.train_set) == 21 - 4
    (tmp_path / "list").write_text("fer2013.csv:5\nfer2013.csv:12\n")
    assert load(file, on_unreadable="skip", exclude=tmp_path / "list").skipped["train"]["excluded"] == 2


def test_other_labels_are_classes_or_skipped(tmp_path):
    rows = [("class", "pixels", "split")] + [
        (label, f"{i} 1 2 3", split)
        for i, (label, split) in enumerate((label, split) for label in "0137" for split in ("train", "val"))
    ]
    file = write(tmp_path / "table.csv", rows)
    names = {"0": "a", "1": "b", "3": "c", "7": "d"}
    assert load(file, class_names=names).train_set.classes == ("a", "b", "c", "d")
    assert load(file, class_names=names, merge={"d": "a"}).train_set.counts == [2, 1, 1]
    assert load(file, ignore=["7", 0]).train_set.classes == ("disgust", "happy")
    with pytest.raises(UserError, match="unknown label '7'"):
        load(file)


@pytest.mark.parametrize(
    ("content", "settings", "said"),
    [
        (None, {}, "cannot be read"),
        (b"\x89PNG\r\n\xff\xfe", {}, "not text"),
        (b"", {}, "no label column; it has no columns"),
        (b"0,70 80 82 72,Training\n", {}, "no label column; it has 0, 70 80 82 72"),
        (b"emotion,Usage\n", {}, r"no pixels or path column.*data\.columns\.path"),
        (b"emotion,pixels,Usage\n", {}, "no rows of train"),
        (b"emotion,pixels,Usage\n0,1,Training\n1,2,Training\n", {}, "add data.val_fraction"),
        (b"emotion,pixels,Usage\n0,1,Training\n1,2,Trial\n", {}, r"Usage: 'Trial' \(line 3\)"),
        (b"emotion,pixels\n0,1\n1,2\n", {"columns": {"label": "mood"}}, r"no column 'mood' \(data\.columns\.label\)"),
        (b"emotion,pixels\n0,1\n1,2\n", {"columns": {"lable": "emotion"}}, "unknown key lable"),
        (b"emotion,pixels\n0,1\n0,2\n0,3\n", {"val_fraction": 0.3}, "there are 1: angry"),
        (b"path,label,split\na.png,x,train\nb.png,y,train\na.png,x,val\nb.png,y,val\n", {},
         r"none of the 2 paths of train exists.*data\.root=DIR"),
        (b"emotion,pixels\n0,\xff\n", {"val_fraction": 0.3}, "cannot be read"),
    ],
)  # fmt: skip
def test_wrong_tables_get_one_message(tmp_path, content, settings, said):
    if content is not None:
        (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(UserError, match=said):
        load(tmp_path / "table.csv", **settings)


@pytest.mark.parametrize(("group_by", "folder"), [("subject", False), (r"s\d+", True), (r"(s\d+)_", True)])
def test_no_group_is_in_both_parts(tmp_path, group_by, folder):
    rng = np.random.default_rng(0)
    table = [("path", "label", "subject")]
    for i in range(120):
        label, subject = "abc"[i % 3], f"s{rng.integers(20)}"
        path = tmp_path / "images" / label / f"{subject}_{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
        table.append((f"{label}/{path.name}", label, subject))
    settings = {"val_fraction": 0.25, "group_by": group_by, "batch_size": 1, "seed": 0}
    if folder:
        data = FolderDataModule(root=tmp_path / "images", **settings)
    else:
        data = CsvDataModule(file=write(tmp_path / "table.csv", table), root=tmp_path / "images", **settings)
    data.setup()
    groups = [{name.rpartition("/")[2].split("_")[0] for name in part.names} for part in (data.train_set, data.val_set)]
    assert groups[0].isdisjoint(groups[1])
    assert 20 <= len(data.val_set) <= 40
    assert min(data.val_set.counts) >= 5


@pytest.mark.parametrize(
    ("group_by", "said"), [("subject", "neither a column"), ("(", "neither a column nor a regular")]
)
def test_a_group_that_does_not_exist_is_refused(data_root, group_by, said):
    data = FolderDataModule(root=data_root, batch_size=1, seed=0, val_fraction=0.34, group_by=group_by)
    with pytest.raises(UserError, match=rf"data\.group_by=.*{said}"):
        data.setup()


def compose(*overrides):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return instantiate(hydra_compose("audit", ["output_dir=x", *overrides]).data, _convert_="all")


def save_images(root, names, size=10):
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / name)


def test_preset_fer2013(tmp_path, folders, rows):
    file = write(tmp_path / "fer2013.csv", fer2013(rows))
    data = compose("data=fer2013", f"data.file={file}", "data.batch_size=1")
    data.setup()
    assert_same_images(data, folders)


def test_preset_rafdb(tmp_path):
    names = {1: "surprise", 2: "fear", 3: "disgust", 4: "happy", 5: "sad", 6: "angry", 7: "neutral"}
    save_images(
        tmp_path, [f"{split}/{label}/{i}.png" for split in ("train", "test") for label in names for i in range(10)]
    )
    data = compose("data=rafdb", f"data.root={tmp_path}", "data.batch_size=1")
    data.setup()
    assert (data.train_set.classes, data.train_set.image_shape) == (FER_CLASSES, (3, 100, 100))
    assert (data.train_set.counts, data.val_set.counts) == ([9] * 7, [1] * 7)
    for dataset in (data.train_set, data.load_split("test")):
        for name, label in zip(dataset.names, dataset.labels, strict=True):
            assert names[int(name.split("/")[1])] == FER_CLASSES[label]


def test_preset_rafdb_with_the_list_of_its_authors(tmp_path):
    rows = [(split, i, i % 7 + 1) for split in ("train", "test") for i in range(70)]
    save_images(tmp_path, [f"Image/aligned/{split}_{i:05}_aligned.jpg" for split, i, _ in rows])
    (tmp_path / "EmoLabel").mkdir()
    (tmp_path / "EmoLabel/list_patition_label.txt").write_text(
        "".join(f"{split}_{i:05}.jpg {label}\n" for split, i, label in rows)
    )
    data = compose("data=rafdb", f"data.root={tmp_path}", "data.batch_size=1")
    data.setup()
    assert (data.train_set.counts, data.val_set.counts) == ([9] * 7, [1] * 7)
    names = ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")
    for dataset, split in ((data.train_set, "train"), (data.load_split("test"), "test")):
        for name, label in zip(dataset.names, dataset.labels, strict=True):
            number = int(re.fullmatch(rf"Image/aligned/{split}_(\d+)_aligned\.jpg", name)[1])
            assert FER_CLASSES[label] == names[number % 7]
    with (tmp_path / "EmoLabel/list_patition_label.txt").open("a") as file:
        file.write("train_00070.jpg\n")
    with pytest.raises(UserError, match="line 141"):
        compose("data=rafdb", f"data.root={tmp_path}", "data.batch_size=1").setup()


def affectnet_annotations(root, count):
    """Images 0.jpg, ... with label number % 8, in the layout of AffectNet's newer form."""
    for split in ("train_set", "val_set"):
        save_images(root, [f"{split}/images/{i}.jpg" for i in range(count)])
        (root / split / "annotations").mkdir()
        for i in range(count):
            np.save(root / split / f"annotations/{i}_exp.npy", np.array(str(i % 8)) if i % 3 else np.array(i % 8))


@pytest.mark.parametrize(("preset", "classes"), [("affectnet", 8), ("affectnet7", 7)])
def test_preset_affectnet_with_annotation_files(tmp_path, preset, classes):
    affectnet_annotations(tmp_path, 16)
    data = compose(f"data={preset}", f"data.root={tmp_path}", "data.batch_size=1")
    data.setup()
    assert data.train_set.counts == data.val_set.counts == [2] * classes
    names = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt")
    for name, label in zip(data.train_set.names, data.train_set.labels, strict=True):
        assert data.train_set.classes[label] == names[int(Path(name).stem) % 8]
    # A changed label is noticed.
    np.save(tmp_path / "train_set/annotations/0_exp.npy", np.array(1))
    changed = compose(f"data={preset}", f"data.root={tmp_path}", "data.batch_size=1")
    changed.setup()
    assert sorted(changed.train_set.counts) == [1, *[2] * (classes - 2), 3]


def test_each_choice_of_ignored_labels_is_cached(tmp_path):
    affectnet_annotations(tmp_path, 16)
    folder = tmp_path / "cache"

    def load_both():
        for preset in ("affectnet", "affectnet7"):
            place = (f"data.root={tmp_path}", f"data.cache_dir={folder}", "data.batch_size=1")
            compose(f"data={preset}", *place).setup()
        return {file: file.stat().st_mtime_ns for file in folder.glob("*.npy")}

    cached = load_both()
    assert len(cached) == 4
    assert load_both() == cached


def test_images_without_an_annotation_are_unreadable(tmp_path):
    affectnet_annotations(tmp_path, 16)
    (tmp_path / "train_set/annotations/5_exp.npy").unlink()
    np.save(tmp_path / "train_set/annotations/6_exp.npy", np.array({"label": 1}), allow_pickle=True)
    with pytest.raises(UserError, match="2 images cannot be read") as caught:
        compose("data=affectnet", f"data.root={tmp_path}", "data.batch_size=1").setup()
    assert "5_exp.npy" in str(caught.value)
    assert "6_exp.npy" in str(caught.value)
    with pytest.raises(UserError, match=r"val_set|train_set"):
        compose("data=affectnet", f"data.root={tmp_path / 'train_set'}", "data.batch_size=1").setup()


@pytest.mark.parametrize(("preset", "classes"), [("affectnet", 8), ("affectnet7", 7)])
def test_preset_affectnet(tmp_path, preset, classes):
    for split in ("training", "validation"):
        images = [(f"{split}/{i}.png", i % 11) for i in range(22)]
        save_images(tmp_path, [path for path, _ in images])
        header = ("subDirectory_filePath", "face_x", "expression", "valence")
        write(tmp_path / f"{split}.csv", [header, *((path, 0, label, 0.5) for path, label in images)])
    files = [
        f"data.file.{key}={tmp_path / name}.csv" for key, name in [("train", "training"), ("validation", "validation")]
    ]
    data = compose(f"data={preset}", f"data.root={tmp_path}", *files, "data.batch_size=1")
    data.setup()
    assert data.train_set.classes == (("angry", "contempt", *FER_CLASSES[1:]) if classes == 8 else FER_CLASSES)
    assert data.val_set.counts == [2] * classes


def test_preset_ckplus(tmp_path):
    labels = ("anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise")
    save_images(tmp_path, [f"{label}/S{subject:03}_00{i}_0000001{frame}.png" for i, label in enumerate(labels)
                           for subject in range(20) for frame in range(3)])  # fmt: skip
    data = compose("data=ckplus", f"data.root={tmp_path}", "data.batch_size=1")
    data.setup()
    assert data.train_set.classes == labels
    subjects = [{name.split("/")[1][:4] for name in part.names} for part in (data.train_set, data.val_set)]
    assert subjects[0].isdisjoint(subjects[1])
    assert len(subjects[1]) == 4
