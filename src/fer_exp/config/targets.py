"""Checks of config nodes with a ``_target_``: base class, package and arguments. Nothing is called.

Imports torch and lightning through the classes that a config names.
"""

import inspect
import logging
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hydra.utils import get_class, get_object
from omegaconf import DictConfig, ListConfig, OmegaConf

from fer_exp.config.schema import BASE_CLASSES, as_typed
from fer_exp.errors import one_line

logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # get_object also logs the errors that it raises

_HYDRA_KEYS = ("_target_", "_partial_", "_args_", "_convert_", "_recursive_")


def check_target(path: str, node: DictConfig, base: type, packages: Sequence[str] | None = None) -> Iterator[str]:
    """Yield the problems of a node, and of the nodes with a ``_target_`` inside it.

    Args:
        path: key of the node.
        node: the node, resolved.
        base: class that ``_target_`` must derive from, or return if it is a function. The class of an inner node must
            derive from one of ``BASE_CLASSES``.
        packages: packages that the classes must come from; None for any.
    """
    if "_target_" not in node:
        yield f"{path}: _target_ is missing; expected the name of a class, for example torch.optim.Adam"
        return
    plain = OmegaConf.to_container(node)
    yield from _check_node(path, node, (base,), packages)
    if inner := list(_inner_nodes(path, plain)):
        bases = tuple(get_class(name) for name in dict.fromkeys(BASE_CLASSES.values()))
        for inner_path, part in inner:
            yield from _check_node(inner_path, OmegaConf.create(part), bases, packages)


def accepts(target: Callable[..., Any], key: str) -> bool:
    """Whether the signature of a class or function names a parameter ``key``.

    A function with ``**kwargs``, as torchvision's, passes them to the class that it is annotated to return.
    """
    try:
        parameters = dict(inspect.signature(target).parameters)
        has_kwargs = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        if has_kwargs and inspect.isfunction(target):
            parameters |= inspect.signature(typing.get_type_hints(target)["return"]).parameters
    except (TypeError, ValueError, NameError, KeyError):
        return False
    return key in parameters


def check_arguments(path: str, target: Callable[..., Any], arguments: Mapping[str, Any]) -> Iterator[str]:
    """Yield a problem for each argument that a class or function does not take, or takes with another type.

    Args:
        path: key of the node with the arguments.
        target: the class or function. Nothing is checked if its signature cannot be read or has ``**kwargs``.
        arguments: values by name.
    """
    try:
        parameters = inspect.signature(target).parameters
        hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)  # type: ignore[misc]
    except (TypeError, ValueError, NameError):
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for key, value in arguments.items():
        if key not in parameters:
            yield f"{path}.{key}: {getattr(target, '__name__', target)} takes no such key; it takes " + ", ".join(
                parameters
            )
        elif expected := _mismatch(value, hints.get(key), parameters[key].default):
            yield f"{path}.{key}={as_typed(value)}: expected {expected}"


def describe_type(hint: Any) -> str:
    """Return a type as text for a message: ``a number or null`` for ``float | None``."""
    words, options = [], _options(hint)
    for option in options:
        origin, arguments = typing.get_origin(option), typing.get_args(option)
        if origin is tuple:
            words.append(f"a list of {len(arguments)}, each {describe_type(arguments[0])}")
        elif origin is typing.Literal:
            words += map(str, arguments)
        elif option is not int or float not in options:
            words.append(_NAMES.get(origin or option, ""))
    return " or ".join(filter(None, words))


_NAMES: dict[Any, str] = {
    float: "a number",
    int: "an integer",
    bool: "true or false",
    str: "text",
    list: "a list",
    dict: "keys and values",
    types.NoneType: "null",
}


def _check_node(path: str, node: DictConfig, bases: tuple[type, ...], packages: Sequence[str] | None) -> Iterator[str]:
    name = str(node._target_)
    if packages is not None and name.partition(".")[0] not in packages:
        trusted, own = ", ".join(packages), name.partition(".")[0]
        yield f"{path}._target_={name}: expected a class from {trusted}. If you trust the file, add trust=[{own}]"
        return
    try:
        target = get_object(name)
    except Exception as error:
        yield f"{path}._target_={name}: cannot be imported ({one_line(error)})"
        return
    if not isinstance(node.get("_partial_", False), bool):
        yield f"{path}._partial_={node._partial_}: expected true or false"
    if not _returns(target, bases):
        names = " or ".join(f"{base.__module__}.{base.__name__}" for base in bases)
        yield f"{path}._target_={name}: expected a subclass of {names}, or a function annotated to return one"
        return
    yield from check_arguments(path, target, {str(k): v for k, v in node.items() if k not in _HYDRA_KEYS})


def _returns(target: Any, bases: tuple[type, ...]) -> bool:
    if inspect.isclass(target):
        return issubclass(target, bases)
    try:
        returned = typing.get_type_hints(target).get("return")
    except (TypeError, NameError):
        return False
    return inspect.isclass(returned) and issubclass(returned, bases)


def _inner_nodes(path: str, node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        if isinstance(child, dict) and "_target_" in child:
            yield f"{path}.{key}", child
        yield from _inner_nodes(f"{path}.{key}", child)


def _mismatch(value: Any, hint: Any, default: Any) -> str | None:
    """The expected type as text, if ``value`` has another one."""
    if hint is None:
        # Without a hint, a number as the default value shows that a number is expected.
        is_number = isinstance(default, int | float) and not isinstance(default, bool)
        return "a number" if is_number and isinstance(value, str) else None
    if (value is None and default is None) or any(_matches(value, option) for option in _options(hint)):
        return None
    return "a finite number" if isinstance(value, float) and float in _options(hint) else describe_type(hint)


def _matches(value: Any, hint: Any) -> bool:
    """Whether ``value`` fits a type; True for types that YAML values cannot be compared with."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in (bool, types.NoneType):
        return isinstance(value, hint)
    if hint in (int, float):
        is_number = isinstance(value, int | hint) and not isinstance(value, bool)
        return is_number and math.isfinite(value)
    if origin is typing.Literal:
        return value in arguments
    if origin in (list, tuple):
        items = arguments * len(value) if origin is list and isinstance(value, ListConfig) else arguments
        if not isinstance(value, ListConfig) or (... not in arguments and len(value) != len(items)):
            return False
        return ... in arguments or not any(_mismatch(part, item, ...) for part, item in zip(value, items, strict=True))
    return getattr(hint, "__name__", None) != "Tensor"  # YAML has no tensors


def _options(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
