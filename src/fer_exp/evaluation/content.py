"""The result of an evaluation, and its tables and sentences in any format."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fer_exp.data.dataset import ImageDataset
from fer_exp.evaluation.protocol import TTA, EvalSplit, Provenance
from fer_exp.evaluation.scores import Estimate, Scores
from fer_exp.files import printable

LABELS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "nll": "NLL",
    "ece": "ECE",
    "nll_calibrated": "NLL at T",
    "ece_calibrated": "ECE at T",
}


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
    """A table of text; all columns except the first are numbers."""

    heading: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def overall_table(evaluation: Evaluation) -> Table:
    """The metrics over all classes, a column for each TTA."""
    columns = evaluation.scores.values()
    rows = [
        [LABELS[name], *(format_estimate(name, scores.overall[name]) for scores in columns)]
        for name in evaluation.scores[evaluation.tta].overall
    ]
    if all(scores.temperature is not None for scores in columns):
        rows.append(["temperature T", *(f"{scores.temperature:.2f}" for scores in columns)])
    return Table("Metrics", ["metric", *(TTA[name] for name in evaluation.scores)], rows)


def class_table(evaluation: Evaluation) -> Table:
    """The metrics of each class, with the first TTA."""
    scores = evaluation.scores[evaluation.tta]
    rows = [
        [name, f"{support:,}", *(_format_brief(estimates[c]) for estimates in scores.per_class.values())]
        for c, (name, support) in enumerate(zip(evaluation.images.classes, scores.support, strict=True))
    ]
    return Table(f"Classes ({TTA[evaluation.tta]})", ["class", "images", "precision", "recall", "F1"], rows)


def undefined_notes(evaluation: Evaluation) -> list[str]:
    """Which classes the averages exclude, a sentence each."""
    classes, notes = evaluation.images.classes, []
    for average, metric, reason in (
        ("Balanced accuracy", "recall", "no images"),
        ("Macro-F1", "f1", "no images and no predictions"),
    ):
        estimates = evaluation.scores[evaluation.tta].per_class[metric]
        undefined = [name for name, e in zip(classes, estimates, strict=True) if math.isnan(e.value)]
        if undefined:
            defined = f"{len(classes) - len(undefined)} of {len(classes)} classes"
            notes.append(f"{average} is the mean over {defined}. These have {reason}: {', '.join(undefined)}.")
    return notes


def format_estimate(name: str, estimate: Estimate) -> str:
    """``65.31 % [64.2, 66.4]``; for a negative log-likelihood ``1.0412 [1.022, 1.060]``."""
    value, low, high = estimate
    if name.startswith("nll"):
        return f"{value:.4f} [{low:.3f}, {high:.3f}]"
    return f"{100 * value:.2f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _format_brief(estimate: Estimate) -> str:
    value, low, high = (100 * part for part in estimate)
    return "undefined" if math.isnan(value) else f"{value:.1f} % [{low:.0f}, {high:.0f}]"
