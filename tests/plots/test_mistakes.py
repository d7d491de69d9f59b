import warnings
from itertools import combinations

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg

from fer_exp.plots.mistakes import mistakes_figure


def noise(count):
    return np.random.default_rng(0).integers(0, 256, (count, 1, 48, 48), np.uint8)


def drawn(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., 0].astype(int)


def test_faces_run_to_the_right_and_down_with_their_captions_below():
    images = noise(5)
    figure = mistakes_figure(
        images,
        [f"sad/{i}.jpg" for i in range(5)],
        ["sad"] * 5,
        ["happy", "angry", "fear", "neutral", "disgust"],
        np.array([1.0, 0.9951, 0.994, 0.5, 0.25]),
        "Mistakes",
        "validation",
        columns=3,
    )
    screen = drawn(figure)
    (axes,) = figure.axes
    for image, picture in zip(images, axes.images, strict=True):
        box = picture.get_window_extent()
        left, right = round(box.x0), round(box.x1)
        top, bottom = len(screen) - round(box.y1), len(screen) - round(box.y0)
        assert np.abs(screen[top:bottom, left:right] - image[0].repeat(3, axis=0).repeat(3, axis=1)).max() <= 1
    corners = [tuple(picture.get_extent()[0::3]) for picture in axes.images]  # left and top
    assert sorted(corners, key=lambda corner: corner[::-1]) == corners
    assert [top for _, top in corners].count(corners[0][1]) == 3

    captions = {corner: [] for corner in corners}
    for text in axes.texts:
        left, y = text.get_position()
        captions[left, max(top for _, top in corners if top < y)].append(text.get_text())
    assert list(captions.values()) == [
        ["true: sad", "seen as: happy 100 %", "0.jpg"],
        ["true: sad", "seen as: angry >99 %", "1.jpg"],
        ["true: sad", "seen as: fear 99 %", "2.jpg"],
        ["true: sad", "seen as: neutral 50 %", "3.jpg"],
        ["true: sad", "seen as: disgust 25 %", "4.jpg"],
    ]


def test_long_names_lose_their_middle_and_nothing_overlaps():
    names = ["contempt mixed with disgust", "W" * 60, "$a$ and $b$", "surprise"]
    figure = mistakes_figure(
        noise(4),
        ["x/a photograph of somebody at the sea, 1998.jpeg", "i" * 200 + ".png", "two\nlines.png", "a.png"],
        names,
        names[::-1],
        np.full(4, 1.0),
        "Mistakes",
        "selected on the images it is reported on " * 4,
        columns=2,
    )
    drawn(figure)
    texts = [*figure.texts, *figure.axes[0].texts]
    boxes = [text.get_window_extent() for text in texts]
    boxes += [picture.get_window_extent() for picture in figure.axes[0].images]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 and box.y1 <= figure.bbox.y1 for box in boxes)
    words = [text.get_text() for text in texts]
    assert "seen as: surprise 100 %" in words
    assert r"two\nlines.png" in words
    (short,) = (word for word in words if word.endswith(".jpeg"))
    begin, end = short.split("…")
    assert "a photograph of somebody at the sea, 1998.jpeg".startswith(begin)
    assert abs(len(begin) - len(end)) <= 1


def test_no_mistakes_are_said():
    figure = mistakes_figure(noise(0), [], [], [], np.zeros(0), "Mistakes", "")
    drawn(figure)
    assert [text.get_text() for text in figure.axes[0].texts] == ["No mistakes."]


@pytest.mark.parametrize(
    ("images", "count", "columns", "message"),
    [
        (np.zeros((2, 48, 48), np.uint8), 2, 8, "expected images"),
        (np.zeros((2, 1, 48, 48), np.uint8), 3, 8, "2 images need as many"),
        (np.zeros((2, 1, 48, 48), np.uint8), 2, 0, "columns=0"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(images, count, columns, message):
    names = ["sad"] * count
    with pytest.raises(ValueError, match=message):
        mistakes_figure(images, names, names, names, np.zeros(count), "", "", columns)


def test_leaves_no_trace():
    before = dict(matplotlib.rcParams)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn(mistakes_figure(noise(1), ["a"], ["b"], ["c"], np.ones(1), "Mistakes", ""))
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == []
