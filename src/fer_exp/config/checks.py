"""Validation of configs: all problems are reported at once, before data is read. And warnings about settings."""

import dataclasses
import logging
from collections.abc import Iterator
from typing import Any, get_type_hints

from hydra.utils import get_class, get_object
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer_exp.config.paths import check_paths
from fer_exp.config.schema import (
    BASE_CLASSES,
    CONFIG_DIR,
    CONSTRAINTS,
    FIXED_KEYS,
    GROUPS,
    OPEN_SCHEMAS,
    OPTIONAL_GROUPS,
    RENAMED_KEYS,
    TrainConfig,
    TrainerConfig,
    as_typed,
    resolve,
)
from fer_exp.config.targets import accepts, check_arguments, check_target, describe_type
from fer_exp.errors import UserError
from fer_exp.metrics import METRICS, describe

log = logging.getLogger(__name__)

_NODE = "expected keys and values, as in the YAML files of conf/"
ROOT_HINT = "Set it to the folder with the images: data.root=DIR"


def check_config(cfg: DictConfig) -> None:
    """Resolve and validate the config of ``train``. Wrong paths are reported before torch is imported.

    Raises:
        UserError: lists every problem: the key, its value, what is expected, and what to type instead.
    """
    if absent := [group for group in GROUPS if group not in OPTIONAL_GROUPS and not cfg.get(group)]:
        examples = [f"{group}={min(path.stem for path in (CONFIG_DIR / group).glob('*.yaml'))}" for group in absent]
        raise UserError(f"{', '.join(absent)}: a choice is required; add for example {' '.join(examples)}")
    _report([f"{group}={as_typed(cfg[group])}: {_NODE}" for group in GROUPS if not _is_node(cfg.get(group))])
    resolve(cfg, {"data.root": ROOT_HINT})
    paths = list(check_paths(cfg))  # first: the next check converts numbers to text
    problems = _schema_problems(cfg, TrainConfig)
    if paths:
        _report([*problems, *paths])
    log.info("Loading torch and lightning ...")
    _report([*problems, *_check_directions(cfg), *_check_targets(cfg)])


def check_values(cfg: DictConfig, schema: type) -> None:
    """Validate the keys of another command by its dataclass and the constraints, and its paths.

    Raises:
        UserError: lists every problem.
    """
    paths = list(check_paths(cfg))  # first: the next check converts numbers to text
    _report([*_schema_problems(cfg, schema), *paths])


def _report(problems: list[str]) -> None:
    """Raise UserError with the first problem of each key, if there are any."""
    first: dict[str, str] = {}
    for problem in problems:
        first.setdefault(problem.partition(":")[0].partition("=")[0], problem)
    if "seed" in first:
        first.pop("data.seed", None)  # which is seed by default
    if len(first) > 1:
        raise UserError("\n  - ".join([f"{len(first)} settings are wrong:", *first.values()]))
    for problem in first.values():
        raise UserError(problem)


def _schema_problems(cfg: DictConfig, schema: type) -> list[str]:
    return [*_check_keys(cfg), *_check_types(cfg, schema, ""), *_check_constraints(cfg)]


def _check_keys(cfg: DictConfig) -> Iterator[str]:
    for key, new in RENAMED_KEYS.items():
        if _has(cfg, key):
            yield f"{key}: the key was renamed; use {new}"
    for key, reason in FIXED_KEYS.items():
        if _has(cfg, key):
            yield f"{key}: {reason}; remove the key"


def _check_types(cfg: DictConfig, schema: type, prefix: str) -> Iterator[str]:
    """Yield unknown keys, missing keys and values of a wrong type; convert the others as OmegaConf does."""
    typed, hints = OmegaConf.structured(schema), get_type_hints(schema)
    for key in [key for key in hints if key not in cfg and OmegaConf.is_missing(typed, key)]:
        none = f"{key}=none" if key in OPTIONAL_GROUPS else "a value"
        yield f"{prefix}{key}: the key is missing; set {none}"
    for key in [str(key) for key in cfg]:
        path = f"{prefix}{key}"
        if key not in hints:
            if schema not in OPEN_SCHEMAS and path not in RENAMED_KEYS and path != "experiment":
                yield f"{path}: there is no such key; expected one of {', '.join(hints)}"
        elif OmegaConf.is_missing(cfg, key):
            continue
        elif dataclasses.is_dataclass(hints[key]):
            if isinstance(cfg[key], DictConfig):
                yield from _check_types(cfg[key], hints[key], f"{path}.")
            else:
                yield f"{path}={as_typed(cfg[key])}: {_NODE}"
        else:
            try:
                typed[key] = cfg[key]
            except OmegaConfBaseException:
                yield f"{path}={as_typed(cfg[key])}: expected {describe_type(hints[key])}"
            else:
                if not OmegaConf.is_config(cfg[key]):
                    cfg[key] = typed[key]


def _check_constraints(cfg: DictConfig) -> Iterator[str]:
    for key, constraints in CONSTRAINTS.items():
        if not _has(cfg, key) or OmegaConf.is_missing(*_parent(cfg, key)):
            continue
        value = OmegaConf.select(cfg, key)
        items = value if isinstance(value, ListConfig) and key.startswith(("scheduler.", "tta")) else [value]
        if not items or not all(any(item in constraint for constraint in constraints) for item in items):
            problem = "" if items else "the list is empty; "
            yield f"{key}={as_typed(value)}: {problem}expected {' or '.join(map(str, constraints))}"


def _check_directions(cfg: DictConfig) -> Iterator[str]:
    """The modes of callbacks and of a plateau schedule must fit the metric that they monitor."""
    if not isinstance(cfg.monitor, str) or not cfg.monitor:
        yield f"monitor={as_typed(cfg.monitor)}: expected the name of a metric, for example {', '.join(METRICS)}"
        return
    modes = [(f"callbacks.{name}", node.get("monitor"), node.get("mode")) for name, node in _callbacks(cfg)]
    scheduler = cfg.get("scheduler") or {}
    default = "min" if str(scheduler.get("_target_")).endswith(".ReduceLROnPlateau") else None
    modes.append(("scheduler", cfg.monitor, scheduler.get("mode", default)))
    for path, metric, mode in modes:
        if metric is not None and mode in ("min", "max") and mode != describe(str(metric)).direction:
            expected = describe(str(metric)).direction
            better = "lower" if expected == "min" else "higher"
            yield f"{path}.mode={mode}: {metric} is better when it is {better}; expected {expected}"


def _check_targets(cfg: DictConfig) -> Iterator[str]:
    import lightning as L

    for name, node in cfg.callbacks.items():
        if not _is_node(node):
            yield f"callbacks.{name}={as_typed(node)}: {_NODE}"
    for group, base in BASE_CLASSES.items():
        nodes = {f"callbacks.{name}": node for name, node in _callbacks(cfg)} if group == "callbacks" else {}
        for path, node in (nodes or {group: cfg.get(group)}).items():
            if node and path != "callbacks":
                problems = list(check_target(path, node, get_class(base)))
                if not problems and group in ("optimizer", "scheduler") and node.get("_partial_") is not True:
                    problems = [f"{path}: add `_partial_: true`; the other arguments are passed when training starts"]
                yield from problems
    typed = get_type_hints(TrainerConfig)
    yield from check_arguments("trainer", L.Trainer, {str(k): v for k, v in cfg.trainer.items() if k not in typed})


def config_warnings(cfg: DictConfig) -> Iterator[str]:
    """Yield a warning for each combination of settings that conflict."""
    for check in (
        _unused_weight_decay,
        _several_class_weightings,
        _early_stopping_before_decay,
        _plateau_without_effect,
    ):
        if warning := check(cfg):
            yield warning


def _unused_weight_decay(cfg: DictConfig) -> str | None:
    if cfg.weight_decay_exclude_1d and cfg.optimizer.get("weight_decay") == 0:
        return "weight_decay_exclude_1d=true has no effect, because optimizer.weight_decay is 0."
    return None


def _several_class_weightings(cfg: DictConfig) -> str | None:
    keys = ("data.balanced_sampling", "loss.class_weights", "loss.logit_adjustment")
    used = [key for key in keys if OmegaConf.select(cfg, key)]
    return f"{' and '.join(used)} each compensate for rare classes; together they overcompensate." if used[1:] else None


def _early_stopping_before_decay(cfg: DictConfig) -> str | None:
    scheduler = cfg.get("scheduler")
    if cfg.callbacks.get("early_stopping") and scheduler and accepts(get_object(scheduler._target_), "total_steps"):
        return (
            "early stopping can end the run before the schedule has decayed the learning rate, which takes "
            "trainer.max_epochs epochs. callbacks=fixed_budget trains for all of them."
        )
    return None


def _plateau_without_effect(cfg: DictConfig) -> str | None:
    scheduler, stopping = cfg.get("scheduler") or {}, cfg.callbacks.get("early_stopping") or {}
    if "ReduceLROnPlateau" not in str(scheduler.get("_target_")) or "patience" not in scheduler:
        return None
    first = scheduler["patience"] + 1
    if cfg.trainer.max_epochs <= first:
        return (
            f"trainer.max_epochs={cfg.trainer.max_epochs} ends the run before the plateau schedule can reduce the "
            f"learning rate (scheduler.patience={scheduler['patience']})."
        )
    # A run of up to twice that length gains nothing from a smaller learning rate.
    if "patience" in stopping and stopping["patience"] <= first and cfg.trainer.max_epochs > 2 * first:
        return (
            f"early stopping (callbacks.early_stopping.patience={stopping['patience']}) can end the run in the epoch "
            f"in which the plateau schedule first reduces the learning rate (after {first} epochs). "
            "callbacks.early_stopping.patience=10 or experiment=notebook_patient leaves time for it."
        )
    return None


def _callbacks(cfg: DictConfig) -> list[tuple[str, DictConfig]]:
    return [(str(name), node) for name, node in cfg.callbacks.items() if isinstance(node, DictConfig)]


def _is_node(value: Any) -> bool:
    return value is None or isinstance(value, DictConfig)


def _has(cfg: DictConfig, key: str) -> bool:
    node, name = _parent(cfg, key)
    return isinstance(node, DictConfig) and name in node


def _parent(cfg: DictConfig, key: str) -> tuple[Any, str]:
    parent, _, name = key.rpartition(".")
    return (OmegaConf.select(cfg, parent, throw_on_missing=False) if parent else cfg), name
