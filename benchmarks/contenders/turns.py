"""The protocol between a benchmark and the process of a contender: one line of JSON in each direction.

Imports only the standard library: a contender can run in an environment without this project's packages.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from benchmarks.measuring import ROOT, child_environment, last_lines

WARMUP_STEPS = 2  # at the beginning of each turn; no step time includes them


class Trains(Protocol):
    """What the process of a contender creates from the settings.

    Attributes:
        facts: precision, threads and versions, as plain values.
    """

    facts: dict[str, Any]

    def turn(self, steps: int, validation: int) -> dict[str, float]:
        """Train for ``steps`` batches and validate on ``validation`` batches.

        Returns:
            step_seconds: mean of the steps after the warm-up; NaN if there are none.
            train_seconds: of all steps.
            val_seconds: of the validation and the metrics.
            train_loss, val_loss: means over the images.
        """


def mean_step(warm: float | None, trained: float, steps: int) -> float:
    """Mean seconds of the steps between the end of the warm-up and the end of the training."""
    return float("nan") if warm is None or steps <= WARMUP_STEPS else (trained - warm) / (steps - WARMUP_STEPS)


def serve(contender: Callable[..., Trains]) -> None:
    """Run the process of a contender: the first input line holds the settings, each other line is a turn."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # progress bars print elsewhere
    settings = json.loads(sys.stdin.readline())
    try:
        trains = contender(**settings)
    except ModuleNotFoundError as error:
        print(json.dumps({"missing": error.name}), file=answers)
        return
    print(json.dumps(trains.facts), file=answers)
    for line in sys.stdin:
        print(json.dumps(trains.turn(**json.loads(line))), file=answers)


class NotInstalledError(Exception):
    """The environment of a contender lacks a package; the message is its name."""


class Contender:
    """The process of a contender, alive until the ``with`` block ends; it works only during a turn.

    Args:
        module: e.g. ``benchmarks.contenders.plain``.
        settings: of the module's class.
        python: the interpreter; None for this one.
        env: additional environment variables.

    Raises:
        NotInstalledError: a package is missing.
        RuntimeError: the process failed; the message holds the end of its output.
    """

    def __init__(
        self,
        module: str,
        settings: Mapping[str, Any],
        python: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._module = module
        self._log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (closed in _end)
        self._process = subprocess.Popen(
            [python or sys.executable, "-m", module],
            cwd=ROOT,
            env=child_environment(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        try:
            self.facts = self._ask(settings)
            if "missing" in self.facts:
                raise NotInstalledError(self.facts["missing"])
        except BaseException:
            self._end()
            raise

    def turn(self, steps: int, validation: int) -> dict[str, float]:
        """See ``Trains.turn``."""
        return self._ask({"steps": steps, "validation": validation})

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self._process.wait()
            self._log.seek(0)
            raise RuntimeError(f"{self._module} ended with {self._process.returncode}:\n{last_lines(self._log.read())}")
        result: dict[str, Any] = json.loads(answer)
        return result

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
