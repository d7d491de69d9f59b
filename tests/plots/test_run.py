import math
import re
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from fer_exp.plots.run import confusion_figure, curves_figure, model_figure
from fer_exp.plots.style import use_theme


def history(epochs, lrs=None):
    return [
        {
            "epoch": epoch,
            "lr": lrs[epoch - 1] if lrs else 1e-3,
            "train_loss": 2 / epoch,
            "val_loss": 2.2 / epoch,
            "train_acc": 1 - 0.8 / epoch,
            "val_acc": 1 - 0.9 / epoch,
        }
        for epoch in range(1, epochs + 1)
    ]


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text)]


def luminance(color):
    """Relative luminance, WCAG 2."""
    encoded = np.array(color)
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


class TestCurves:
    @pytest.mark.parametrize("epochs", [1, 3, 400])
    def test_every_epoch_is_drawn(self, epochs):
        with use_theme("light"):
            figure = curves_figure(history(epochs), "adam")
        for axes in figure.axes:
            for line in axes.lines:
                assert list(line.get_xdata()) == list(range(1, epochs + 1))
        assert list(figure.axes[1].lines[1].get_ydata()) == [row["val_acc"] for row in history(epochs)]
        assert figure.axes[1].yaxis.get_major_formatter()(0.5, 0) == "50 %"

    def test_best_epoch_is_marked_on_both_validation_curves(self):
        with use_theme("light"):
            figure = curves_figure(history(5), "adam", best_epoch=4)
        loss, accuracy = figure.axes
        assert (loss.lines[-1].get_xdata(), loss.lines[-1].get_ydata()) == ([4], [0.55])
        assert (accuracy.lines[-1].get_xdata(), accuracy.lines[-1].get_ydata()) == ([4], [1 - 0.9 / 4])
        assert any("0.5500" in text and "77.50 %" in text for text in texts(figure))

    def test_learning_rate_is_drawn_where_it_changes(self):
        rates = [1e-3, 1e-3, 2e-4, 2e-4]
        with use_theme("light"):
            assert len(curves_figure(history(4), "adam").axes) == 2
            figure = curves_figure(history(4, rates), "adam")
        assert list(figure.axes[2].lines[0].get_ydata()) == rates
        assert [text.get_text() for text in figure.axes[2].get_yticklabels()] == ["0.0002", "0.001"]

    @pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
    def test_diverged_run_is_drawn(self, value, png):
        rows = history(3, [1.0, 0.5, 0.0])
        rows[2] |= {"train_loss": value, "val_loss": value, "val_acc": math.nan}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            png(lambda: curves_figure(rows, "sgd", best_epoch=1))


class TestConfusion:
    def test_cells_hold_percent_and_counts(self):
        confusion = np.array([[30, 10, 0], [5, 45, 0], [0, 0, 0]])
        with use_theme("light"):
            drawn = texts(confusion_figure(confusion, ["no", "yes", "empty"], "Validation, epoch 3"))
        assert "75.0 %\n30" in drawn
        assert "10.0 %\n5" in drawn
        assert drawn.count("n/a") == 3
        assert "Validation, epoch 3" in drawn
        assert any("83.33 %" in text and "90 images" in text for text in drawn)

    @pytest.mark.parametrize(("classes", "theme_name"), [(2, "light"), (20, "dark"), (100, "light")])
    def test_any_number_of_classes(self, classes, theme_name, png):
        confusion = np.diag(np.full(classes, 50))
        pixels = png(lambda: confusion_figure(confusion, [f"class {i}" for i in range(classes)], "All"), theme_name)
        assert max(pixels.shape) < 3500

    @pytest.mark.parametrize("percent", range(0, 101, 10))
    def test_text_stands_out_from_its_cell(self, percent, theme_name):
        with use_theme(theme_name):
            axes = confusion_figure(np.array([[percent, 100 - percent], [0, 1]]), ["a", "b"], "Title").axes[0]
            shades = axes.collections[0].to_rgba(axes.collections[0].get_array().ravel())
        for text, shade in zip(axes.texts, shades, strict=True):
            lighter, darker = sorted([luminance(to_rgb(text.get_color())), luminance(shade[:3])], reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) >= 4.5  # WCAG 2, level AA


class TestModel:
    LAYERS = (
        SimpleNamespace(name="conv", kind="Conv2d", output_shape=(64, 48, 48), trainable=640, fixed=0),
        SimpleNamespace(name="norm", kind="BatchNorm2d", output_shape=(64, 48, 48), trainable=128, fixed=128),
        SimpleNamespace(name="act", kind="ReLU", output_shape=(64, 48, 48), trainable=0, fixed=0),
    )

    @pytest.mark.parametrize("repeats", [1, 10])
    def test_one_row_per_call_in_order(self, repeats):
        with use_theme("light"):
            axes = model_figure(self.LAYERS * repeats, (1, 48, 48), "Network").axes[0]
        kinds = [text for text in axes.texts if text.get_text() in ("Input", "Conv2d", "BatchNorm2d", "ReLU")]
        assert [text.get_text() for text in kinds] == ["Input", *["Conv2d", "BatchNorm2d", "ReLU"] * repeats]
        places = [text.get_position() for text in kinds]
        assert places == sorted(places)

    def test_shared_layer_is_counted_once(self):
        with use_theme("light"):
            drawn = texts(model_figure(self.LAYERS * 2, (1, 48, 48), "Network"))
        assert any("896" in text and "768" in text and "128" in text for text in drawn)

    def test_shapes_and_weights_are_shown(self):
        with use_theme("light"):
            drawn = texts(model_figure(self.LAYERS, (3, 112, 112), "Network"))
        assert [3, 112, 112] in [[int(n) for n in re.findall(r"\d+", text)] for text in drawn]
        assert sum(re.findall(r"\d+", text) == ["64", "48", "48"] for text in drawn) == 3
        assert "128 + 128" in drawn
