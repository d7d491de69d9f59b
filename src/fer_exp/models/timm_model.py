"""Any image classifier of timm (PyTorch Image Models), by name."""

from difflib import get_close_matches
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from fer_exp.errors import one_line


class TimmNetwork(nn.Module):
    """A timm model for this project's images.

    Models with a fixed input size (most transformers) are built for ``image_size``. Images are normalised with the
    mean and standard deviation that timm states for the model; for gray images, with their averages over red, green
    and blue.

    Args:
        name: of a timm model, as ``timm.list_models()`` lists them, with or without the tag of its weights.
        num_classes: number of logits.
        in_channels: 1 for gray, 3 for RGB images.
        image_size: height and width of the images.
        pretrained: load timm's pretrained weights.
        dropout: fraction of features that are dropped before the last layer (timm's ``drop_rate``).
        drop_path: stochastic depth (timm's ``drop_path_rate``; Huang et al. 2016); None for the model's default.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm has no such model, or the model does not accept these settings or images.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        num_classes: int = 7,
        in_channels: int = 1,
        image_size: int = 48,
        pretrained: bool = False,
        dropout: float = 0.0,
        drop_path: float | None = None,
    ) -> None:
        super().__init__()
        timm = _import_timm()
        if not timm.is_model(str(name)):
            close = get_close_matches(str(name), timm.list_models(), n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else "timm.list_models() lists the names"
            raise ValueError(f"name={name}: timm {timm.__version__} has no such model; {hint}")
        try:
            pretrained_cfg = timm.get_pretrained_cfg(name)
            self.network: nn.Module = timm.create_model(
                name,
                pretrained=pretrained,
                in_chans=in_channels,
                num_classes=num_classes,
                drop_rate=dropout,
                # timm ignores None; not every model has these two arguments.
                drop_path_rate=drop_path,
                img_size=image_size if pretrained_cfg.fixed_input_size else None,
            )
        except Exception as error:  # timm's models raise many types
            raise ValueError(f"timm's {name} cannot be built with these settings ({_reason(error)})") from None
        mean, std = pretrained_cfg.mean, pretrained_cfg.std
        if in_channels != len(mean):
            mean, std = [fmean(mean)] * in_channels, [fmean(std)] * in_channels
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        self._check_shapes(name, (in_channels, image_size, image_size), num_classes)

    def _check_shapes(self, name: str, image_shape: tuple[int, ...], num_classes: int) -> None:
        """Fail now, not after the data are loaded, if the model needs larger images."""
        self.eval()
        try:
            with torch.no_grad():
                shape = tuple(self(torch.zeros(1, *image_shape)).shape)
        except Exception as error:
            raise ValueError(
                f"timm's {name} does not accept images of shape {image_shape} ({_reason(error)})"
            ) from None
        if shape != (1, num_classes):
            raise ValueError(f"timm's {name} returns shape {shape} for one image; expected {(1, num_classes)}")
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, in_channels, image_size, image_size) in [0, 1] to logits (N, num_classes)."""
        logits: Tensor = self.network((x - self.mean) / self.std)
        return logits


def _import_timm() -> Any:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ImportError(f'timm cannot be imported ({error}): pip install "fer_exp[timm]"') from None
    return timm


def _reason(error: Exception) -> str:
    return one_line(error) or type(error).__name__
