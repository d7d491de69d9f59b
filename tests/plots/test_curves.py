import math
import warnings
from itertools import combinations

import matplotlib
import pytest
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg

from fer_exp.plots.curves import curves_figure

KEYS = ("train_loss", "train_acc", "val_loss", "val_acc")


def history(rates):
    """Return one row for each rate, with four curves that cannot be mistaken for each other."""
    return [
        {
            "epoch": epoch,
            "lr": rate,
            "train_loss": 2 / epoch,
            "train_acc": 1 - 0.7 / epoch,
            "val_loss": 1 + 1 / epoch,
            "val_acc": 0.6 - 0.3 / epoch,
        }
        for epoch, rate in enumerate(rates, start=1)
    ]


def lines(axes):
    return {line.get_label(): line for line in axes.lines}


def cuts(axes):
    """Return {place on the epoch axis: label} of the dashed lines."""
    places = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"]
    return dict(zip(places, [text.get_text() for text in axes.texts], strict=True))


def extents(figure, texts):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return [text.get_window_extent(canvas.get_renderer()) for text in texts]


def test_curves_are_the_history_under_the_notebooks_names():
    rows = history([1e-3] * 13 + [2e-4] * 4)
    figure = curves_figure(rows, "Adam")
    assert figure.get_suptitle() == "Optimizer : Adam"
    names = [
        {"Training Loss": "train_loss", "Validation Loss": "val_loss"},
        {"Training Accuracy": "train_acc", "Validation Accuracy": "val_acc"},
    ]
    for axes, keys in zip(figure.axes, names, strict=True):
        assert [text.get_text() for text in axes.get_legend().get_texts()] == list(keys)
        for label, key in keys.items():
            line = lines(axes)[label]
            assert list(line.get_xdata()) == list(range(1, 18))
            assert list(line.get_ydata()) == [row[key] for row in rows]


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([1e-3] * 13 + [2e-4] * 4, {13.5: "lr 0.0002"}),
        ([0.1] * 6 + [0.02] * 2 + [4.0000001899898055e-05] * 4, {6.5: "lr 0.02", 8.5: "lr 4e-05"}),
        ([0.1] * 8 + [0.0995] * 8, {}),  # half a percent is no cut
        ([0.01] * 4 + [0.1] * 8, {}),  # nor is a rise
        ([0.1, 0.1, math.nan, 0.1, 0.01, 0.01], {4.5: "lr 0.01"}),
        ([0.05 * (1 + math.cos(math.pi * i / 49)) for i in range(50)], {}),
        ([0.1 * 0.9**i for i in range(20)], {}),
        ([0.01, 0.02] + [0.03] * 73 + [0.03 * (1 - i / 25) for i in range(1, 25)], {75.5: "lr 0.03 falls to 0.0012"}),
        ([0.01 * i for i in range(1, 6)] + [0.05] * 9, {}),  # a warm-up
        ([0.05] * 9 + [0.06, 0.07, 0.08], {}),
        ([0.1] * 4 + [0.01, 0.001] + [0.001] * 4, {4.5: "lr 0.01", 5.5: "lr 0.001"}),
        ([0.1 * 0.5 ** (i // 2) for i in range(40)], {}),
    ],
)
def test_rate_cuts_stand_between_the_old_rate_and_the_new(rates, expected):
    for axes in curves_figure(history(rates), "SGD").axes:
        assert cuts(axes) == expected


def test_labels_of_close_cuts_do_not_touch():
    rates = [0.1 * 0.2 ** sum(i >= cut for cut in (10, 13, 16, 40)) for i in range(60)]
    figure = curves_figure(history(rates), "SGD")
    for axes in figure.axes:
        boxes = extents(figure, axes.texts)
        assert len(boxes) == 4
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
        assert all(box.y0 >= axes.bbox.y1 for box in boxes)  # above the panel, clear of its curves


def test_best_and_restored_epochs_are_marked_on_the_validation_curves():
    rows = history([1e-3] * 17)
    loss, accuracy = curves_figure(rows, "Adam", best_epoch=15, restored_epoch=14).axes
    for axes, key in ((loss, "val_loss"), (accuracy, "val_acc")):
        for epoch, meaning in ((15, "best accuracy"), (14, "restored")):
            value = rows[epoch - 1][key]
            mark = lines(axes)[f"{value:.4f} at epoch {epoch} ({meaning})"]
            assert (list(mark.get_xdata()), list(mark.get_ydata())) == ([epoch], [value])
            assert mark.get_label() in [text.get_text() for text in axes.get_legend().get_texts()]


def test_an_epoch_that_is_both_best_and_restored_is_marked_once():
    for axes in curves_figure(history([1e-3] * 5), "Adam", best_epoch=4, restored_epoch=4).axes:
        assert [label for label in lines(axes) if "epoch" in label] == [
            label for label in lines(axes) if label.endswith("at epoch 4 (best accuracy)")
        ]
        assert len(axes.lines) == 3


def test_legend_is_clear_of_the_panel():
    figure = curves_figure(history([1e-3] * 17), "Adam", best_epoch=15, restored_epoch=14)
    for axes in figure.axes:
        (legend,) = extents(figure, [axes.get_legend()])
        assert legend.y1 < axes.xaxis.label.get_window_extent().y0
        assert legend.y0 >= 0


@pytest.mark.parametrize("epochs", [1, 2, 17, 40, 300])
def test_epoch_axis_has_whole_numbers_from_the_first_epoch_on(epochs):
    for axes in curves_figure(history([1e-3] * epochs), "Adam").axes:
        ticks = list(axes.get_xticks())
        assert ticks[0] == 1
        assert all(tick == int(tick) <= epochs for tick in ticks)
        assert len(ticks) <= 20
        assert axes.get_xlim()[0] < 1 <= epochs < axes.get_xlim()[1]


def test_an_epoch_without_neighbours_is_visible():
    """A lone epoch, and one between two gaps, has no line: only its marker can show it."""
    for axes in curves_figure(history([1e-3]), "Adam").axes:
        assert all(line.get_marker() == "o" and line.get_markersize() > 0 for line in axes.lines)


def test_gaps_and_divergence_draw_without_warnings():
    rows = history([1e-3] * 6)
    for key in KEYS:
        rows[2][key] = math.nan
    rows[4]["train_loss"] = math.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = curves_figure(rows, "Adam", best_epoch=3)
        FigureCanvasAgg(figure).draw()
        FigureCanvasAgg(curves_figure([dict.fromkeys(KEYS, math.nan) | {"epoch": 1, "lr": 1.0}], "SGD")).draw()
    assert math.isnan(lines(figure.axes[0])["Validation Loss"].get_ydata()[2])
    assert all(math.isfinite(limit) for axes in figure.axes for limit in axes.get_ylim())


def test_ticks_stay_light_when_the_figure_is_drawn_later():
    figure = curves_figure(history([1e-3] * 3), "Adam")
    FigureCanvasAgg(figure).draw()
    for axes in figure.axes:
        labels = [*axes.get_xticklabels(), *axes.get_yticklabels()]
        assert {matplotlib.colors.to_hex(label.get_color()) for label in labels} == {"#ffffff"}


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="no rows"):
        curves_figure([], "Adam")
    with pytest.raises(ValueError, match="epoch 9 is to be marked"):
        curves_figure(history([1e-3] * 3), "Adam", best_epoch=9)


def test_leaves_no_trace():
    before = dict(matplotlib.rcParams)
    curves_figure(history([1e-3] * 3), "Adam")
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == []
