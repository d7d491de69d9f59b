"""What a checkpoint says about its run, and whether a run with other settings may resume it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.utils import get_object

from fer_exp.config.targets import accepts
from fer_exp.errors import UserError, plural
from fer_exp.runs.checkpoint import load_checkpoint
from fer_exp.runs.config_diff import config_diff
from fer_exp.runs.folder import RESUME_KEYS, is_run_of
from fer_exp.runs.record import SUMMARY
from fer_exp.training.schedules import is_constant_until

_LENGTH = {"trainer.max_epochs", "scheduler.decay", "scheduler.final"}


def describe_run(
    config: Mapping[str, Any], run_id: str, data: Mapping[str, Any], image_shape: tuple[int, ...], precision: str
) -> dict[str, Any]:
    """The ``hyper_parameters`` of a run's checkpoints.

    Args:
        config: of the run, resolved.
        run_id: of the run's record.
        data: facts about the images, as in the record.
        image_shape: (C, S, S).
        precision: the chosen one.
    """
    return {
        "config": dict(config),
        "classes": list(data["classes"]),
        "image_shape": list(image_shape),
        "precision": precision,
        "fingerprint": {**data["fingerprint"], "soft_labels": data["soft_labels"]},
        "run_id": run_id,
    }


def check_resume(path: str, now: Mapping[str, Any], folder: Path) -> None:
    """Check that a checkpoint can be resumed by a run.

    Args:
        path: a ``last.ckpt``.
        now: ``describe_run`` of this run.
        folder: of this run.

    Raises:
        UserError: ``path`` is not a checkpoint of a run, its run had other settings, or no epoch is left. A run that
            resumes in its own folder may have been killed after its last epoch.
    """
    checkpoint = load_checkpoint(path)
    if not checkpoint.get("optimizer_states"):
        raise UserError(f"resume={path}: expected a checkpoint with the state of the optimizer, such as last.ckpt")
    epochs, before, in_place = int(checkpoint["epoch"]) + 1, checkpoint["hyper_parameters"], is_run_of(path, folder)
    if changed := _changed(before, now, epochs):
        raise UserError(
            f"resume={path}: that run had other settings: {'; '.join(changed)}. Use the same ones, or start a new run."
        )
    if in_place and (folder / SUMMARY).exists() and before["run_id"] != now["run_id"]:
        raise UserError(f"resume={path}: another run than the one in {folder} wrote this checkpoint.")
    max_epochs = now["config"]["trainer"]["max_epochs"]
    if epochs > max_epochs or (epochs == max_epochs and not in_place):
        raise UserError(
            f"resume={path}: that run trained {plural(epochs, 'epoch')}; expected trainer.max_epochs above {epochs}."
        )


def _changed(before: Mapping[str, Any], now: Mapping[str, Any], epochs: int) -> list[str]:
    configs = (before["config"], now["config"])
    ignored, scheduler = RESUME_KEYS, now["config"].get("scheduler")
    if scheduler and accepts(get_object(scheduler["_target_"]), "total_steps"):
        may_change_length = all(epochs <= is_constant_until(config) for config in configs)
        ignored = ignored | _LENGTH if may_change_length else ignored - _LENGTH
    facts = ("classes", "image_shape", "precision", "fingerprint")
    was, is_ = ({key: run[key] for key in facts} for run in (before, now))
    return config_diff(before["config"], now["config"], ignore=ignored) + config_diff(was, is_, ignore=())
