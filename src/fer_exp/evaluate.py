"""Evaluate a trained network: ``python -m fer_exp.evaluate run=DIR``.

Imports at the top are light, so that ``--help`` and a wrong key answer at once; torch is imported by the evaluation.
"""

import logging
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer_exp.checkpoint import WEIGHTS, Trained, check_source, find_checkpoint, read_checkpoint
from fer_exp.config import CONFIG_DIR, is_number, is_whole, resolve
from fer_exp.errors import UserError, in_line
from fer_exp.evaluation.protocol import (
    PROTOCOLS,
    VIEWS,
    Origin,
    Reported,
    choose_protocol,
    record_report,
    refuse_second_report,
    state,
)
from fer_exp.explaining import call, carry_out
from fer_exp.resuming import check_unused, claim, plain

if TYPE_CHECKING:
    from torch import Tensor

    from fer_exp.data.imageset import ImageSet
    from fer_exp.evaluation.images import Images
    from fer_exp.evaluation.report import Evaluation
    from fer_exp.evaluation.scores import Scores

log = logging.getLogger(__name__)

LOG = "evaluate.log"


def evaluate(cfg: DictConfig) -> "Evaluation":
    """Evaluate the network that ``cfg`` names, print its figures, and leave them in ``cfg.output_dir``.

    That test images were reported on is noted before anything is written or printed of it.

    Args:
        cfg: the composed configuration.

    Returns:
        The evaluation.

    Raises:
        UserError: the settings, the checkpoint or the images are not as they must be, or the protocol forbids it;
            nothing is written.
    """
    start = time.perf_counter()
    folder = Path(cfg.output_dir)
    check(cfg, folder)
    checkpoint, run, summary = find_checkpoint(cfg)
    log.info("Loading torch ...")  # seconds, and on a cold disk a minute

    import torch

    from fer_exp.evaluation.images import build_data, load_images
    from fer_exp.evaluation.report import Evaluation, format_report, write_report
    from fer_exp.hardware import choose_accelerator, device_name
    from fer_exp.records import describe_environment

    accelerator, why = choose_accelerator(cfg.trainer.accelerator)
    device = device_name(accelerator)
    trained = read_checkpoint(checkpoint)
    trained.network.to(accelerator)
    origin = origin_of(trained, run, summary)
    log.info("%s: %s.", checkpoint, origin.in_words)
    log.info("Device: %s (%s). Precision: float32.", device, why)

    given = {str(key): value for key, value in plain(cfg.data).items() if value != "???"}
    of_run = data_settings(summary)
    if run is not None and given.get("hold_out", of_run.get("hold_out", 0)) != of_run.get("hold_out", 0):
        raise UserError(
            f"data.hold_out={given['hold_out']}: this run was trained with {of_run.get('hold_out', 0)}, and other "
            "images would be taken for held out; leave it out"
        )
    images = load_images(build_data(of_run, given), str(cfg.split))
    reported = Reported(images.split, images.reported.fingerprint, images.place.as_posix())
    protocol = choose_protocol(cfg.protocol, reported, origin)
    # Held while a test is reported, so that no two are at once.
    with claim(run) if protocol == "official" and run else nullcontext():
        if run:
            refuse_second_report(run, reported.fingerprint)
        log_probabilities, scores = measure(trained, images, cfg)
        copies, notes = examine(images, origin, (summary.get("environment") or {}).get("precision"))
        evaluation = Evaluation(
            origin=origin,
            protocol=protocol,
            statement=state(protocol, reported, origin),
            notes=notes,
            split=images.split,
            place=images.place,
            images=images.reported,
            copies=copies,
            log_probabilities=log_probabilities,
            scores=scores,
            resamples=cfg.resamples,
            seed=cfg.seed,
            environment=describe_environment(device, "32-true", torch.get_num_threads()),
        )
        if protocol == "official" and run:  # before anything can be seen of it
            first = {
                "images": len(images.reported),
                "accuracy": scores[evaluation.view].overall["accuracy"].value,
                "weights": origin.weights,
                "view": evaluation.view,
                "output": str(folder.resolve()),
            }
            record_report(run, reported.fingerprint, first)
        omitted = write_report(evaluation, trained, folder)
    log.info("\n%s\n", format_report(evaluation))
    for line in omitted:
        log.info("%s", line)
    names = ", ".join(sorted(path.name for path in folder.iterdir()))
    log.info("Written to %s in %.0f s: %s", folder, time.perf_counter() - start, names)
    return evaluation


def check(cfg: DictConfig, folder: Path) -> None:
    """See to it that the settings are possible, and that no file is written over.

    Raises:
        UserError: they are not, or ``folder`` holds files.
    """
    resolve(cfg, None)  # of the data what is missing is as the run had it
    check_source(cfg)
    views = views_of(cfg)
    if not views or {*views} - {*VIEWS} or len({*views}) < len(views):
        raise UserError(f"views={cfg.views}: expected a list of some of {', '.join(VIEWS)}, e.g. views=[single,flip]")
    if cfg.protocol not in ("auto", *PROTOCOLS):
        raise UserError(f"protocol={cfg.protocol}: expected one of auto, {', '.join(PROTOCOLS)}")
    for key, least in (("resamples", 100), ("seed", 0)):
        if not is_whole(cfg[key], at_least=least):
            raise UserError(f"{key}={cfg[key]}: expected a whole number from {least} up")
    held_out = plain(cfg.data)["hold_out"]
    if held_out != "???" and (not is_number(held_out) or not 0 <= held_out < 1):
        raise UserError(f"data.hold_out={held_out}: expected a share in [0, 1)")
    check_unused(folder, LOG)


def views_of(cfg: DictConfig) -> list[str]:
    """The names in ``views``: a list, or one alone."""
    return [str(name) for name in (cfg.views if isinstance(cfg.views, ListConfig) else [cfg.views])]


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
        raise UserError(f"the run's configuration cannot be resolved: {in_line(error)}") from error


def origin_of(trained: Trained, run: Path | None, summary: Mapping[str, Any]) -> Origin:
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
    return Origin(
        checkpoint=trained.path,
        run=run,
        weights=name,
        epoch=restored.get("epoch") if name == "restored" else trained.epoch,
        epochs=summary.get("epochs"),
        selected_by=None if run is None else _selecting_figure(summary, name),
        stopped_by=summary.get("stopped_by"),
        hold_out=None if run is None else data_settings(summary).get("hold_out", 0),
        train=recorded.get("train"),
        selection=recorded.get("validation"),
    )


def _selecting_figure(summary: Mapping[str, Any], weights: str) -> str | None:
    """The figure by which a run chose its best or its restored weights; None for others."""
    config = OmegaConf.create(dict(summary.get("config") or {}))
    callback = {"best": "checkpoints", "restored": "restore_best_weights"}.get(weights)
    if callback is None:
        return None
    figure = OmegaConf.select(config, f"callbacks.{callback}.monitor")
    return str(figure) if figure else {"best": "val_acc", "restored": "val_loss"}[weights]


def measure(trained: Trained, images: "Images", cfg: DictConfig) -> tuple[dict[str, "Tensor"], dict[str, "Scores"]]:
    """The network's answers (N, C), and their figures, for each view; each has a temperature of its own."""
    from fer_exp.data.batches import ValidationBatches
    from fer_exp.evaluation.calibration import fit_temperature
    from fer_exp.evaluation.scores import score
    from fer_exp.evaluation.views import log_probabilities
    from fer_exp.progress import progress_bar

    def answer(image_set: "ImageSet", view: str) -> "Tensor":
        batches = ValidationBatches(image_set, cfg.batch_size, trained.device)
        with progress_bar(f"{view}, {image_set.fingerprint[:6]}") as progress:
            return log_probabilities(trained, (faces for faces, _ in batches), view, len(image_set), progress)

    answers, scores = {}, {}
    for view in views_of(cfg):
        answers[view] = answer(images.reported, view)
        temperature = None
        if images.selection is not None:
            is_reported = images.selection.fingerprint == images.reported.fingerprint
            selection = answers[view] if is_reported else answer(images.selection, view)
            temperature = fit_temperature(selection, images.selection.labels)
        scores[view] = score(answers[view], images.reported.labels, temperature, cfg.resamples, cfg.seed)
    return answers, scores


def examine(images: "Images", origin: Origin, precision: str | None) -> tuple[dict[str, int], list[str]]:
    """What has to be known of the images beside the protocol.

    Args:
        images: of the evaluation.
        origin: of the weights.
        precision: in which the run was validated; None where it is not known.

    Returns:
        How many of the reported images have the pixels of a ``train`` or a ``selection`` image; and notes, a sentence
        each.
    """
    from fer_exp.evaluation.images import copies

    notes, found = [], {}
    for name, others, known, in_words in (
        ("train", images.train, origin.train, "trained"),
        ("selection", images.selection, origin.selection, "validated"),
    ):
        if others is None:
            continue
        if known is not None and others.fingerprint != known:
            notes.append(
                f"The images that the data settings name are not those that the run was {in_words} on: they have "
                "changed, or others are given."
            )
        if others.fingerprint != images.reported.fingerprint:
            found[name] = copies(images.reported, others)
            if found[name]:
                notes.append(
                    f"{found[name]:,} of the {len(images.reported):,} images have exactly the pixels of one that the "
                    f"run was {in_words} on."
                )
    if images.selection is None:
        notes.append(
            "No temperature could be fitted, and no copies of training images be looked for, as it is not known where "
            "the run's data lie; data.root=DIR tells."
        )
    elif images.selection.fingerprint == images.reported.fingerprint:
        notes.append("The temperature was fitted on the images reported on: the figures at T flatter.")
    else:
        on = "the images held out of train/" if origin.hold_out else "validation/"
        notes.append(f"The temperature was fitted on {on} ({len(images.selection):,} images).")
    if precision not in (None, "32-true"):
        notes.append(f"The run was validated in {precision}, and this is float32: its record may differ a little.")
    return found, notes


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="evaluate")
def run(cfg: DictConfig) -> None:
    """What Hydra calls with the composed configuration."""
    carry_out(evaluate, cfg)


def main() -> None:
    """The command; exits with status 1 where the network cannot be evaluated."""
    call(run)


if __name__ == "__main__":
    main()
