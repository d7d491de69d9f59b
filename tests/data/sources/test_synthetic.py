"""The drawn faces: the same for the same seed, never half written, and neither trivial nor hopeless."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fer_exp.data.sources import synthetic
from fer_exp.data.sources.synthetic import CLASSES, SIZE, draw_face, write_faces


def read(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.png"))}


def draw_many(count: int, split: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(count) % len(CLASSES)
    faces = [draw_face(CLASSES[j], np.random.default_rng([split, k])) for k, j in enumerate(labels)]
    return np.stack(faces).reshape(count, -1), labels


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "faces"
    write_faces(root, train=30, validation=16, seed=3)
    return root


def test_classes_are_the_seven_in_alphabetical_order():
    assert CLASSES == ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")


@pytest.mark.parametrize("expression", CLASSES)
def test_a_face_is_a_grey_picture_with_contrast(expression):
    face = draw_face(expression, np.random.default_rng(0))
    assert face.shape == (SIZE, SIZE) == (48, 48)
    assert face.dtype == np.uint8
    assert face.std() > 5


def test_a_face_is_decided_by_its_generator():
    first, again, other = (draw_face("fear", np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_an_unknown_expression_is_refused_with_the_choice():
    with pytest.raises(ValueError, match=r"'bored'.*angry, disgust, fear, happy, neutral, sad, surprise"):
        draw_face("bored", np.random.default_rng(0))


def test_layout_and_counts_as_even_as_possible(faces):
    assert sorted(path.name for path in faces.iterdir()) == ["train", "validation"]
    for split, counts in {"train": [5, 5, 4, 4, 4, 4, 4], "validation": [3, 3, 2, 2, 2, 2, 2]}.items():
        assert tuple(sorted(path.name for path in (faces / split).iterdir())) == CLASSES
        assert [len(list((faces / split / name).iterdir())) for name in CLASSES] == counts
    assert (faces / "train" / "angry" / "00004.png").is_file()


def test_files_hold_grey_48_by_48_pictures(faces):
    with Image.open(faces / "validation" / "surprise" / "00001.png") as picture:
        assert (picture.mode, picture.size) == ("L", (48, 48))


def test_the_same_seed_gives_the_same_bytes(faces, tmp_path):
    write_faces(tmp_path / "again", train=30, validation=16, seed=3)
    assert read(tmp_path / "again") == read(faces)


def test_another_seed_gives_other_faces(faces, tmp_path):
    write_faces(tmp_path / "other", train=30, validation=16, seed=4)
    other = read(tmp_path / "other")
    assert other.keys() == read(faces).keys()
    assert not set(other.values()) & set(read(faces).values())


def test_a_larger_set_begins_with_the_smaller_one(faces, tmp_path):
    write_faces(tmp_path / "larger", train=50, validation=21, seed=3)
    larger, smaller = read(tmp_path / "larger"), read(faces)
    assert len(larger) == 71
    assert smaller.items() <= larger.items()


def test_no_two_faces_are_the_same_within_or_across_splits(faces):
    pictures = read(faces).values()
    assert len(set(pictures)) == len(pictures) == 46


def test_progress_counts_every_face(tmp_path):
    calls: list[tuple[int, int]] = []
    write_faces(tmp_path / "faces", train=8, validation=7, progress=lambda *call: calls.append(call))
    assert calls == [(done, 15) for done in range(1, 16)]


@pytest.mark.parametrize("counts", [{"train": 6}, {"validation": 0}])
def test_a_split_without_room_for_every_class_is_refused(counts, tmp_path):
    with pytest.raises(ValueError, match="too few: give at least 7"):
        write_faces(tmp_path / "faces", **counts)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def interrupt(done: int, total: int) -> None:
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_faces(tmp_path / "faces", train=14, validation=7, progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_nothing_is_under_the_root_until_the_set_is_complete(tmp_path):
    root = tmp_path / "new" / "faces"
    seen: list[bool] = []
    write_faces(root, train=7, validation=7, progress=lambda *_: seen.append(root.exists()))
    assert seen == [False] * 14
    assert len(read(root)) == 14


def test_the_first_of_two_writers_wins(tmp_path):
    root = tmp_path / "faces"

    def let_another_be_first(done: int, total: int) -> None:
        if done == total:
            (root / "train").mkdir(parents=True)
            (root / "train" / "mark").touch()

    write_faces(root, train=7, validation=7, progress=let_another_be_first)
    assert [path.name for path in root.rglob("*")] == ["train", "mark"]
    assert list(tmp_path.iterdir()) == [root]


def test_a_set_that_is_there_is_not_drawn_again(faces, monkeypatch):
    monkeypatch.setattr(synthetic, "draw_face", lambda *_: pytest.fail("drawn again"))
    write_faces(faces, train=30, validation=16, seed=3)


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(FileExistsError, match="choose another folder"):
        write_faces(tmp_path, train=7, validation=7)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_pixels_alone_tell_something_but_not_much():
    train, train_labels = draw_many(1400, split=0)
    validation, validation_labels = draw_many(350, split=1)
    # Without strong regularisation a linear model learns the 1400 faces by heart and does worse on others.
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.003, tol=1e-2, max_iter=500))
    accuracy = linear.fit(train, train_labels).score(validation, validation_labels)
    assert 0.25 < accuracy < 0.6, f"a linear model reaches {accuracy:.1%}"
