"""Synthetic images: repeatable, never half written, learnable but not trivial."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fer_exp.data.sources.synthetic import CLASSES, draw_images, write_images


def read(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.png"))}


def draw_many(count, split):
    labels = np.arange(count) % len(CLASSES)
    return draw_images(labels, [[0, split, k] for k in range(count)]).reshape(count, -1), labels


@pytest.mark.parametrize("label", range(len(CLASSES)))
def test_image_depends_on_its_label_and_seed_alone(label):
    image = draw_images(np.array([label]), [[5]])
    assert image.shape == (1, 48, 48)
    assert image.dtype == np.uint8
    assert image.std() > 5
    among_others = draw_images(np.array([0, label, 6]), [[1], [5], [2]])
    assert (among_others[1] == image[0]).all()
    assert (draw_images(np.array([(label + 1) % 7]), [[5]]) != image).any()


def test_larger_dataset_begins_with_the_smaller_one_and_no_image_repeats(tmp_path):
    write_images(tmp_path / "small", train=30, validation=16, seed=3)
    write_images(tmp_path / "large", train=50, validation=21, seed=3)
    write_images(tmp_path / "other", train=30, validation=16, seed=4)
    small, large, other = (read(tmp_path / name) for name in ("small", "large", "other"))
    assert small.items() <= large.items()
    assert len({*large.values(), *other.values()}) == len(large) + len(other) == 71 + 46
    counts = [len(list((tmp_path / "small" / "train" / name).iterdir())) for name in CLASSES]
    assert counts == [5, 5, 4, 4, 4, 4, 4]


@pytest.mark.parametrize("counts", [{"train": 6, "validation": 7}, {"train": 7, "validation": 0}])
def test_too_few_images_are_refused(counts, tmp_path):
    with pytest.raises(ValueError, match="7"):
        write_images(tmp_path / "faces", **counts)
    assert not list(tmp_path.iterdir())


def test_interrupted_write_leaves_nothing(tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_images(tmp_path / "faces", train=14, validation=7, progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(FileExistsError):
        write_images(tmp_path, train=7, validation=7)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_linear_model_learns_something_but_not_much():
    train, train_labels = draw_many(700, split=0)
    validation, validation_labels = draw_many(210, split=1)
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.003, tol=1e-2, max_iter=500))
    accuracy = linear.fit(train, train_labels).score(validation, validation_labels)
    assert 0.25 < accuracy < 0.6, f"a linear model reaches {accuracy:.1%}"
