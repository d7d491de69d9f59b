"""What a terminal shows and a log file does not: progress bars. And how log lines get past them."""

import io
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rich
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)


class ConsoleHandler(logging.Handler):
    """Log lines to standard output, above any progress bar; never wrapped, so that a log file keeps its lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        try:
            rich.get_console().print(self.format(record), markup=False, emoji=False, highlight=False, soft_wrap=True)
        except SystemExit:  # rich's answer to a closed terminal or pipe; the log file continues
            pass
        except Exception:  # as every logging handler: a broken pipe must not end a training
            self.handleError(record)


def print_any_sign() -> None:
    """Print a ``?`` for each sign that a terminal, or a log file in an old encoding, does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def make_progress() -> Progress:
    """A bar with count, rate and time left, which shows on terminals only and leaves no trace."""
    console = rich.get_console()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar while work goes on; the callable that is given takes (done, total)."""
    with make_progress() as progress:
        task = progress.add_task(description, total=None, rate="", visible=False)

        def update(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, visible=True)

        yield update
