import csv
import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from fer_exp.comparison.analysis import compare
from fer_exp.comparison.load import Records, find_records
from fer_exp.comparison.report import latex_escape, render_html, render_markdown, render_text, write_report
from fer_exp.comparison.sections import make_report

HOSTILE = [
    "=1+1",
    "@x",
    "[x](javascript:alert(1))",
    "_a_ | <b>",
    "\x1b[31mred",
    "**b** `c`",
    "<script>alert(1)</script>",
]


def report_of(sweep, tmp_path, **options):
    return make_report(compare(find_records([sweep]), **options), tmp_path)


def cells(markdown):
    """The tables of a Markdown text as lists of rows."""
    lines = [line.strip("|").split(" | ") for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines]


def test_all_files_are_written_and_the_same_runs_give_the_same_bytes(make_sweep, tmp_path):
    comparison = compare(find_records([make_sweep(3)]))
    contents = []
    for _ in range(2):
        _, written = write_report(comparison, tmp_path / "report", with_latex=True)
        contents.append({path.name: path.read_bytes() for path in written})
    assert contents[0] == contents[1]
    assert {"comparison.md", "comparison.csv", "comparison.tex", "report.html", "forest.svg"} <= {*contents[0]}
    assert "curves_val_acc.svg" in contents[0]


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"root": "/sets/fer2013/images"}, "fer2013"),
        ({"root": None, "file": "/sets/faces.csv"}, "faces"),
        ({"root": None, "_target_": "fer_exp.data.sources.synthetic.SyntheticDataModule"}, "synthetic images"),
        ({"root": None, "_target_": "my_package.Npz"}, "Npz"),
    ],
    ids=str,
)
def test_the_title_names_the_data(make_run, tmp_path, data, name):
    run = make_run(settings={f"data.{key}": value for key, value in data.items()})
    assert make_report(compare(Records([run])), tmp_path).title.endswith(f" on {name}")
    other = make_run("sgd", settings={"data.root": "/sets/rafdb"})
    assert make_report(compare(Records([run, other])), tmp_path).title.endswith(" on 2 data sets")


def test_a_figure_that_no_longer_applies_is_removed(make_sweep, make_run, tmp_path):
    write_report(compare(find_records([make_sweep(3)])), tmp_path / "report")
    assert (tmp_path / "report/figures/forest.svg").exists()
    write_report(compare(Records([make_run()])), tmp_path / "report")
    assert not (tmp_path / "report/figures/forest.svg").exists()


def test_the_numbers_equal_numpy(make_sweep, tmp_path):
    comparison = compare(find_records([make_sweep(3)]))
    rows = cells(render_markdown(make_report(comparison, tmp_path)))[2:5]
    for group, row in zip(comparison.groups, rows, strict=True):
        scores = [100 * run.history["val_acc"][-1] for run in group.counted]
        assert row[1:4] == [group.label, "3", f"{np.mean(scores):.1f} ± {np.std(scores, ddof=1):.1f}"]


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", ["short", "a_very_long_name_" * 8, "中文😀" * 20])
def test_the_terminal_text_is_never_wider_than_the_terminal(make_records, tmp_path, width, name):
    report = make_report(compare(make_records(**{name: [0.5, 0.6], "sgd": [0.4, 0.3]})), tmp_path)
    from rich.cells import cell_len

    text = render_text(report, width)
    table = [line for line in text.splitlines() if not line.startswith("  python")]
    assert max(map(cell_len, table)) <= width
    assert "sgd" in text


def test_the_csv_has_a_row_per_run(make_sweep, tmp_path):
    comparison = compare(find_records([make_sweep(2)]))
    write_report(comparison, tmp_path)
    with (tmp_path / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    run = comparison.groups[0].counted[0]
    assert float(rows[0]["final_val_acc"]) == run.history["val_acc"][-1]
    assert float(rows[0]["best_val_loss"]) == run.metric("best", "val_loss")
    assert (rows[0]["group"], rows[0]["counted"], rows[0]["lr"]) == ("adam", "yes", "0.001")


def test_hostile_names_are_text_in_every_format(make_run, tmp_path):
    runs = [make_run(name, seed, [0.5 + i / 50 + seed / 99]) for i, name in enumerate(HOSTILE) for seed in (0, 1)]
    comparison = compare(Records(runs))
    report, _ = write_report(comparison, tmp_path, with_latex=True)
    for row in csv.reader((tmp_path / "comparison.csv").read_text().splitlines()):
        assert not row[0].startswith(("=", "@", "+", "-"))
    markdown = (tmp_path / "comparison.md").read_text()
    assert not re.search(r"(?<!\\)\[x(?<!\\)\]\(", markdown)
    assert "\\_a\\_ \\|" in markdown
    assert not re.search(r"(?<!\\)<(b|script)>", markdown)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<script") == 1
    assert "&lt;script&gt;" in page
    for text in (markdown, page, render_text(report, 100), (tmp_path / "comparison.tex").read_text()):
        assert "\x1b" not in text
    for figure in (tmp_path / "figures").glob("*.svg"):
        ET.parse(figure)


def test_latex_special_characters_are_escaped():
    assert latex_escape(r"a_b & 5 % $x$ {y} #1 ~ ^ \z") == (
        r"a\_b \& 5 \% \$x\$ \{y\} \#1 \textasciitilde{} \textasciicircum{} \textbackslash{}z"
    )


def test_the_page_is_self_contained(make_sweep, tmp_path):
    page = render_html(report_of(make_sweep(3), tmp_path))
    assert "default-src 'none'" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert not re.findall(r"https?://(?!www\.w3\.org)|@import|url\(", page)


@pytest.mark.parametrize(("groups", "seeds", "epochs", "limit"), [(3, 3, 60, 400_000), (24, 3, 100, 1_000_000)])
def test_the_page_is_small(make_sweep, tmp_path, groups, seeds, epochs, limit):
    sweep = make_sweep(groups, seeds=seeds, epochs=epochs)
    write_report(compare(find_records([sweep])), tmp_path)
    assert (tmp_path / "report.html").stat().st_size < limit


def test_every_figure_shows_a_group_in_its_own_colour(make_sweep, tmp_path):
    report = report_of(make_sweep(9, seeds=4), tmp_path)
    assert any(row[5].startswith("<") for row in report.ranking.rows)  # p < 0.001 is text in a figure too
    for figure in report.figures:
        places = {element.get("class") for element in ET.fromstring(figure.svg).iter()}
        assert {f"g{n}" for n in range(9)} <= places, figure.name


def test_recall_at_zero_has_a_wilson_interval(make_run, tmp_path):
    confusion = np.diag([10.0] * 7)
    confusion[1] = [20, 0, 0, 0, 0, 0, 0]
    confusion[2] = 0
    runs = [
        make_run(name, 0, [0.5], facts={"confusion": confusion.tolist()}, settings={"optimizer.lr": 0.1})
        for name in ("adam", "sgd")
    ]
    report = make_report(compare(Records(runs)), tmp_path)
    (classes,) = [section for section in report.sections if section.heading == "Classes"]
    row = classes.tables[0].rows[0]
    low, high = map(float, re.findall(r"[\d.]+", row[2].partition("[")[2]))
    assert (low, high) == (0.0, pytest.approx(16.1, abs=0.1))  # Wilson, 0 of 20
    assert row[3] == "\u2013"  # no images: recall is undefined
    assert any("fear" in caveat for caveat in report.caveats)


def test_a_learning_rate_sweep_has_a_figure(make_run, tmp_path):
    runs = [
        make_run("adam", seed, [0.5 - abs(i - 1) / 10 + seed / 100], settings={"optimizer.lr": lr})
        for i, lr in enumerate((0.001, 0.01, 0.1))
        for seed in (0, 1)
    ]
    report = make_report(compare(Records(runs), ["optimizer", "optimizer.lr"]), tmp_path)
    assert "learning_rate" in [figure.name for figure in report.figures]
    assert not any(math.isnan(float(n)) for n in re.findall(r'c[xy]="([^"]+)"', str(report.sections)))


@pytest.mark.parametrize("case", ["one run", "failed", "diverged", "one epoch", "no confusion"])
def test_unusual_records_have_a_report(make_run, tmp_path, case):
    nan = [math.nan]
    runs = {
        "one run": lambda: [make_run()],
        "failed": lambda: [make_run(status="failed"), make_run("sgd", val_acc=(), status="failed")],
        "diverged": lambda: [
            make_run(n, 0, [0.1], status="diverged", val_loss=nan, train_loss=nan) for n in ("adam", "sgd")
        ],
        "one epoch": lambda: [make_run(n, s, [0.5]) for n in ("adam", "sgd") for s in (0, 1)],
        "no confusion": lambda: [make_run(n, 0, facts={"confusion": None, "data": None}) for n in ("adam", "sgd")],
    }[case]()
    report, _ = write_report(compare(Records(runs)), tmp_path, with_latex=True)
    assert report.verdict.headline
    assert "nan" not in (tmp_path / "comparison.csv").read_text()
    for figure in (tmp_path / "figures").glob("*.svg"):
        assert "nan" not in re.sub(r">[^<]*<", "", figure.read_text())
