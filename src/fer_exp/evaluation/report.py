"""Write an evaluation: ``evaluation.html``, ``evaluation.md``, ``metrics.json``, ``predictions.csv`` and plots."""

import csv
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from fer_exp.errors import UserError
from fer_exp.evaluation.calibration import BINS
from fer_exp.evaluation.content import LABELS, Evaluation, format_percent, make_sections
from fer_exp.evaluation.pictures import Pictures, make_pictures
from fer_exp.evaluation.scores import LEVEL, Scores
from fer_exp.files import csv_cell, markdown_text, printable, replacing
from fer_exp.plots.evaluation import inline_svg
from fer_exp.plots.style import save_plot
from fer_exp.plots.tables import markdown_table
from fer_exp.runs.checkpoint import LoadedModel
from fer_exp.runs.record import for_json

PAGE, MARKDOWN, METRICS_FILE, PREDICTIONS = "evaluation.html", "evaluation.md", "metrics.json", "predictions.csv"
SCHEMA = 2


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
        headline={LABELS[name]: format_percent(scores.overall[name]) for name in ("accuracy", "macro_f1", "ece")},
        sections=make_sections(evaluation),
        svg={
            name: inline_svg(partial(pictures.plots[name][1], "", ""), pictures.plots[name][0])
            for name in ("per_class", "reliability")
            if name in plots
        },
        pictures=pictures,
    )
