import csv
import math
import os
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from fer_exp.comparison.analysis import compare
from fer_exp.comparison.report import format_answer, write_report

VOID = {"meta", "img", "br", "link"}
NOTHING = "\u2013"


class Page(HTMLParser):
    """Reads a page, and fails where a tag is not closed as it should be."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.details = [], [], "", 0
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def of(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def read(folder, name):
    return (folder / name).read_text(encoding="utf-8")


def rows(folder):
    with (folder / "comparison.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table(markdown, heading):
    """The first table below a heading: {first cell: other cells}, or a list where first cells repeat."""
    lines = markdown.split(f"## {heading}\n")[1].split("\n## ")[0].splitlines()
    lines = [line for line in lines if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1, "columns are not padded"
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in (lines[0], *lines[2:])]


def trial(make_run, name, rate, val_acc=(0.2, 0.4), status="completed", **more):
    return make_run(name, 0, val_acc, status, {"optimizer.lr": rate, "data.val_fraction": 0.2}, arm=name, **more)


@pytest.fixture
def real_pictures():
    """Asked for by tests that need the figures as they are."""


@pytest.fixture(autouse=True)
def pictures(request, monkeypatch):
    """Figures are made but not rendered, which takes longest, unless a test asks for ``real_pictures``."""
    if "real_pictures" not in request.fixturenames:
        monkeypatch.setattr("fer_exp.comparison.pictures._png", lambda figure: b"\x89PNG")


@pytest.fixture
def study(make_run, three_optimizers):
    """Three optimizers with trials before them, and runs that went wrong."""
    lost = make_run("sgd", 3, (0.3, 0.1), "diverged", val_loss=(2.0, math.nan), train_loss=(2.0, math.nan))
    others = [make_run("adam", 3, (0.3,), "running"), make_run("rmsprop", 3, (), "failed")]
    trials = [trial(make_run, name, rate, (0.2, 0.3 + rate)) for name in ("adam", "sgd") for rate in (0.01, 0.1)]
    trials += [trial(make_run, "adam", 0.001, (0.2, 0.3)), trial(make_run, "sgd", 1.0, (0.2,), "failed")]
    return [*three_optimizers, lost, *others, *trials]


def test_all_files_are_written_and_whole(study, tmp_path, real_pictures):
    paths = write_report(compare(study), tmp_path / "a" / "report")
    figures = ["curves.png", "accuracy.png", "time_to_target.png", "learning_rate.png"]
    expected = {"comparison.md", "comparison.csv", "report.html", *figures}
    assert {path.name for path in paths} == expected
    assert {path.name for path in (tmp_path / "a" / "report").iterdir()} == expected
    for name in figures:
        with Image.open(tmp_path / "a" / "report" / name) as image:
            image.load()
            assert image.width == 1080


def test_a_report_that_is_made_again_has_the_same_bytes(study, tmp_path, real_pictures):
    first = {path.name: path.read_bytes() for path in write_report(compare(study), tmp_path / "report")}
    second = {path.name: path.read_bytes() for path in write_report(compare(study), tmp_path / "report")}
    assert first == second


def test_a_figure_that_no_longer_applies_is_removed(study, three_optimizers, make_run, tmp_path):
    write_report(compare(study), tmp_path / "report")
    assert (tmp_path / "report/learning_rate.png").exists()
    write_report(compare(three_optimizers), tmp_path / "report")
    assert not (tmp_path / "report/learning_rate.png").exists()
    assert "learning_rate.png" not in read(tmp_path / "report", "comparison.md")
    write_report(compare([make_run("adam", 0, (), "failed")]), tmp_path / "report")
    assert not list((tmp_path / "report").glob("*.png"))


def test_the_csv_has_every_run_with_the_figures_of_its_record(study, tmp_path):
    write_report(compare(study, target=0.4), tmp_path / "report")
    found = {(tmp_path / "report" / row["folder"]).resolve(): row for row in rows(tmp_path / "report")}
    assert set(found) == {run.folder.resolve() for run in study}
    for run in study:
        row = found[run.folder.resolve()]
        assert row["role"] == ("selection" if run.held_out else "reporting")
        assert row["counted"] == ("yes" if run.counts and not run.held_out else "no")
        assert (row["status"], int(row["seed"]), int(row["epochs"])) == (run.status, run.seed, run.epochs)
        assert (row["optimizer"], float(row["lr"])) == (run.value("optimizer"), run.value("optimizer.lr"))
        assert float(row["total_seconds"]) == pytest.approx(max(40.0, 32.0) * run.epochs)
        if not run.epochs:
            assert row["best_val_acc"] == row["epochs_to_target"] == ""
            continue
        accuracies = run.history["val_acc"]
        assert float(row["final_val_acc"]) == accuracies[-1]
        if run.status != "diverged":
            assert float(row["best_val_acc"]) == accuracies.max()
            assert int(row["best_epoch"]) == accuracies.argmax() + 1
            assert float(row["best_val_loss"]) == run.history["val_loss"][accuracies.argmax()]
        reached = np.flatnonzero(accuracies >= 0.4)
        missing = "inf" if run.counts else ""
        assert row["epochs_to_target"] == (str(float(reached[0] + 1)) if len(reached) else missing)
    lost = next(row for row in found.values() if row["status"] == "diverged")
    assert lost["final_val_loss"] == "inf"


def test_the_tables_agree_with_numpy(three_optimizers, tmp_path):
    write_report(compare(three_optimizers, target=0.5), tmp_path / "report")
    markdown = read(tmp_path / "report", "comparison.md")
    header, *results = table(markdown, "Results")
    assert header == [
        *("group", "n", "best val_acc", "final val_acc", "val_loss", "macro-F1", "epochs to target", "runs")
    ]
    by_group = {
        name: [run for run in three_optimizers if run.value("optimizer") == name] for name in ("adam", "sgd", "rmsprop")
    }
    for name, row in zip(by_group, results, strict=True):
        best = 100 * np.array([run.history["val_acc"].max() for run in by_group[name]])
        final = 100 * np.array([run.history["val_acc"][-1] for run in by_group[name]])
        epochs = [np.flatnonzero(run.history["val_acc"] >= 0.5) for run in by_group[name]]
        median = np.median([some[0] + 1 if len(some) else np.inf for some in epochs])
        assert row[:4] == [
            *(name, "3", f"{best.mean():.1f} ± {best.std(ddof=1):.1f} %"),
            f"{final.mean():.1f} ± {final.std(ddof=1):.1f} %",
        ]
        assert row[6:] == ["never" if np.isinf(median) else f"{median:g}", "3 completed"]
    details = {(row[0], row[1], row[2]): row[3:] for row in table(markdown, "All metrics")[1:]}
    losses = np.array([run.history["val_loss"][-1] for run in by_group["sgd"]])
    measures = (losses.mean(), losses.std(ddof=1), np.median(losses), losses.min(), losses.max())
    assert details["sgd", "val_loss", "final"] == ["3", *(f"{value:.3f}" for value in measures)]
    differences = {(row[0], row[1], row[2]): row[3:] for row in table(markdown, "Differences")[1:]}
    assert len(differences) == 12
    pairs = zip(by_group["sgd"], by_group["adam"], strict=True)
    mean = 100 * np.mean([a.history["val_acc"].max() - b.history["val_acc"].max() for a, b in pairs])
    assert differences["sgd", "val_acc, points", "best"][:2] == ["3", f"{mean:.1f}"]
    assert differences["sgd", "val_acc, points", "best"][-1] == "yes"


def test_infinity_is_never_in_a_time_and_a_sign_in_a_loss(study, tmp_path):
    write_report(compare(study, target=0.5), tmp_path / "report")
    markdown = read(tmp_path / "report", "comparison.md")
    times = {row[0]: row[1:] for row in table(markdown, "Time to target")[1:]}
    assert times["sgd"] == ["0 of 4", "never", "never", "never"]
    details = {(row[0], row[1], row[2]): row[3:] for row in table(markdown, "All metrics")[1:]}
    assert details["sgd", "val_loss", "final"][:2] == ["4", "∞"]
    assert "nan" not in markdown.lower()
    results = {row[0]: row[-1] for row in table(markdown, "Results")[1:]}
    assert results == {
        "adam": "3 completed, 1 unfinished",
        "sgd": "3 completed, 1 diverged",
        "rmsprop": "3 completed, 1 failed",
    }


def test_the_report_says_how_settings_were_chosen(study, tmp_path):
    write_report(compare(study), tmp_path / "report")
    markdown = read(tmp_path / "report", "comparison.md")
    header, *trials = table(markdown, "How settings were chosen")
    found = {row[0]: dict(zip(header, row, strict=True)) for row in trials}
    assert found["sgd"]["chosen"] == "optimizer.lr=0.1"
    assert found["sgd"]["score"] == "40 %"
    assert (found["sgd"]["trials"], found["sgd"]["no result"], found["sgd"]["epochs"]) == ("3", "1", "5")
    assert found["sgd"]["hours"] == f"{5 * 40 / 3600:.2f}"
    assert found["adam"]["at the end of its range"] == "optimizer.lr"


def test_markdown_has_all_that_an_answer_needs(study, tmp_path):
    comparison = compare(study)
    write_report(comparison, tmp_path / "report")
    markdown = read(tmp_path / "report", "comparison.md")
    assert markdown.startswith("# Comparison by optimizer\n")
    for sentence in (*(difference.sentence for difference in comparison.differences), *comparison.notes):
        assert sentence in markdown
    for words in ("9,999 resamples", "t-test", "best is optimistic", "by itself", "The baseline is adam"):
        assert words in markdown
    links = re.findall(r"\]\(([^)]+)\)", markdown)
    assert {"curves.png", "accuracy.png", "time_to_target.png", "learning_rate.png"} < set(links)
    assert all((tmp_path / "report" / link).exists() for link in links)
    settings = table(markdown, "Settings that all groups share")
    assert ["data.batch_size", "128"] in settings


def test_the_answer_about_the_last_epoch_says_why(make_run, tmp_path):
    runs = [make_run(name, seed, settings={"callbacks": {}}) for name in ("adam", "sgd") for seed in range(2)]
    comparison = compare(runs)
    assert comparison.measure == "final"
    write_report(comparison, tmp_path / "report")
    assert "The answer is about final val_acc" in read(tmp_path / "report", "comparison.md")
    assert "by itself" not in read(tmp_path / "report", "comparison.md")


def test_the_page_needs_nothing_but_itself(study, tmp_path):
    write_report(compare(study), tmp_path / "report")
    text = read(tmp_path / "report", "report.html")
    page = Page(text)
    assert "http" not in text
    assert not page.of("script")
    assert not page.of("link")
    assert "url(" not in text
    assert "@import" not in text
    assert len(page.of("img")) == 4
    assert all(attrs["src"].startswith("data:image/png;base64,") and attrs["alt"] for attrs in page.of("img"))
    assert page.of("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.of("meta")


def test_the_page_links_to_records_that_exist(study, tmp_path):
    (study[0].folder / "curves.png").write_bytes(b"")
    write_report(compare(study), tmp_path / "runs" / "a report")
    page = Page(read(tmp_path / "runs" / "a report", "report.html"))
    links = [unquote(attrs["href"]) for attrs in page.of("a")]
    assert len(links) == len(study) + 1
    assert not any(link.startswith(("/", "file:")) for link in links)
    assert all((tmp_path / "runs" / "a report" / link).is_file() for link in links)
    assert os.path.relpath(study[0].folder / "curves.png", tmp_path / "runs" / "a report") in links


def test_the_page_says_the_same_as_the_markdown(study, tmp_path):
    comparison = compare(study)
    write_report(comparison, tmp_path / "report")
    text = Page(read(tmp_path / "report", "report.html")).text
    markdown = read(tmp_path / "report", "comparison.md")
    for heading in re.findall(r"^## (.*)$", markdown, re.MULTILINE):
        assert heading in text
    for row in table(markdown, "Results") + table(markdown, "All metrics"):
        assert all(cell in text for cell in row)
    assert text.count("Not claimed") == sum(
        not difference.paired["best", "val_acc"].is_claimed for difference in comparison.differences
    )


def test_a_name_is_text_and_nothing_else(make_run, tmp_path):
    names = ["<script>alert(1)</script>", "a|b", "*c* `d`"]
    runs = [make_run(name, seed, (0.3, 0.4 + seed / 100)) for name in names for seed in range(2)]
    comparison = compare(runs)
    write_report(comparison, tmp_path / "report")
    page = Page(read(tmp_path / "report", "report.html"))
    assert not page.of("script")
    assert all(name in page.text for name in names)
    markdown = read(tmp_path / "report", "comparison.md")
    assert "<script" not in markdown
    assert [row[0] for row in table(markdown, "Results")[1:]] == [
        *("&lt;script>alert(1)&lt;/script>", r"a\|b", r"\*c\* \`d\`")
    ]
    assert {row["group"] for row in rows(tmp_path / "report")} == set(names)
    assert all(name in format_answer(comparison) for name in names)


def test_a_sweep_in_which_everything_failed_has_a_report(make_run, tmp_path):
    runs = [make_run(name, seed, (), "failed") for name in ("adam", "sgd") for seed in range(2)]
    comparison = compare(runs)
    paths = write_report(comparison, tmp_path / "report")
    assert [path.name for path in paths] == ["comparison.md", "comparison.csv", "report.html"]
    markdown = read(tmp_path / "report", "comparison.md")
    assert "No run came to a result" in markdown
    assert table(markdown, "Results")[1] == ["adam", "0", *[NOTHING] * 5, "2 failed"]
    assert "nan" not in markdown.lower()
    assert "out of memory" in Page(read(tmp_path / "report", "report.html")).text
    assert len(rows(tmp_path / "report")) == 4
    assert "0/0/2/0" in format_answer(comparison)


def test_a_group_without_a_result_stands_beside_the_others(make_run, tmp_path):
    runs = [make_run("sgd", 0, (), "failed"), make_run("adam", 0), make_run("adam", 1)]
    write_report(compare(runs), tmp_path / "report")
    markdown = read(tmp_path / "report", "comparison.md")
    assert table(markdown, "Results")[1][2:7] == [NOTHING] * 5
    assert [row[0] for row in table(markdown, "Time to target")[1:]] == ["adam"]


def test_a_single_run_has_nothing_to_be_compared_with(make_run, tmp_path):
    comparison = compare([make_run("adam", 0, (0.3,))])
    write_report(comparison, tmp_path / "report")
    markdown = read(tmp_path / "report", "comparison.md")
    assert "There is one group, adam, and nothing to compare it with." in markdown
    assert "## Differences" not in markdown
    assert table(markdown, "Results")[1][2] == "30.0 %"
    assert "There is one group" in format_answer(comparison)


def test_a_long_list_of_runs_and_a_long_answer_are_folded(make_run, tmp_path, monkeypatch):
    runs = [make_run(f"optimizer{i}", 0, (0.2, 0.3 + i / 100)) for i in range(25)]
    write_report(compare(runs), tmp_path / "report")
    assert "18 more" in Page(read(tmp_path / "report", "report.html")).text
    assert "The 25 runs" not in read(tmp_path / "report", "report.html")
    assert table(read(tmp_path / "report", "comparison.md"), "Results")[25][0] == "optimizer24"
    monkeypatch.setattr("fer_exp.comparison.report.UNFOLDED_RUNS", 24)
    write_report(compare(runs), tmp_path / "report")
    assert "<summary>The 25 runs</summary>" in read(tmp_path / "report", "report.html")


def test_the_terminal_shows_answer_table_and_notes(study):
    comparison = compare(study, target=0.5)
    text = format_answer(comparison)
    lines = text.splitlines()
    assert " ".join(text.split()).startswith(comparison.differences[0].sentence)
    header = next(i for i, line in enumerate(lines) if line.startswith("group"))
    assert lines[header].split()[:3] == ["group", "runs*", "n"]
    assert lines[header + 2].split()[:3] == ["adam", "3/0/0/1", "3"]
    assert lines[header + 3].split()[:3] == ["sgd", "3/1/0/0", "4"]
    assert lines[header + 3].split()[-1] == "never"
    assert len({len(line) for line in lines[header : header + 5]}) == 1
    flat = " ".join(text.split())
    assert all(" ".join(note.split()) in flat for note in comparison.notes)


def test_a_long_name_is_wrapped_on_the_terminal(make_run):
    name = "a_name_that_is_long_enough_to_leave_no_room_for_any_figure_beside_it"
    text = format_answer(compare([make_run(name, 0, (0.123, 0.5)), make_run(name, 1), make_run("b", 0)]))
    below = text.split("\ngroup")[1].splitlines()
    assert max(map(len, below)) <= 120
    assert name in "".join(line[:32].strip() for line in below[2:5])
