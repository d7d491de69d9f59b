"""Evaluation protocols: which images a result is about, how the weights were selected, and what may be reported.

Every result names its protocol:

- ``folders``: trained on train/, epoch selected on validation/, evaluated on validation/. Optimistic.
- ``held_out``: epoch selected on images held out of train/, evaluated on validation/, which the run never used.
- ``official``: evaluated on a test set, once per run.
- ``training``: evaluated on the training images. It shows the fit, not the generalization.
- ``other``: any other images, or weights of unknown selection.

An official report states how often the run was evaluated on the same images under ``held_out`` or ``other`` before.
After it, the run is not evaluated on them again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer_exp.errors import UserError, plural
from fer_exp.runs.record import write_json

SPLITS = ("validation", "train", "test", "selection")
TTA = {"none": "no TTA", "flip": "TTA: horizontal flip", "ten_crop": "TTA: ten crops"}  # test-time augmentation
LEDGER = "reported.json"  # in the run's folder


@dataclass(frozen=True)
class Provenance:
    """How the evaluated weights were trained and selected.

    Attributes:
        checkpoint: file of the weights.
        run: folder of the run's record; None without a record.
        name: of the weights: ``best`` or ``last``; otherwise the checkpoint's file name.
        epoch: of the weights, from 1.
        epochs: number that the run trained; None without a record.
        selected_by: the metric whose best epoch this is; None if the epoch was not selected, or unknown.
        val_fraction: fraction of train/ held out for validation; 0 for validation/, None without a record.
        train: fingerprint of the training images; None if unknown.
        selection: fingerprint of the images that the run validated on; None if unknown.
    """

    checkpoint: Path
    run: Path | None
    name: str
    epoch: int | None
    epochs: int | None
    selected_by: str | None
    val_fraction: float | None
    train: str | None
    selection: str | None

    @property
    def selected_on(self) -> str:
        """The images whose metric selected the epoch."""
        if self.selected_by and self.selected_by.startswith("train_"):
            return "train/"
        return f"{100 * self.val_fraction:.0f} % of train/, held out" if self.val_fraction else "validation/"

    @property
    def is_selected_by_validation(self) -> bool:
        """Whether a validation metric selected the epoch."""
        return self.selected_by is not None and self.selected_on != "train/"

    @property
    def description(self) -> str:
        """The weights and their selection: ``epoch 4 of 9, best val_loss on validation/``."""
        epoch = "unknown epoch" if self.epoch is None else f"epoch {self.epoch}"
        if self.run is None:
            return f"{epoch}, selection unknown (no run record)"
        epoch += f" of {self.epochs}"
        if self.name not in ("best", "last"):
            return f"{epoch}, selection unknown ({self.name} is neither best.ckpt nor last.ckpt)"
        if self.selected_by is None:
            return f"{epoch}, not selected by a metric"
        return f"{epoch}, best {self.selected_by} on {self.selected_on}"


@dataclass(frozen=True)
class EvalSplit:
    """The evaluated images.

    Attributes:
        name: ``train``, ``selection``, ``validation``, ``test``, or a folder.
        fingerprint: of the images.
        location: their folder or table, relative to the data folder if it is inside it.
    """

    name: str
    fingerprint: str
    location: str


def choose_protocol(requested: str, split: EvalSplit, provenance: Provenance) -> str:
    """The protocol that fits the run and the images; with ``official``, any images that the run did not use.

    Raises:
        UserError: the images are a test set, but the run was trained or validated on them or has no record.
    """
    fitting = _fitting_protocol(split, provenance)
    if "official" not in (requested, fitting):
        return fitting
    if split.fingerprint in (provenance.train, provenance.selection) or split.name in ("train", "selection"):
        raise UserError(
            f"split={split.name}: the run was trained or validated on these images, so they cannot be a test set. Use "
            "another split, or protocol=auto."
        )
    if provenance.run is None:
        raise UserError(
            "protocol=official: a test set is reported once per run, which needs the run's record. Give run=DIR "
            f"instead of ckpt={provenance.checkpoint}"
        )
    return "official"


def _fitting_protocol(split: EvalSplit, provenance: Provenance) -> str:
    if split.name == "test":
        return "official"
    if split.name == "train" or split.fingerprint == provenance.train:
        return "training"
    if split.fingerprint == provenance.selection:
        return "folders" if provenance.val_fraction == 0 else "other"
    if split.name == "validation" and provenance.val_fraction:
        return "held_out"
    return "other"


def describe_protocol(protocol: str, split: EvalSplit, provenance: Provenance, earlier: int = 0) -> str:
    """Sentences that belong next to every result: protocol, weights, images, and what this means for the result.

    Args:
        protocol: its name.
        split: the evaluated images.
        provenance: of the weights.
        earlier: number of earlier evaluations of this run on the same images under other protocols.
    """
    if protocol == "training" and provenance.train not in (None, split.fingerprint):
        meaning = "These images differ from the training images of the run."
    elif protocol == "training":
        meaning = "The run was trained on these images: this shows the fit, not the generalization."
    elif split.fingerprint == provenance.selection and provenance.is_selected_by_validation:
        meaning = "These images selected the epoch: the result is optimistic."
    elif split.fingerprint == provenance.selection:
        meaning = "The run was validated on these images: settings chosen by them make the result optimistic."
    elif protocol == "held_out":
        meaning = "The run did not use these images."
    elif protocol == "official":
        times = f", after {plural(earlier, 'other evaluation')} on it" if earlier else ""
        meaning = f"This is the run's one report on this test set{times}."
    else:
        meaning = "Settings may have been selected on these images: the result can be optimistic."
    is_named = split.name in SPLITS and split.name != split.location
    images = f"{split.name} ({split.location})" if is_named else split.location
    return f"Protocol {protocol}. Weights: {provenance.description}. Images: {images}. {meaning}"


class Ledger:
    """The evaluations of one run on images that it did not use, in the file ``LEDGER`` of the run's folder.

    Args:
        run: folder of the run.

    Attributes:
        reports: official reports by fingerprint of the test set.
        others: number of evaluations under other protocols, by fingerprint.

    Raises:
        UserError: the file cannot be read.
    """

    def __init__(self, run: Path) -> None:
        self.path = run / LEDGER
        self.reports: dict[str, dict[str, Any]] = {}
        self.others: dict[str, int] = {}
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            for key, report in content["reports"].items():
                self.reports[key] = {**report, "accuracy": float(report["accuracy"])}
            self.others = {key: int(count) for key, count in content["others"].items()}
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{self.path} cannot be read ({error}). It lists the reports on test sets; restore it."
            ) from error

    def check_unreported(self, fingerprint: str) -> None:
        """Check that the run has no official report on this test set.

        Raises:
            UserError: it has one; quotes its result.
        """
        if (report := self.reports.get(fingerprint)) is not None:
            raise UserError(
                f"{self.path.parent}: this run was already reported on these test images: {report.get('images')} "
                f"images on {str(report.get('time'))[:10]}, accuracy {100 * report['accuracy']:.2f} % "
                f"({report.get('weights')} weights, tta={report.get('tta')}), see {report.get('output')}. A test set "
                "is reported once per run, because choosing between two results would make it a validation set."
            )

    def record(self, protocol: str, fingerprint: str, report: Mapping[str, Any]) -> None:
        """Record an official report: time, images, accuracy, weights, tta, output. Other evaluations are counted.

        Raises:
            OSError: the file cannot be written.
        """
        if protocol == "official":
            self.reports[fingerprint] = dict(report)
        else:
            self.others[fingerprint] = self.others.get(fingerprint, 0) + 1
        write_json(self.path, {"schema": 2, "reports": self.reports, "others": self.others})
