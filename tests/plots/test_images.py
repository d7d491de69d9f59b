import numpy as np
import pytest
from matplotlib.text import Text

from fer_exp.plots.images import (
    MAX_ROWS,
    Row,
    Tile,
    augmentation_figure,
    samples_figure,
    sheet_figure,
)
from fer_exp.plots.style import use_theme


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def drawn_images(figure):
    """The images as they are drawn, reduced to one screen pixel per image pixel."""
    return [np.asarray(image.get_array()) for image in figure.axes[0].images]


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text)]


@pytest.mark.parametrize(("channels", "size", "zoom"), [(1, 48, 3), (3, 48, 3), (1, 64, 2), (3, 112, 1), (3, 224, 1)])
def test_image_pixels_are_squares_of_screen_pixels(channels, size, zoom, png, theme_name):
    image = noise(channels, size, size)
    pixels = png(lambda: sheet_figure([Row([[Tile(image)]])], "Title"), theme_name)
    expected = np.moveaxis(image, 0, -1).repeat(zoom, 0).repeat(zoom, 1).repeat(3 // channels, 2)
    starts = np.argwhere((pixels == expected[0, 0]).all(axis=2))
    side = zoom * size
    windows = [pixels[y : y + side, x : x + side] for y, x in starts]
    assert any(window.shape == expected.shape and (window == expected).all() for window in windows)


def test_large_image_is_reduced():
    with use_theme("light"):
        figure = sheet_figure([Row([[Tile(noise(3, 600, 300))]])], "Title")
    assert drawn_images(figure)[0].shape[:2] == (256, 128)


def test_samples_are_of_their_class_and_repeatable():
    labels = np.array([0, 2] * 10 + [2])
    images = np.broadcast_to((labels * 100).astype(np.uint8)[:, None, None, None], (21, 1, 4, 4))
    with use_theme("light"):
        figure = samples_figure(images, labels, ["a", "none", "b"], per_class=5, seed=3)
        again = samples_figure(images, labels, ["a", "none", "b"], per_class=5, seed=3)
    assert [int(image.flat[0]) for image in drawn_images(figure)] == [0] * 5 + [200] * 5
    assert all((a == b).all() for a, b in zip(drawn_images(figure), drawn_images(again), strict=True))
    assert {"10 images", "0 images", "11 images"} <= set(texts(figure))


def test_only_drawn_images_are_read():
    read = []

    class OnDisk:
        shape = (10**6, 1, 48, 48)

        def __getitem__(self, index):
            read.append(index)
            return noise(1, 48, 48)

    with use_theme("light"):
        samples_figure(OnDisk(), np.arange(10**6) % 3, ["a", "b", "c"], per_class=2)
    assert len(read) == 6


def test_many_classes_show_the_first(png):
    classes = [f"class {i}" for i in range(100)]
    with use_theme("light"):
        figure = samples_figure(noise(300, 1, 48, 48), np.arange(300) % 100, classes, per_class=1)
    assert len(drawn_images(figure)) == MAX_ROWS
    assert any(f"{MAX_ROWS} of 100" in text for text in texts(figure))


def test_augmented_versions_follow_their_original():
    originals, versions = noise(2, 3, 6, 6), noise(2, 4, 3, 6, 6, seed=1)
    with use_theme("light"):
        images = drawn_images(augmentation_figure(originals, versions, ["a", "b"], "flip"))
    expected = [image for i in range(2) for image in (originals[i], *versions[i])]
    shown = [np.moveaxis(image[::24, ::24], -1, 0) for image in images]
    assert all((a == b).all() for a, b in zip(shown, expected, strict=True))
