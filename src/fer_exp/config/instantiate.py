"""Builds objects from the groups of a config: networks, losses, optimizer and scheduler factories."""

import inspect
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from fer_exp.config.schema import resolve
from fer_exp.config.targets import accepts, check_target
from fer_exp.errors import UserError, one_line

_TRIAL_STEPS = 1_000_003  # of the schedule that is tried before the number of steps is known


def build(cfg: DictConfig, group: str) -> Any:
    """Instantiate a node of a config that was checked: ``mixup``, ``callbacks.early_stopping``; None for an empty one.

    Raises:
        UserError: the class refuses its arguments.
    """
    node = OmegaConf.select(cfg, group)
    if not node:
        return None
    try:
        # Plain lists and dicts: classes may check types, and checkpoints can hold nothing else.
        return instantiate(node, _convert_="all")
    except (InstantiationException, TypeError) as error:
        raise _refused(group, node, _root_cause(error)) from error


def build_checked(node: Mapping[str, Any], group: str, base: type, packages: Sequence[str] | None = None) -> Any:
    """Check a group that is not part of a checked config, and instantiate it.

    Args:
        node: the group, with its ``_target_``.
        group: its name.
        base: class that the result must be an instance of.
        packages: packages that its classes must come from, for a node from a foreign file; None for any.

    Raises:
        UserError: a class has another base class or package, or refuses its arguments.
    """
    cfg = OmegaConf.create({group: node})
    resolve(cfg, None)  # first: an interpolation can make a node with a _target_
    if problems := list(check_target(group, cfg[group], base, packages)):
        raise UserError("; ".join(problems))
    result = build(cfg, group)
    if not isinstance(result, base):
        raise UserError(
            f"{group}._target_={node['_target_']}: returned {type(result).__name__}; expected {base.__name__}"
        )
    return result


def build_model(
    node: Mapping[str, Any],
    num_classes: int,
    image_shape: Sequence[int],
    packages: Sequence[str] | None = None,
    is_initial: bool = True,
) -> Any:
    """Build the network of the group ``model``.

    Args:
        node: the group, of a config or of a checkpoint.
        num_classes: passed as ``num_classes`` if the class or function takes it and ``node`` does not set it.
        image_shape: (C, S, S), passed as ``in_channels`` and ``image_size`` likewise.
        packages: packages that its classes must come from, for a node from a foreign file; None for any.
        is_initial: whether training starts here. Otherwise a checkpoint is loaded, and the keys ``pretrained`` and
            ``weights`` have no effect: nothing is downloaded or read.

    Raises:
        UserError: a class is not a network, comes from another package, or refuses its arguments.
    """
    from torch import nn

    unused = {} if is_initial else {"pretrained": False, "weights": None}
    arguments = {**node, **{key: value for key, value in unused.items() if key in node}}
    sizes = {"num_classes": num_classes, "in_channels": image_shape[0], "image_size": image_shape[-1]}
    if packages is None or str(node.get("_target_")).partition(".")[0] in packages:  # importing runs code
        try:
            target = get_object(str(node["_target_"]))
        except Exception:  # build_checked reports the name
            sizes = {}
        else:
            sizes = {key: size for key, size in sizes.items() if accepts(target, key)}
        arguments = {**sizes, **arguments}
    return build_checked(arguments, "model", nn.Module, packages)


def build_optimizer_factories(cfg: DictConfig) -> tuple[Callable[..., Any], Callable[..., Any] | None]:
    """Return the factories of optimizer and scheduler, after a trial of both on two scalar parameters.

    Raises:
        UserError: one of them refuses its settings, or the optimizer does not fit Lightning or a checkpoint.
    """
    import torch

    optimizer, scheduler = build(cfg, "optimizer"), build(cfg, "scheduler")
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": parameters[:1]}, {"params": parameters[1:], "weight_decay": 0.0}]
    try:
        trial = optimizer(groups if cfg.weight_decay_exclude_1d else parameters)
        _check_optimizer(trial)
    except Exception as error:  # optimizers of any package can raise anything
        raise _refused("optimizer", cfg.optimizer, error) from error
    if scheduler is not None:
        try:
            scheduler(trial, **({"total_steps": _TRIAL_STEPS} if accepts(scheduler, "total_steps") else {}))
        except Exception as error:
            raise _refused("scheduler", cfg.scheduler, error) from error
    return optimizer, scheduler


def build_loss(cfg: DictConfig, class_counts: Sequence[int]) -> Any:
    """Build the loss. If it is partial and takes ``class_counts``, it gets the training images of each class.

    Raises:
        UserError: the class refuses its settings.
    """
    loss = build(cfg, "loss")
    if not cfg.loss.get("_partial_"):
        return loss
    try:
        return loss(**({"class_counts": class_counts} if accepts(loss, "class_counts") else {}))
    except (TypeError, ValueError) as error:
        raise _refused("loss", cfg.loss, error) from error


def _check_optimizer(optimizer: Any) -> None:
    """Raise ValueError if Lightning cannot step the optimizer, or its state cannot be read back from a checkpoint."""
    import torch

    name = type(optimizer).__name__
    try:
        inspect.signature(optimizer.step).bind(closure=None)
    except TypeError as error:
        raise ValueError(f"{name}.step takes no closure; define it as step(self, closure=None)") from error
    try:
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception as error:
        raise ValueError(
            f"the state of {name} cannot be read back from a checkpoint ({type(error).__name__}); its param_groups and "
            "state may hold tensors and plain values only"
        ) from error


def _refused(group: str, node: DictConfig, error: BaseException) -> UserError:
    settings = [f"{key!s}={value}" for key, value in node.items() if key not in ("_target_", "_partial_")]
    return UserError(f"{group}: {one_line(error)}. Settings: {', '.join(settings) or 'none'}")


def _root_cause(error: BaseException) -> BaseException:
    return _root_cause(error.__cause__) if error.__cause__ else error
