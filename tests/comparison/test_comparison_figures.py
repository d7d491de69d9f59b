import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from fer_exp.comparison.analysis import compare
from fer_exp.plots.comparison_curves import curves_figure
from fer_exp.plots.comparison_learning_rate import learning_rate_figure
from fer_exp.plots.comparison_rows import accuracy_figure, target_figure


def means(axes):
    """The solid lines of the groups: {label: line}."""
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def dots(axes, marker="o"):
    """Places (x, y) of all marks of a kind."""
    lines = [line for line in axes.lines if line.get_marker() == marker and line.get_linestyle() == "None"]
    return [(float(x), float(y)) for line in lines for x, y in zip(*line.get_data(), strict=True)]


def rows(figure):
    return [text.get_text() for text in figure.axes[0].get_yticklabels()]


def legend(figure):
    return [text.get_text().strip() for text in figure.legends[0].get_texts() if text.get_text().strip()]


def draw(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


def test_curves_are_means_over_seeds_within_the_band_from_lowest_to_highest(three_optimizers):
    figure = curves_figure(compare(three_optimizers))
    for axes, name in zip(figure.axes, ("loss", "acc"), strict=True):
        assert list(means(axes)) == ["adam", "sgd", "rmsprop"]
        dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
        for place, (label, line) in enumerate(means(axes).items()):
            runs = [run for run in three_optimizers if run.value("optimizer") == label]
            validation = np.array([run.history[f"val_{name}"] for run in runs])
            training = np.array([run.history[f"train_{name}"] for run in runs])
            assert list(line.get_xdata()) == [1, 2, 3, 4, 5]
            assert line.get_ydata() == pytest.approx(validation.mean(axis=0))
            assert dashed[place].get_ydata() == pytest.approx(training.mean(axis=0))
            band = axes.collections[place].get_paths()[0].vertices
            for epoch in range(1, 6):
                heights = band[band[:, 0] == epoch, 1]
                assert heights.min() == pytest.approx(validation[:, epoch - 1].min())
                assert heights.max() == pytest.approx(validation[:, epoch - 1].max())


def test_the_mean_ends_with_the_shortest_run_and_longer_runs_go_on_as_themselves(make_run):
    short, long = make_run(seed=0, val_acc=(0.2, 0.4)), make_run(seed=1, val_acc=(0.3, 0.5, 0.6, 0.7))
    figure = curves_figure(compare([short, long]))
    accuracy = figure.axes[1]
    assert list(means(accuracy)["adam"].get_xdata()) == [1, 2]
    thin = [line for line in accuracy.lines if line.get_linewidth() < 1]
    known = np.isfinite(thin[0].get_ydata())
    assert len(thin) == 1
    assert thin[0].get_xdata()[known].tolist() == [2, 3, 4]
    assert thin[0].get_ydata()[known].tolist() == [0.5, 0.6, 0.7]
    assert "single run, past the shortest" in legend(figure)


def test_a_diverged_run_is_in_no_mean_and_breaks_no_axis(make_run):
    whole = [make_run(seed=seed, val_acc=(0.3, 0.5)) for seed in range(2)]
    lost = make_run(seed=2, val_acc=(0.3, 0.1, 0.1), status="diverged", val_loss=(2.0, 1e30, np.nan))
    figure = curves_figure(compare([*whole, lost]))
    loss, accuracy = figure.axes
    draw(figure)
    assert means(accuracy)["adam"].get_ydata() == pytest.approx([0.3, 0.5])
    assert loss.get_ylim()[1] < 5
    assert [line.get_xdata()[0] for line in accuracy.lines if line.get_marker() == "x"] == [3]
    assert [line.get_ydata()[0] for line in loss.lines if line.get_marker() == "x"] == [loss.get_ylim()[1]]
    assert "adam (1 diverged)" in legend(figure)


def test_a_group_of_diverged_runs_only_is_drawn(make_run):
    lost = [make_run("sgd", seed, (0.1,), "diverged", val_loss=(np.nan,), train_loss=(np.inf,)) for seed in range(2)]
    comparison = compare([*lost, make_run("adam", 0), make_run("adam", 1)])
    for figure in (curves_figure(comparison), accuracy_figure(comparison), target_figure(comparison)):
        draw(figure)
    assert legend(curves_figure(comparison))[0] == "sgd (2 diverged)"
    assert len(dots(accuracy_figure(comparison).axes[0], "x")) == 4


def test_a_loss_through_the_roof_is_cut_off_and_the_axis_says_so(make_run):
    calm, wild = make_run("adam", 0, (0.3, 0.5)), make_run("sgd", 0, (0.3, 0.4), val_loss=(900.0, 1.5))
    figure = curves_figure(compare([calm, wild]))
    low, high = figure.axes[0].get_ylim()
    assert low == 0
    assert 4 <= high < 10
    assert f"cut off above {high:.1f}" in figure.axes[0].get_ylabel()


def test_of_many_groups_the_curves_show_the_best_eight_and_say_so(make_run):
    runs = [make_run(f"optimizer{i}", 0, (0.2, 0.3 + (i * 7 % 25) / 100)) for i in range(25)]
    figure = curves_figure(compare(runs))
    best = {f"optimizer{i}" for i in range(25) if i * 7 % 25 >= 17}
    assert set(means(figure.axes[0])) == best
    assert len({line.get_color() for line in means(figure.axes[0]).values()}) == 8
    assert figure.get_suptitle().endswith("(8 of 25 groups)")


def test_accuracy_has_every_counted_run_at_a_height_of_its_own_and_medians(three_optimizers):
    comparison = compare(three_optimizers)
    figure = accuracy_figure(comparison)
    axes = figure.axes[0]
    medians = {g.label: g.spreads["best", "val_acc"].median for g in comparison.groups}
    assert rows(figure) == sorted(medians, key=medians.get, reverse=True)
    expected = [run.figure(measure, "val_acc") for run in three_optimizers for measure in ("best", "final")]
    assert sorted(x for x, _ in dots(axes)) == pytest.approx(sorted(expected))
    assert len({y for _, y in dots(axes)}) == len(expected)
    bars = [line.get_xdata()[0] for line in axes.lines if line.get_color() == "#1b1f24"]
    assert bars[::2] == pytest.approx(sorted(medians.values(), reverse=True))
    beside = [text.get_text() for text in axes.texts]
    assert beside[0] == f"{100 * max(medians.values()):.1f} %"


def test_accuracy_keeps_a_group_without_a_result_and_caps_many(make_run):
    runs = [make_run(f"optimizer{i}", 0, (0.2, 0.3 + i / 200)) for i in range(45)]
    figure = accuracy_figure(compare(runs))
    assert rows(figure) == [f"optimizer{i}" for i in range(44, 4, -1)]
    assert figure.get_suptitle().endswith("(40 of 45 groups)")
    assert figure.get_figheight() < 30
    some = accuracy_figure(compare([make_run("sgd", 0, (), "failed"), make_run("adam", 0)]))
    assert rows(some) == ["adam", "sgd"]
    assert [text.get_text() for text in some.axes[0].texts][-1] == "no result"


def test_a_miss_stands_under_never_and_the_median_of_misses_too(make_run):
    accuracies = {
        "adam": [(0.3, 0.5, 0.6), (0.5, 0.5, 0.6), (0.3, 0.3, 0.5)],
        "sgd": [(0.3,) * 3, (0.5,) * 3, (0.2,) * 3],
    }
    runs = [make_run(name, seed, acc) for name, some in accuracies.items() for seed, acc in enumerate(some)]
    figure = target_figure(compare(runs, target=0.5))
    assert rows(figure) == ["adam", "sgd"]
    for axes, unit in zip(figure.axes, (1, 30), strict=True):
        ticks = {text.get_text(): x for text, x in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)}
        never = ticks["never"]
        assert never > 3 * unit
        assert sorted(x for x, _ in dots(axes)) == pytest.approx([unit, unit, 2 * unit, 3 * unit, never, never])
        bars = [line.get_xdata()[0] for line in axes.lines if line.get_color() == "#1b1f24"]
        assert bars == pytest.approx([2 * unit, never])
    assert [text.get_text() for text in figure.axes[1].texts] == ["3 of 3", "1 of 3"]


def test_where_all_reach_the_target_there_is_no_never(three_optimizers):
    figure = target_figure(compare(three_optimizers, target=0.3))
    assert all(text.get_text() != "never" for axes in figure.axes for text in axes.get_xticklabels())


@pytest.mark.parametrize("draw_figure", [curves_figure, accuracy_figure, target_figure])
def test_without_any_result_there_is_nothing_to_draw(make_run, draw_figure):
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_figure(compare([make_run("adam", 0, (), "failed"), make_run("sgd", 0, (), "failed")]))


def test_learning_rate_is_drawn_only_where_it_was_swept(make_run, three_optimizers):
    assert learning_rate_figure(compare(three_optimizers)) is None
    # Each optimizer with a rate of its own: nothing tells what the rate does.
    runs = [make_run("adam", 0), make_run("sgd", 0, settings={"optimizer.lr": 0.1})]
    assert learning_rate_figure(compare(runs)) is None


def test_learning_rate_of_reporting_runs_joins_medians_over_seeds(make_run):
    runs = [
        make_run("adam", seed, (0.2, 0.3 + rate + seed * seed / 100), settings={"optimizer.lr": rate})
        for rate in (0.1, 0.01)
        for seed in range(3)
    ]
    for group_by in (["optimizer"], ["optimizer", "optimizer.lr"], ["optimizer.lr"]):
        figure = learning_rate_figure(compare(runs, group_by))
        axes = figure.axes[0]
        line = next(line for line in axes.lines if line.get_linestyle() == "-")
        assert axes.get_xscale() == "log"
        assert list(line.get_xdata()) == [0.01, 0.1]
        assert line.get_ydata() == pytest.approx([0.32, 0.41])
        assert len(dots(axes)) == 6
        assert legend(figure) == ["adam"]


def trial(make_run, name, accuracies, rate, status="completed", val_loss=None, **settings):
    settings = {"optimizer.lr": rate, "data.val_fraction": 0.2, **settings}
    columns = {"val_loss": val_loss} if val_loss else {}
    return make_run(name, 0, accuracies, status, settings, arm=name, **columns)


def test_learning_rate_of_trials_marks_the_chosen_one_and_the_edge(make_run):
    trials = [trial(make_run, "sgd", (0.2, accuracy), rate) for rate, accuracy in ((0.01, 0.3), (0.1, 0.4), (1.0, 0.5))]
    trials.append(trial(make_run, "adam", (0.2, 0.1), 1.0, status="diverged", val_loss=(2.0, np.nan)))
    trials += [trial(make_run, "adam", (0.2, accuracy), rate) for rate, accuracy in ((0.001, 0.3), (0.01, 0.4))]
    trials.append(trial(make_run, "adam", (), 5.0, status="failed"))
    figure = learning_rate_figure(compare([*trials, make_run("sgd", 0), make_run("adam", 0)]))
    axes = figure.axes[0]
    stars = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_marker() == "*"]
    assert sorted(stars) == [(0.01, 0.4), (1.0, 0.5)]
    assert dots(axes, "x") == [(1.0, 0.1)]
    assert {"sgd: 1 chosen, at the end of what was tried", "adam: 0.01 chosen"} <= set(legend(figure))


def test_no_line_is_drawn_where_other_settings_changed_with_every_rate(make_run):
    def at(rate, dropout, accuracy):
        return trial(make_run, "sgd", (0.2, accuracy), rate, **{"model.dropout": dropout})

    final = make_run("sgd", 0)
    random = learning_rate_figure(compare([final, at(0.1, 0.2, 0.3), at(0.2, 0.3, 0.4), at(0.3, 0.4, 0.2)]))
    assert [len(line.get_xdata()) for line in random.axes[0].lines if line.get_linestyle() == "-"] == [0]
    grid = learning_rate_figure(compare([final, *(at(r, d, r + d) for r in (0.1, 0.2) for d in (0.1, 0.2))]))
    line = next(line for line in grid.axes[0].lines if line.get_linestyle() == "-")
    assert line.get_ydata() == pytest.approx([0.3, 0.4])


def test_names_of_any_kind_are_shown_whole_at_their_ends_and_cover_nothing(make_run):
    names = ["_hidden", "a$b$c", "x" * 90 + "_first", "x" * 90 + "_second"]
    comparison = compare([make_run(name, seed) for name in names for seed in range(2)])
    figure = curves_figure(comparison)
    renderer = draw(figure)
    shown = legend(figure)
    assert shown[:2] == ["_hidden", "a$b$c"]
    assert shown[2].replace("\n", "").endswith("_first")
    assert shown[3].replace("\n", "").endswith("_second")
    below = figure.legends[0].get_window_extent(renderer)
    assert below.x0 >= 0
    assert below.x1 <= figure.bbox.x1
    assert all(below.y1 < axes.get_tightbbox(renderer).y0 for axes in figure.axes)
    for figure in (accuracy_figure(comparison), target_figure(comparison)):
        renderer = draw(figure)
        box = figure.axes[0].get_tightbbox(renderer)
        assert box.x0 >= 0
        assert figure.axes[0].bbox.width > 0.2 * figure.bbox.width
        assert all(text.get_window_extent(renderer).x1 <= figure.bbox.x1 for text in figure.axes[-1].texts)
