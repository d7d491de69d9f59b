import subprocess
import sys
from itertools import combinations, pairwise

import matplotlib
import pytest
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import nn

from fer_exp.models.layers import Layer, list_layers
from fer_exp.plots.model_diagram import model_figure


def chain(length, kind="Conv2d"):
    return [Layer(f"features.{i}", kind, (8, 48, 48), 80, 0) for i in range(length)]


def boxes(figure):
    return [patch for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)]


def arrows(figure):
    return [patch for patch in figure.axes[0].patches if isinstance(patch, FancyArrowPatch)]


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def times(text):
    return text.replace(" x ", " \N{MULTIPLICATION SIGN} ")


def test_small_network_is_drawn_from_input_to_output():
    network = nn.Sequential(
        nn.Conv2d(1, 64, 3, padding=1), nn.BatchNorm2d(64), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36864, 7)
    )
    figure = model_figure(list_layers(network, (1, 48, 48)), (1, 48, 48), "Tiny")
    title, *rest, totals = texts(figure)
    assert title == "Tiny"
    assert [tuple(rest[i : i + 4]) for i in range(0, len(rest), 4)] == [
        ("Input", times("1 x 48 x 48"), times("channels x height x width"), ""),
        ("Conv2d", times("64 x 48 x 48"), "0", "640 params"),
        ("BatchNorm2d", times("64 x 48 x 48"), "1", "128 + 128 params"),
        ("MaxPool2d", times("64 x 24 x 24"), "2", ""),
        ("Flatten", "36864", "3", ""),
        ("Linear", "7", "4", "258,055 params"),
    ]
    assert totals == "258,951 parameters  =  258,823 trainable + 128 non-trainable"


@pytest.mark.parametrize("length", [0, 1, 28, 60])
def test_boxes_run_down_the_columns_and_arrows_join_each_to_the_next(length):
    figure = model_figure(chain(length), (1, 48, 48), "Chain")
    frames = [box.get_bbox() for box in boxes(figure)]
    assert len(frames) == length + 1
    assert len(arrows(figure)) == length
    for (before, after), arrow in zip(pairwise(frames), arrows(figure), strict=True):
        below = after.x0 == before.x0 and after.y0 > before.y1
        next_column = after.x0 > before.x1 and after.y0 == frames[0].y0
        assert below or next_column
        tail, head = arrow._path_original.vertices[[0, -1]]
        for frame, (x, y) in ((before, tail), (after, head)):
            assert frame.x0 - 1e-9 <= x <= frame.x1 + 1e-9
            assert frame.y0 - 1e-9 <= y <= frame.y1 + 1e-9


@pytest.mark.parametrize("length", [28, 60, 150])
def test_a_long_network_folds_into_a_picture_of_a_screens_shape(length):
    figure = model_figure(chain(length), (1, 48, 48), "Chain")
    width, height = figure.get_size_inches()
    assert 0.75 < width / height < 1.8


def test_no_text_leaves_its_box_or_touches_another():
    layers = [
        Layer("features.denseblock4.denselayer16.norm2", "BatchNorm2d", (1024, 112, 112), 1024, 1024),
        Layer("layer4.0.downsample.1", "BatchNorm2d", (512, 6, 6), 1024, 1024),
        Layer("avgpool", "AdaptiveAvgPool2d", (512, 1, 1), 0, 0),
        Layer("blocks.11.attention.out_proj", "NonDynamicallyQuantizableLinear", (197, 768), 590592, 0),
        Layer("classifier", "Linear", (4096,), 102_764_544, 0),
    ]
    figure = model_figure(layers, (3, 224, 224), "Long names")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    in_boxes = [text for text in figure.axes[0].texts[1:-1] if text.get_text()]
    extents = [text.get_window_extent(canvas.get_renderer()) for text in in_boxes]
    frames = [box.get_window_extent() for box in boxes(figure)]
    for extent in extents:
        assert any(
            frame.x0 < extent.x0 and extent.x1 < frame.x1 and frame.y0 < extent.y0 and extent.y1 < frame.y1
            for frame in frames
        )
    assert not any(a.overlaps(b) for a, b in combinations(extents, 2))
    assert "layer4.0.downsample.1" in texts(figure)  # a name that fits is not cut


@pytest.mark.parametrize(
    ("kind", "family"),
    [
        ("Conv2d", "Convolution"),
        ("ConvTranspose2d", "Convolution"),
        ("BatchNorm1d", "Normalization"),
        ("GroupNorm", "Normalization"),
        ("ReLU6", "Activation"),
        ("SiLU", "Activation"),
        ("Hardswish", "Activation"),
        ("LogSoftmax", "Activation"),
        ("AdaptiveAvgPool2d", "Pooling"),
        ("Dropout2d", "Dropout"),
        ("Flatten", "Reshape"),
        ("Linear", "Dense"),
        ("MyOwnLayer", "Other"),
    ],
)
def test_boxes_have_the_colour_of_their_family_in_the_legend(kind, family):
    figure = model_figure(chain(1, kind), (1, 48, 48), "One")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [family]
    (swatch,) = legend.get_patches()
    assert to_hex(boxes(figure)[1].get_edgecolor()) == to_hex(swatch.get_facecolor())


def test_families_have_different_colours():
    kinds = ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "Dropout", "Flatten", "Linear", "Mystery"]
    figure = model_figure([Layer(kind, kind, (7,), 0, 0) for kind in kinds], (1, 48, 48), "All")
    colors = [to_hex(box.get_edgecolor()) for box in boxes(figure)]
    assert len(set(colors)) == len(kinds) + 1  # and the input's


def test_a_layer_called_twice_counts_its_weights_once():
    shared = Layer("shared", "BatchNorm1d", (16,), 32, 32)
    figure = model_figure([shared, Layer("head", "Linear", (7,), 119, 0), shared], (1, 48, 48), "Shared")
    assert len(boxes(figure)) == 4
    assert texts(figure)[-1] == "183 parameters  =  151 trainable + 32 non-trainable"


def test_legend_and_totals_stay_below_the_boxes():
    kinds = ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "Dropout", "Flatten", "Linear", "Mystery"]
    figure = model_figure([Layer(kind, kind, (7,), 0, 0) for kind in kinds], (1, 48, 48), "All")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    legend = figure.legends[0].get_window_extent(canvas.get_renderer())
    totals = figure.axes[0].texts[-1].get_window_extent(canvas.get_renderer())
    lowest = min(box.get_window_extent().y0 for box in boxes(figure))
    assert lowest >= legend.y1
    assert legend.y0 >= totals.y1 > totals.y0 > 0
    assert legend.x0 >= 0
    assert legend.x1 <= figure.bbox.x1


def test_importing_the_figures_loads_neither_torch_nor_pyplot():
    """They are also drawn by commands that only read records, and in long multiruns."""
    modules = ", ".join(f"fer_exp.figures.{name}" for name in ("confusion", "curves", "model_diagram", "samples"))
    code = f"import sys, {modules}; print({{'torch', 'matplotlib.pyplot'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_leaves_no_trace():
    before = dict(matplotlib.rcParams)
    model_figure(chain(3), (1, 48, 48), "Chain")
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == []
