"""The config's schema: keys with types and constraints, the base class of each group, and renamed keys.

``conf/`` holds the values. Light imports: commands read this module before torch is imported.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer_exp.errors import UserError, one_line
from fer_exp.metrics import describe

_PACKAGE = Path(__file__).resolve().parents[1]
# In a wheel conf/ is inside the package; in a checkout it is beside src/.
CONFIG_DIR = next(p for p in (_PACKAGE / "conf", _PACKAGE.parents[1] / "conf") if p.is_dir())

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")


@dataclass
class DeviceConfig:
    """``trainer`` of the commands that use a trained network."""

    accelerator: str
    precision: str


@dataclass
class TrainerConfig(DeviceConfig):
    """``trainer`` of ``train``. Other keys are arguments of ``lightning.Trainer``."""

    max_epochs: int
    limit_train_batches: int | float
    limit_val_batches: int | float


@dataclass
class DataConfig:
    """The keys that every ``data`` has. Other keys are arguments of the data module's class."""

    batch_size: int
    seed: int = 0


@dataclass
class PlotsConfig:
    """``plots``."""

    theme: str


@dataclass
class TrainConfig:
    """The config of ``train``. The groups without a class here are checked against their ``_target_``."""

    seed: int
    monitor: str
    weight_decay_exclude_1d: bool
    head_epochs: int
    backbone_lr_factor: float
    channels_last: bool
    cuda_graph: bool
    im2col_weight_grad: Any  # auto or a bool
    retain_memory: bool
    plots: PlotsConfig
    resume: str | None
    output_dir: str
    trainer: TrainerConfig
    data: DataConfig
    model: dict[str, Any]
    loss: dict[str, Any]
    optimizer: dict[str, Any]
    callbacks: dict[str, Any]
    augmentation: dict[str, Any] | None
    mixup: dict[str, Any] | None
    scheduler: dict[str, Any] | None
    ema: dict[str, Any] | None
    logger: dict[str, Any] | None


@dataclass
class ModelConfig:
    """The keys that name a trained network: in ``evaluate``, ``predict`` and ``export``."""

    run: str | None
    ckpt: str | None
    weights: str
    trust: list[str]


@dataclass
class EvaluateConfig(ModelConfig):
    """The config of ``evaluate``."""

    split: str
    protocol: str
    tta: Any  # a name or a list of names
    resamples: int
    seed: int
    batch_size: int
    trainer: DeviceConfig
    plots: PlotsConfig
    data: dict[str, Any]
    output_dir: str


@dataclass
class PredictConfig(ModelConfig):
    """The config of ``predict``."""

    images: Any  # a path or a list of paths
    tta: str
    top: int
    output: str | None
    batch_size: int
    trainer: DeviceConfig


@dataclass
class ExportConfig(ModelConfig):
    """The config of ``export``."""

    format: str
    output_dir: str


@dataclass
class AuditConfig:
    """The config of ``audit``."""

    near_distance: int
    near_correlation: float
    seed: int
    plots: PlotsConfig
    output_dir: str
    data: DataConfig
    trainer: Any = None  # data=synthetic sets its number of epochs; an audit does not train


OPEN_SCHEMAS = (TrainerConfig, DataConfig)  # may have keys beyond those listed

# Each group and the class that its _target_ must be or return. In callbacks each entry has a _target_.
BASE_CLASSES = {
    "data": "fer_exp.data.datamodule.ImageDataModule",
    "augmentation": "torch.nn.Module",
    "mixup": "torch.nn.Module",
    "model": "torch.nn.Module",
    "loss": "torch.nn.Module",
    "optimizer": "torch.optim.Optimizer",
    "scheduler": "torch.optim.lr_scheduler.LRScheduler",
    "ema": "fer_exp.training.callbacks.ema.WeightEMA",
    "callbacks": "lightning.Callback",
    "logger": "lightning.pytorch.loggers.Logger",
}
GROUPS = ("trainer", *BASE_CLASSES)
OPTIONAL_GROUPS = ("augmentation", "mixup", "scheduler", "ema", "logger")
# Packages that the classes of a checkpoint may come from.
TRUSTED_PACKAGES = ("fer_exp", "torch", "torchvision", "timm")


@dataclass(frozen=True)
class Interval:
    """A constraint: a number of type ``kind`` between ``low`` and ``high``. NaN never satisfies it."""

    kind: type
    low: float
    high: float = math.inf
    closed: Literal["left", "right", "both"] = "left"

    def __contains__(self, value: Any) -> bool:
        if not isinstance(value, int | self.kind) or isinstance(value, bool):
            return False
        number: Any = value
        above: bool = number > self.low if self.closed == "right" else number >= self.low
        below: bool = number < self.high if self.closed == "left" else number <= self.high
        return above and below

    def __str__(self) -> str:
        noun = "an integer" if self.kind is int else "a number"
        if self.high == math.inf:
            return f"{noun} >= {self.low}"
        left, right = "(" if self.closed == "right" else "[", ")" if self.closed == "left" else "]"
        return f"{noun} in {left}{self.low}, {self.high}{right}"


@dataclass(frozen=True)
class Choices:
    """A constraint: one of some values. ``true`` is not 1."""

    values: tuple[object, ...]

    def __contains__(self, value: Any) -> bool:
        return any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in self.values)

    def __str__(self) -> str:
        return " or ".join(filter(None, [", ".join(map(as_typed, self.values[:-1])), as_typed(self.values[-1])]))


SEED = Interval(int, 0, 2**32 - 1, closed="both")  # NumPy's generators take no larger seed
_BATCHES = (Interval(int, 1), Interval(float, 0, 1, closed="right"))
# A value must satisfy one of the constraints of its key; of a list, each item must. Absent keys are skipped.
CONSTRAINTS: Mapping[str, tuple[Interval | Choices, ...]] = {
    "seed": (SEED,),
    "head_epochs": (Interval(int, 0),),
    "backbone_lr_factor": (Interval(float, 0, 1, closed="right"),),
    "im2col_weight_grad": (Choices(("auto", True, False)),),
    "plots.theme": (Choices(("light", "dark")),),
    "data.batch_size": (Interval(int, 1),),
    "data.image_size": (Interval(int, 24, 512, closed="both"),),
    "data.seed": (SEED,),
    "data.val_fraction": (Interval(float, 0, 1),),
    "trainer.max_epochs": (Interval(int, 1),),
    "trainer.accelerator": (Choices(ACCELERATORS),),
    "trainer.precision": (Choices(PRECISIONS),),
    "trainer.limit_train_batches": _BATCHES,
    "trainer.limit_val_batches": _BATCHES,
    "trainer.gradient_clip_val": (Choices((None,)), Interval(float, 0)),
    "trainer.accumulate_grad_batches": (Interval(int, 1),),
    "optimizer.lr": (Interval(float, 0),),
    "scheduler.factor": (Interval(float, 0),),
    "scheduler.min_lr": (Interval(float, 0),),
    "scheduler.max_lr": (Interval(float, 0),),
    "weights": (Choices(("best", "last")),),
    "resamples": (Interval(int, 100),),
    "protocol": (Choices(("auto", "official")),),
    "tta": (Choices(("none", "flip", "ten_crop")),),
    "batch_size": (Interval(int, 1),),
    "top": (Interval(int, 1),),
    "format": (Choices(("onnx", "torchscript")),),
    "near_distance": (Interval(int, 0, 16, closed="both"),),  # larger distances match nearly all pairs of images
    "near_correlation": (Interval(float, 0, 1, closed="right"),),
}

# Keys that the command sets, and why a config may not.
_ONE_DEVICE = "the command trains on one device and validates after each epoch"
FIXED_KEYS = {
    **{f"trainer.{key}": _ONE_DEVICE for key in (
        "devices", "num_nodes", "strategy", "plugins", "logger", "callbacks", "default_root_dir", "log_every_n_steps",
        "num_sanity_val_steps", "check_val_every_n_epoch", "val_check_interval", "enable_model_summary",
        "enable_progress_bar", "enable_checkpointing", "fast_dev_run", "barebones", "min_epochs", "max_steps",
        "min_steps", "max_time", "overfit_batches",
    )},
    **{f"scheduler.{key}": "trainer.max_epochs and the data set the number of steps" for key in (
        "total_steps", "epochs", "steps_per_epoch",
    )},
}  # fmt: skip
RENAMED_KEYS = {
    "averaging": "ema",
    "mixing": "mixup",
    "mixup.mixup": "mixup.mixup_alpha",
    "mixup.cutmix": "mixup.cutmix_alpha",
    "mixup.share": "mixup.prob",
    "views": "tta",
    "decay_norms_and_biases": "weight_decay_exclude_1d, with the opposite value",
    "patch_gradients": "im2col_weight_grad",
    "keep_memory": "retain_memory",
    "data.hold_out": "data.val_fraction",
    "data.on_bad_image": "data.on_unreadable",
    "data.drawing_seed": "data.generator_seed",
    "hydra.sweeper.hold_out": "hydra.sweeper.val_fraction",
    "hydra.sweeper.points_seed": "hydra.sweeper.sampler_seed",
}


def resolve(cfg: DictConfig, hints: Mapping[str, str] | None) -> None:
    """Replace the interpolations of a config with their values.

    Args:
        cfg: the composed config.
        hints: how to set keys that users often forget, by key; None if keys may be missing.

    Raises:
        UserError: a key has no value, or an interpolation cannot be resolved.
    """
    try:
        missing = [] if hints is None else sorted(OmegaConf.missing_keys(cfg))
        if missing:
            remedies = [hint for key, hint in (hints or {}).items() if key in missing]
            raise UserError(" ".join([f"{', '.join(missing)}: a value is required.", *remedies]))
        OmegaConf.resolve(cfg)
    except OmegaConfBaseException as error:
        raise UserError(f"the config cannot be resolved: {one_line(error)}") from error


def plain(cfg: Any) -> dict[str, Any]:
    """Return a config as plain values, with interpolations resolved.

    Raises:
        UserError: an interpolation cannot be resolved.
    """
    try:
        container = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"the config cannot be resolved: {one_line(error)}") from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def as_typed(value: object) -> str:
    """Return a value as a user types it: ``null``, ``true``, ``0.1``."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def commented_keys(name: str) -> str:
    """Return the keys of ``conf/NAME.yaml`` with their comments, for Hydra's help template, where ``$$`` is ``$``."""
    text = (CONFIG_DIR / f"{name}.yaml").read_text(encoding="utf-8")
    blocks = [
        block for block in text.partition("\nhydra:")[0].split("\n\n") if not block.startswith(("#", "defaults:"))
    ]
    return "\n\n".join(blocks).strip().replace("$", "$$")


# ${direction:val_loss} is "min".
OmegaConf.register_new_resolver("direction", lambda name: describe(str(name)).direction, replace=True)
OmegaConf.register_new_resolver("commented_keys", commented_keys, replace=True)
