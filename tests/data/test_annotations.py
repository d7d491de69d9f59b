"""Exclusion lists and soft labels."""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_exp.data.annotations import (
    check_exclusions,
    format_exclusion,
    read_exclusions,
    read_soft_labels,
    write_exclusions,
)
from fer_exp.data.classes import FER_CLASSES
from fer_exp.errors import UserError

file_names = st.binary(min_size=1, max_size=30).map(os.fsdecode) | st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("#\"' \\\n\r\u2028\ufeff"), min_size=1, max_size=30
)
file_names = file_names.filter(lambda name: not {*name} & {"/", "\0"} and name not in (".", ".."))


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
@settings(derandomize=True, deadline=None, max_examples=25)
@given(st.sets(file_names, min_size=1, max_size=5))
def test_any_names_are_read_as_written(listed):
    names = {f"train/sad/{name}" for name in listed}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "list.txt")
        write_exclusions(file, ["# a comment", *(f"{format_exclusion(name)}  # a reason" for name in names)])
        assert read_exclusions(file) == names
        assert file.read_text(encoding="utf-8").count("\n") == len(names) + 1


def test_usual_names_are_written_as_they_are():
    for name in ("train/sad/1.jpg", "val/Happy faces/grüße (2).jpg", "train/sad/表情.png"):
        assert format_exclusion(name) == name


def test_other_spellings_of_a_path_and_other_systems_line_ends(tmp_path):
    lines = ["./train/1.jpg", "train//2.jpg", "train/x/../3.jpg", "train\\4.jpg", "", "train/5.jpg # reason"]
    (tmp_path / "list").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert read_exclusions(tmp_path / "list") == {f"train/{i}.jpg" for i in range(1, 6)}


def test_lines_that_match_no_image_are_reported_and_a_list_of_other_data_is_refused(tmp_path, caplog):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/other.txt").touch()
    listed = frozenset({"train/1.jpg", "train/2.jpg", "train/other.txt"})
    check_exclusions("list", listed, ["train/1.jpg"], tmp_path)
    assert caplog.messages[0].endswith("data.exclude=list: 1 of 3 lines match no image: train/2.jpg")
    with pytest.raises(UserError, match=r"(?s)data\.exclude=list: none of its 1 lines.*gone\.jpg.*data\.root"):
        check_exclusions("list", frozenset({"gone.jpg"}), ["train/1.jpg"], tmp_path)
    with pytest.raises(UserError, match=r"data\.exclude=.*cannot be read"):
        read_exclusions(tmp_path / "missing")


NAMES = ["train/angry/1.png", "train/happy/a, b.png", "train/surprise/3.png"]
HEADER = "file," + ",".join(FER_CLASSES)


@pytest.fixture
def soft(tmp_path):
    """Read soft labels from lines."""

    def read(*lines):
        (tmp_path / "votes.csv").write_text("\n".join(lines) + "\n")
        return read_soft_labels(tmp_path / "votes.csv", NAMES, [0, 3, 6], FER_CLASSES)

    return read


def test_votes_become_probabilities_and_other_images_keep_their_label(soft):
    labels, count = soft(
        HEADER, f"{NAMES[0]},6,1,0,0,1,2,0", f'"{NAMES[1]}",0,0,0,0.25,0.25,0,0', "validation/angry/1.png,0,0,0,0,0,0,1"
    )
    assert count == 2
    assert labels.dtype == np.float32
    np.testing.assert_allclose(labels, [[0.6, 0.1, 0, 0, 0.1, 0.2, 0], [0, 0, 0, 0.5, 0.5, 0, 0], [0] * 6 + [1]], 1e-6)


def test_columns_are_found_by_name(soft):
    labels, _ = soft(f"usage,{','.join(reversed(FER_CLASSES))},file", f"Training,7,0,0,0,0,0,3,{NAMES[0]}")
    np.testing.assert_allclose(labels[0], [0.3, 0, 0, 0, 0, 0, 0.7], 1e-6)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["file,angry,happy", f"{NAMES[0]},1,0"], "disgust occurs 0 times"),
        ([f"{HEADER},happy", f"{NAMES[0]},1,0,0,0,0,0,0,9"], "happy occurs 2 times"),
        ([HEADER, f"{NAMES[0]},1,0,0,0,x,0,0"], "line 2.*train/angry/1.png"),
        ([HEADER, f"{NAMES[0]},0,0,0,0,0,0,0"], "line 2"),
        ([HEADER, f"{NAMES[0]},-1,0,0,0,2,0,0"], "line 2"),
        ([HEADER, f"{NAMES[0]},nan,0,0,0,2,0,0"], "line 2"),
        ([HEADER, f"{NAMES[0]},1e308,1e308,0,0,0,0,0"], "line 2"),
        ([HEADER, f"{NAMES[0]},1,0,0"], "line 2"),
        ([HEADER, f"{NAMES[2]},1,0,0,0,0,0,0", f"{NAMES[0]},0,5,0,5,0,0,0,0,0"], "line 3: more cells"),
        ([HEADER, "angry/1.png,1,0,0,0,0,0,0"], "none of its 1 rows.*train/angry/1.png"),
        ([HEADER, f"{NAMES[0]},1,0,0,0,0,0,0", f"{NAMES[0]},0,0,0,0,0,1,0"], "line 3.*also in line 2"),
        ([HEADER], "has no rows"),
        ([], "file occurs 0 times"),
        ([b"\xff\xfe\0\1".decode("latin-1")], "file occurs 0 times"),
    ],
)
def test_invalid_soft_labels_are_refused(soft, lines, said):
    with pytest.raises(UserError, match=f"(?s)data.soft_labels=.*{said}"):
        soft(*lines)


def test_a_missing_or_binary_file_is_refused(tmp_path, caplog):
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\0\1")
    for name in ("missing.csv", "binary.csv"):
        with pytest.raises(UserError, match="cannot be read"):
            read_soft_labels(tmp_path / name, NAMES, [0, 3, 6], FER_CLASSES)
