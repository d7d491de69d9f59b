"""The one exception that is meant for the person at the keyboard, and the messages of others."""

import re


class UserError(Exception):
    """A mistake in what was given: the message says what was given, what was expected and what to change.

    The commands print it without a traceback and exit with status 1.
    """


def in_line(error: BaseException) -> str:
    """A message without its line breaks, and without Hydra's and OmegaConf's ``object_type=dict``."""
    return " ".join(re.sub(r"\s*object_type=\w+", "", str(error)).split()).rstrip(".")
