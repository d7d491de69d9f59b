"""The files of an evaluation: safe text, one self-contained page, the same numbers in each format."""

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fer_exp.evaluation.report import format_report, write_report
from fer_exp.runs.checkpoint import LoadedModel

CLASSES = ("_x_|<b>", "=1+1", "[happy](javascript:alert(1))", "快乐")


class Page(HTMLParser):
    """Collects the text, the tags and the addresses of a page."""

    def __init__(self, text):
        super().__init__()
        self.text, self.tags, self.addresses = "", [], []
        self.feed(text)

    def handle_data(self, data):
        self.text += data

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]


@pytest.fixture(scope="module")
def folder(evaluation, model, tmp_path_factory):
    found = tmp_path_factory.mktemp("found")
    assert write_report(evaluation, model, found, "light") == []
    return found


def test_the_page_is_one_file_without_requests(folder):
    text = (folder / "evaluation.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "default-src 'none'" in text
    assert [address for address in page.addresses if not address.startswith("data:")] == []
    assert not {"script", "b", "link", "iframe"} & {*page.tags}
    assert page.tags.count("svg") == 2
    assert len(text) < 400_000


def test_every_format_has_the_same_numbers(evaluation, folder):
    accuracy = evaluation.scores["none"].overall["accuracy"]
    assert json.loads((folder / "metrics.json").read_text())["tta"]["none"]["accuracy"]["value"] == accuracy.value
    shown = f"{100 * accuracy.value:.2f} %"
    page = Page((folder / "evaluation.html").read_text(encoding="utf-8")).text.replace("\u00a0", " ")
    for text in (format_report(evaluation), (folder / "evaluation.md").read_text(encoding="utf-8"), page):
        assert shown in text
        assert "3 of 4 classes. These have no images: 快乐" in text  # the averages exclude a class
        assert "Protocol folders." in text


def test_names_are_text_in_every_format(evaluation, folder):
    page = Page((folder / "evaluation.html").read_text(encoding="utf-8"))
    assert all(name in page.text for name in CLASSES)
    markdown = (folder / "evaluation.md").read_text(encoding="utf-8")
    assert "](javascript" not in markdown.replace("\\]", "")
    assert "<b>" not in markdown.replace("\\<", "")
    texts = [format_report(evaluation), *(path.read_text(encoding="utf-8") for path in folder.glob("*.[mhc]*"))]
    assert not any("\x1b" in text for text in texts)


def test_predictions_are_probabilities_without_formulas(evaluation, folder):
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header[:3] == ["file", "label", "predicted"]
    assert not [cell for row in (header, *rows) for cell in row if cell[0] in "=+-@"]
    values = np.array([[float(cell) for cell in row[3:]] for row in rows])
    np.testing.assert_allclose(values, evaluation.log_probabilities["none"].exp(), atol=1e-6)


class Inexplicable(nn.Conv2d):
    """Computes no gradients."""

    def forward(self, images):
        assert not torch.is_grad_enabled()
        return super().forward(images)


def test_an_evaluation_does_without_a_plot_that_fails_and_without_gradcam(evaluation, tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError("no ink")

    monkeypatch.setattr("fer_exp.evaluation.pictures.per_class_figure", fail)
    network = nn.Sequential(Inexplicable(3, 1, 19), nn.Flatten()).eval()
    omitted = write_report(evaluation, LoadedModel(Path("a.ckpt"), network, 4, {"config": {}}), tmp_path, "dark")
    assert ["Grad-CAM" in omitted[0], "per_class.png" in omitted[1], len(omitted)] == [True, True, 2]
    assert not {path.name for path in tmp_path.iterdir()} & {"per_class.png", "gradcam.png"}
    assert "per_class.png" not in (tmp_path / "evaluation.md").read_text(encoding="utf-8")
    assert "Grad-CAM" not in Page((tmp_path / "evaluation.html").read_text(encoding="utf-8")).text
