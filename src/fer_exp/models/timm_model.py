"""Any image classifier of timm (PyTorch Image Models), by name, with pretrained weights if wanted."""

import logging
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from fer_exp.errors import join_first, one_line
from fer_exp.files import expand_path, printable

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 5.0  # until a server that does not answer counts as not reachable


class TimmNetwork(nn.Module):
    """A timm model for this project's images.

    Models with a fixed input size (most transformers) are built for ``image_size``. Images are normalized with the
    mean and standard deviation that timm states for the model's weights; for gray images, with their averages over red,
    green and blue. The checkpoints of a run contain both.

    Args:
        name: of a timm model, as ``timm.list_models()`` lists them, with or without the tag of its weights.
        num_classes: number of logits.
        in_channels: 1 for gray, 3 for RGB images.
        image_size: height and width of the images.
        pretrained: start from timm's pretrained weights, which are downloaded once.
        weights: start from the weights in this file (see ``load_weights``); ``pretrained`` then has no effect.
        mean: of each channel, instead of timm's.
        std: of each channel, instead of timm's.
        dropout: fraction of features that are dropped before the last layer (timm's ``drop_rate``).
        drop_path: stochastic depth (timm's ``drop_path_rate``; Huang et al. 2016); None for the model's default.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm has no such model, the model does not accept these settings, or the weights cannot be
            downloaded or do not fit.
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
        weights: str | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        dropout: float = 0.0,
        drop_path: float | None = None,
    ) -> None:
        super().__init__()
        try:
            import timm
        except ModuleNotFoundError as error:
            raise ImportError(f'timm cannot be imported ({error}): pip install "fer_exp[timm]"') from None
        if not timm.is_model(str(name)):
            close = get_close_matches(str(name), timm.list_models(), n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else "timm.list_models() lists the names"
            raise ValueError(f"name={name}: timm {timm.__version__} has no such model; {hint}")
        pretrained_cfg: Any = timm.get_pretrained_cfg(name)
        try:
            self.network: nn.Module = timm.create_model(
                name,
                in_chans=in_channels,
                num_classes=num_classes,
                drop_rate=dropout,
                # timm ignores None; not every model has these two arguments.
                drop_path_rate=drop_path,
                img_size=image_size if pretrained_cfg.fixed_input_size else None,
            )
        except Exception as error:  # timm's models raise many types
            raise ValueError(f"timm's {name} cannot be built with these settings ({one_line(error)})") from None
        self.register_buffer("mean", _per_channel("mean", mean or pretrained_cfg.mean, in_channels))
        self.register_buffer("std", _per_channel("std", std or pretrained_cfg.std, in_channels))
        if weights is not None:
            load_weights(self.network, expand_path(weights), in_channels)
        elif pretrained:
            load_weights(self.network, download_weights(name, pretrained_cfg), in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, in_channels, image_size, image_size) in [0, 1] to logits (N, num_classes)."""
        logits: Tensor = self.network((x - self.mean) / self.std)
        return logits


def load_weights(network: nn.Module, file: Path, in_channels: int) -> None:
    """Start from the weights in a file, except those of the last layer, which keeps its initial weights.

    The file holds a state dict, alone or in a training checkpoint (of timm, or of a run of this project); prefixes such
    as ``module.`` are removed. The first convolution is adapted to ``in_channels`` as timm does it: its weights are
    summed for gray images.

    Args:
        network: a timm model.
        file: ``.safetensors``, or a file of ``torch.save`` with tensors and plain values only.
        in_channels: of the images.

    Raises:
        ValueError: the file cannot be read, or its weights do not fit.
    """
    import timm.models as timm

    try:
        state: Mapping[str, Tensor] = timm.load_state_dict(str(file), weights_only=True)
        state = _without_prefix(state, next(iter(network.state_dict())))
        convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
        state = dict(convert(state, network) if convert else state)  # from the format of a model's authors
    except Exception as error:  # a file can hold anything
        reason = "it holds more than tensors" if "weights_only" in str(error).lower() else one_line(error)
        raise ValueError(f"weights={printable(file)}: no weights can be read ({reason})") from None
    config: Any = network.pretrained_cfg
    for name in _names(config["first_conv"]):
        weight = state.get(f"{name}.weight")
        if weight is not None and weight.shape[1] == 3 != in_channels:
            state[f"{name}.weight"] = timm.adapt_input_conv(in_channels, weight)
    head = tuple(f"{name}." for name in _names(config["classifier"]))
    own = {key: value for key, value in network.state_dict().items() if not key.startswith(head)}
    state = {key: value for key, value in state.items() if not key.startswith(head)}
    problems = {
        "missing": [key for key in own if key not in state and not key.endswith("num_batches_tracked")],
        "unexpected": [key for key in state if key not in own],
        "of another shape": [key for key in own if key in state and own[key].shape != state[key].shape],
    }
    if any(problems.values()):
        found = "; ".join(f"{len(keys)} {what} ({join_first(keys, 3)})" for what, keys in problems.items() if keys)
        raise ValueError(f"weights={printable(file)}: its weights are not those of {config['architecture']}: {found}")
    network.load_state_dict(state, strict=False)
    log.info("Weights: %s. The last layer starts untrained.", printable(file))


def download_weights(name: str, pretrained_cfg: Any) -> Path:
    """Return the file of timm's weights for a model, from the cache of the Hugging Face Hub or downloaded.

    Raises:
        ValueError: there are no such weights, or they cannot be downloaded.
    """
    import huggingface_hub as hub

    if not pretrained_cfg.hf_hub_id:
        raise ValueError(f"pretrained=true: the Hugging Face Hub has no weights of {name}; use model.weights=FILE")
    source = (pretrained_cfg.hf_hub_id, pretrained_cfg.hf_hub_filename or "model.safetensors")
    cached = hub.try_to_load_from_cache(*source)
    if isinstance(cached, str):
        return Path(cached)
    try:
        # The download repeats its attempts for minutes. The file itself: a firewall may pass the start page only.
        hub.get_session().head(hub.hf_hub_url(*source), timeout=_CONNECT_SECONDS)
        log.info("Downloading %s ...", pretrained_cfg.hf_hub_id)
        return Path(hub.hf_hub_download(*source))
    except Exception as error:  # of any HTTP library
        raise ValueError(
            f"pretrained=true: the weights {pretrained_cfg.hf_hub_id} cannot be downloaded ({one_line(error)}). Copy "
            f"{source[1]} of {hub.constants.ENDPOINT}/{pretrained_cfg.hf_hub_id} to this machine, and use "
            "model.weights=FILE"
        ) from None


def _without_prefix(state: Mapping[str, Tensor], first_key: str) -> Mapping[str, Tensor]:
    """Keep the entries below the prefix of ``first_key``, for example ``network.network.``, and remove the prefix."""
    found = min((key for key in state if key == first_key or key.endswith(f".{first_key}")), key=len, default=first_key)
    prefix = found.removesuffix(first_key)
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _names(modules: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if modules is None else (modules,) if isinstance(modules, str) else tuple(modules)


def _per_channel(key: str, values: Sequence[float], channels: int) -> Tensor:
    if len(values) != channels and channels == 1:
        values = [fmean(values)]
    if len(values) != channels:
        raise ValueError(f"{key}={list(values)}: expected {channels} numbers, one per channel")
    return torch.tensor(values).view(1, -1, 1, 1)
