"""Evaluate a trained network: ``python -m fer_exp.evaluate run=RUN``.

The imports at the top are light: ``--help`` and wrong keys are answered before torch is imported.
"""

import logging
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, ListConfig

from fer_exp.cli import call, carry_out
from fer_exp.config.schema import CONFIG_DIR, EvaluateConfig, plain, resolve
from fer_exp.errors import UserError
from fer_exp.evaluation.protocol import SPLITS, Ledger, Provenance, choose_protocol, describe_protocol
from fer_exp.evaluation.source import Source, find_source
from fer_exp.files import expand_path, printable
from fer_exp.runs.folder import check_empty_dir, lock_run_dir

if TYPE_CHECKING:
    from fer_exp.evaluation.content import Evaluation
    from fer_exp.evaluation.images import Images
    from fer_exp.runs.checkpoint import LoadedModel

log = logging.getLogger(__name__)

LOG = "evaluate.log"


def evaluate(cfg: DictConfig) -> "Evaluation":
    """Evaluate the network that ``cfg`` names, and write the report to ``cfg.output_dir``.

    A report on a test set is written first, then recorded with the run, then printed: an interrupted evaluation does
    not use up the run's one report.

    Raises:
        UserError: a setting, the checkpoint or the images are invalid, or the protocol does not allow the evaluation;
            nothing is written.
    """
    start, folder = time.perf_counter(), Path(cfg.output_dir)
    source = validate(cfg, folder)
    model, provenance = source.load(cfg.trainer.accelerator, cfg.trainer.precision)

    from fer_exp.evaluation.images import build_data, load_images
    from fer_exp.evaluation.report import format_report, write_report
    from fer_exp.training.fit import collect_warnings

    with collect_warnings() as logged:
        images = load_images(build_data(model, without_missing(plain(cfg.data))), str(cfg.split))
    protocol = choose_protocol(cfg.protocol, images.split, provenance)
    is_recorded = protocol in ("official", "held_out", "other") and images.split.fingerprint != provenance.selection
    run = source.run if is_recorded else None
    # The lock refuses a second report on a test set while the first one is not recorded yet.
    hint = "it records the reports on test images"
    with lock_run_dir(run, hint) if run and protocol == "official" else nullcontext():
        ledger = Ledger(run) if run else None
        if ledger:
            ledger.check_unreported(images.split.fingerprint)
        evaluation = _compute(cfg, model, provenance, images, protocol, source.summary, ledger)
        omitted = write_report(evaluation, model, folder, cfg.plots.theme)
        if ledger:
            _record(ledger, evaluation, folder)
    # The training may have reported the warnings that were logged above; the files hold them all.
    notes = [note for note in evaluation.notes if not note.endswith(tuple(logged))]
    log.info("\n%s\n", format_report(replace(evaluation, notes=notes)))
    for line in omitted:
        log.info("%s", line)
    names = ", ".join(sorted(path.name for path in folder.iterdir()))
    log.info("Written to %s in %.0f s: %s", printable(folder), time.perf_counter() - start, names)
    return evaluation


def validate(cfg: DictConfig, folder: Path) -> Source:
    """Check the settings, and that no file is overwritten; return the checkpoint to evaluate.

    Raises:
        UserError: a value is invalid, or ``folder`` contains files.
    """
    resolve(cfg, None)  # missing keys of data are those of the run
    source = find_source(cfg, EvaluateConfig)
    if cfg.split not in SPLITS and not expand_path(cfg.split).is_dir():
        raise UserError(f"split={printable(cfg.split)}: expected {', '.join(SPLITS)}, or a folder of class folders")
    check_empty_dir(folder, LOG)
    return source


def without_missing(node: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that have a value, in nested mappings too."""
    values = {key: without_missing(value) if isinstance(value, Mapping) else value for key, value in node.items()}
    return {key: value for key, value in values.items() if value not in ("???", {})}


def _compute(
    cfg: DictConfig,
    model: "LoadedModel",
    provenance: Provenance,
    images: "Images",
    protocol: str,
    summary: Mapping[str, Any],
    ledger: Ledger | None,
) -> "Evaluation":
    """Run the network on the images, and compute metrics and caveats."""
    from fer_exp.evaluation.content import Evaluation
    from fer_exp.evaluation.images import find_caveats
    from fer_exp.evaluation.inference import predict_dataset
    from fer_exp.evaluation.scores import fit_temperature, score
    from fer_exp.runs.environment import describe_environment
    from fer_exp.training.hardware import device_name

    predictions, scores, split, selection = {}, {}, images.split, images.selection
    if selection is not None and selection.fingerprint == split.fingerprint:
        selection = images.evaluated  # the same images, perhaps in another order
    for tta in dict.fromkeys(cfg.tta if isinstance(cfg.tta, ListConfig) else [cfg.tta]):
        predictions[tta] = predict_dataset(model, images.evaluated, tta, cfg.batch_size)
        temperature = None
        if selection is not None:
            is_same = selection is images.evaluated
            fitted = predictions[tta] if is_same else predict_dataset(model, selection, tta, cfg.batch_size)
            temperature = fit_temperature(fitted, selection.labels)
        scores[tta] = score(predictions[tta], images.evaluated.labels, temperature, cfg.resamples, cfg.seed)
    copies, caveats = find_caveats(images, provenance)
    if summary and summary["status"] != "completed":
        caveats.append(f"The training is not complete: its status is {summary['status']}.")
    trained_in = (summary.get("environment") or {}).get("precision", model.precision)
    if trained_in != model.precision:
        caveats.append(
            f"Computed in {model.precision}; the run was validated in {trained_in}: metrics differ slightly."
        )
    caveats += [f"The training reported: {warning}" for warning in summary.get("warnings") or []]
    earlier = ledger.others.get(split.fingerprint, 0) if ledger else 0
    return Evaluation(
        provenance=provenance,
        protocol=protocol,
        statement=describe_protocol(protocol, split, provenance, earlier),
        notes=caveats,
        split=split,
        images=images.evaluated,
        copies=copies,
        log_probabilities=predictions,
        scores=scores,
        resamples=cfg.resamples,
        seed=cfg.seed,
        environment=describe_environment(device_name(model.device.type), model.precision),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _record(ledger: Ledger, evaluation: "Evaluation", folder: Path) -> None:
    """Record a written report in the run's folder.

    Raises:
        UserError: an official report cannot be recorded.
    """
    report = {
        "time": evaluation.time,
        "images": len(evaluation.images),
        "accuracy": evaluation.scores[evaluation.tta].overall["accuracy"].value,
        "weights": evaluation.provenance.name,
        "tta": evaluation.tta,
        "output": str(folder.resolve()),
    }
    try:
        ledger.record(evaluation.protocol, evaluation.split.fingerprint, report)
    except OSError as error:
        if evaluation.protocol == "official":  # other evaluations may be of a run in a read-only folder
            raise UserError(
                f"{ledger.path} cannot be written ({error.strerror or error}). The report is in {printable(folder)}, "
                "but is not recorded as the run's report on these images."
            ) from error


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="evaluate")
def run(cfg: DictConfig) -> None:
    """Hydra's entry point."""
    carry_out(evaluate, cfg)


def main() -> None:
    """Run the command; exits with status 1 after a user error."""
    call(run, "evaluate")


if __name__ == "__main__":
    main()
