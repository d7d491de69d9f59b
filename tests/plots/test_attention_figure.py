import warnings
from itertools import combinations

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg

from fer_exp.plots.attention import attention_figure


def noise(count):
    """Faces, and maps whose first place is their highest."""
    rng = np.random.default_rng(0)
    maps = rng.random((count, 48, 48), np.float32)
    maps[:, 0, 0] = 1
    return rng.integers(0, 256, (count, 1, 48, 48), np.uint8), maps


def draw(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


def shown(screen, picture):
    """The screen where a picture is drawn, a pixel of it each."""
    box = picture.get_window_extent()
    left, right = round(box.x0), round(box.x1)
    top, bottom = len(screen) - round(box.y1), len(screen) - round(box.y0)
    assert (right - left, bottom - top) == (96, 96)
    pixels = screen[top:bottom, left:right]
    assert np.ptp(pixels.reshape(48, 2, 48, 2, 3), axis=(1, 3)).max() == 0  # doubled, not resampled
    return pixels[::2, ::2]


def test_each_face_stands_beside_its_map_in_the_row_of_its_class():
    images, maps = noise(5)
    figure = attention_figure(images, maps, ["sad", "fear", "sad", "sad", "fear"], list("abcde"), "Grad-CAM", "named")
    screen = draw(figure)
    (axes,) = figure.axes
    *faces, _ = axes.images  # and the bar
    assert len(faces) == 10
    captions = {text.get_text(): text.get_position() for text in axes.texts}
    places = {}
    for i, face, overlay in zip((0, 2, 3, 1, 4), faces[::2], faces[1::2], strict=True):
        left, right, bottom, top = face.get_extent()
        assert overlay.get_extent()[0] > right
        assert overlay.get_extent()[2:] == [bottom, top]
        assert np.abs(shown(screen, face) - images[i, 0, :, :, None]).max() <= 1
        tinted = 0.4 * images[i, 0, :, :, None] + 0.6 * 255 * matplotlib.colormaps["inferno"](maps[i])[..., :3]
        assert np.abs(shown(screen, overlay) - tinted).max() <= 2
        x, y = captions["abcde"[i]]
        assert x == left
        assert bottom < y
        places[i] = (top, left)
    assert list(places) == sorted(places, key=places.get)
    assert places[0][0] == places[2][0] == places[3][0] < captions["fear"][1]
    assert places[0][0] < captions["sad"][1] < places[1][0] == places[4][0] < captions["fear"][1]


def test_a_map_without_evidence_says_so():
    images, maps = noise(3)
    maps[1] = 0
    figure = attention_figure(images, maps, ["sad"] * 3, ["", "", ""], "", "")
    draw(figure)
    (said,) = (text for text in figure.axes[0].texts if text.get_text() == "no evidence")
    left, right, bottom, top = figure.axes[0].images[3].get_extent()
    assert said.get_position() == ((left + right) / 2, (top + bottom) / 2)


@pytest.mark.parametrize("count", [1, 7])
def test_texts_stay_in_the_picture_and_clear_of_one_another(count):
    names = ["contempt mixed with $disgust$ and with some more", "o" * 80, "surprise"]
    rows = [names[i % 3] for i in range(count)]
    figure = attention_figure(*noise(count), rows, [f"seen as: {name} 100 %" for name in rows], "T " * 60, "sub " * 60)
    draw(figure)
    (axes,) = figure.axes
    boxes = [artist.get_window_extent() for artist in (*figure.texts, *axes.texts, *axes.images)]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    for box in boxes:
        assert min(box.x0, box.y0, figure.bbox.x1 - box.x1, figure.bbox.y1 - box.y1) >= 0


@pytest.mark.parametrize(
    ("images", "maps", "rows", "message"),
    [
        (np.zeros((2, 48, 48), np.uint8), np.zeros((2, 48, 48)), 2, "expected images"),
        (np.zeros((2, 1, 48, 48), np.uint8), np.zeros((2, 6, 6)), 2, "expected images"),
        (np.zeros((2, 1, 48, 48), np.uint8), np.zeros((2, 48, 48)), 3, "2 images need as many rows and captions"),
        (np.zeros((2, 1, 48, 48), np.uint8), np.full((2, 48, 48), 1.5), 2, r"expected maps in \[0, 1\]"),
        (np.zeros((2, 1, 48, 48), np.uint8), np.full((2, 48, 48), np.nan), 2, r"expected maps in \[0, 1\]"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(images, maps, rows, message):
    with pytest.raises(ValueError, match=message):
        attention_figure(images, maps, ["sad"] * rows, ["a"] * rows, "", "")


def test_leaves_no_trace():
    before = dict(matplotlib.rcParams)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(attention_figure(*noise(2), ["a", "b"], ["c", "d"], "Grad-CAM", ""))
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == []
