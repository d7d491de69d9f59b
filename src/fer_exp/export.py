"""Export a trained network: ``python -m fer_exp.export run=RUN format=onnx``.

The imports at the top are light: ``--help`` and wrong keys are answered before torch is imported.
"""

import importlib.util
import logging
from pathlib import Path

import hydra
from omegaconf import DictConfig

from fer_exp.cli import call, carry_out
from fer_exp.config.schema import CONFIG_DIR, ExportConfig, resolve
from fer_exp.errors import UserError
from fer_exp.evaluation.source import Source, find_source
from fer_exp.files import printable
from fer_exp.runs.folder import check_empty_dir

log = logging.getLogger(__name__)

LOG = "export.log"
REQUIREMENTS = {"onnx": ("onnx", "onnxruntime", "onnxscript"), "torchscript": ()}


def export(cfg: DictConfig) -> Path:
    """Write the network that ``cfg`` names to ``cfg.output_dir``, and return the model file.

    Raises:
        UserError: a setting or the checkpoint is invalid, a package is missing, or the network cannot be exported.
    """
    folder = Path(cfg.output_dir)
    source = validate(cfg, folder)
    model, provenance = source.load()

    from fer_exp.evaluation.export import export_model

    facts = {
        "format": cfg.format,
        "classes": list(model.classes),
        "image_shape": list(model.image_shape),
        "color": model.image_format.color,
        "resize": model.image_format.resize,
        "input": "uint8 images (N, C, S, S), values 0 to 255",
        "output": "probabilities (N, classes)",
        "model": dict(model.settings["config"]["model"]),
        "checkpoint": str(source.checkpoint),
        "run": source.run and str(source.run),
        "run_id": model.settings.get("run_id"),
        "weights": provenance.description,
    }
    try:
        file = export_model(model.network, model.image_shape, cfg.format, folder, facts)
    except OSError as error:
        raise UserError(f"{printable(folder)}: cannot be written ({error.strerror or error})") from error
    log.info("Written to %s: %s, model.json. Its outputs are those of the checkpoint.", printable(folder), file.name)
    return file


def validate(cfg: DictConfig, folder: Path) -> Source:
    """Check the settings and the installed packages, and that no file is overwritten; return the checkpoint to export.

    Raises:
        UserError: a value is invalid, a package is missing, or ``folder`` contains files.
    """
    resolve(cfg, {})
    source = find_source(cfg, ExportConfig)
    if missing := [name for name in REQUIREMENTS[cfg.format] if importlib.util.find_spec(name) is None]:
        raise UserError(f"format={cfg.format} needs packages that are not installed: pip install {' '.join(missing)}")
    check_empty_dir(folder, LOG)
    return source


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="export")
def run(cfg: DictConfig) -> None:
    """Hydra's entry point."""
    carry_out(export, cfg)


def main() -> None:
    """Run the command; exits with status 1 after a user error."""
    call(run, "export")


if __name__ == "__main__":
    main()
