"""How the weights that are evaluated came about: trained on what, and chosen by what."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer_exp.errors import UserError, one_line
from fer_exp.runs.checkpoint import WEIGHTS, LoadedModel


@dataclass(frozen=True)
class Provenance:
    """How weights came about.

    Attributes:
        checkpoint: the file they are of.
        run: folder of the run's record; None where there is none.
        weights: ``best``, ``restored`` or ``last``, or the name of another file.
        epoch: of the weights, from 1; None where the file does not tell.
        epochs: that the run trained; None without a record.
        selected_by: the figure that this epoch is the best by; None where it was not chosen by one, or that is not
            known.
        stopped_by: what ended the run, as its record tells it; None without a record.
        val_fraction: share of train/ that the run was selected on; 0 for validation/, None without a record.
        train: fingerprint of the training images; None where it is not known.
        selection: fingerprint of the images that the run was validated on; None where it is not known.
    """

    checkpoint: Path
    run: Path | None
    weights: str
    epoch: int | None
    epochs: int | None
    selected_by: str | None
    stopped_by: str | None
    val_fraction: float | None
    train: str | None
    selection: str | None

    @property
    def is_selected_by_training(self) -> bool:
        """Whether the epoch was chosen by a figure of the training images."""
        return self.selected_by is not None and self.selected_by.startswith("train_")

    @property
    def selected_on(self) -> str:
        """The images that the weights were selected on, or the run validated, in words."""
        if self.is_selected_by_training:
            return "train/"
        return f"{self.val_fraction:.0%} of train/, held out" if self.val_fraction else "validation/"

    @property
    def _epoch(self) -> str:
        return "an untold epoch" if self.epoch is None else f"epoch {self.epoch}"

    @property
    def in_words(self) -> str:
        """How the weights were selected."""
        if self.run is None:
            return f"weights of {self._epoch}, selection unknown (no run record)"
        if self.weights not in WEIGHTS:
            return f"weights of {self._epoch} of {self.epochs}, selection unknown (no file of the run's own)"
        if self.selected_by is None and self.stopped_by == "early_stopping":
            return f"weights of {self._epoch}, at which early stopping on {self.selected_on} ended the run"
        if self.selected_by is None:
            return f"weights of {self._epoch} of {self.epochs}, validated on {self.selected_on}, not chosen by it"
        return f"weights of {self._epoch} of {self.epochs}, the best {self.selected_by} on {self.selected_on}"

    @property
    def in_short(self) -> str:
        """The same, for a heading."""
        if self.run is None or self.weights not in WEIGHTS:
            return f"{self._epoch}, selection unknown"
        if self.selected_by is None:
            return f"{self._epoch}, not selected"
        where = "train" if self.is_selected_by_training else "held-out train" if self.val_fraction else "validation"
        return f"{self._epoch} by {self.selected_by} on {where}"


def provenance_of(trained: LoadedModel, run: Path | None, summary: Mapping[str, Any]) -> Provenance:
    """How the weights of a checkpoint came about, as the run's record tells.

    Raises:
        UserError: the checkpoint is of another run than the record.
    """
    fingerprint = trained.settings.get("fingerprint") or {}
    recorded = (summary.get("data") or {}).get("fingerprint") or fingerprint
    if fingerprint and recorded != fingerprint:
        raise UserError(f"{trained.path}: this checkpoint was trained on other images than {run} tells of")
    name = trained.path.stem if run is not None and trained.path.stem in WEIGHTS else trained.path.name
    restored = summary.get("restored") or {}
    return Provenance(
        checkpoint=trained.path,
        run=run,
        weights=name,
        epoch=restored.get("epoch") if name == "restored" else trained.epoch,
        epochs=summary.get("epochs"),
        selected_by=None if run is None else _selecting_metric(summary, name),
        stopped_by=summary.get("stopped_by"),
        val_fraction=None if run is None else data_settings(summary).get("val_fraction", 0),
        train=recorded.get("train"),
        selection=recorded.get("validation"),
    )


def _selecting_metric(summary: Mapping[str, Any], weights: str) -> str | None:
    """The metric by which a run chose its best or its restored weights; None for others."""
    config = OmegaConf.create(dict(summary.get("config") or {}))
    callback = {"best": "checkpoints", "restored": "restore_best_weights"}.get(weights)
    if callback is None:
        return None
    metric = OmegaConf.select(config, f"callbacks.{callback}.monitor")
    return str(metric) if metric else {"best": "val_acc", "restored": "val_loss"}[weights]


def data_settings(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run's data, resolved; empty where they are not known.

    Raises:
        UserError: the record's configuration cannot be resolved.
    """
    config = summary.get("config") or {}
    if "data" not in config:
        return {}
    try:
        return dict(OmegaConf.to_container(OmegaConf.create(dict(config)).data, resolve=True))  # type: ignore[arg-type]
    except OmegaConfBaseException as error:
        raise UserError(f"the run's configuration cannot be resolved: {one_line(error)}") from error
