"""Class folders: which splits, classes and images are found, and what is refused."""

import os
import shutil
import sys
import time

import pytest

from fer_exp.data.classes import FER_CLASSES, ClassMap
from fer_exp.data.folders import SUFFIXES, list_split, walk_images
from fer_exp.data.sources.class_folders import ClassFolders, FolderDataModule
from fer_exp.errors import UserError


def listed(folder, ignore=()):
    """The names of a split by label."""
    entries = list_split("train", folder, folder, ignore)[0].read()
    return [(entries.label_names[label], name) for label, name in zip(entries.labels, entries.names, strict=True)]


def labels_of(folder, ignore=()):
    return list(list_split("train", folder, folder, ignore)[0].read().label_names)


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (["train", "validation"], {"train": "train", "validation": "validation"}),
        (["images/Train", "images/validation"], {"train": "images/Train", "validation": "images/validation"}),
        (["images/images/training", "images/images/val"],
         {"train": "images/images/training", "validation": "images/images/val"}),
        (["train", "val", "test"], {"train": "train", "validation": "val", "test": "test"}),
        (["train", "test"], {"train": "train", "test": "test", "validation": "test"}),
        (["train", "Train", "valid"], {"train": "train", "validation": "valid"}),
    ],
)  # fmt: skip
def test_splits_are_found(tmp_path, folders, splits):
    for folder in folders:
        (tmp_path / folder / "sad").mkdir(parents=True)
    assert ClassFolders(tmp_path).folders == {name: tmp_path / folder for name, folder in splits.items()}


def test_without_a_validation_folder(tmp_path, make_split):
    make_split(tmp_path / "set" / "train")
    with pytest.raises(UserError, match=r"data\.val_fraction=0\.1"):
        ClassFolders(tmp_path / "set")
    assert ClassFolders(tmp_path / "set", needs_validation=False).folders == {"train": tmp_path / "set/train"}
    # Class folders alone are the training split; the folder of a split suggests the folder above.
    make_split(tmp_path / "set" / "val")
    assert ClassFolders(tmp_path / "set/train", needs_validation=False).folders == {"train": tmp_path / "set/train"}
    with pytest.raises(UserError, match=f"data.root={tmp_path}/set[^/]"):
        ClassFolders(tmp_path / "set/train")


@pytest.mark.parametrize(
    ("root", "said"),
    [("missing", "no such folder"), ("file", "this is a file"), ("", "is empty"), (None, "is empty"),
     ("loop", "opened"),
     ("~nobody at all", "no such folder"), ("empty", "It holds: no folders"), ("typo", "Trian/")],
)  # fmt: skip
def test_a_wrong_root_gets_one_message(tmp_path, monkeypatch, root, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "empty").mkdir()
    for folder in ("Trian", "validation"):
        (tmp_path / "typo" / folder).mkdir(parents=True)
    for val_fraction in (0.0, 0.1):
        with pytest.raises(UserError, match=rf"data\.root.*{said}"):
            FolderDataModule(root=root, batch_size=1, seed=0, val_fraction=val_fraction).open_source()


def test_the_root_may_be_in_the_home_folder(tmp_path, monkeypatch, data_root):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert FolderDataModule(root="~/images/", batch_size=1, seed=0).open_source().root == data_root


def test_images_are_listed_by_class_and_name(tmp_path, make_split):
    split = make_split(tmp_path / "train", 1, ("sad", "Anger", "angry", "Happiness"))
    for name in ("b.JPG", "a.jpeg", "notes.txt", ".hidden.png", "Thumbs.db"):
        (split / "sad" / name).touch()
    (split / "sad/subject 1/far").mkdir(parents=True)
    (split / "sad/subject 1/far/x.png").touch()
    for skipped in ("__MACOSX", "@eaDir", ".thumbs"):
        for folder in (split / skipped, split / "sad" / skipped):
            folder.mkdir()
            (folder / "copy.png").touch()
    (split / "on_top.png").touch()
    expected = ["Anger/000.png", "angry/000.png", "Happiness/000.png", "sad/000.png", "sad/a.jpeg", "sad/b.JPG",
                "sad/subject 1/far/x.png"]  # fmt: skip
    assert listed(split) == [(name.partition("/")[0], name) for name in expected]
    # Prediction lists what training lists.
    assert sorted(walk_images(split / "sad").images) == sorted(name[4:] for name in expected if name.startswith("sad"))
    names = list_split("train", split, tmp_path)[0].read().names
    assert names == tuple(f"train/{name}" for name in expected)


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_images_are_known_by_their_suffix(tmp_path, suffix):
    (tmp_path / "sad").mkdir()
    (tmp_path / f"sad/image{suffix.upper()}").touch()
    assert listed(tmp_path) == [("sad", f"sad/image{suffix.upper()}")]


def test_links(tmp_path, make_split):
    split = make_split(tmp_path / "train", 1, ("a", "b"))
    store = make_split(tmp_path / "store", 1, ("c",))
    (split / "c").symlink_to(store / "c")  # a class folder
    (split / "a/again").symlink_to(split / "a")  # a cycle
    (split / "a/file.png").symlink_to(store / "c/000.png")
    (split / "a/gone.png").symlink_to("nowhere")  # listed: the decoder reports it
    (split / "b/loop").symlink_to("loop")
    os.mkfifo(split / "b/pipe.png")
    assert [name for _, name in listed(split)] == ["a/000.png", "a/file.png", "a/gone.png", "b/000.png", "c/000.png"]
    # A folder in two classes has no clear label.
    (split / "b/more").symlink_to(split / "c")
    with pytest.raises(UserError, match=r"ambiguous class.*same folder"):
        listed(split)


@pytest.mark.parametrize("target", ["nowhere", "dangling"])
def test_a_class_folder_that_is_a_broken_link_is_named(tmp_path, make_split, target):
    split = make_split(tmp_path / "train", 1, ("a", "b"))
    (split / "dangling").symlink_to(target)
    with pytest.raises(UserError, match="no images in dangling/"):
        listed(split)


def test_a_folder_named_like_another_class_is_refused(tmp_path, make_split):
    split = make_split(tmp_path / "train", 1, ("angry", "happy"))
    make_split(split / "angry", 1, ("Happiness", "anger"))
    with pytest.raises(UserError, match=r"ambiguous class: angry/Happiness/"):
        listed(split)
    assert ("angry", "angry/anger/000.png") in listed(split, ["angry/Happiness"])


def test_folders_without_images_are_refused_and_can_be_ignored(tmp_path, make_split):
    split = make_split(tmp_path / "train", 1, ("a", "b"))
    (split / "notes").mkdir()
    with pytest.raises(UserError, match=r"no images in notes/.*data\.ignore"):
        listed(split)
    assert labels_of(split, ["notes"]) == ["a", "b"]
    shutil.rmtree(split)
    split.mkdir()
    with pytest.raises(UserError, match="no images in class folders"):
        listed(split)


def test_ignored_folders_that_no_split_has_are_reported(data_root):
    source = FolderDataModule(root=data_root, batch_size=1, seed=0, ignore=["sad/", "happy\\x", 7]).open_source()
    (data_root / "train/happy/x").mkdir()
    assert "sad" not in source.split("train").read().label_names
    source.split("validation")
    (warning,) = source.warnings()
    assert "'7'" in warning
    assert "sad" not in warning


@pytest.mark.parametrize("locked", ["train", "train/sad"])
def test_a_folder_without_permission_is_named(tmp_path, make_split, unprivileged, locked):
    make_split(tmp_path / "train", 1)
    (tmp_path / locked).chmod(0)
    with unprivileged(), pytest.raises(UserError, match=rf"{locked}: cannot be read \(Permission denied\)"):
        listed(tmp_path / "train")


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
def test_any_file_name_is_listed(tmp_path):
    (tmp_path / "sad").mkdir()
    odd = sorted(["two\nlines.png", "a # b.png", "😀.png", os.fsdecode(b"\xff\xfe.png")])
    for name in odd:
        (tmp_path / "sad" / name).touch()
    assert [name for _, name in listed(tmp_path)] == [f"sad/{name}" for name in odd]


def identity(split):
    return list_split("train", split, split.parent)[0].identity


@pytest.mark.parametrize("change", ["add", "remove", "rename", "move", "date", "swap"])
def test_each_change_changes_the_identity(tmp_path, make_split, change):
    """Also files that trade places and have the same size and time, as reproducible archives unpack them."""
    split = make_split(tmp_path / "train")
    first, second = split / "sad/000.png", split / "fear/000.png"
    for path in split.rglob("*.png"):
        path.write_bytes(path.read_bytes().ljust(3000, b"\0"))
        os.utime(path, ns=(0, 10**18))
    before = identity(split)
    assert identity(split) == before
    if change == "add":
        shutil.copy2(first, split / "sad/new.png")
    elif change == "remove":
        first.unlink()
    elif change == "rename":
        first.rename(split / "sad/0.png")
    elif change == "move":
        first.rename(split / "surprise/000a.png")
    elif change == "date":
        os.utime(first, ns=(0, -1))
    else:
        first.rename(split / "aside")
        second.rename(first)
        (split / "aside").rename(second)
    assert identity(split) != before


def test_many_files_are_listed_in_seconds(tmp_path):
    for i in range(40):
        (tmp_path / f"{i % 2}/{i}").mkdir(parents=True)
        for j in range(100):
            (tmp_path / f"{i % 2}/{i}/{j}.png").touch()
    start = time.process_time()
    assert len(listed(tmp_path)) == 4_000
    assert time.process_time() - start < 1  # about 0.05


def test_real_folders_have_the_published_counts(real_root):
    source = ClassFolders(real_root)
    assert {name: len(source.split(name).read().names) for name in source.folders} == {
        "train": 28709,
        "validation": 3589,
    }
    assert source.split("train").read().label_names == FER_CLASSES


@pytest.mark.parametrize(
    ("settings", "labels", "classes", "indices"),
    [
        pytest.param({}, ["Happy", "anger", "disgusted", "scared", "calm", "sadness", "surprising"],
                     FER_CLASSES, [3, 0, 1, 2, 4, 5, 6], id="synonyms of the seven"),
        pytest.param({}, ["joy", "happy"], ("happy", "joy"), [1, 0], id="no synonyms in other sets"),
        pytest.param({}, ["10", "9", "1"], ("1", "9", "10"), [2, 1, 0], id="numbers"),
        pytest.param({"classes": ["b", "a"]}, ["a", "b"], ("b", "a"), [1, 0], id="given order"),
        pytest.param({"classes": ["happy", "sad"]}, ["sad", "Happiness", "x"], ("happy", "sad"), [1, 0, None],
                     id="synonyms of given classes"),
        pytest.param({"class_names": {1: "surprise", 2: "fear"}}, ["1", "2", "3"], ("3", "fear", "surprise"),
                     [2, 1, 0], id="names"),
        pytest.param({"merge": {"contempt": "disgust"}}, ["contempt", "disgust", "x"], ("disgust", "x"),
                     [0, 0, 1], id="merge"),
        pytest.param({"class_names": {"7": "contempt"}, "merge": {"contempt": "x"}}, ["7", "x", "y"], ("x", "y"),
                     [0, 0, 1], id="names, then merge"),
    ],
)  # fmt: skip
def test_labels_become_classes(settings, labels, classes, indices):
    class_map = ClassMap(**settings)
    assert class_map.resolve(labels) == classes
    assert [class_map.index(label, classes) for label in labels] == indices


@pytest.mark.parametrize(
    ("settings", "labels", "said"),
    [
        ({}, ["a"], "there are 1: a"),
        ({}, map(str, range(101)), "there are 101"),
        ({"classes": ["a", "a"]}, ["a"], "different"),
        ({"class_names": {"x": "y"}}, ["a", "b"], r"data\.class_names: the data has no 'x'"),
        ({"merge": {"x": "a"}}, ["a", "b"], r"data\.merge: the data has no 'x'"),
    ],
)
def test_impossible_classes_are_refused(settings, labels, said):
    with pytest.raises(UserError, match=said):
        ClassMap(**settings).resolve(labels)
