"""Labels that are shares of several classes, from a file."""

from pathlib import Path

import pytest
import torch

from fer_exp.data.dataset import make_dataset
from fer_exp.data.soft_labels import read_soft_labels
from fer_exp.data.sources.class_folders import CLASSES
from fer_exp.errors import UserError

HEADER = "file," + ",".join(CLASSES)


@pytest.fixture
def images():
    labels = torch.tensor([0, 3, 6])
    files = ["angry/1.png", "happy/a, b.png", "surprise/3.png"]
    return make_dataset(torch.zeros(3, 1, 48, 48, dtype=torch.uint8), labels, CLASSES, files)


def write(folder, *lines):
    file = folder / "votes.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_votes_become_shares_and_others_keep_their_folder(images, tmp_path):
    file = write(tmp_path, HEADER, "train/angry/1.png,6,1,0,0,1,2,0", '"train/happy/a, b.png",0,0,0,0.25,0.25,0,0')
    labels, count = read_soft_labels(file, images, Path("train"))
    assert count == 2
    assert labels[0].tolist() == pytest.approx([0.6, 0.1, 0, 0, 0.1, 0.2, 0])
    assert labels[1].tolist() == pytest.approx([0, 0, 0, 0.5, 0.5, 0, 0])
    assert labels[2].tolist() == [0, 0, 0, 0, 0, 0, 1]


def test_columns_are_known_by_name_and_others_passed_over(images, tmp_path):
    names = ",".join(reversed(CLASSES))
    file = write(tmp_path, f"usage,{names},file", "Training,7,0,0,0,0,0,3,train/angry/1.png")
    labels, _ = read_soft_labels(file, images, Path("train"))
    assert labels[0, CLASSES.index("surprise")] == pytest.approx(0.7)
    assert labels[0, CLASSES.index("angry")] == pytest.approx(0.3)


def test_rows_of_other_folders_are_passed_over(images, tmp_path):
    file = write(tmp_path, HEADER, "validation/angry/1.png,0,0,0,0,0,0,1", "train/angry/1.png,1,0,0,0,0,0,1")
    labels, count = read_soft_labels(file, images, Path("train"))
    assert count == 1
    assert labels[0, 0] == 0.5


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["file,angry,happy", "train/angry/1.png,1,0"], "has no column disgust, fear, neutral, sad, surprise"),
        ([HEADER, "train/angry/1.png,1,0,0,0,x,0,0"], "expected numbers from 0 up.*\n  line 2: train/angry/1.png"),
        ([HEADER, "train/angry/1.png,0,0,0,0,0,0,0"], "one of them more than 0"),
        ([HEADER, "train/angry/1.png,-1,0,0,0,2,0,0"], "expected numbers from 0 up"),
        ([HEADER, "train/angry/1.png,nan,0,0,0,2,0,0"], "expected numbers from 0 up"),
        ([HEADER, "train/angry/1.png,1,0,0"], "expected numbers from 0 up"),
        (
            [HEADER, "angry/1.png,1,0,0,0,0,0,0"],
            "none of its 1 rows names a training image.*angry/1.png.*as train/angry",
        ),
        (
            [HEADER, "train/angry/1.png,1,0,0,0,0,0,0", "train/angry/1.png,0,0,0,0,0,1,0"],
            "one row for each file.*\n  line 3: train/angry/1.png",
        ),
        ([HEADER], "none of its 0 rows"),
        ([], "has no column file"),
    ],
)
def test_a_file_that_is_none_is_refused_in_words(images, tmp_path, lines, said):
    with pytest.raises(UserError, match=f"(?s)data.soft_labels=.*{said}"):
        read_soft_labels(write(tmp_path, *lines), images, Path("train"))


def test_a_file_that_is_not_there_is_said(images, tmp_path):
    with pytest.raises(UserError, match=r"cannot be read.*expected a CSV file"):
        read_soft_labels(tmp_path / "none.csv", images, Path("train"))
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="cannot be read"):
        read_soft_labels(tmp_path / "binary.csv", images, Path("train"))
