"""What a configuration may say: everything that is wrong with it is named before any data is read."""

import inspect
import logging
import math
import os
from collections.abc import Iterator
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf

from fer_exp.config.schema import (
    ACCELERATORS,
    CONFIG_DIR,
    GROUPS,
    KEYS,
    OPTIONAL_GROUPS,
    PRECISIONS,
    TOP_LEVEL_KEYS,
    is_number,
    is_seed,
    is_whole,
    resolve,
)
from fer_exp.config.signature import check_arguments
from fer_exp.errors import UserError, one_line
from fer_exp.files import expand_path
from fer_exp.metrics import METRICS, describe

logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # get_object logs what it raises, and we say it

_LIMITS = ("limit_train_batches", "limit_val_batches")
# What must be there whatever is chosen; conf/ has a value for each.
_NEEDED = (
    *TOP_LEVEL_KEYS,
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
    # What would end a training within an epoch, before its validation, or keep one from its end.
    "min_epochs",
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
    if absent := [group for group in GROUPS if group not in OPTIONAL_GROUPS and not cfg.get(group)]:
        examples = [f"{group}={min(path.stem for path in (CONFIG_DIR / group).glob('*.yaml'))}" for group in absent]
        raise UserError(f"{', '.join(absent)}: nothing is chosen; give e.g. {' '.join(examples)}")
    resolve(cfg, {"data.root": "Name the folder that holds train/ and validation/: data.root=DIR"})
    problems = [*_check_shape(cfg)] or [*_check_values(cfg), *_check_monitors(cfg), *_check_targets(cfg)]
    problems = list({problem.partition(":")[0]: problem for problem in reversed(problems)}.values())[::-1]  # one a key
    if problems:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        raise UserError(lines.strip(" -") if len(problems) == 1 else f"{len(problems)} settings are wrong:\n{lines}")


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
        if not is_seed(seed):
            yield f"{path}={seed}: expected a whole number from 0 up to 2**32 - 1"
            break  # data.seed is seed where nothing else is said
    if not isinstance(cfg.output_dir, str) or not cfg.output_dir:
        yield f"output_dir={cfg.output_dir}: expected a folder; leave it out, and choose by hydra.run.dir"
    for key in ("channels_last", "weight_decay_exclude_1d", "retain_memory", "cuda_graph"):
        if not isinstance(cfg[key], bool):
            yield f"{key}={cfg[key]}: expected true or false"
    if not (isinstance(cfg.im2col_weight_grad, bool) or cfg.im2col_weight_grad == "auto"):
        yield f"im2col_weight_grad={cfg.im2col_weight_grad}: expected auto, true or false"
    if cfg.resume is not None and not os.path.isfile(expand_path(cfg.resume)):  # noqa: PTH113 (no name is too long for it)
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
    held_out = cfg.data.get("val_fraction", 0)
    if not is_number(held_out) or not 0 <= held_out < 1:
        yield f"data.val_fraction={held_out}: expected a share in [0, 1)"
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
    clip = trainer.get("gradient_clip_val")
    if is_number(clip) and clip < 0:
        yield f"trainer.gradient_clip_val={clip}: expected null, or a number from 0 up"
    if not is_whole(trainer.get("accumulate_grad_batches", 1), at_least=1):
        yield f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}: expected a whole number from 1 up"
    for key in sorted(_TRAINER_OWN.intersection(trainer)):
        yield f"trainer.{key}: this is set by the command (one device; validation after each epoch); leave it out"


def _check_monitors(cfg: DictConfig) -> Iterator[str]:
    """Report directions that contradict the metric. A user's own metrics are known only after the first epoch."""
    if not isinstance(cfg.monitor, str) or not cfg.monitor:
        yield f"monitor={cfg.monitor}: expected the name of a metric, for example one of {', '.join(METRICS)}"
        return
    for name, callback in cfg.callbacks.items():
        watched: Any = callback.get("monitor") if callback else None
        if watched is not None and callback.get("mode") not in (None, direction := describe(str(watched)).direction):
            better = "lower" if direction == "min" else "higher"
            yield f"callbacks.{name}.mode={callback.mode}: {watched} is better if it is {better}; expected {direction}"
    scheduler = cfg.get("scheduler") or {}
    mode = scheduler.get("mode")
    if mode is None and str(scheduler.get("_target_")).endswith(".ReduceLROnPlateau"):
        mode = "min"  # torch's default
    if mode in ("min", "max") and mode != (direction := describe(cfg.monitor).direction):
        yield f"scheduler.mode={mode}: the schedule watches monitor={cfg.monitor}; expected {direction}"


def _check_targets(cfg: DictConfig) -> Iterator[str]:
    import lightning as L
    import torch
    from lightning.pytorch.loggers import Logger

    from fer_exp.data.datamodule import ImageDataModule
    from fer_exp.training.callbacks.ema import WeightEMA

    kinds = {
        "data": ImageDataModule,  # evaluations load their images as it does
        "augmentation": torch.nn.Module,
        "mixup": torch.nn.Module,
        "model": torch.nn.Module,
        "loss": torch.nn.Module,
        "optimizer": torch.optim.Optimizer,
        "scheduler": torch.optim.lr_scheduler.LRScheduler,
        "ema": WeightEMA,  # what checkpoints and restoring know of
        "logger": Logger,
    }
    for group, kind in kinds.items():
        yield from check_target(group, cfg.get(group), kind)
    for name, callback in cfg.callbacks.items():
        yield from check_target(f"callbacks.{name}", callback, L.Callback)
    checked = {*_TRAINER_OWN, "max_epochs", "accelerator", "precision", *_LIMITS}
    yield from check_arguments("trainer", L.Trainer, {str(k): v for k, v in cfg.trainer.items() if k not in checked})


def check_target(path: str, node: DictConfig | None, kind: type) -> Iterator[str]:
    """In words, what is wrong with a part that Hydra is to make; nothing is called for it.

    Its ``_target_`` must be a class of the ``kind``, and take the keys beside it with values of their kinds.

    Args:
        path: of the part in the configuration.
        node: the part; None where there is none.
        kind: of which the class must be.
    """
    if not node:
        return
    if "_target_" not in node:
        yield f"{path}: has no _target_, the class to make"
        return
    try:
        target = get_object(node._target_)
    except Exception as error:
        yield f"{path}._target_={node._target_}: cannot be imported ({one_line(error)})"
        return
    if not isinstance(node.get("_partial_", False), bool):
        yield f"{path}._partial_={node._partial_}: expected true or false"
    # Seen to before anything is called: a function of that name might do whatever it likes.
    if not (inspect.isclass(target) and issubclass(target, kind)):
        yield f"{path}._target_={node._target_}: expected a class that is a kind of {kind.__module__}.{kind.__name__}"
        return
    apart = ("_target_", "_partial_", *(["seed"] if path == "data" else []))  # check_config looks at seeds
    yield from check_arguments(path, target, {str(key): value for key, value in node.items() if key not in apart})


def config_warnings(cfg: DictConfig) -> Iterator[str]:
    """Settings that are allowed and work against each other, in words."""
    from fer_exp.training.module import spans_run

    stopping = cfg.callbacks.get("early_stopping")
    schedule = cfg.get("scheduler") or OmegaConf.create({})
    if stopping and schedule and spans_run(get_object(schedule._target_)):
        yield (
            "early stopping may end the run before the schedule has brought the rate down, which spans "
            "trainer.max_epochs. callbacks=fixed_budget trains to its end."
        )
    if cfg.weight_decay_exclude_1d and cfg.optimizer.get("weight_decay") == 0:
        yield "weight_decay_exclude_1d=true has no effect, because optimizer.weight_decay is 0."
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
