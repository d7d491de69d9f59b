"""A list names the files that were put on it, whatever they are called, or says which lines name none."""

import os
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_exp.data.exclusions import as_line, read_exclusions, write_exclusions
from fer_exp.errors import UserError

ODD = [
    "two\nlines.jpg",
    "# no comment.jpg",
    "a # b.jpg",
    '"quoted".jpg',
    "it's.jpg",
    " blanks .jpg ",
    "back\\slash.jpg",
    "page\u2028end\x85.jpg",
    "😀 表情.jpg",
    "\\n.jpg",
]
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems forbid such names, or change them")


def put(root: Path, *names: str) -> list[str]:
    paths = [f"train/sad/{name}" for name in names]
    (root / "train/sad").mkdir(parents=True, exist_ok=True)
    for path in paths:
        (root / path).touch()
    return paths


@only_linux
@pytest.mark.parametrize("reason", ["", "  # same pixels as train/sad/a # b.jpg", ' # "', "  #"])
def test_files_of_odd_names_are_found_again(tmp_path, reason):
    paths = put(tmp_path, *ODD, os.fsdecode(b"\xff\xfe.jpg"))
    # Each of these lines begins with another file's name.
    put(tmp_path, "a", "two", '"quoted"', " blanks .jpg", "back")
    write_exclusions(tmp_path / "list.txt", [as_line(path) + reason for path in paths])
    assert read_exclusions(tmp_path / "list.txt", tmp_path) == set(paths)
    assert (tmp_path / "list.txt").read_text(encoding="utf-8").count("\n") == len(paths)


def test_usual_names_stand_in_a_list_as_they_are():
    for path in ("train/sad/1.jpg", "val/Happy faces/grüße (2).jpg", "train/sad/#1.jpg", "train/sad/表情.png"):
        assert as_line(path) == path


names = st.binary(min_size=1, max_size=30).map(os.fsdecode) | st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("#\"' \\\n\r\u2028\ufeff"), min_size=1, max_size=30
)
names = names.filter(lambda name: not set(name) & {"/", "\0"} and name not in (".", ".."))


@only_linux
@settings(derandomize=True, deadline=None, max_examples=100)
@given(on_list=st.sets(names, min_size=1, max_size=5), others=st.sets(names, max_size=5))
def test_any_names_are_read_as_they_were_written(on_list, others):
    with tempfile.TemporaryDirectory() as folder:
        paths = put(Path(folder), *on_list)
        put(Path(folder), *others)
        write_exclusions(Path(folder, "list"), [f"{as_line(path)}  # a reason" for path in paths])
        assert read_exclusions(Path(folder, "list"), Path(folder)) == set(paths)


def read_lines(root: Path, *lines: str) -> frozenset[str]:
    (root / "list").write_text("\n".join(lines), encoding="utf-8")
    return read_exclusions(root / "list", root)


@pytest.mark.parametrize(
    "line", ["./train/sad/1.jpg", "train//sad/1.jpg", "train/sad/../sad/1.jpg", "train\\sad\\1.jpg"]
)
def test_other_spellings_of_a_path_name_the_same_file(tmp_path, line):
    put(tmp_path, "1.jpg")
    assert read_lines(tmp_path, line) == {"train/sad/1.jpg"}


def test_a_list_with_the_line_ends_and_the_mark_of_another_system(tmp_path):
    paths = put(tmp_path, "1.jpg", "2.jpg")
    (tmp_path / "list").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(paths).encode())
    assert read_exclusions(tmp_path / "list", tmp_path) == set(paths)


@pytest.mark.parametrize(
    "line",
    ["train/sad", "../{root}/train/sad/1.jpg", "{root_path}/train/sad/1.jpg", "train/sad/2.jpg", '"\\ud83d"', "\0"],
)
def test_a_line_that_would_leave_nothing_out_is_an_error(tmp_path, line):
    put(tmp_path, "1.jpg")
    line = line.format(root=tmp_path.name, root_path=tmp_path)
    with pytest.raises(UserError, match=r"data\.exclude=.*list: 1 of its 2 lines name no file in data\.root=") as error:
        read_lines(tmp_path, "train/sad/1.jpg", line)
    assert "relative to data.root" in str(error.value)


@only_linux
def test_a_link_that_cannot_be_followed_is_on_the_list_as_any_file(tmp_path):
    put(tmp_path)
    (tmp_path / "train/sad/link.jpg").symlink_to("x" * 300)  # a name that no file can have
    assert read_lines(tmp_path, "train/sad/link.jpg") == {"train/sad/link.jpg"}


def test_an_image_given_as_a_list_is_refused_in_words_that_can_be_printed(tmp_path):
    (tmp_path / "face.jpg").write_bytes(bytes(range(256)) * 4)
    with pytest.raises(UserError, match="name no file") as error:
        read_exclusions(tmp_path / "face.jpg", tmp_path)
    assert "\\xff" in str(error.value).encode().decode()
    assert "\0" not in str(error.value)


@pytest.mark.parametrize("file", ["~nobody at all/list", ""])
def test_a_list_that_cannot_be_there(tmp_path, monkeypatch, file):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"data\.exclude=.*the list cannot be read"):
        read_exclusions(file, tmp_path)
