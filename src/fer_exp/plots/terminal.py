"""The terminal: log lines and progress bars. Nothing here fails if the terminal is missing or goes away."""

import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import rich
import rich.console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)


class ConsoleHandler(logging.Handler):
    """Log lines to standard output, above any progress bar, and errors to standard error.

    Lines are never wrapped, so a log file keeps them.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        try:
            is_error = record.levelno >= logging.ERROR
            console = rich.console.Console(stderr=True) if is_error else rich.get_console()
            console.print(self.format(record), markup=False, emoji=False, highlight=False, soft_wrap=True)
        except Exception:
            self.handleError(record)


def protect_streams() -> None:
    """Make standard output and error safe to write to for the whole process.

    A stream that is closed at the start becomes the null device, so no other file gets its number. A stream that closes
    later (``| head``, a lost terminal, a full disk) swallows what follows; the log continues in the log file.
    Characters that its encoding does not have are printed as ``?``. A log file that cannot be written is no error.
    """
    logging.raiseExceptions = False  # otherwise each line for a log file on a full disk prints a traceback
    while (null := os.open(os.devnull, os.O_RDWR)) <= 2:  # the lowest free number: 0, 1 or 2 if it is closed
        os.set_inheritable(null, True)
    os.close(null)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None or (isinstance(stream, io.TextIOWrapper) and _number(stream) == number):
            encoding = stream.encoding if stream is not None else "utf-8"
            buffer = io.BufferedWriter(_LastingFile(number, "wb", closefd=False))
            setattr(sys, name, io.TextIOWrapper(buffer, encoding, "replace", line_buffering=True, write_through=True))


class _LastingFile(io.FileIO):
    """A file whose write errors turn it into the null device."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)  # type: ignore[return-value]
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            return len(data)


def _number(stream: io.TextIOWrapper) -> int | None:
    try:
        return stream.fileno()
    except OSError:  # a stand-in without a file
        return None


def make_progress() -> Progress:
    """A progress bar with count, an ``info`` text and the time left; on terminals only, and removed at its end."""
    console = rich.get_console()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[info]}"),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar inside a with block, which gets a function ``update(done, total)``."""
    with make_progress() as progress:
        task = progress.add_task(description, total=None, info="", visible=False)

        def update(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, visible=True)

        yield update
