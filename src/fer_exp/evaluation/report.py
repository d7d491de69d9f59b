"""Write an evaluation: ``evaluation.html``, ``evaluation.md``, ``metrics.json``, ``predictions.csv`` and plots."""

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import Tensor

from fer_exp.data.dataset import ImageDataset
from fer_exp.errors import UserError
from fer_exp.evaluation.calibration import BINS
from fer_exp.evaluation.pictures import Pictures, make_pictures
from fer_exp.evaluation.protocol import TTA, EvalSplit, Provenance
from fer_exp.evaluation.scores import LEVEL, Estimate, Scores
from fer_exp.files import csv_cell, markdown_text, printable, replacing
from fer_exp.plots.evaluation import inline_svg
from fer_exp.plots.style import save_plot
from fer_exp.plots.tables import markdown_table
from fer_exp.runs.checkpoint import LoadedModel
from fer_exp.runs.record import for_json

PAGE, MARKDOWN, METRICS_FILE, PREDICTIONS = "evaluation.html", "evaluation.md", "metrics.json", "predictions.csv"
SCHEMA = 2
_PERCENT = ("accuracy", "balanced_accuracy", "macro_f1", "ece", "ece_calibrated")
_LABELS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "nll": "NLL",
    "ece": "ECE",
    "temperature": "temperature T",
    "nll_calibrated": "NLL at T",
    "ece_calibrated": "ECE at T",
}
_METHOD = (
    "Brackets are {level:.0f} % confidence intervals over the images. They do not include how much another training "
    "seed would change the result. Accuracy, precision, recall and F1: Wilson intervals. Balanced accuracy: "
    "combined from the recalls. Macro-F1: bootstrap with {resamples:,} resamples, seed {seed}. NLL and ECE: normal "
    "intervals."
)
_TERMS = (
    "NLL: mean negative log-likelihood in nats. ECE: expected calibration error in {bins} bins of equal width; with "
    "few images it is biased upwards. T: the temperature that divides the logits. TTA: test-time augmentation, the "
    "mean of the probabilities over several versions of each image."
)


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        provenance: of the weights.
        protocol: its name.
        statement: protocol, weights and images in sentences.
        notes: caveats, a sentence each.
        split: the evaluated images: name and folder.
        images: the evaluated images.
        copies: number of evaluated images with the same pixels as a ``train`` or a ``selection`` image.
        log_probabilities: (N, C) by the name of the test-time augmentation (TTA).
        scores: by the same names.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        environment: versions, device, precision, commit.
        time: of the evaluation, UTC, ISO 8601.
    """

    provenance: Provenance
    protocol: str
    statement: str
    notes: Sequence[str]
    split: EvalSplit
    images: ImageDataset
    copies: Mapping[str, int]
    log_probabilities: Mapping[str, Tensor]
    scores: Mapping[str, Scores]
    resamples: int
    seed: int
    environment: Mapping[str, Any]
    time: str

    @property
    def tta(self) -> str:
        """The test-time augmentation of plots and predictions: the first one given."""
        return next(iter(self.scores))

    @property
    def subtitle(self) -> str:
        """Images, protocol, TTA and epoch, for a plot."""
        epoch = "" if self.provenance.epoch is None else f", epoch {self.provenance.epoch}"
        return f"{printable(Path(self.split.name).name)} ({self.protocol}), {TTA[self.tta]}{epoch}"


@dataclass(frozen=True)
class Table:
    """A table of text; ``shades`` holds a fraction for each cell that is shaded in the HTML report, else None."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    shades: Sequence[Sequence[float | None]] | None = None


@dataclass(frozen=True)
class Section:
    """A part of the report: heading, paragraphs, a table, and the names of its plots."""

    heading: str
    text: Sequence[str]
    table: Table | None = None
    plots: Sequence[str] = ()


def write_report(evaluation: Evaluation, model: LoadedModel, folder: Path, theme: str) -> list[str]:
    """Write all files of an evaluation.

    Args:
        evaluation: the result.
        model: the evaluated network, for the Grad-CAM maps.
        folder: where to write.
        theme: ``plots.theme``, of the PNG files.

    Returns:
        What could not be drawn, a sentence each.

    Raises:
        UserError: the folder cannot be written.
    """
    pictures = make_pictures(evaluation, model)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / PREDICTIONS) as draft:
            _write_predictions(draft, evaluation)
        with replacing(folder / METRICS_FILE) as draft:
            content = json.dumps(for_json(describe(evaluation)), indent=2, allow_nan=False)
            draft.write_text(content + "\n", encoding="utf-8")
        written = [
            name
            for name, (title, draw) in pictures.plots.items()
            if save_plot(folder / f"{name}.png", partial(draw, title, evaluation.subtitle), theme)
        ]
        with replacing(folder / MARKDOWN) as draft:
            draft.write_text(_markdown(evaluation, written), encoding="utf-8")
        with replacing(folder / PAGE) as draft:
            draft.write_text(_html(evaluation, pictures, written), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: the evaluation cannot be written there ({error.strerror or error})") from error
    return [*pictures.omitted, *(f"{name}.png could not be drawn." for name in pictures.plots if name not in written)]


def describe(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation as plain values, for ``metrics.json``."""
    provenance, images = evaluation.provenance, evaluation.images
    return {
        "schema": SCHEMA,
        "time": evaluation.time,
        "protocol": evaluation.protocol,
        "statement": evaluation.statement,
        "notes": list(evaluation.notes),
        "weights": {
            "checkpoint": str(provenance.checkpoint),
            "run": None if provenance.run is None else str(provenance.run),
            "name": provenance.weights,
            "epoch": provenance.epoch,
            "selected_by": provenance.selected_by,
        },
        "images": {
            "split": evaluation.split.name,
            "location": evaluation.split.location,
            "count": len(images),
            "classes": list(images.classes),
            "fingerprint": evaluation.split.fingerprint,
            "copies": dict(evaluation.copies),
        },
        "intervals": {"level": LEVEL, "resamples": evaluation.resamples, "seed": evaluation.seed},
        "calibration_bins": BINS,
        "environment": dict(evaluation.environment),
        "tta": {name: _describe_scores(scores, images.classes) for name, scores in evaluation.scores.items()},
    }


def _describe_scores(scores: Scores, classes: Sequence[str]) -> dict[str, Any]:
    return {
        **{name: estimate._asdict() for name, estimate in scores.overall.items()},
        "temperature": scores.temperature,
        "per_class": {
            name: {
                "support": scores.support[c],
                **{metric: estimates[c]._asdict() for metric, estimates in scores.per_class.items()},
            }
            for c, name in enumerate(classes)
        },
        "confusion": scores.confusion.tolist(),
    }


def _write_predictions(path: Path, evaluation: Evaluation) -> None:
    """Write one row per image: file, label, predicted class, and the probability of each class before calibration.

    Rows of training images can be training targets: ``data.soft_labels``.
    """
    images, probabilities = evaluation.images, evaluation.log_probabilities[evaluation.tta].exp()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        classes = list(map(csv_cell, images.classes))
        writer.writerow(["file", "label", "predicted", *classes])
        for name, label, row in zip(images.names, images.labels.tolist(), probabilities.tolist(), strict=True):
            place = csv_cell(name)
            writer.writerow([place, classes[label], classes[np.argmax(row)], *(f"{value:.6f}" for value in row)])


def make_sections(evaluation: Evaluation) -> list[Section]:
    """The report's content after its statement and caveats."""
    scores = evaluation.scores[evaluation.tta]
    tta = TTA[evaluation.tta]
    return [
        Section("Metrics", _undefined_notes(scores, evaluation.images.classes), _overall_table(evaluation)),
        Section(f"Classes ({tta})", [], _class_table(scores, evaluation.images.classes), ["per_class"]),
        Section(
            f"Confusion matrix ({tta})",
            ["Rows are true classes, columns are predicted classes. Percentages are of the true class."],
            _confusion_table(scores, evaluation.images.classes),
            ["confusion_matrix"],
        ),
        Section(f"Calibration ({tta})", [_calibration_sentence(scores)], plots=["reliability"]),
        Section("Most confident errors", [], plots=["mistakes"]),
        Section(
            "Grad-CAM",
            ["Regions that support the predicted class. Each map has its own scale."],
            plots=["gradcam"],
        ),
        Section(
            "How it was measured",
            [
                _METHOD.format(level=100 * LEVEL, resamples=evaluation.resamples, seed=evaluation.seed),
                _TERMS.format(bins=BINS),
            ],
        ),
    ]


def _overall_table(evaluation: Evaluation) -> Table:
    def cell(name: str, scores: Scores) -> str:
        if name == "temperature":
            return "not fitted" if scores.temperature is None else f"{scores.temperature:.2f}"
        if name not in scores.overall:
            return "not fitted"
        return _percent(scores.overall[name]) if name in _PERCENT else _number(scores.overall[name])

    rows = [[label, *(cell(name, scores) for scores in evaluation.scores.values())] for name, label in _LABELS.items()]
    return Table(["metric", *(TTA[name] for name in evaluation.scores)], rows)


def _class_table(scores: Scores, classes: Sequence[str]) -> Table:
    rows = [
        [name, f"{support:,}", *(_percent(scores.per_class[m][c], brief=True) for m in ("precision", "recall", "f1"))]
        for c, (name, support) in enumerate(zip(classes, scores.support, strict=True))
    ]
    return Table(["class", "images", "precision", "recall", "F1"], rows)


def _confusion_table(scores: Scores, classes: Sequence[str]) -> Table:
    fractions = scores.confusion / np.maximum(scores.confusion.sum(axis=1, keepdims=True), 1)
    rows = [
        [name, *(f"{count:,} ({100 * fraction:.0f} %)" for count, fraction in zip(*cells, strict=True))]
        for name, *cells in zip(classes, scores.confusion.tolist(), fractions.tolist(), strict=True)
    ]
    return Table(["true \\ predicted", *classes], rows, [[None, *row] for row in fractions.tolist()])


def _calibration_sentence(scores: Scores) -> str:
    sentence = f"Expected calibration error {_percent(scores.overall['ece'])}"
    if scores.temperature is None:
        return f"{sentence}."
    return f"{sentence}; {_percent(scores.overall['ece_calibrated'])} at temperature {scores.temperature:.2f}."


def _undefined_notes(scores: Scores, classes: Sequence[str]) -> list[str]:
    """Which classes the averages exclude."""
    notes = []
    for average, metric, reason in (
        ("Balanced accuracy", "recall", "has no images"),
        ("Macro-F1", "f1", "has no images and no predictions"),
    ):
        undefined = [name for name, e in zip(classes, scores.per_class[metric], strict=True) if math.isnan(e.value)]
        if undefined:
            defined = len(classes) - len(undefined)
            notes.append(
                f"{average} is the mean over {defined} of {len(classes)} classes: {', '.join(undefined)} {reason}."
            )
    return notes


def _percent(estimate: Estimate, brief: bool = False) -> str:
    if math.isnan(estimate.value):
        return "undefined"
    value, low, high = (100 * part for part in estimate)
    return f"{value:.1f} % [{low:.0f}, {high:.0f}]" if brief else f"{value:.2f} % [{low:.1f}, {high:.1f}]"


def _number(estimate: Estimate) -> str:
    return f"{estimate.value:.4f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def format_report(evaluation: Evaluation) -> str:
    """The report without plots, for the terminal."""
    return "\n\n".join(_blocks(evaluation, printable, []))


def _markdown(evaluation: Evaluation, plots: Sequence[str]) -> str:
    return "\n\n".join(["# Evaluation", *_blocks(evaluation, markdown_text, plots, "## ")]) + "\n"


def _blocks(evaluation: Evaluation, escape: Callable[[object], str], plots: Sequence[str], mark: str = "") -> list[str]:
    blocks = [escape(evaluation.statement), *(f"Note: {escape(note)}" for note in evaluation.notes)]
    for section in make_sections(evaluation):
        images = [f"![{name.replace('_', ' ')}]({name}.png)" for name in section.plots if name in plots]
        if (section.text and not section.plots) or section.table or images:
            blocks += [mark + section.heading, *map(escape, section.text)]
        if section.table:
            header, *rows = ([escape(cell) for cell in row] for row in (section.table.header, *section.table.rows))
            blocks.append(markdown_table(header, rows, "l" + "r" * (len(header) - 1)))
        blocks += images
    return blocks


def _html(evaluation: Evaluation, pictures: Pictures, plots: Sequence[str]) -> str:
    environment = Environment(
        loader=PackageLoader("fer_exp", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    scores = evaluation.scores[evaluation.tta]
    return environment.get_template("evaluation/report.html.jinja").render(
        evaluation=evaluation,
        nbsp=lambda text: text.replace(" %", "\u00a0%").replace(", ", ",\u00a0"),
        name=printable((evaluation.provenance.run or evaluation.provenance.checkpoint).name),
        headline={_LABELS[name]: _percent(scores.overall[name]) for name in ("accuracy", "macro_f1", "ece")},
        sections=make_sections(evaluation),
        svg={
            name: inline_svg(partial(pictures.plots[name][1], "", ""), pictures.plots[name][0])
            for name in ("per_class", "reliability")
            if name in plots
        },
        pictures=pictures,
    )
