"""A run's checkpoint found and read back: to show its network faces, or to go on from it.

Imports at the top are light: torch is imported where a file is read.
"""

import zipfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_exp.config.instantiate import build_checked
from fer_exp.data.classes import FER_CLASSES
from fer_exp.errors import UserError, one_line
from fer_exp.runs.folder import run_of
from fer_exp.runs.record import config_diff

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_OWN = "network."  # what the names of the network's weights begin with in a checkpoint
_HALVES = {"32-true": None, "bf16-mixed": "bfloat16", "16-mixed": "float16"}  # what torch autocasts to


@dataclass(frozen=True)
class LoadedModel:
    """A trained network.

    Attributes:
        path: of the checkpoint.
        network: in evaluation mode; maps normalised faces (N, 1, 48, 48) to logits (N, C).
        epoch: of the weights, from 1; None where the file does not tell, as that of restored weights.
        settings: those that the run stored with it: model, optimizer, classes, fingerprint, ...
        precision: in which it answers: one of ``PRECISIONS``, but ``auto``.
    """

    path: Path
    network: "nn.Module"
    epoch: int | None
    settings: Mapping[str, Any]
    precision: str = "32-true"

    @property
    def classes(self) -> tuple[str, ...]:
        """C names, in the order of the logits."""
        return tuple(self.settings["classes"])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, S, S) of the images that the network was trained on."""
        channels, height, width = self.settings.get("image_shape", (1, 48, 48))
        return channels, height, width

    @property
    def device(self) -> "torch.device":
        """Where the network lies."""
        return next(self.network.parameters()).device

    def logits(self, faces: "Tensor") -> "Tensor":
        """(N, C) of normalised faces (N, 1, 48, 48), in the memory order of the training."""
        import torch

        half = _HALVES[self.precision]
        autocast = torch.autocast(self.device.type, getattr(torch, half)) if half else nullcontext()
        with autocast:
            logits: Tensor = self.network(faces.contiguous(memory_format=_order(self.settings)))
        return logits


def read_checkpoint(path: Path) -> LoadedModel:
    """Read a checkpoint that ``fer_exp.train`` wrote, and build its network, on the CPU and in float32.

    Only plain values and tensors are read: a file that carries code is refused, not run.

    Raises:
        UserError: there is no such file, it is damaged or no such checkpoint, its network cannot be built, or it was
            trained for other classes or with another preprocessing.
    """
    from torch import nn

    from fer_exp.data.dataset import PREPROCESSING

    if not path.is_file():
        raise UserError(f"{path}: there is no such checkpoint; expected a file that a run wrote to checkpoints/")
    try:
        content = _load(path)
        # Restored weights are those of an earlier epoch than the one that they were saved in.
        epoch = int(content["epoch"]) + 1 if "optimizer_states" in content else None
        settings = dict(content["hyper_parameters"]["settings"])
        weights = {k.removeprefix(_OWN): w for k, w in content["state_dict"].items() if k.startswith(_OWN)}
        classes, model = tuple(settings["classes"]), dict(settings["model"])
        target = str(model["_target_"])
    except Exception as error:  # whatever a file of any kind makes the readers raise
        raise UserError(f"{path}: this is not a checkpoint of a run ({_reason(error)})") from error
    if classes != FER_CLASSES:
        raise UserError(
            f"{path}: this network names other classes ({', '.join(map(str, classes))}); "
            f"expected {', '.join(FER_CLASSES)}"
        )
    # Older checkpoints do not tell the preprocessing, as there was this one alone.
    if (preprocessing := settings.get("preprocessing", PREPROCESSING)) != PREPROCESSING:
        raise UserError(
            f"{path}: this network was trained on images prepared as {preprocessing}, and here they are prepared as "
            f"{PREPROCESSING}: its figures would mean nothing. Use the version of fer_exp that trained it."
        )
    if model.get("name") == target.rpartition(".")[2]:
        del model["name"]  # which the run record adds
    if model.get("pretrained"):
        model["pretrained"] = False  # the weights come from the checkpoint
    try:
        network = build_checked(model, "model", nn.Module)
    except UserError as error:
        raise UserError(f"{path}: its network cannot be built: {error}") from error
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{path}: its weights do not fit its network: {one_line(error)}") from error
    return LoadedModel(path, network.eval().to(memory_format=_order(settings)), epoch, settings)


def check_resume(path: str, settings: Mapping[str, Any], max_epochs: int, folder: Path) -> None:
    """See to it that a checkpoint can be gone on from with these settings.

    Args:
        path: a run's ``last.ckpt``.
        settings: what must be as it was in that run, as plain values; stored in each checkpoint.
        max_epochs: of this run.
        folder: of this run.

    Raises:
        UserError: ``path`` is no such checkpoint, its settings are others, or no epoch is left to train. A run that
            goes on in its own folder may have been killed between its last epoch and its end.
    """
    from fer_exp.training.schedules import END, end_is_open_until

    try:
        checkpoint = _load(path)
        epochs = checkpoint["epoch"] + 1
        _ = checkpoint["optimizer_states"], checkpoint["state_dict"]
        told = checkpoint["hyper_parameters"]["settings"]
        before = dict(told)
        schedules = [told_by.get("scheduler") or {} for told_by in (before, settings)]
        if all(epochs <= end_is_open_until(schedule) for schedule in schedules):
            before["scheduler"] = schedules[0] | {key: schedules[1][key] for key in END if key in schedules[1]}
        changed = config_diff(before, settings)
    except Exception as error:  # whatever a file of any kind makes the readers raise
        raise UserError(
            f"resume={path}: this is not a checkpoint to go on from ({_reason(error)}); "
            "expected the checkpoints/last.ckpt of a run"
        ) from error
    if changed:
        raise UserError(
            f"resume={path}: that run had other settings: {'; '.join(changed)}. Give the same, or begin a new run."
        )
    if epochs > max_epochs or (epochs == max_epochs and run_of(path) != folder.resolve()):
        raise UserError(
            f"resume={path}: that run has trained {epochs} epochs, and trainer.max_epochs={max_epochs} leaves none."
        )


def _load(path: str | Path) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU; raises whatever a file of any kind makes the readers raise."""
    import torch

    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():  # torch compares no checksum, and goes on from whatever it finds
            raise ValueError(f"{damaged} is damaged")
    # Plain values and tensors only: a file that carries code is refused, not run.
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return content


def _reason(error: Exception) -> str:
    """Why a checkpoint could not be read; the messages of torch and pickle are no help to a person."""
    return str(error) if isinstance(error, OSError | ValueError | zipfile.BadZipFile) else type(error).__name__


def _order(settings: Mapping[str, Any]) -> "torch.memory_format":
    import torch

    return torch.channels_last if settings.get("channels_last", True) else torch.contiguous_format
