"""A run's checkpoint found and read back: to show its network faces, or to go on from it.

Imports at the top are light: torch is imported where a file is read.
"""

import zipfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_exp.config.instantiate import build_model
from fer_exp.errors import UserError, one_line

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
        UserError: there is no such file, it is damaged or no such checkpoint, or its network cannot be built.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such checkpoint; expected a file that a run wrote to checkpoints/")
    try:
        content = load_checkpoint(path)
        epoch = int(content["epoch"]) + 1
        run = dict(content["hyper_parameters"])
        settings = {**run, "model": run["config"]["model"], "channels_last": run["config"].get("channels_last", True)}
        weights = {k.removeprefix(_OWN): w for k, w in content["state_dict"].items() if k.startswith(_OWN)}
        classes, model = tuple(settings["classes"]), dict(settings["model"])
    except Exception as error:  # whatever a file of any kind makes the readers raise
        raise UserError(f"{path}: this is not a checkpoint of a run ({reason(error)})") from error
    if model.get("pretrained"):
        model["pretrained"] = False  # the weights come from the checkpoint
    try:
        network = build_model(model, len(classes), settings["image_shape"])
    except UserError as error:
        raise UserError(f"{path}: its network cannot be built: {error}") from error
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{path}: its weights do not fit its network: {one_line(error)}") from error
    return LoadedModel(path, network.eval().to(memory_format=_order(settings)), epoch, settings)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU; raises whatever a file of any kind makes the readers raise."""
    import torch

    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():  # torch compares no checksum, and goes on from whatever it finds
            raise ValueError(f"{damaged} is damaged")
    # Plain values and tensors only: a file that carries code is refused, not run.
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return content


def reason(error: Exception) -> str:
    """Why a checkpoint could not be read; the messages of torch and pickle are no help to a person."""
    return str(error) if isinstance(error, OSError | ValueError | zipfile.BadZipFile) else type(error).__name__


def _order(settings: Mapping[str, Any]) -> "torch.memory_format":
    import torch

    return torch.channels_last if settings.get("channels_last", True) else torch.contiguous_format
