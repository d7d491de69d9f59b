import warnings
from itertools import combinations

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg

from fer_exp.plots.augmented import augmented_figure
from fer_exp.plots.sheet import MARGIN

NAMES = ["angry", "happy", "sad"]


@pytest.fixture
def faces():
    """Three faces of noise, and five versions of each."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (3, 1, 48, 48), np.uint8), rng.integers(0, 256, (3, 5, 1, 48, 48), np.uint8)


def screen_of(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., 0].astype(int)


def test_rows_hold_the_face_and_then_its_versions_pixel_for_pixel(faces):
    originals, augmented = faces
    figure = augmented_figure(originals, augmented, NAMES, "Augmentation", "flip")
    screen = screen_of(figure)
    heading = round((1 - figure.axes[0].get_position().height) * len(screen))
    drawn = {}
    for picture in figure.axes[0].images:
        left, right, bottom, top = map(int, picture.get_extent())
        shown = screen[heading + top : heading + bottom, left:right]
        drawn.setdefault(top, []).append((left, shown))
    for top, original, versions in zip(sorted(drawn), originals, augmented, strict=True):
        lefts, shown = zip(*sorted(drawn[top], key=lambda face: face[0]), strict=True)
        for found, face in zip(shown, (original, *versions), strict=True):
            assert np.abs(found - face[0].repeat(2, axis=0).repeat(2, axis=1)).max() <= 1
        steps = np.diff(lefts)
        assert np.all(steps[1:] == steps[1])
        assert steps[0] > steps[1]  # the face stands apart from its versions


@pytest.mark.parametrize(
    ("names", "versions", "words"),
    [
        (NAMES, 5, "a subtitle"),
        (["contempt $mixed$ with disgust " * 5, "o" * 90, ""], 5, "one of many words " * 30),
        (NAMES, 1, "oneofmanyletters" * 20),
    ],
)
def test_texts_stay_in_the_picture_and_clear_of_one_another(faces, names, versions, words):
    originals, augmented = faces
    figure = augmented_figure(originals, augmented[:, :versions], names, f"A title with $ and {words}", words)
    screen_of(figure)
    boxes = [text.get_window_extent() for text in (*figure.texts, *figure.axes[0].texts) if text.get_text()]
    boxes += [picture.get_window_extent() for picture in figure.axes[0].images]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    for box in boxes:
        assert min(box.x0, box.y0, figure.bbox.x1 - box.x1, figure.bbox.y1 - box.y1) >= MARGIN - 2


@pytest.mark.parametrize(
    ("originals", "augmented", "names", "message"),
    [
        ((2, 48, 48), (2, 3, 1, 48, 48), 2, "expected faces"),
        ((2, 1, 48, 48), (2, 1, 48, 48), 2, "expected faces"),
        ((2, 1, 48, 48), (3, 3, 1, 48, 48), 2, "expected faces"),
        ((2, 1, 48, 48), (2, 3, 1, 44, 48), 2, "expected faces"),
        ((2, 1, 48, 48), (2, 3, 1, 48, 48), 3, "2 rows of faces need as many names, got 3"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(originals, augmented, names, message):
    with pytest.raises(ValueError, match=message):
        augmented_figure(np.zeros(originals, np.uint8), np.zeros(augmented, np.uint8), NAMES[:names], "", "")


def test_leaves_no_trace(faces):
    before = dict(matplotlib.rcParams)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        screen_of(augmented_figure(*faces, NAMES, "Augmentation", ""))
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == []
