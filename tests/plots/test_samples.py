import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg

from fer_exp.plots.samples import samples_figure

CLASSES = ["angry", "happy", "sad"]


@pytest.fixture
def faces():
    """Noise whose first pixel tells the image's index; 12 angry, 3 happy and no sad ones, in mixed order."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (15, 1, 48, 48), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(15)
    return images, rng.permutation([0] * 12 + [1] * 3)


def rows(figure):
    """Return the indices of the images in each row of the grid, from the top, left to right."""
    found = {}
    for picture in figure.axes[0].images:
        left, _, _, top = picture.get_extent()
        found.setdefault(top, []).append((left, int(picture.get_array()[0, 0])))
    return [[index for _, index in sorted(found[top])] for top in sorted(found)]


def test_each_row_holds_distinct_images_of_its_class(faces):
    images, labels = faces
    angry, happy = rows(samples_figure(images, labels, CLASSES))
    assert len(set(angry)) == 7
    assert set(labels[angry]) == {0}
    assert sorted(happy) == list(np.flatnonzero(labels == 1))  # all three, and four blanks


def test_row_stands_beside_the_name_and_count_of_its_class(faces):
    figure = samples_figure(*faces, CLASSES)
    texts = {text.get_text(): text.get_position()[1] for text in figure.axes[0].texts}
    assert list(texts) == ["angry", "12 images", "happy", "3 images", "sad", "0 images"]
    spans = sorted({tuple(picture.get_extent()[2:]) for picture in figure.axes[0].images}, key=lambda span: span[1])
    for (bottom, top), name, count in zip(spans, CLASSES, ("12 images", "3 images"), strict=False):
        assert top < texts[name] < texts[count] < bottom


def test_seed_decides_the_draw_of_each_class_alone(faces):
    images, labels = faces
    first = rows(samples_figure(images, labels, CLASSES, seed=3))
    assert first == rows(samples_figure(images, labels, CLASSES, seed=3))
    assert first != rows(samples_figure(images, labels, CLASSES, seed=4))
    angry_only = labels == 0
    assert rows(samples_figure(images[angry_only], labels[angry_only], CLASSES, seed=3))[0] == first[0]


def test_faces_are_drawn_pixel_for_pixel(faces):
    figure = samples_figure(*faces, CLASSES)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    screen = np.asarray(canvas.buffer_rgba())[..., 0].astype(int)
    for picture in figure.axes[0].images:
        left, right, bottom, top = map(int, picture.get_extent())
        doubled = np.asarray(picture.get_array()).repeat(2, axis=0).repeat(2, axis=1)
        assert np.abs(screen[top:bottom, left:right] - doubled).max() <= 1


def test_long_class_names_and_dollar_signs_stay_left_of_the_faces(faces):
    names = ["contempt $mixed$ with disgust", "happy", "sad"]
    figure = samples_figure(*faces, names)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    faces_begin = min(picture.get_extent()[0] for picture in figure.axes[0].images)
    label = figure.axes[0].texts[0]
    assert label.get_text() == names[0]
    assert not label.get_parse_math()
    assert label.get_window_extent(canvas.get_renderer()).x1 < faces_begin


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 48, 48), np.uint8), np.zeros(2, int), "expected images"),
        (np.zeros((2, 1, 48, 48), np.uint8), np.zeros(3, int), "expected images"),
        (np.zeros((2, 1, 48, 48), np.uint8), np.array([0, 3]), "labels go from 0 to 3"),
        (np.zeros((2, 1, 48, 48), np.uint8), np.array([-1, 0]), "labels go from -1 to 0"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(images, labels, message):
    with pytest.raises(ValueError, match=message):
        samples_figure(images, labels, CLASSES)


def test_leaves_no_trace(faces):
    before = dict(matplotlib.rcParams)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        samples_figure(*faces, CLASSES)
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == []
