"""The one exception that is meant for the person at the keyboard."""


class UserError(Exception):
    """A mistake in what was given: the message says what was given, what was expected and what to change.

    The commands print it without a traceback and exit with status 1.
    """
