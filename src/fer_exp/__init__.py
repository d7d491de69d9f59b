"""Train facial-expression networks, and compare runs."""

import os
import sys
from types import TracebackType


def _report_interrupt(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Print one line after Ctrl-C, also while a command still imports its modules, and exit with status 130."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    sys.stderr.write("Interrupted.\n")
    sys.stderr.flush()
    os._exit(130)  # Python itself would end with the signal


if sys.argv[:1] == ["-m"]:  # `python -m fer_exp.train` is starting; other programs keep their hook
    sys.excepthook = _report_interrupt
