"""Evaluate a trained network: ``python -m fer_exp.evaluate run=DIR``.

Imports at the top are light, so that ``--help`` and a wrong key answer at once; torch is imported by the evaluation.
"""

import logging
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig, ListConfig

from fer_exp.cli import call, carry_out
from fer_exp.config.schema import CONFIG_DIR, is_number, is_whole, plain, resolve
from fer_exp.errors import UserError
from fer_exp.evaluation.protocol import (
    PROTOCOLS,
    VIEWS,
    EvalSplit,
    choose_protocol,
    looks_before,
    note_look,
    record_report,
    refuse_second_report,
    reports_on_others,
    state,
)
from fer_exp.evaluation.provenance import data_settings, provenance_of
from fer_exp.runs.checkpoint import check_source, find_checkpoint, load_network
from fer_exp.runs.folder import check_unused, claim

if TYPE_CHECKING:
    from fer_exp.evaluation.report import Evaluation

log = logging.getLogger(__name__)

LOG = "evaluate.log"
_TO_BE_NOTED = "allow this user to write there, where it is noted that test images were reported on"


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

    from fer_exp.evaluation.images import build_data, examine, load_images
    from fer_exp.evaluation.report import Evaluation, format_report, write_report
    from fer_exp.evaluation.scores import measure
    from fer_exp.runs.environment import describe_environment
    from fer_exp.training.hardware import device_name

    trained, how = load_network(checkpoint, cfg.trainer.accelerator, cfg.trainer.precision)
    origin = provenance_of(trained, run, summary)
    log.info("%s: %s.", checkpoint, origin.in_words)
    log.info("%s", how)

    given = {str(key): value for key, value in plain(cfg.data).items() if value != "???"}
    of_run = data_settings(summary)
    if run is not None and given.get("val_fraction", of_run.get("val_fraction", 0)) != of_run.get("val_fraction", 0):
        raise UserError(
            f"data.val_fraction={given['val_fraction']}: this run was trained with {of_run.get('val_fraction', 0)}, and other "  # noqa: E501
            "images would be taken for held out; leave it out"
        )
    images = load_images(build_data(of_run, given), str(cfg.split))
    reported = EvalSplit(images.split, images.reported.fingerprint, images.place.as_posix())
    protocol = choose_protocol(cfg.protocol, reported, origin)
    # Held while a test is reported, so that no two are at once.
    with claim(run, _TO_BE_NOTED) if protocol == "official" and run else nullcontext():
        if run:
            refuse_second_report(run, reported.fingerprint)
        log_probabilities, scores = measure(trained, images, views_of(cfg), cfg.batch_size, cfg.resamples, cfg.seed)
        validated_in = (summary.get("environment") or {}).get("precision")
        copies, notes = examine(images, origin, validated_in, trained.precision)
        looks = looks_before(run, reported.fingerprint) if run else 0
        if protocol == "official" and run:
            notes += reports_on_others(run, reported.fingerprint)
        evaluation = Evaluation(
            origin=origin,
            protocol=protocol,
            statement=state(protocol, reported, origin, looks),
            notes=notes,
            split=images.split,
            place=images.place,
            images=images.reported,
            copies=copies,
            log_probabilities=log_probabilities,
            scores=scores,
            resamples=cfg.resamples,
            seed=cfg.seed,
            environment=describe_environment(
                device_name(trained.device.type), trained.precision, torch.get_num_threads()
            ),
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
        elif protocol == "other" and run and reported.fingerprint not in (origin.train, origin.selection):
            note_look(run, reported.fingerprint)
        log.info("\n%s\n", format_report(evaluation))  # before all that could still go wrong
        omitted = write_report(evaluation, trained, folder)
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
    held_out = plain(cfg.data)["val_fraction"]
    if held_out != "???" and (not is_number(held_out) or not 0 <= held_out < 1):
        raise UserError(f"data.val_fraction={held_out}: expected a share in [0, 1)")
    check_unused(folder, LOG)


def views_of(cfg: DictConfig) -> list[str]:
    """The names in ``views``: a list, or one alone."""
    return [str(name) for name in (cfg.views if isinstance(cfg.views, ListConfig) else [cfg.views])]


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="evaluate")
def run(cfg: DictConfig) -> None:
    """What Hydra calls with the composed configuration."""
    carry_out(evaluate, cfg)


def main() -> None:
    """The command; exits with status 1 where the network cannot be evaluated."""
    call(run)


if __name__ == "__main__":
    main()
