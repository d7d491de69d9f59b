"""Find and load the trained network that ``run`` and ``weights``, or ``ckpt``, name. No heavy imports at the top."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from fer_exp.config.checks import check_values
from fer_exp.config.schema import TRUSTED_PACKAGES
from fer_exp.errors import UserError, join_first
from fer_exp.evaluation.protocol import Provenance
from fer_exp.files import expand_path, printable
from fer_exp.runs.folder import run_of
from fer_exp.runs.record import SUMMARY, read_summary, record_folders

if TYPE_CHECKING:
    from fer_exp.runs.checkpoint import LoadedModel

log = logging.getLogger(__name__)

WEIGHTS = ("best", "last")


@dataclass(frozen=True)
class Source:
    """A checkpoint and the record of its run.

    Attributes:
        checkpoint: absolute path of the file.
        run: absolute path of the run's folder; None without a record.
        summary: content of the record; empty without a record.
        packages: packages that the checkpoint may take classes from.
    """

    checkpoint: Path
    run: Path | None
    summary: Mapping[str, Any]
    packages: tuple[str, ...]

    def load(self, accelerator: str = "cpu", precision: str = "32-true") -> tuple["LoadedModel", Provenance]:
        """Load the network, and log its provenance and the device.

        Raises:
            UserError: the device or precision is not available, or the checkpoint cannot be read or is of another run.
        """
        log.info("Loading torch ...")
        from fer_exp.evaluation.inference import load_model

        model, hardware = load_model(self.checkpoint, accelerator, precision, self.packages)
        provenance = self.provenance(model)
        log.info("%s: %s.\n%s", printable(self.checkpoint), provenance.description, hardware)
        return model, provenance

    def provenance(self, model: "LoadedModel") -> Provenance:
        """How the model's weights were trained and selected.

        Raises:
            UserError: another run than that of the record wrote the checkpoint.
        """
        if self.run is not None and model.settings["run_id"] != self.summary["run_id"]:
            raise UserError(
                f"{self.checkpoint}: another run than {self.run} wrote this checkpoint. Give the run that wrote it, or "
                "move the file to another folder to use it without a record."
            )
        fingerprint = model.settings.get("fingerprint") or {}
        name = self.checkpoint.stem if self.run and self.checkpoint.stem in WEIGHTS else self.checkpoint.name
        return Provenance(
            checkpoint=self.checkpoint,
            run=self.run,
            name=name,
            epoch=model.epoch,
            epochs=self.summary.get("epochs"),
            selected_by=self.summary["monitor"] if self.run and name == "best" else None,
            val_fraction=float(model.settings["config"]["data"].get("val_fraction", 0)) if self.run else None,
            train=fingerprint.get("train"),
            selection=fingerprint.get("validation"),
        )


def find_source(cfg: DictConfig, schema: type) -> Source:
    """Check the config of evaluate, predict or export, and find the checkpoint that it names, with its run's record.

    Args:
        cfg: the resolved config.
        schema: the command's dataclass of ``config.schema``.

    Raises:
        UserError: a value is invalid, there is no such run or checkpoint, or the record cannot be read.
    """
    check_values(cfg, schema)
    packages = (*TRUSTED_PACKAGES, *cfg.trust)
    if (cfg.run is None) == (cfg.ckpt is None):
        raise UserError("give either run=DIR, the folder of a run, or ckpt=FILE, a checkpoint")
    if cfg.ckpt is None:
        run = expand_path(cfg.run)
        checkpoint = run / "checkpoints" / f"{cfg.weights}.ckpt"
    elif cfg.weights != "best":
        raise UserError(f"weights={cfg.weights}: works with run=DIR only; ckpt={cfg.ckpt} is one file")
    else:
        checkpoint = expand_path(cfg.ckpt)
        run = run_of(checkpoint)
        if checkpoint.absolute().parent.name != "checkpoints" or not (run / SUMMARY).exists():
            return Source(checkpoint.absolute(), None, {}, packages)
    try:
        summary = read_summary(run)
    except (FileNotFoundError, NotADirectoryError) as error:
        below = [printable(folder) for folder in record_folders(run)]
        hint = f"; it contains runs: {join_first(below, 3)}" if below else ""
        hint = "; a checkpoint is given as ckpt=FILE" if run.is_file() else hint
        raise UserError(f"run={printable(run)}: expected the folder of a run, with {SUMMARY}{hint}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{printable(run)}: the run's record cannot be read ({error})") from error
    if cfg.run is not None and not checkpoint.is_file():
        existing = ", ".join(name for name in WEIGHTS if (checkpoint.parent / f"{name}.ckpt").is_file()) or "none"
        raise UserError(f"weights={cfg.weights}: {printable(checkpoint)} does not exist; existing weights: {existing}")
    return Source(checkpoint.absolute(), run.absolute(), summary, packages)
