"""Any image classifier of timm (PyTorch Image Models), by its name."""

from difflib import get_close_matches
from statistics import fmean
from types import ModuleType

import torch
from torch import Tensor, nn

from fer_exp.errors import one_line


class TimmNetwork(nn.Module):
    """A network that timm makes, for grey faces of 48x48 pixels.

    Networks that are made for one size of image (most transformers) are made for 48 pixels; all others take it as it
    is. Faces are shifted and scaled as timm's own weights expect them, so that these can be gone on from: with the
    mean over red, green and blue of the mean and the standard deviation that timm states.

    Args:
        name: of a timm model, as ``timm.list_models()`` lists them, with or without the tag of its weights.
        num_classes: number of outputs.
        pretrained: start with weights that timm fetches, rather than from scratch.
        dropout: share of features dropped before the last layer (timm's ``drop_rate``).
        drop_path: share of residual branches left out in training (timm's ``drop_path_rate``; Huang et al. 2016); None
            for what timm gives that network, which is seldom more than 0.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm has no model of that name, a rate is not in [0, 1), or the model cannot be made with these
            settings, or for 48 pixels.
    """

    input_shape = (1, 48, 48)

    def __init__(
        self,
        name: str,
        num_classes: int = 7,
        pretrained: bool = False,
        dropout: float = 0.0,
        drop_path: float | None = None,
    ) -> None:
        super().__init__()
        timm = _import_timm()
        _check_name(timm, name)
        for key, rate in (("dropout", dropout), ("drop_path", drop_path)):
            if rate is not None and not 0 <= rate < 1:
                raise ValueError(f"{key}={rate}: expected a share in [0, 1)")
        channels, size, _ = self.input_shape
        try:
            stated = timm.get_pretrained_cfg(name)
            self.network: nn.Module = timm.create_model(
                name,
                pretrained=pretrained,
                in_chans=channels,
                num_classes=num_classes,
                drop_rate=dropout,
                # None leaves a setting out: not all networks know these two.
                drop_path_rate=drop_path,
                img_size=size if stated.fixed_input_size else None,
            )
        except Exception as error:  # timm's models refuse what they cannot do in many ways
            raise ValueError(f"timm's {name} cannot be made with these settings ({_said(error)})") from None
        self.mean, self.std = fmean(stated.mean), fmean(stated.std)
        self._check_size(name, num_classes)

    def _check_size(self, name: str, num_classes: int) -> None:
        """Try a blank face: what needs more than 48 pixels fails here, and not after the data are read."""
        self.eval()
        try:
            with torch.no_grad():
                shape = tuple(self(torch.zeros(1, *self.input_shape)).shape)
        except Exception as error:
            raise ValueError(f"timm's {name} cannot take faces of 48x48 pixels ({_said(error)})") from None
        if shape != (1, num_classes):
            raise ValueError(f"timm's {name} gives {shape} for one face; expected {(1, num_classes)}")
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        """Map faces (N, 1, 48, 48) in [0, 1] to logits (N, num_classes)."""
        logits: Tensor = self.network((x - self.mean) / self.std)
        return logits


def _said(error: Exception) -> str:
    return one_line(error) or type(error).__name__  # a bare assertion says nothing


def _import_timm() -> ModuleType:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ImportError(f'timm cannot be imported ({error}): pip install "fer_exp[timm]"') from None
    module: ModuleType = timm
    return module


def _check_name(timm: ModuleType, name: str) -> None:
    if isinstance(name, str) and timm.is_model(name):
        return
    close = get_close_matches(str(name), timm.list_models(), n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else "; timm.list_models() lists them"
    raise ValueError(f"name={name}: timm {timm.__version__} has no such model{hint}")
