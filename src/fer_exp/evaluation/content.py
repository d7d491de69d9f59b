"""The content of an evaluation report, independent of the format it is written in."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fer_exp.data.dataset import ImageDataset
from fer_exp.evaluation.calibration import BINS
from fer_exp.evaluation.protocol import TTA, EvalSplit, Provenance
from fer_exp.evaluation.scores import LEVEL, Estimate, Scores
from fer_exp.files import printable

_PERCENT = ("accuracy", "balanced_accuracy", "macro_f1", "ece", "ece_calibrated")
LABELS = {
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
        return format_percent(scores.overall[name]) if name in _PERCENT else _number(scores.overall[name])

    rows = [[label, *(cell(name, scores) for scores in evaluation.scores.values())] for name, label in LABELS.items()]
    return Table(["metric", *(TTA[name] for name in evaluation.scores)], rows)


def _class_table(scores: Scores, classes: Sequence[str]) -> Table:
    metrics = [scores.per_class[name] for name in ("precision", "recall", "f1")]
    rows = [
        [name, f"{support:,}", *(format_percent(estimate, brief=True) for estimate in estimates)]
        for name, support, *estimates in zip(classes, scores.support, *metrics, strict=True)
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
    sentence = f"Expected calibration error {format_percent(scores.overall['ece'])}"
    if scores.temperature is None:
        return f"{sentence}."
    return f"{sentence}; {format_percent(scores.overall['ece_calibrated'])} at temperature {scores.temperature:.2f}."


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


def format_percent(estimate: Estimate, brief: bool = False) -> str:
    """``65.31 % [64.2, 66.4]``; brief: ``65.3 % [64, 66]``."""
    if math.isnan(estimate.value):
        return "undefined"
    value, low, high = (100 * part for part in estimate)
    return f"{value:.1f} % [{low:.0f}, {high:.0f}]" if brief else f"{value:.2f} % [{low:.1f}, {high:.1f}]"


def _number(estimate: Estimate) -> str:
    return f"{estimate.value:.4f} [{estimate.low:.3f}, {estimate.high:.3f}]"
