"""An evaluation in words, numbers and pictures: each says which images it is of, and how the weights were selected."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from fer_exp.data.dataset import ImageDataset
from fer_exp.errors import UserError, one_line
from fer_exp.evaluation.calibration import BINS, temper, top
from fer_exp.evaluation.gradcam import attention_maps
from fer_exp.evaluation.protocol import VIEWS
from fer_exp.evaluation.provenance import Provenance
from fer_exp.evaluation.scores import LEVEL, Interval, Scores
from fer_exp.files import printable, replacing
from fer_exp.plots.images import gradcam_figure, mistakes_figure
from fer_exp.plots.per_class import per_class_figure
from fer_exp.plots.reliability import Panel, reliability_figure
from fer_exp.plots.run import confusion_figure
from fer_exp.plots.sheet import shortened
from fer_exp.plots.style import render
from fer_exp.plots.tables import markdown_table
from fer_exp.runs.checkpoint import LoadedModel
from fer_exp.runs.record import for_json

EVALUATION, TABLE, PREDICTIONS = "evaluation.json", "evaluation.md", "predictions.csv"
SCHEMA = 1
MOST_MISTAKES = 32  # on the sheet
ATTENDED = 3  # images of each class whose attention is shown


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation came to.

    Attributes:
        origin: of the weights.
        protocol: its name.
        statement: images, selection and protocol, in a sentence.
        notes: what else has to be known, a sentence each.
        split: of the reported images.
        place: the folder where they lie, relative to the data folder if it lies there.
        images: the reported images.
        copies: how many of them have the pixels of a ``train`` or a ``selection`` image.
        log_probabilities: (N, C) for each view.
        scores: for each view.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        environment: versions, device, precision.
    """

    origin: Provenance
    protocol: str
    statement: str
    notes: Sequence[str]
    split: str
    place: Path
    images: ImageDataset
    copies: Mapping[str, int]
    log_probabilities: Mapping[str, Tensor]
    scores: Mapping[str, Scores]
    resamples: int
    seed: int
    environment: Mapping[str, Any]

    @property
    def view(self) -> str:
        """The one that pictures and predictions are of."""
        return next(iter(self.scores))

    def heading(self, separator: str = ", ") -> str:
        """Split, protocol, selection and view, for a picture."""
        split = Path(self.split).name if self.protocol in ("official", "other") else self.split
        return separator.join(
            (
                f"{shortened(printable(split), lambda short: len(short) <= 24)} ({self.protocol}), {VIEWS[self.view]}",
                self.origin.in_short,
            )
        )


def describe(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation as plain values, for ``evaluation.json``."""
    origin, images = evaluation.origin, evaluation.images
    return {
        "schema": SCHEMA,
        "protocol": evaluation.protocol,
        "statement": evaluation.statement,
        "notes": list(evaluation.notes),
        "weights": {
            "checkpoint": str(origin.checkpoint),
            "run": None if origin.run is None else str(origin.run),
            "name": origin.weights,
            "epoch": origin.epoch,
            "selection": origin.in_words,
        },
        "images": {
            "split": evaluation.split,
            "folder": str(evaluation.place),
            "number": len(images),
            "classes": list(images.classes),
            "fingerprint": images.fingerprint,
            "copies": dict(evaluation.copies),
        },
        "intervals": {
            "level": LEVEL,
            "method": "percentile bootstrap over images",
            "resamples": evaluation.resamples,
            "seed": evaluation.seed,
        },
        "calibration_bins": BINS,
        "environment": dict(evaluation.environment),
        "views": {view: _describe_scores(view, evaluation, scores) for view, scores in evaluation.scores.items()},
    }


def _describe_scores(view: str, evaluation: Evaluation, scores: Scores) -> dict[str, Any]:
    classes = evaluation.images.classes
    return {
        "test_time_augmentation": view != "single",
        **{name: interval._asdict() for name, interval in scores.overall.items()},
        "temperature": scores.temperature,
        "per_class": {
            name: {
                **{figure: intervals[c]._asdict() for figure, intervals in scores.per_class.items()},
                "support": scores.support[c],
            }
            for c, name in enumerate(classes)
        },
        "confusion": scores.confusion.tolist(),
        "confusion_normalised": _normalised(scores).tolist(),
    }


def _normalised(scores: Scores) -> NDArray[np.float64]:
    """(C, C): each row as shares of its true class; NaN for a class without images."""
    with np.errstate(invalid="ignore"):
        shares: NDArray[np.float64] = scores.confusion / scores.confusion.sum(axis=1, keepdims=True)
    return shares


def format_report(evaluation: Evaluation) -> str:
    """The evaluation as Markdown that is printable as it stands: what the command prints, and ``evaluation.md``."""
    scores = evaluation.scores[evaluation.view]
    classes = evaluation.images.classes
    lines = [evaluation.statement, *(f"Note: {note}" for note in evaluation.notes), ""]
    overall = markdown_table(
        ["view", "accuracy", "balanced accuracy", "macro-F1", "NLL", "ECE", "T", "NLL at T", "ECE at T"],
        [_overall_row(view, of_view) for view, of_view in evaluation.scores.items()],
        "lrrrrrrrr",
    )
    lines.append(overall)
    lines += ["", f"By class, {VIEWS[evaluation.view]}:", ""]
    by_class = markdown_table(
        ["class", "images", "precision", "recall", "F1"],
        [
            [name, f"{support:,}", *(_share(scores.per_class[figure][c]) for figure in ("precision", "recall", "f1"))]
            for c, (name, support) in enumerate(zip(classes, scores.support, strict=True))
        ],
        "lrrrr",
    )
    lines.append(by_class)
    lines += ["", f"Confusion matrix, {VIEWS[evaluation.view]}: images, and their share of the true class.", ""]
    shares = _normalised(scores)
    confusion = markdown_table(
        ["true \\ predicted", *classes],
        [
            [name, *(f"{n:,} ({share:.1%})" for n, share in zip(scores.confusion[c], shares[c], strict=True))]
            for c, name in enumerate(classes)
        ],
        "l" + "r" * len(classes),
    )
    lines += [
        confusion,
        "",
        f"{len(evaluation.images):,} images. Brackets: {LEVEL:.0%} bootstrap intervals over the images, "
        f"{evaluation.resamples:,} resamples, seed {evaluation.seed}; they do not tell how far another seed of the "
        "training would move a figure. NLL: mean negative log-likelihood, nats. ECE: expected calibration error, "
        f"{BINS} bins of equal width; resampling adds to it, so that its bracket lies high. T: the temperature "
        "that the logits are divided by. TTA: test-time augmentation, the mean of the probabilities of several views.",
    ]
    return "\n".join(lines)


def _overall_row(view: str, scores: Scores) -> list[str]:
    overall, temperature = scores.overall, scores.temperature
    calibrated = ["n/a"] * 3
    if temperature is not None:
        calibrated = [f"{temperature:.2f}", _number(overall["nll_calibrated"]), _share(overall["ece_calibrated"])]
    return [
        VIEWS[view],
        _share(overall["accuracy"]),
        _share(overall["balanced_accuracy"]),
        _share(overall["macro_f1"]),
        _number(overall["nll"]),
        _share(overall["ece"]),
        *calibrated,
    ]


def _share(figure: Interval) -> str:
    if np.isnan(figure.value):
        return "n/a"
    return f"{figure.value:.2%} [{100 * figure.low:.1f}, {100 * figure.high:.1f}]"


def _number(figure: Interval) -> str:
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def write_report(evaluation: Evaluation, trained: LoadedModel, folder: Path) -> list[str]:
    """Write all files of an evaluation to ``folder``: its figures first, and then the pictures, which take a while.

    Returns:
        What could not be drawn, a sentence each.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / PREDICTIONS) as draft:
            write_predictions(draft, evaluation)
        with replacing(folder / TABLE) as draft:
            draft.write_text(f"# Evaluation\n\n{format_report(evaluation)}\n", encoding="utf-8")
        with replacing(folder / EVALUATION) as draft:
            content = json.dumps(for_json(describe(evaluation)), indent=2, allow_nan=False)
            draft.write_text(content + "\n", encoding="utf-8")
        figures, omitted = _draw(evaluation, trained)
        for name, draw in figures.items():
            with replacing(folder / f"{name}.png") as draft:
                draft.write_bytes(render(draw, "light"))
    except OSError as error:
        raise UserError(f"{folder}: the evaluation cannot be written there ({error.strerror or error})") from error
    return omitted


def write_predictions(path: Path, evaluation: Evaluation) -> None:
    """Write one row an image: its file, its label, and the probability of each class, before any calibration.

    Those of the training images can be learned from, as ``data.soft_labels``.
    """
    images, log_probabilities = evaluation.images, evaluation.log_probabilities[evaluation.view]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "label", *images.classes])
        for name, label, row in zip(
            images.files, images.labels.tolist(), log_probabilities.exp().tolist(), strict=True
        ):
            writer.writerow(
                [
                    printable((evaluation.place / name).as_posix()),
                    images.classes[label],
                    *(f"{probability:.6f}" for probability in row),
                ]
            )


def _draw(evaluation: Evaluation, trained: LoadedModel) -> tuple[dict[str, Callable[[], Figure]], list[str]]:
    images, scores = evaluation.images, evaluation.scores[evaluation.view]
    log_probabilities = evaluation.log_probabilities[evaluation.view]
    classes, heading, omitted = images.classes, evaluation.heading(), []
    confidence, correct = top(log_probabilities, images.labels)
    predicted = log_probabilities.argmax(dim=1)
    figures: dict[str, Callable[[], Figure]] = {
        "confusion_matrix": lambda: confusion_figure(scores.confusion, classes, "Confusion matrix", heading),
        "reliability": lambda: reliability_figure(_panels(evaluation), f"Reliability diagram\n{heading}", BINS),
        "per_class": lambda: per_class_figure(
            {{"f1": "F1"}.get(name, name): intervals for name, intervals in scores.per_class.items()},
            classes,
            scores.support,
            "Precision, recall and F1 by class",
            heading,
        ),
    }

    wrong = torch.nonzero(~correct).squeeze(1)
    worst = wrong[confidence[wrong].argsort(descending=True, stable=True)[:MOST_MISTAKES]]
    if len(worst):
        figures["mistakes"] = lambda: mistakes_figure(
            images.images[worst].numpy(),
            [printable(images.files[i]) for i in worst.tolist()],
            [classes[label] for label in images.labels[worst].tolist()],
            [classes[label] for label in predicted[worst].tolist()],
            confidence[worst].numpy(),
            f"The surest of {len(wrong):,} mistakes",
            heading,
        )
    else:
        omitted.append("No image is mistaken, so that there is no picture of mistakes.")

    shown = _some_of_each(images, evaluation.seed)
    try:
        maps = attention_maps(
            trained.network, images.images[shown].to(trained.device), predicted[shown].to(trained.device)
        )
    except (UserError, ValueError, RuntimeError) as error:  # as of a last convolution that the logits do not come from
        omitted.append(f"There is no picture of the network's attention: {one_line(error)}")
    else:
        figures["attention"] = lambda: gradcam_figure(
            images.images[shown].numpy(),
            maps.cpu().numpy(),
            [classes[label] for label in images.labels[shown].tolist()],
            [f"{classes[predicted[i]]} {100 * confidence[i]:.0f} %" for i in shown.tolist()],
            "Grad-CAM: evidence for the predicted class",
            heading,
        )
    return figures, omitted


def _panels(evaluation: Evaluation) -> list[Panel]:
    scores, labels = evaluation.scores[evaluation.view], evaluation.images.labels
    answers = {"ece": ("as trained", evaluation.log_probabilities[evaluation.view])}
    if scores.temperature is not None:
        tempered = temper(evaluation.log_probabilities[evaluation.view], scores.temperature)
        answers["ece_calibrated"] = (f"temperature {scores.temperature:.2f}", tempered)
    panels = []
    for name, (words, log_probabilities) in answers.items():
        confidence, correct = top(log_probabilities, labels)
        panels.append(Panel(words, confidence.numpy(), correct.numpy(), scores.overall[name].value))
    return panels


def _some_of_each(images: ImageDataset, seed: int) -> Tensor:
    """Indices of a few random images of each class, class by class."""
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for label in range(len(images.classes)):
        members = torch.nonzero(images.labels == label).squeeze(1)
        chosen.append(members[torch.randperm(len(members), generator=generator)[:ATTENDED]])
    return torch.cat(chosen)
