"""What the parts of ``benchmarks.gpu`` share: folders, the time left, and child processes."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measuring import ROOT, START, child_environment, last_lines


class OutOfTimeError(Exception):
    """Too little time is left for a part."""


@dataclass
class Session:
    """What the parts share.

    Attributes:
        data: folder with ``train/`` and ``validation/``.
        output: folder for the results.
        deadline: on the clock of ``time.monotonic``.
        miniature: run on the CPU with a subset.
        header: machine, data and start; written above the parts.
        parts: result of each part so far, by name.
        failures: output of the child processes that failed in the current part.
    """

    data: Path
    output: Path
    deadline: float
    miniature: bool
    header: dict[str, Any]
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    @property
    def batch_size(self) -> int:
        """Images of a training batch."""
        return 14 if self.miniature else 128

    def folder(self, name: str) -> Path:
        """Folder of the runs of a part; it need not exist."""
        return self.output / "runs" / name

    def empty_folder(self, name: str) -> Path:
        """The folder of the runs of a part, without those of an unfinished attempt."""
        shutil.rmtree(self.folder(name), ignore_errors=True)
        return self.folder(name)

    def environment(self) -> dict[str, str]:
        """Environment variables of the child processes."""
        hide = {"CUDA_VISIBLE_DEVICES": ""} if self.miniature else {}
        return child_environment({"FER_EXP_CACHE": str(self.output / "cache"), START: str(time.time()), **hide})

    def python(self, *arguments: str, check: bool = True) -> tuple[int, str]:
        """Run Python in a child process until it ends or the time is up.

        Returns:
            Exit status and output. The end of the output of a failed process is also added to ``failures``.

        Raises:
            OutOfTimeError: the time is up.
            RuntimeError: the process failed and ``check`` is true.
        """
        if self.seconds_left <= 0:
            raise OutOfTimeError("no time is left")
        print(f"  python {' '.join(arguments)}", flush=True)
        try:
            ended = subprocess.run(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=self.environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=self.seconds_left,
            )
        except subprocess.TimeoutExpired as error:
            raise OutOfTimeError(f"the time was up during: python {' '.join(arguments)}") from error
        if ended.returncode:
            failure = f"exit status {ended.returncode}:\n{last_lines(ended.stdout, 40)}"
            if check:
                raise RuntimeError(failure)
            self.failures.append(failure)
        return ended.returncode, ended.stdout

    def train(self, *overrides: str, sweep: bool = False, check: bool = True) -> tuple[int, str]:
        """Run ``python -m fer_exp.train`` on the data."""
        common = (f"data.root={self.data}", f"data.batch_size={self.batch_size}", "logger=none")
        return self.python("-m", "fer_exp.train", *(("-m",) if sweep else ()), *overrides, *common, check=check)


Part = Callable[[Session], dict[str, Any]]
