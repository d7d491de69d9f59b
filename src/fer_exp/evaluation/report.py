"""Write an evaluation: ``evaluation.html``, ``evaluation.md``, ``metrics.json``, ``predictions.csv`` and plots."""

import base64
import io
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fer_exp.errors import UserError
from fer_exp.evaluation.content import LABELS, Evaluation, class_table, format_estimate, overall_table, undefined_notes
from fer_exp.evaluation.inference import write_predictions
from fer_exp.evaluation.pictures import Draw, Sheets, make_plots, make_sheets
from fer_exp.evaluation.scores import BINS, LEVEL, Scores
from fer_exp.files import markdown_text, printable, replacing
from fer_exp.plots.evaluation import inline_svg
from fer_exp.plots.images import sheet_figure
from fer_exp.plots.reports import markdown_table, page_templates, text_table
from fer_exp.plots.style import save_plot
from fer_exp.runs.checkpoint import LoadedModel
from fer_exp.runs.record import write_json

PAGE, MARKDOWN, METRICS_FILE, PREDICTIONS = "evaluation.html", "evaluation.md", "metrics.json", "predictions.csv"
SCHEMA = 2
INLINE = ("per_class", "reliability")  # plots in the HTML report
MAX_SIDE = 112  # pixels of an image in the HTML report


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
    plots = make_plots(evaluation)
    sheets, omitted = make_sheets(evaluation, model)
    figures = plots | {name: (title, partial(sheet_figure, rows)) for name, (title, rows) in sheets.items()}
    images, probabilities = evaluation.images, evaluation.log_probabilities[evaluation.tta].exp()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / METRICS_FILE, describe(evaluation))
        # Labels of training images can be training targets: data.soft_labels.
        write_predictions(folder / PREDICTIONS, images.classes, images.names, probabilities, images.labels)
        drawn = [
            name
            for name, (title, draw) in figures.items()
            if save_plot(folder / f"{name}.png", partial(draw, title, evaluation.subtitle), theme)
        ]
        links = [f"![{name.replace('_', ' ')}]({name}.png)" for name in drawn]
        markdown = ["# Evaluation", format_report(evaluation, markdown_text, markdown_table, "## "), *links]
        for name, text in (
            (MARKDOWN, "\n\n".join(markdown)),
            (PAGE, _html(evaluation, {name: plots[name] for name in INLINE if name in drawn}, sheets)),
        ):
            with replacing(folder / name) as draft:
                draft.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: the evaluation cannot be written there ({error.strerror or error})") from error
    return [*omitted, *(f"{name}.png could not be drawn." for name in figures if name not in drawn)]


def format_report(
    evaluation: Evaluation,
    escape: Callable[[object], str] = printable,
    table: Callable[..., str] = text_table,
    mark: str = "",
) -> str:
    """Statement, caveats and metrics as text, by default for the terminal."""
    sentences = [escape(evaluation.statement), *(f"Note: {escape(note)}" for note in evaluation.notes)]
    blocks = [*sentences, *map(escape, undefined_notes(evaluation))]
    for content in (overall_table(evaluation), class_table(evaluation)):
        align = "l" + "r" * (len(content.header) - 1)
        blocks += [mark + content.heading, table(content.header, content.rows, align)]
    return "\n\n".join(blocks)


def describe(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation as plain values, for ``metrics.json``."""
    classes, split = evaluation.images.classes, evaluation.split
    provenance = asdict(evaluation.provenance)
    weights = {name: str(value) if isinstance(value, Path) else value for name, value in provenance.items()}
    images = {"split": split.name, "location": split.location, "fingerprint": split.fingerprint}
    return {
        "schema": SCHEMA,
        "time": evaluation.time,
        "protocol": evaluation.protocol,
        "statement": evaluation.statement,
        "notes": list(evaluation.notes),
        "weights": weights,
        "images": {**images, "count": len(evaluation.images), "classes": classes, "copies": evaluation.copies},
        "intervals": {"level": LEVEL, "resamples": evaluation.resamples, "seed": evaluation.seed},
        "calibration_bins": BINS,
        "environment": evaluation.environment,
        "tta": {name: _describe_scores(scores, classes) for name, scores in evaluation.scores.items()},
    }


def _describe_scores(scores: Scores, classes: tuple[str, ...]) -> dict[str, Any]:
    per_class = {
        name: {"support": scores.support[c], **{metric: e[c]._asdict() for metric, e in scores.per_class.items()}}
        for c, name in enumerate(classes)
    }
    overall = {name: estimate._asdict() for name, estimate in scores.overall.items()}
    return overall | {"temperature": scores.temperature, "per_class": per_class, "confusion": scores.confusion.tolist()}


def _html(evaluation: Evaluation, plots: dict[str, tuple[str, Draw]], sheets: Sheets) -> str:
    scores = evaluation.scores[evaluation.tta]
    cards = ("accuracy", "macro_f1", "ece")
    return (
        page_templates()
        .get_template("evaluation/report.html.jinja")
        .render(
            evaluation=evaluation,
            scores=scores,
            name=(evaluation.provenance.run or evaluation.provenance.checkpoint).name,
            headline={LABELS[name]: format_estimate(name, scores.overall[name]) for name in cards},
            tables=(overall_table(evaluation), class_table(evaluation)),
            undefined=undefined_notes(evaluation),
            svg={name: inline_svg(partial(draw, "", ""), title) for name, (title, draw) in plots.items()},
            sheets=sheets,
            data_uri=_data_uri,
            level=100 * LEVEL,
            bins=BINS,
        )
    )


def _data_uri(image: NDArray[np.uint8]) -> str:
    """An image (C, H, W) as a JPEG of at most ``MAX_SIDE`` pixels."""
    picture = Image.fromarray(np.moveaxis(image, 0, -1) if len(image) == 3 else image[0])
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "jpeg", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
