"""The one exception that is meant for the person at the keyboard, and the messages of others."""

import re
from collections.abc import Sequence


class UserError(Exception):
    """A mistake in what was given: the message says what was given, what was expected and what to change.

    The commands print it without a traceback and exit with status 1.
    """


def one_line(error: BaseException) -> str:
    """A message without its line breaks, and without Hydra's and OmegaConf's ``object_type=dict``."""
    return " ".join(re.sub(r"\s*object_type=\w+", "", str(error)).split()).rstrip(".")


def join_first(items: Sequence[str], most: int, separator: str = ", ", rest: str = " and {} more") -> str:
    """The first ``most`` of ``items`` for a message, and how many more there are: ``a, b and 3 more``."""
    return separator.join(items[:most]) + (rest.format(len(items) - most) if len(items) > most else "")
