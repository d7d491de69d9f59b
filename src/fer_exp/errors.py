"""UserError, the exception for mistakes of the user, and text for messages."""

import re
from collections.abc import Sequence


class UserError(Exception):
    """A mistake of the user. The message says what was given, what is expected, and what to type instead.

    The commands print it without a traceback and exit with status 1.
    """


def one_line(error: BaseException) -> str:
    """Return the message of an exception on one line, without OmegaConf's ``object_type=dict`` and a final period.

    An exception without a message, such as of a bare ``assert``, is named by its class.
    """
    return " ".join(re.sub(r"\s*object_type=\w+", "", str(error)).split()).rstrip(".") or type(error).__name__


def join_first(items: Sequence[str], most: int = 5, separator: str = ", ", rest: str = " and {} more") -> str:
    """Join the first ``most`` items, and append how many more there are: ``a, b and 3 more``."""
    return separator.join(items[:most]) + (rest.format(len(items) - most) if len(items) > most else "")


def plural(n: int, word: str) -> str:
    """A count with its noun: ``1 run``, ``2 runs``."""
    return f"{n:,} {word}" if n == 1 else f"{n:,} {word}s"


def are(n: int, word: str) -> str:
    """A count with its noun and verb: ``1 image is``, ``2 images are``."""
    return f"{plural(n, word)} {'is' if n == 1 else 'are'}"
