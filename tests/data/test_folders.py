"""Where the splits lie, which folder is which class, and what is said when they are not as expected."""

import logging
import os
from pathlib import Path

import pytest

from fer_exp.data.folders import CLASSES, NESTINGS, SUFFIXES, find_splits, list_images
from fer_exp.errors import UserError


def counts(listing):
    return dict(zip(CLASSES, (listing.labels.count(label) for label in range(len(CLASSES))), strict=True))


@pytest.mark.parametrize("nesting", NESTINGS)
@pytest.mark.parametrize("train", ["train", "Train", "training"])
@pytest.mark.parametrize("validation", ["validation", "val", "valid", "test", "VAL"])
def test_splits_are_found_and_unusual_places_are_said(tmp_path, caplog, nesting, train, validation):
    (tmp_path / nesting / train).mkdir(parents=True)
    (tmp_path / nesting / validation).mkdir()
    with caplog.at_level(logging.INFO):
        layout = find_splits(tmp_path)
    assert (layout.train, layout.validation) == (tmp_path / nesting / train, tmp_path / nesting / validation)
    if (nesting, train, validation) == (".", "train", "validation"):
        assert caplog.messages == []
    else:
        assert [str(layout.train) in line and str(layout.validation) in line for line in caplog.messages] == [True]


@pytest.mark.parametrize(
    ("folders", "chosen"),
    [
        # Three-way data: `val` is what training may look at, `test` is not.
        (("train", "val", "test"), ("train", "val")),
        (("train", "test", "validation", "images/train", "images/validation"), ("train", "validation")),
        (("train", "images/train", "images/validation"), ("images/train", "images/validation")),
        (("images/test", "images/images/train", "images/images/test"), ("images/images/train", "images/images/test")),
    ],
)
def test_one_of_several_splits_is_chosen(tmp_path, folders, chosen):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    layout = find_splits(tmp_path)
    assert (layout.train, layout.validation) == tuple(tmp_path / name for name in chosen)


def test_of_two_spellings_of_a_split_the_lower_case_one_is_taken(tmp_path):
    for name in ("TRAIN", "train", "Train", "Validation", "validation"):
        (tmp_path / name).mkdir(exist_ok=True)
    layout = find_splits(tmp_path)
    assert (layout.train.name, layout.validation.name) == ("train", "validation")


def test_the_root_may_be_relative_to_home_or_read_as_a_number(tmp_path, monkeypatch):
    for split in ("train", "validation"):
        (tmp_path / "2013" / split).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert find_splits("~/2013").train == tmp_path / "2013" / "train"
    assert find_splits(2013).train == Path("2013/train")


def test_a_missing_root(tmp_path):
    with pytest.raises(UserError, match=r"data\.root=.*nowhere: there is no such folder"):
        find_splits(tmp_path / "nowhere")


def test_a_root_that_is_a_file(tmp_path):
    (tmp_path / "faces.zip").touch()
    with pytest.raises(UserError, match=r"data\.root=.*faces\.zip: this is a file; give the folder that holds train/"):
        find_splits(tmp_path / "faces.zip")


@pytest.mark.parametrize("held", [(), ("train",), ("validation",), ("happy", "sad"), ("train", "images/validation")])
def test_a_root_without_a_pair_of_splits(tmp_path, held):
    for name in held:
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(UserError, match=r"data\.root=.*no pair of train/ and validation/") as error:
        find_splits(tmp_path)
    holds = str(error.value).partition("It holds: ")[2]
    assert holds == (", ".join(sorted({name.split("/")[0] + "/" for name in held})) or "nothing") + "."


def test_a_file_called_train_is_no_split(tmp_path):
    (tmp_path / "train").touch()
    (tmp_path / "validation").mkdir()
    with pytest.raises(UserError, match="no pair"):
        find_splits(tmp_path)


def test_files_come_in_the_order_of_class_and_name_with_their_stamps(tmp_path, make_split):
    split = make_split(tmp_path / "train", 3)
    os.utime(split / "fear" / "001.png", ns=(5, 1_700_000_000_123_456_789))
    listing = list_images(split)
    assert listing.folder == split
    assert listing.files == tuple(f"{name}/{k:03}.png" for name in CLASSES for k in range(3))
    assert listing.labels == tuple(label for label in range(7) for _ in range(3))
    assert listing.stamps == tuple(
        ((split / file).stat().st_size, (split / file).stat().st_mtime_ns) for file in listing.files
    )
    assert listing.stamps[7][1] == 1_700_000_000_123_456_789
    assert listing.renamed == {}
    assert listing.merged == {}


def test_labels_follow_the_canonical_order_whatever_the_folders_are_called(tmp_path, make_split):
    # By these names the folders would sort: Joy, Neutral, SADNESS, afraid, anger, disgusted, surprised.
    given = {
        "anger": "angry",
        "disgusted": "disgust",
        "afraid": "fear",
        "Joy": "happy",
        "Neutral": "neutral",
        "SADNESS": "sad",
        "surprised": "surprise",
    }
    listing = list_images(make_split(tmp_path / "train", 1, list(given)))
    assert dict(zip((file.split("/")[0] for file in listing.files), listing.labels, strict=True)) == {
        "anger": 0,
        "disgusted": 1,
        "afraid": 2,
        "Joy": 3,
        "Neutral": 4,
        "SADNESS": 5,
        "surprised": 6,
    }
    assert listing.renamed == given


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Anger", "angry"), ("happiness", "happy"), ("Fearful", "fear"), ("sadness", "sad"), ("SURPRISED", "surprise")],
)
def test_synonyms(tmp_path, make_split, name, expected):
    listing = list_images(make_split(tmp_path / "train", 1, [name if c == expected else c for c in CLASSES]))
    assert listing.renamed == {name: expected}
    assert counts(listing) == dict.fromkeys(CLASSES, 1)


def test_folders_of_one_class_are_merged(tmp_path, make_split):
    split = make_split(tmp_path / "train", 2, [*CLASSES, "Angry", "anger", "HAPPY"])
    if len(list(split.iterdir())) < 10:
        pytest.skip("this file system does not tell upper from lower case")
    listing = list_images(split)
    assert counts(listing) == {**dict.fromkeys(CLASSES, 2), "angry": 6, "happy": 4}
    assert listing.merged == {"angry": ("Angry", "anger", "angry"), "happy": ("HAPPY", "happy")}
    assert listing.files[:6] == tuple(f"{name}/{k:03}.png" for name in ("Angry", "anger", "angry") for k in range(2))


def test_what_is_no_image_is_passed_over(tmp_path, make_split):
    split = make_split(tmp_path / "train", 1)
    before = list_images(split)
    for name in ("Thumbs.db", ".DS_Store", "._000.png", ".hidden.jpg", "notes.txt", "png"):
        (split / "angry" / name).write_text("no image")
    (split / "angry" / "folder.png").mkdir()
    (split / ".ipynb_checkpoints").mkdir()
    (split / "labels.csv").touch()
    assert list_images(split) == before


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png", ".bmp", ".JPG", ".Jpeg"])
def test_images_are_known_by_their_suffix(tmp_path, make_split, suffix):
    assert suffix.lower() in SUFFIXES
    split = make_split(tmp_path / "train", 1)
    (split / "sad" / f"x{suffix}").touch()
    assert f"sad/x{suffix}" in list_images(split).files


def test_a_link_to_an_image_is_an_image_and_one_that_leads_nowhere_is_not_lost(tmp_path, make_split):
    split = make_split(tmp_path / "train", 1)
    (split / "sad" / "to_image.png").symlink_to(split / "happy" / "000.png")
    (split / "sad" / "to_nothing.png").symlink_to(tmp_path / "gone.png")
    assert {"sad/to_image.png", "sad/to_nothing.png"} < set(list_images(split).files)


def test_a_class_folder_may_be_a_link(tmp_path, make_split):
    plain = make_split(tmp_path / "train", 1)
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in CLASSES:
        (linked / name).symlink_to(plain / name, target_is_directory=True)
    assert list_images(linked).files == list_images(plain).files


def test_an_unknown_class_folder_names_the_classes_and_the_flag(tmp_path, make_split):
    split = make_split(tmp_path / "train", 1, [*CLASSES, "contempt", "boredom"])
    with pytest.raises(UserError) as error:
        list_images(split)
    for part in (str(split), "'boredom', 'contempt'", ", ".join(CLASSES), "data.ignore=[boredom,contempt]"):
        assert part in str(error.value)


def test_folders_can_be_ignored(tmp_path, make_split):
    split = make_split(tmp_path / "train", 1, [*CLASSES, "contempt", "boredom"])
    listing = list_images(split, ["contempt", "boredom"])
    assert counts(listing) == dict.fromkeys(CLASSES, 1)


def test_empty_and_missing_classes_are_named_together_and_told_apart(tmp_path, make_split):
    split = make_split(tmp_path / "train", 1, [c for c in CLASSES if c not in ("fear", "sad")])
    (split / "sad").mkdir()
    (split / "sad" / "face.heic").touch()
    with pytest.raises(UserError) as error:
        list_images(split)
    for part in (str(split), "fear (no such folder)", "sad (the folder holds none)", ".jpg", "data.root", "sad/"):
        assert part in str(error.value)


def test_real_folders_are_listed_whole(real_root):
    layout = find_splits(real_root)
    for split in (layout.train, layout.validation):
        listing = list_images(split)
        expected = sorted(path.relative_to(split).as_posix() for path in split.glob("*/*.*"))
        assert sorted(listing.files) == expected
        assert all(CLASSES[label] == file.split("/")[0] for file, label in zip(listing.files, listing.labels))  # noqa: B905


def test_real_folders_have_the_published_counts(real_root):
    layout = find_splits(real_root)
    train, validation = list_images(layout.train), list_images(layout.validation)
    if len(train.files) != 28_709 or len(validation.files) != 3_589:
        pytest.skip("FER_EXP_DATA is another split than FER2013's Training and PublicTest")
    assert [train.labels.count(label) for label in range(7)] == [3995, 436, 4097, 7215, 4965, 4830, 3171]
    assert [validation.labels.count(label) for label in range(7)] == [467, 56, 496, 895, 607, 653, 415]
