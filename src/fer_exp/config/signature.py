"""Whether values fit the arguments of the class that they are for, as its signature tells."""

import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from omegaconf import ListConfig

from fer_exp.config.schema import is_number


def check_arguments(path: str, target: Callable[..., Any], arguments: Mapping[str, Any]) -> Iterator[str]:
    """In words, the arguments that ``target`` does not take, and those that are surely of another kind than it hints.

    Args:
        path: of the arguments in the configuration, for the words.
        target: a class or a function; of one whose signature cannot be read nothing is said.
        arguments: by their names.
    """
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
