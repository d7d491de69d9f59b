"""Read a run's checkpoint: its config, and its network.

Imports at the top are light: torch is imported when a file is read.
"""

import zipfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_exp.config.instantiate import build_model
from fer_exp.config.schema import TRUSTED_PACKAGES
from fer_exp.errors import UserError, one_line
from fer_exp.files import expand_path

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from fer_exp.data.decode import ImageFormat

_PREFIX = "network."  # of the network's weights in a checkpoint's state_dict
_AUTOCAST = {"32-true": None, "bf16-mixed": "bfloat16", "16-mixed": "float16"}


@dataclass(frozen=True)
class LoadedModel:
    """A trained network.

    Attributes:
        path: the checkpoint.
        network: in evaluation mode; maps normalized images (N, C, S, S) to logits (N, K).
        epoch: epoch of the weights, from 1.
        settings: the checkpoint's hyper-parameters: ``config``, ``classes``, ``image_shape``, ``precision``,
            ``fingerprint``, ``run_id``.
        precision: one of ``PRECISIONS``, except ``auto``.
        packages: packages that the checkpoint may take classes from.
    """

    path: Path
    network: "nn.Module"
    epoch: int
    settings: Mapping[str, Any]
    precision: str = "32-true"
    packages: Sequence[str] = TRUSTED_PACKAGES

    @property
    def classes(self) -> tuple[str, ...]:
        """K names, in the order of the logits."""
        return tuple(self.settings["classes"])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, S, S) of the images that the network was trained on."""
        channels, height, width = self.settings["image_shape"]
        return channels, height, width

    @property
    def image_format(self) -> "ImageFormat":
        """How the images that the network was trained on were decoded."""
        from fer_exp.data.decode import ImageFormat

        channels, size, _ = self.image_shape
        resize = self.settings["config"]["data"].get("resize", "stretch")
        return ImageFormat(size, "gray" if channels == 1 else "rgb", resize)

    @property
    def device(self) -> "torch.device":
        """The device of the network."""
        return next(self.network.parameters()).device

    def logits(self, images: "Tensor") -> "Tensor":
        """Compute the logits (N, K) of normalized images (N, C, S, S)."""
        import torch

        dtype = _AUTOCAST[self.precision]
        autocast = torch.autocast(self.device.type, getattr(torch, dtype)) if dtype else nullcontext()
        with autocast:
            logits: Tensor = self.network(images.contiguous(memory_format=_memory_format(self.settings)))
        return logits


def read_checkpoint(path: Path, packages: Sequence[str] = TRUSTED_PACKAGES) -> LoadedModel:
    """Read a checkpoint that ``fer_exp.train`` wrote and build its network on the CPU, in float32.

    Args:
        path: the checkpoint.
        packages: packages that the checkpoint may take classes from.

    Raises:
        UserError: the file is missing, damaged or not a checkpoint, or its network cannot be built.
    """
    content = load_checkpoint(path)
    settings = content["hyper_parameters"]
    weights = {k.removeprefix(_PREFIX): w for k, w in content["state_dict"].items() if k.startswith(_PREFIX)}
    model, shape = settings["config"]["model"], tuple(settings["image_shape"])
    try:
        network = build_model(model, len(settings["classes"]), shape, packages, is_initial=False)
    except UserError as error:
        raise UserError(f"{path}: its network cannot be built: {error}") from error
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{path}: its weights do not fit its network: {one_line(error)}") from error
    network = network.eval().to(memory_format=_memory_format(settings))
    return LoadedModel(path, network, int(content["epoch"]) + 1, settings, packages=packages)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read the content of a checkpoint, on the CPU. Files that hold more than tensors and plain values are refused.

    Raises:
        UserError: the file is missing, damaged or not a checkpoint of this version of fer_exp.
    """
    import torch

    path = expand_path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a checkpoint in the checkpoints/ folder of a run")
    try:
        path.open("rb").close()  # a file that may not be read is not a damaged one
        if not zipfile.is_zipfile(path):
            raise ValueError("it is not a file that torch.save writes")
        if not is_intact(path):
            raise ValueError("it is damaged")
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        settings = content["hyper_parameters"]
        _ = int(content["epoch"]), content["state_dict"].items(), settings["run_id"]
        _ = settings["config"]["model"].items(), tuple(settings["classes"]), tuple(settings["image_shape"])
    except Exception as error:  # readers of a file with any content can raise anything
        readable = isinstance(error, OSError | ValueError)
        reason = str(error) if readable else type(error).__name__  # torch's messages do not help
        raise UserError(f"{path}: not a checkpoint of a run of this version ({reason})") from error
    return content


def is_intact(checkpoint: Path) -> bool:
    """Whether the checksums of a checkpoint's parts are right; torch does not compare them."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def _memory_format(settings: Mapping[str, Any]) -> "torch.memory_format":
    import torch

    return torch.channels_last if settings["config"].get("channels_last", True) else torch.contiguous_format
