"""How the groups of the configuration become objects."""

import inspect
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer_exp.config.checks import check_target
from fer_exp.errors import UserError, one_line

_MANY_STEPS = 1_000_003  # to try a schedule with; its own length may be refused when the run's steps are known


def build(cfg: DictConfig, group: str) -> Any:
    """Make the object that the group ``group`` (e.g. ``model``) describes; None for an empty group.

    Raises:
        UserError: its class refused what was given.
    """
    node = cfg.get(group)
    if not node:
        return None
    try:
        # Plain lists and mappings: a class may look at the kind, and a checkpoint holds no other.
        return instantiate(node, _convert_="all")
    except (InstantiationException, TypeError) as error:
        raise UserError(f"{group}: {one_line(_cause(error))}. Given: {_given(node)}") from error


def build_checked(node: Mapping[str, Any], group: str, kind: type, packages: Sequence[str] | None = None) -> Any:
    """Make one group by itself, where no whole configuration was checked: it may come from somebody else's file.

    What is made for its arguments can only be networks, so that no file calls whatever it likes.

    Args:
        node: of the group, with its ``_target_``.
        group: its name.
        kind: of which the class must be.
        packages: packages that its classes must come from, for a node from a foreign file; None for any.

    Raises:
        UserError: its class is of another kind, or does not take what was given.
    """
    from torch import nn

    cfg = OmegaConf.create({group: node})
    try:
        OmegaConf.resolve(cfg)  # an interpolation may make anything, parts to be called among it
    except OmegaConfBaseException as error:
        raise UserError(f"{group}: {one_line(error)}") from error
    node = {str(key): value for key, value in OmegaConf.to_container(cfg[group]).items()}  # type: ignore[union-attr]
    problems: list[str] = []
    for path, part in [(group, node), *_parts(group, node)]:
        target = str(part.get("_target_"))
        if packages is not None and target.partition(".")[0] not in packages:
            problems.append(f"{path}._target_={target}: expected a class of {', '.join(packages)}")
        else:
            problems += check_target(path, OmegaConf.create(part), kind if path == group else nn.Module)
    if problems:
        raise UserError("; ".join(problems))
    return build(cfg, group)


def build_model(
    node: Mapping[str, Any], num_classes: int, image_shape: Sequence[int], packages: Sequence[str] | None = None
) -> Any:
    """Build the network that ``node`` describes for given classes and images.

    Args:
        node: the group ``model``, of a config or of a checkpoint.
        num_classes: passed as ``num_classes`` if the class takes it.
        image_shape: (C, S, S): passed as ``in_channels`` and ``image_size`` if the class takes them.
        packages: packages that its classes must come from, for a node from a foreign file; None for any.

    Raises:
        UserError: the class is not a network, or refuses its settings.
    """
    from torch import nn

    sizes = {"num_classes": num_classes, "in_channels": image_shape[0], "image_size": image_shape[-1]}
    accepted: set[str] = set()
    try:
        if packages is None or str(node["_target_"]).partition(".")[0] in packages:  # importing runs code
            accepted = {*inspect.signature(get_object(node["_target_"])).parameters}
    except Exception:  # build_checked reports it
        pass
    return build_checked(
        {**node, **{key: n for key, n in sizes.items() if key in accepted}}, "model", nn.Module, packages
    )


def _parts(path: str, node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """What Hydra is to make within ``node``, at any depth, each with its path."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inner:
        if isinstance(value, dict) and "_target_" in value:
            yield f"{path}.{key}", value
        yield from _parts(f"{path}.{key}", value)


def build_optimizer_factories(cfg: DictConfig) -> tuple[Callable[..., Any], Callable[..., Any] | None]:
    """Make the factories of optimizer and schedule, and try both on parameters of one number.

    Raises:
        UserError: the optimizer or the schedule refused its settings.
    """
    import torch

    from fer_exp.training.module import spans_run

    optimizer, scheduler = build(cfg, "optimizer"), build(cfg, "scheduler")
    for group, factory in (("optimizer", optimizer), ("scheduler", scheduler)):
        if factory is not None and not callable(factory):
            raise UserError(f"{group}: its YAML needs `_partial_: true`, because the rest of its arguments come later")
    try:
        values = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
        groups = [{"params": values[:1]}, {"params": values[1:], "weight_decay": 0.0}]
        tried = optimizer(groups if cfg.weight_decay_exclude_1d else values)
        _check_can_be_kept(tried)
    except Exception as error:  # whatever an optimizer of any package raises is about its settings
        raise UserError(f"optimizer: {one_line(error)}. Given: {_given(cfg.optimizer)}") from error
    if scheduler is not None:
        try:
            scheduler(tried, **({"total_steps": _MANY_STEPS} if spans_run(scheduler) else {}))
        except Exception as error:
            raise UserError(f"scheduler: {one_line(error)}. Given: {_given(cfg.scheduler)}") from error
    return optimizer, scheduler


def _check_can_be_kept(optimizer: Any) -> None:
    """See to it that an optimizer can be saved, and read back from a file that may hold plain values only.

    Raises:
        ValueError: it cannot.
    """
    import torch

    try:
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{type(optimizer).__name__} keeps in its param_groups or its state what is neither a tensor nor a plain "
            f"value, so that no checkpoint could be gone on from ({type(error).__name__})"
        ) from error


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
        raise UserError(f"loss: {one_line(error)}. Given: {_given(cfg.loss)}") from error


def _cause(error: BaseException) -> BaseException:
    return _cause(error.__cause__) if error.__cause__ else error


def _given(node: DictConfig) -> str:
    arguments = {str(key): value for key, value in node.items() if key not in ("_target_", "_partial_")}
    return ", ".join(f"{key}={value}" for key, value in arguments.items())
