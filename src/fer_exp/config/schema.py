"""The configuration: where it lies, what its parts are called, and how it becomes plain values."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer_exp.errors import UserError, one_line
from fer_exp.metrics import describe

_PACKAGE = Path(__file__).resolve().parents[1]
# In a wheel conf/ lies inside the package; in a checkout, beside src/.
CONFIG_DIR = next(p for p in (_PACKAGE / "conf", _PACKAGE.parents[1] / "conf") if p.is_dir())

# `${direction:val_loss}` is "min"; an unknown figure is named by check_config, not by the interpolation.
OmegaConf.register_new_resolver("direction", lambda name: describe(str(name)).direction, replace=True)

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")
# Packages that a checkpoint from elsewhere may take classes from.
TRUSTED_PACKAGES = ("fer_exp", "torch", "torchvision", "timm")
GROUPS = (
    "trainer",
    "data",
    "augmentation",
    "mixup",
    "model",
    "loss",
    "optimizer",
    "scheduler",
    "ema",
    "callbacks",
    "logger",
)
TOP_LEVEL_KEYS = (
    "seed",
    "monitor",
    "weight_decay_exclude_1d",
    "channels_last",
    "cuda_graph",
    "im2col_weight_grad",
    "retain_memory",
    "resume",
    "output_dir",
)
KEYS = (*TOP_LEVEL_KEYS, *GROUPS, "plots", "experiment")
OPTIONAL_GROUPS = ("augmentation", "mixup", "scheduler", "ema", "logger")


def resolve(cfg: DictConfig, hints: Mapping[str, str] | None) -> None:
    """Put values in the place of interpolations, where every key has one.

    Args:
        cfg: the composed configuration.
        hints: for keys that are often missing, a sentence that says how to give them; None where keys may be missing.

    Raises:
        UserError: a key is missing, or an interpolation leads nowhere.
    """
    try:
        missing = [] if hints is None else sorted(OmegaConf.missing_keys(cfg))
        if missing:
            how = [hint for key, hint in (hints or {}).items() if key in missing]
            raise UserError(" ".join([f"{', '.join(missing)} must be set.", *how]))
        OmegaConf.resolve(cfg)
    except OmegaConfBaseException as error:
        raise UserError(f"the configuration cannot be resolved: {one_line(error)}") from error


def plain(cfg: Any) -> dict[str, Any]:
    """A config as plain values, with interpolations resolved.

    Raises:
        UserError: an interpolation cannot be resolved.
    """
    try:
        container = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"the config cannot be resolved: {one_line(error)}") from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def is_number(value: Any) -> bool:
    """Whether this is a number; true and false, which Python takes for some, are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_seed(value: Any) -> bool:
    """Whether all the generators that a run seeds take this: NumPy's knows none from 2**32 up."""
    return is_whole(value, at_least=0) and value < 2**32


def is_whole(value: Any, at_least: int) -> bool:
    """Whether this is a whole number from ``at_least`` up."""
    return is_number(value) and isinstance(value, int) and value >= at_least
