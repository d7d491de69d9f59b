"""The configuration: where it lies, what it may say, and how its parts become objects."""

import inspect
import logging
import math
import os
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer_exp.data.folders import CLASSES, ON_BAD_IMAGE
from fer_exp.errors import UserError, in_line
from fer_exp.records import DIRECTION

_PACKAGE = Path(__file__).resolve().parent
# In a wheel conf/ lies inside the package; in a checkout, beside src/.
CONFIG_DIR = next(p for p in (_PACKAGE / "conf", _PACKAGE.parents[1] / "conf") if p.is_dir())

# `${direction:val_loss}` is "min"; an unknown figure is named by check_config, not by the interpolation.
OmegaConf.register_new_resolver("direction", lambda name: DIRECTION.get(str(name), "min"), replace=True)

logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # get_object logs what it raises, and we say it

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")
GROUPS = (
    "trainer",
    "data",
    "augmentation",
    "mixing",
    "model",
    "loss",
    "optimizer",
    "scheduler",
    "averaging",
    "callbacks",
    "logger",
)
_OWN = ("seed", "monitor", "decay_norms_and_biases", "channels_last", "cuda_graph", "resume", "output_dir")
KEYS = (*_OWN, *GROUPS, "experiment")
MAY_BE_NONE = ("augmentation", "mixing", "scheduler", "averaging", "logger")
_LIMITS = ("limit_train_batches", "limit_val_batches")
_MANY_STEPS = 1_000_003  # to try a schedule with; its own length may be refused when the run's steps are known
# What must be there whatever is chosen; conf/ has a value for each.
_NEEDED = (
    *_OWN,
    "data.batch_size",
    *(f"trainer.{key}" for key in ("max_epochs", "accelerator", "precision", *_LIMITS)),
)
# What the command itself gives to lightning.Trainer.
_TRAINER_OWN = {
    "devices",
    "num_nodes",
    "strategy",
    "logger",
    "callbacks",
    "default_root_dir",
    "log_every_n_steps",
    "num_sanity_val_steps",
    "enable_model_summary",
    "enable_progress_bar",
    "enable_checkpointing",
    "check_val_every_n_epoch",
    "val_check_interval",
    "fast_dev_run",
    # What would end a training within an epoch, before its validation.
    "max_steps",
    "min_steps",
    "max_time",
    "barebones",
    "overfit_batches",
}


def check_config(cfg: DictConfig) -> None:
    """Look for everything that is wrong with ``cfg`` before any data is read.

    Raises:
        UserError: names every problem found, each with what was given, what was expected and the key to change.
    """
    if absent := [group for group in GROUPS if group not in MAY_BE_NONE and not cfg.get(group)]:
        raise UserError(f"{', '.join(absent)}: nothing is chosen; give e.g. optimizer=adam")
    resolve(cfg, {"data.root": "Name the folder that holds train/ and validation/: data.root=DIR"})
    problems = [*_check_shape(cfg)] or [*_check_values(cfg), *_check_monitors(cfg), *check_targets(cfg)]
    problems = list({problem.partition(":")[0]: problem for problem in reversed(problems)}.values())[::-1]  # one a key
    if problems:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        raise UserError(lines.strip(" -") if len(problems) == 1 else f"{len(problems)} settings are wrong:\n{lines}")


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
        raise UserError(f"the configuration cannot be resolved: {in_line(error)}") from error


def build(cfg: DictConfig, group: str) -> Any:
    """Make the object that the group ``group`` (e.g. ``model``) describes; None for an empty group.

    Raises:
        UserError: its class refused what was given.
    """
    node = cfg.get(group)
    if not node:
        return None
    try:
        return instantiate(node)
    except (InstantiationException, TypeError) as error:
        raise UserError(f"{group}: {in_line(_cause(error))}. Given: {_given(node)}") from error


def build_optimizer_factories(cfg: DictConfig) -> tuple[Callable[..., Any], Callable[..., Any] | None]:
    """Make the factories of optimizer and schedule, and try both on parameters of one number.

    Raises:
        UserError: the optimizer or the schedule refused its settings.
    """
    import torch

    from fer_exp.classifier import spans_run

    optimizer, scheduler = build(cfg, "optimizer"), build(cfg, "scheduler")
    for group, factory in (("optimizer", optimizer), ("scheduler", scheduler)):
        if factory is not None and not callable(factory):
            raise UserError(f"{group}: its YAML needs `_partial_: true`, because the rest of its arguments come later")
    try:
        values = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
        groups = [{"params": values[:1]}, {"params": values[1:], "weight_decay": 0.0}]
        tried = optimizer(values if cfg.decay_norms_and_biases else groups)
    except Exception as error:  # whatever an optimizer of any package raises is about its settings
        raise UserError(f"optimizer: {in_line(error)}. Given: {_given(cfg.optimizer)}") from error
    if scheduler is not None:
        try:
            scheduler(tried, **({"total_steps": _MANY_STEPS} if spans_run(scheduler) else {}))
        except Exception as error:
            raise UserError(f"scheduler: {in_line(error)}. Given: {_given(cfg.scheduler)}") from error
    return optimizer, scheduler


def build_loss(cfg: DictConfig, class_counts: Sequence[int]) -> Any:
    """Make the loss; one whose class takes ``class_counts`` is given the number of training images of each class.

    Raises:
        UserError: its class refused what was given.
    """
    factory = build(cfg, "loss")
    if not cfg.loss.get("_partial_"):
        return factory
    try:
        takes_counts = "class_counts" in inspect.signature(factory).parameters
        return factory(**({"class_counts": class_counts} if takes_counts else {}))
    except (TypeError, ValueError) as error:
        raise UserError(f"loss: {in_line(error)}. Given: {_given(cfg.loss)}") from error


def _check_shape(cfg: DictConfig) -> Iterator[str]:
    """The keys that all else is looked up by must be there, and the groups must be groups."""
    nodes = {group: cfg.get(group) for group in GROUPS}
    if isinstance(cfg.callbacks, DictConfig):
        nodes |= {f"callbacks.{name!s}": callback for name, callback in cfg.callbacks.items()}
    for path, node in nodes.items():
        if not (node is None or isinstance(node, DictConfig)):
            yield f"{path}={node}: expected keys and values, as the YAML of a choice has them"
    for path in _NEEDED:
        group, _, key = path.rpartition(".")
        node = cfg[group] if group else cfg
        if isinstance(node, DictConfig) and key not in node:
            yield f"{path}: is not there; give a value, or leave it as it was"


def _check_values(cfg: DictConfig) -> Iterator[str]:
    for key in sorted(str(key) for key in cfg if key not in KEYS):
        yield f"{key}: there is no such key; there are {', '.join(KEYS)}"
    for path, seed in (("seed", cfg.seed), ("data.seed", cfg.data.get("seed", cfg.seed))):
        if not is_whole(seed, at_least=0) or seed >= 2**32:
            yield f"{path}={seed}: expected a whole number from 0 up to 2**32 - 1"
            break  # data.seed is seed where nothing else is said
    if not isinstance(cfg.output_dir, str) or not cfg.output_dir:
        yield f"output_dir={cfg.output_dir}: expected a folder; leave it out, and choose by hydra.run.dir"
    if cfg.model.get("num_classes", len(CLASSES)) != len(CLASSES):
        yield f"model.num_classes={cfg.model.num_classes}: expected {len(CLASSES)}: {', '.join(CLASSES)}"
    for key in ("channels_last", "decay_norms_and_biases"):
        if not isinstance(cfg[key], bool):
            yield f"{key}={cfg[key]}: expected true or false"
    if cfg.cuda_graph not in (True, False, "auto"):
        yield f"cuda_graph={cfg.cuda_graph}: expected auto, true or false"
    if cfg.resume is not None and not os.path.isfile(str(cfg.resume)):  # noqa: PTH113 (no name is too long for it)
        yield f"resume={cfg.resume}: there is no such checkpoint; expected the path of a checkpoints/last.ckpt"
    if not is_number(rate := cfg.optimizer.get("lr", 0.0)):
        yield f"optimizer.lr={rate}: expected a number"
    for path in ("optimizer.lr", "scheduler.factor", "scheduler.min_lr", "scheduler.max_lr"):
        given = OmegaConf.select(cfg, path)
        rates = given if isinstance(given, ListConfig) else [given]
        if any(is_number(rate) and not 0 <= rate < math.inf for rate in rates):
            yield f"{path}={given}: expected a finite number from 0 up"
    for key in ("total_steps", "epochs", "steps_per_epoch"):
        if cfg.get("scheduler") and key in cfg.scheduler:
            yield f"scheduler.{key}: the length of a run is set by trainer.max_epochs and the data; leave it out"
    if not is_whole(cfg.data.batch_size, at_least=1):
        yield f"data.batch_size={cfg.data.batch_size}: expected a whole number from 1 up"
    if cfg.data.get("on_bad_image", "error") not in ON_BAD_IMAGE:
        yield f"data.on_bad_image={cfg.data.on_bad_image}: expected {' or '.join(ON_BAD_IMAGE)}"
    held_out = cfg.data.get("hold_out", 0)
    if not is_number(held_out) or not 0 <= held_out < 1:
        yield f"data.hold_out={held_out}: expected a share in [0, 1)"
    trainer = cfg.trainer
    if not is_whole(trainer.max_epochs, at_least=1):
        yield f"trainer.max_epochs={trainer.max_epochs}: expected a whole number from 1 up"
    if trainer.accelerator not in ACCELERATORS:
        yield f"trainer.accelerator={trainer.accelerator}: expected one of {', '.join(ACCELERATORS)}"
    if trainer.precision not in PRECISIONS:
        yield f"trainer.precision={trainer.precision}: expected one of {', '.join(PRECISIONS)}"
    for key in _LIMITS:
        value = trainer[key]
        if not (is_whole(value, at_least=1) or (isinstance(value, float) and 0 < value <= 1)):
            yield f"trainer.{key}={value}: expected a share in (0, 1] or a number of batches from 1 up"
    for key in sorted(_TRAINER_OWN.intersection(trainer)):
        yield f"trainer.{key}: this is set by the command (one device; validation after each epoch); leave it out"


def _check_monitors(cfg: DictConfig) -> Iterator[str]:
    logged = f"logged in each epoch are {', '.join(DIRECTION)}"
    if not _is_figure(cfg.monitor):
        yield f"monitor={cfg.monitor}: no such figure is logged; {logged}"
    for name, callback in cfg.callbacks.items():
        watched: Any = callback.get("monitor") if callback else None
        if not _is_figure(watched):
            if watched not in (None, cfg.monitor):
                yield f"callbacks.{name}.monitor={watched}: no such figure is logged; {logged}"
        elif callback.get("mode") not in (None, DIRECTION[watched]):
            yield (
                f"callbacks.{name}.mode={callback.mode}: {watched} is better the "
                f"{'lower' if DIRECTION[watched] == 'min' else 'higher'} it is; expected {DIRECTION[watched]}"
            )
    mode = cfg.scheduler.get("mode") if cfg.get("scheduler") else None
    if mode in ("min", "max") and _is_figure(cfg.monitor) and mode != DIRECTION[cfg.monitor]:
        yield f"scheduler.mode={mode}: the schedule watches monitor={cfg.monitor}; expected {DIRECTION[cfg.monitor]}"


def check_targets(cfg: DictConfig) -> Iterator[str]:
    """Each ``_target_`` must be a class of its group's kind, and take the keys beside it with values of their kinds."""
    import lightning as L
    import torch
    from lightning.pytorch.loggers import Logger

    from fer_exp.callbacks.weight_averaging import MovingAverage

    kinds = {
        "data": L.LightningDataModule,
        "augmentation": torch.nn.Module,
        "mixing": torch.nn.Module,
        "model": torch.nn.Module,
        "loss": torch.nn.Module,
        "optimizer": torch.optim.Optimizer,
        "scheduler": torch.optim.lr_scheduler.LRScheduler,
        "averaging": MovingAverage,  # what checkpoints and restoring know of
        "callbacks": L.Callback,
        "logger": Logger,
    }
    nodes = {group: cfg.get(group) for group in kinds if group != "callbacks"}
    nodes |= {f"callbacks.{name}": callback for name, callback in cfg.callbacks.items()}
    for path, node in nodes.items():
        if not node:
            continue
        if "_target_" not in node:
            yield f"{path}: has no _target_, the class to make"
            continue
        try:
            target = get_object(node._target_)
        except Exception as error:
            yield f"{path}._target_={node._target_}: cannot be imported ({in_line(error)})"
            continue
        if not isinstance(node.get("_partial_", False), bool):
            yield f"{path}._partial_={node._partial_}: expected true or false"
        kind = kinds[path.partition(".")[0]]
        # Seen to before anything is called: a function of that name might do whatever it likes.
        if not (inspect.isclass(target) and issubclass(target, kind)):
            expected = f"{kind.__module__}.{kind.__name__}"
            yield f"{path}._target_={node._target_}: expected a class that is a kind of {expected}"
            continue
        apart = ("_target_", "_partial_", *(["seed"] if path == "data" else []))  # the seed was looked at before
        yield from _check_arguments(path, target, {key: value for key, value in node.items() if key not in apart})
    checked = {*_TRAINER_OWN, "max_epochs", "accelerator", "precision", *_LIMITS}
    yield from _check_arguments("trainer", L.Trainer, {k: v for k, v in cfg.trainer.items() if k not in checked})


def _check_arguments(path: str, target: Callable[..., Any], arguments: dict[str, Any]) -> Iterator[str]:
    try:
        parameters = inspect.signature(target).parameters
        hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)  # type: ignore[misc]
    except (TypeError, ValueError, NameError):  # a class without a readable signature is left to itself
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for key, value in arguments.items():
        if key not in parameters:
            yield f"{path}.{key}: {getattr(target, '__name__', target)} takes no such key; it takes " + ", ".join(
                parameters
            )
        elif expected := _kind_mismatch(value, hints.get(key), parameters[key].default):
            yield f"{path}.{key}={value}: expected {expected}"


def _kind_mismatch(value: Any, hint: Any, default: Any) -> str | None:
    """The kind that was expected, in words, where ``value`` is surely of another one."""
    if hint is None:
        # Without a hint a number in the signature still tells that a number is meant.
        return "a number" if is_number(default) and isinstance(value, str) else None
    kinds = _kinds(hint)
    if (value is None and default is None) or any(_may_be(value, kind) for kind in kinds):
        return None
    if float in kinds and isinstance(value, float):
        return "a finite number"
    return _in_words(hint)


_WORDS: dict[Any, str] = {float: "a number", int: "a whole number", bool: "true or false", types.NoneType: "null"}


def _kinds(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _in_words(hint: Any) -> str:
    words, kinds = [], _kinds(hint)
    for kind in kinds:
        arguments = typing.get_args(kind)
        if typing.get_origin(kind) is tuple:
            words.append(f"a list of {len(arguments)}, each {_in_words(arguments[0])}")
        elif typing.get_origin(kind) is typing.Literal:
            words += map(str, arguments)
        elif kind is not int or float not in kinds:
            words.append(_WORDS.get(kind, ""))
    return " or ".join(filter(None, words))


def _may_be(value: Any, kind: Any) -> bool:
    """Whether ``value`` may stand where ``kind`` is hinted; what is not known is left to the class."""
    if kind is types.NoneType:
        return value is None
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return is_number(value) and isinstance(value, int)
    if kind is float:
        return is_number(value) and math.isfinite(value)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return value in arguments
    if origin is list:
        return isinstance(value, ListConfig) and not any(_kind_mismatch(part, arguments[0], ...) for part in value)
    if origin is tuple and ... not in arguments:
        return (
            isinstance(value, ListConfig)
            and len(value) == len(arguments)
            and not any(_kind_mismatch(part, hint, ...) for part, hint in zip(value, arguments, strict=True))
        )
    return getattr(kind, "__name__", None) != "Tensor"  # YAML has none


def oddities(cfg: DictConfig) -> Iterator[str]:
    """Settings that are allowed and work against each other, in words."""
    from fer_exp.classifier import spans_run

    stopping = cfg.callbacks.get("early_stopping")
    schedule = cfg.get("scheduler") or OmegaConf.create({})
    if stopping and schedule and spans_run(get_object(schedule._target_)):
        yield (
            "early stopping may end the run before the schedule has brought the rate down, which spans "
            "trainer.max_epochs. callbacks=fixed_budget trains to its end."
        )
    if not cfg.decay_norms_and_biases and cfg.optimizer.get("weight_decay") == 0:
        yield "decay_norms_and_biases=false changes nothing where optimizer.weight_decay is 0."
    remedies = {
        "data.balanced_sampling": cfg.data.get("balanced_sampling"),
        "loss.class_weights": cfg.loss.get("class_weights"),
        "loss.logit_adjustment": cfg.loss.get("logit_adjustment"),
    }
    if sum(map(bool, remedies.values())) > 1:
        yield (
            f"{' and '.join(key for key, value in remedies.items() if value)} each make up for rare classes: together "
            "they do so more than once."
        )
    plateau = "ReduceLROnPlateau" in schedule.get("_target_", "") and "patience" in schedule
    if plateau and cfg.trainer.max_epochs <= schedule.patience + 1:
        yield (
            f"trainer.max_epochs={cfg.trainer.max_epochs} ends the run before the plateau schedule can cut the rate "
            f"(scheduler.patience={schedule.patience})."
        )
    elif stopping and "patience" in stopping and plateau and stopping.patience <= schedule.patience + 1:
        yield (
            f"early stopping (callbacks.early_stopping.patience={stopping.patience}) may end the run in the same epoch "
            f"in which the plateau schedule first cuts the rate (after {schedule.patience + 1} bad epochs), so that no "
            f"cut ever acts. callbacks.early_stopping.patience=10 or experiment=notebook_patient gives it time."
        )


def named(node: DictConfig) -> dict[str, Any]:
    """A group as plain values, with the name of its class: ``{"name": "Adam", "lr": 0.001, ...}``."""
    plain = OmegaConf.to_container(node)
    assert isinstance(plain, dict)
    return {"name": str(plain.get("_target_")).rpartition(".")[2], **{str(key): v for key, v in plain.items()}}


def _is_figure(name: Any) -> bool:
    return isinstance(name, str) and name in DIRECTION


def is_number(value: Any) -> bool:
    """Whether this is a number; true and false, which Python takes for some, are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: Any, at_least: int) -> bool:
    """Whether this is a whole number from ``at_least`` up."""
    return is_number(value) and isinstance(value, int) and value >= at_least


def _cause(error: BaseException) -> BaseException:
    return _cause(error.__cause__) if error.__cause__ else error


def _given(node: DictConfig) -> str:
    arguments = {str(key): value for key, value in node.items() if key not in ("_target_", "_partial_")}
    return ", ".join(f"{key}={value}" for key, value in arguments.items())
