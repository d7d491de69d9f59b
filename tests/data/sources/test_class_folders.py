"""Where the splits lie, which folder is which class, and what is said when they are not as expected."""

import logging
import os
import shlex
import sys
import tempfile
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_exp.data.cache import cache_key
from fer_exp.data.sources.class_folders import _CLASS_OF, CLASSES, NESTINGS, SUFFIXES, find_splits, list_images
from fer_exp.errors import UserError

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems forbid such names, or change them")


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


@pytest.mark.parametrize("root", [None, ""])
def test_an_empty_root_is_not_the_folder_one_is_in(tmp_path, make_split, monkeypatch, root):
    make_split(tmp_path / "train", 1)
    make_split(tmp_path / "validation", 1)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"data\.root is empty.*data\.root=DIR"):
        find_splits(root)


def test_a_slash_at_the_end_of_a_root_makes_no_difference(data_root):
    assert find_splits(f"{data_root}/") == find_splits(f"{data_root}//") == find_splits(data_root)


def test_the_home_of_a_user_whom_there_is_not(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"data\.root=~nobody at all/faces: there is no such folder"):
        find_splits("~nobody at all/faces")


def test_a_root_that_is_a_link_in_a_circle(tmp_path):
    (tmp_path / "faces").symlink_to("faces")
    with pytest.raises(UserError, match=r"data\.root=.*faces: cannot be opened \(Too many levels of symbolic links\)"):
        find_splits(tmp_path / "faces")


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("train", "give the folder above, data.root={root}."),
        ("validation/", "give the folder above, data.root={root}."),
        (".", "give the folder above, data.root={root}."),
        ("lone", "they belong into folders train/ and validation/"),
    ],
)
def test_the_training_folder_given_as_root(data_root, make_split, monkeypatch, given, hint):
    make_split(data_root / "lone/faces", 1)
    (data_root / "lone/faces").rename(data_root.parent / "faces_alone")
    monkeypatch.chdir(data_root / "train")
    root = {".": ".", "lone": data_root.parent / "faces_alone"}.get(given, f"{data_root}/{given}")
    with pytest.raises(UserError) as error:
        find_splits(root)
    assert hint.format(root=data_root) in str(error.value)


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


def test_links_in_a_circle_and_to_no_image_do_not_end_the_listing(tmp_path, make_split):
    split = make_split(tmp_path / "train", 1)
    for name in ("circle.png", "circle"):
        (split / "sad" / name).symlink_to(name)
    (split / "sad/through_a_file.png").symlink_to("000.png/x.png")
    (split / "sad/to_itself").symlink_to(split / "sad", target_is_directory=True)
    (split / "sad/below").mkdir()
    (split / "sad/below/up").symlink_to("../..", target_is_directory=True)
    (split / "circle").symlink_to("circle")
    with pytest.raises(UserError, match=r"sad/below/up/angry/ lies in a folder of sad"):
        list_images(split)
    (split / "sad/below/up").unlink()
    (split / "sad/below/up").symlink_to("..", target_is_directory=True)
    listing = list_images(split)
    in_sad = [file for file in listing.files if file.startswith("sad/")]
    assert in_sad == ["sad/000.png", "sad/circle.png", "sad/through_a_file.png"]
    assert listing.stamps[listing.files.index("sad/circle.png")] == (0, 0)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes in folders are POSIX's")
@pytest.mark.parametrize("is_link", [False, True])
def test_a_pipe_is_not_waited_for(tmp_path, make_split, is_link):
    split = make_split(tmp_path / "train", 1)
    pipe = (tmp_path if is_link else split / "sad") / "pipe.png"
    os.mkfifo(pipe)
    if is_link:
        (split / "sad/pipe.png").symlink_to(pipe)
    assert "sad/pipe.png" not in list_images(split).files


@pytest.mark.parametrize("target", ["gone", "happy", "a_file"])
def test_a_class_folder_that_is_a_link_to_no_folder_is_named(tmp_path, make_split, target):
    split = make_split(tmp_path / "train", 1, CLASSES[1:])
    (split / "a_file").touch()
    (split / "angry").symlink_to(target if target != "happy" else "angry")
    with pytest.raises(UserError, match=r"no images of angry \(a link that leads to no folder\)"):
        list_images(split)


def put(split: Path, *files: str) -> None:
    for file in files:
        (split / file).parent.mkdir(parents=True, exist_ok=True)
        (split / file).touch()


def test_folders_below_a_class_folder_belong_to_the_class(tmp_path, make_split):
    split = make_split(tmp_path / "train", 1)
    put(
        split,
        "happy/person 1/b.jpg",
        "happy/person 1/2013/a.png",
        "happy/a.jpg",
        "happy/Joy/c.jpg",
        "happy/x.jpg/d.jpg",
    )
    listing = list_images(split)
    assert [file for file in listing.files if file.startswith("happy")] == [
        "happy/000.png",
        "happy/Joy/c.jpg",
        "happy/a.jpg",
        "happy/person 1/2013/a.png",
        "happy/person 1/b.jpg",
        "happy/x.jpg/d.jpg",
    ]
    assert counts(listing) == {**dict.fromkeys(CLASSES, 1), "happy": 6}
    assert list(listing.labels) == sorted(listing.labels)
    assert listing.renamed == {}


def test_a_class_may_have_its_images_in_folders_below_alone(tmp_path, make_split):
    split = make_split(tmp_path / "train", 1, CLASSES[1:])
    put(split, "angry/a/b/c/face.jpg")
    assert list_images(split).files[0] == "angry/a/b/c/face.jpg"


def test_hidden_folders_and_those_that_machines_add_are_passed_over(tmp_path, make_split):
    split = make_split(tmp_path / "train", 1)
    before = list_images(split)
    put(split, "sad/.thumbnails/a.jpg", "sad/__MACOSX/a.jpg", "sad/@eaDir/a.jpg/THUMB.jpg", "__MACOSX/sad/a.jpg")
    assert list_images(split) == before


@pytest.mark.parametrize("inner", ["happy", "Joy", "one person/HAPPY"])
def test_a_folder_of_one_class_within_another_is_refused(tmp_path, make_split, inner):
    split = make_split(tmp_path / "train", 1)
    put(split, f"angry/{inner}/a.jpg")
    with pytest.raises(UserError) as error:
        list_images(split)
    setting = f'"data.ignore=[angry/{inner}]"' if " " not in inner else f"\"data.ignore=['angry/{inner}']\""
    assert str(error.value) == (
        f"{split}: which class is meant? angry/{inner}/ lies in a folder of angry and has a name of happy. Move or "
        f"rename the folder, or pass it over with {setting}."
    )
    assert f"angry/{inner}/a.jpg" not in list_images(split, [f"angry/{inner}"]).files


def test_folders_in_two_classes_are_named_together(tmp_path, make_split):
    split = make_split(tmp_path / "train", 1)
    for k in range(15):
        put(split, f"angry/{k:02}/sad/a.jpg")
    with pytest.raises(UserError) as error:
        list_images(split)
    assert str(error.value).count("has a name of sad") == 12
    assert "; and 3 more. " in str(error.value)
    assert "data.ignore" not in str(error.value)


def test_a_link_to_the_folder_of_another_class_is_refused(tmp_path, make_split):
    split = make_split(tmp_path / "train", 1)
    (split / "angry/more").symlink_to(split / "fear", target_is_directory=True)
    with pytest.raises(UserError, match=r"angry/more/ is the same folder as fear/\. .*data\.ignore=\[angry/more\]"):
        list_images(split)
    assert counts(list_images(split, ["angry/more"])) == dict.fromkeys(CLASSES, 1)


def test_a_folder_that_is_there_by_two_ways_is_listed_once_and_by_its_own(tmp_path, make_split):
    split = make_split(tmp_path / "train", 2)
    before = list_images(split).files
    (split / "anger").symlink_to(split / "angry", target_is_directory=True)
    (split / "angry/again").symlink_to(split / "angry", target_is_directory=True)
    assert list_images(split).files == before


def test_a_setting_that_is_advised_is_read_by_the_command_line_as_it_is_meant(tmp_path, make_split):
    odd = ["very happy", "8", "a,b", "x=y [1]", "ärger", "~"]
    split = make_split(tmp_path / "train", 1, [*CLASSES, *odd])
    with pytest.raises(UserError, match="is the name of none of the seven classes") as error:
        list_images(split)
    (argument,) = shlex.split(str(error.value).partition("pass it over with ")[2].removesuffix("."))
    (override,) = OverridesParser.create().parse_overrides([argument])
    assert sorted(map(str, override.value())) == sorted(odd)
    assert counts(list_images(split, [str(name) for name in override.value()])) == dict.fromkeys(CLASSES, 1)


@pytest.mark.parametrize("name", ["it's", '"quoted"', "two\nlines", "back\\slash", "$HOME"])
@only_linux
def test_of_a_name_that_is_hard_to_type_no_setting_is_advised(tmp_path, make_split, name):
    split = make_split(tmp_path / "train", 1, [*CLASSES, name])
    with pytest.raises(UserError, match=r"; rename the folder\.$") as error:
        list_images(split)
    assert len(str(error.value).splitlines()) == 1


def test_of_many_unknown_folders_some_are_named(tmp_path, make_split):
    split = make_split(tmp_path / "train", 1, [*CLASSES, *map(str, range(10, 30))])
    with pytest.raises(UserError, match=r"'10', .* '21' and 8 more is the name of none .*; rename the folder\.$"):
        list_images(split)


@only_linux
def test_names_that_are_no_text_are_listed_and_told(tmp_path, make_split):
    root = tmp_path / os.fsdecode(b"my \xff\nfaces")
    for split in ("train", "validation"):
        make_split(root / split, 1)
    name = os.fsdecode(b"\xff\xfe\n.jpg")
    put(root / "train", f"sad/{name}")
    listing = list_images(find_splits(root).train)
    assert f"sad/{name}" in listing.files
    assert (listing.folder / listing.files[-2]).exists()
    (root / "train/angry/000.png").unlink()
    for ask in (lambda: list_images(root / "train"), lambda: find_splits(root / "train/sad")):
        with pytest.raises(UserError) as error:
            ask()
        str(error.value).encode()
        assert "my \\xff\\nfaces" in str(error.value)
        assert len(str(error.value).splitlines()) == 1
    assert "\\xff\\xfe\\n.jpg" in str(error.value)


@pytest.mark.parametrize("locked", ["train/sad", "train/sad/below", "train", "."])
def test_a_folder_that_may_not_be_read_is_named(public_path, make_split, unprivileged, locked):
    for split in ("train", "validation"):
        make_split(public_path / "faces" / split, 1)
    put(public_path / "faces/train", "sad/below/a.jpg")
    (public_path / "faces" / locked).chmod(0)
    try:
        with unprivileged(), pytest.raises(UserError) as error:
            list_images(find_splits(public_path / "faces").train)
    finally:
        (public_path / "faces" / locked).chmod(0o755)
    assert f"{public_path / 'faces' / locked}: cannot be read (Permission denied)" in str(error.value)
    assert "data.root" in str(error.value)


def test_a_root_to_which_there_is_no_way(public_path, make_split, unprivileged):
    make_split(public_path / "locked/faces/train", 1)
    (public_path / "locked").chmod(0)
    try:
        with (
            unprivileged(),
            pytest.raises(UserError, match=r"data\.root=.*faces: cannot be opened \(Permission denied"),
        ):
            find_splits(public_path / "locked/faces")
    finally:
        (public_path / "locked").chmod(0o755)


def test_files_of_a_folder_that_may_be_listed_only_are_listed(public_path, make_split, unprivileged):
    split = make_split(public_path / "train", 1)
    (split / "sad").chmod(0o444)
    try:
        with unprivileged():
            listing = list_images(split)
    finally:
        (split / "sad").chmod(0o755)
    assert listing.stamps[listing.files.index("sad/000.png")] == (0, 0)


parts = st.sampled_from(
    ["angry", "HAPPY", "Joy", "sad", "fear", "a", "Person 1", ".hidden", "__MACOSX", "x.jpg", "表情"]
) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
stems = st.sampled_from(["", "a", "b.tar", ".a", "😀", "a b", "two\nlines"]) | st.binary(max_size=6).map(os.fsdecode)
suffixes = st.sampled_from([".jpg", ".PNG", ".Jpeg", ".txt", "", ".", ".jpg ", ".jpg.part", "jpg", ".heic"])
trees = st.lists(st.tuples(st.lists(parts, max_size=4), stems, suffixes), max_size=12)


def walked(split: Path) -> list[tuple[int, str]] | None:
    """(label, path) of all images, by a walk without cunning; None where a folder's class is not clear."""
    found = []
    for here, folders, files in os.walk(split):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in ("__MACOSX", "@eaDir")]
        below = Path(here).relative_to(split).parts
        label = CLASSES.index(_CLASS_OF[below[0].lower()]) if below else None
        for name in folders:
            named = _CLASS_OF.get(name.lower())
            if (label is None and named is None) or (None not in (label, named) and named != CLASSES[label]):
                return None
        if label is not None:
            images = [n for n in files if not n.startswith(".") and n.lower().endswith(tuple(SUFFIXES))]
            found += [(label, "/".join([*below, name])) for name in images]
    return sorted(found)


@only_linux
@settings(derandomize=True, deadline=None, max_examples=100)
@given(trees)
def test_any_tree_is_listed_as_a_plain_walk_lists_it_or_refused(tree):
    with tempfile.TemporaryDirectory() as folder:
        split = Path(folder)
        put(split, *(f"{name}/0.jpg" for name in CLASSES))
        for folders, stem, suffix in tree:
            with suppress(OSError, ValueError):  # names that cannot be, or that are taken
                put(split, "/".join([*folders, stem + suffix]))
        expected = walked(split)
        if expected is None:
            with pytest.raises(UserError) as error:
                list_images(split)
            str(error.value).encode()
        else:
            listing = list_images(split)
            assert list(zip(listing.labels, listing.files, strict=True)) == expected


@pytest.mark.slow
def test_two_hundred_thousand_files_are_listed_in_seconds(tmp_path):
    for name in CLASSES:
        (tmp_path / name).mkdir()
    for k in range(200_000):
        os.close(os.open(tmp_path / CLASSES[k % 7] / f"{k:06}.jpg", os.O_CREAT | os.O_WRONLY))
    start = time.process_time()
    listing = list_images(tmp_path)
    key = cache_key(listing)
    assert time.process_time() - start < 10  # about 2; room for a slow machine
    assert len(listing.files) == len(set(listing.files)) == 200_000
    tracemalloc.start()
    assert cache_key(list_images(tmp_path)) == key
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300e6


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
    for part in (str(split), "'boredom', 'contempt'", ", ".join(CLASSES), '"data.ignore=[boredom,contempt]"'):
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
