"""What the benchmarks share: child processes, medians, the data, and words about the machine.

Imports the standard library alone: a contender that lives in an environment of its own finds nothing else there, and
the memory of this process counts towards what the system reports of its children.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer_exp.data.sources.class_folders import Layout

ROOT = Path(__file__).resolve().parents[1]  # child processes run here, where they find this package


@dataclass(frozen=True)
class Finished:
    """A child process that has ended.

    Attributes:
        seconds: from its start to its end.
        peak_mib: the most memory that it had resident, in MiB.
        output: what it printed.
    """

    seconds: float
    peak_mib: float
    output: str


def run_python(*arguments: str, env: Mapping[str, str] | None = None) -> Finished:
    """Run Python in a process of its own.

    Args:
        arguments: of the interpreter.
        env: environment variables beside those of this process.

    Raises:
        RuntimeError: it failed; with the end of what it printed.
    """
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, env=child_environment(env), stdout=output, stderr=output
        )
        # Not process.wait(): the system's account of this one child says what memory it took.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors="replace")
    if process.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} ended with {process.returncode}:\n{last_lines(text)}")
    return Finished(seconds, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10), text)


def child_environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment variables of a child process: those of this one, and ``env``.

    Whatever this process was told, the children keep what they compile: where nothing is kept, each import of torch and
    Lightning compiles their sources again, which takes longer than all else that a start consists of.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, **(env or {})}


def last_lines(text: str, count: int = 15) -> str:
    """The end of what a process printed, for the message that it failed."""
    return "\n".join(text.rstrip().splitlines()[-count:])


@dataclass(frozen=True)
class SummaryStats:
    """The median of what was measured several times, the least and the most."""

    median: float
    least: float
    most: float

    def show(self, digits: int = 0, unit: float = 1) -> str:
        """In words: ``439 [431..455]``; ``unit`` is what one is multiplied by (1000 for milliseconds)."""
        median, least, most = (f"{value * unit:,.{digits}f}" for value in (self.median, self.least, self.most))
        return f"{median} [{least}..{most}]"


def spread(values: Sequence[float]) -> SummaryStats:
    """Median, least and most of one value or more."""
    return SummaryStats(statistics.median(values), min(values), max(values))


def median_ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """The median of the rounds' own ratios, of what was measured once a round of each."""
    return spread([a / b for a, b in zip(theirs, ours, strict=True)]).median


def in_turn(names: Sequence[str], round_: int) -> list[str]:
    """The order of a round: each begins with another, so that none always comes after the same one."""
    start = round_ % len(names)
    return [*names[start:], *names[:start]]


def find_data(folder: Path | None) -> "Layout":
    """The class folders that are measured with: those in ``folder``, or without one the drawn faces.

    Raises:
        UserError: there are none in ``folder``.
    """
    from fer_exp.data.sources.class_folders import find_splits

    if folder is None:
        # In a process of its own, as it imports torch.
        drawn = run_python("-c", "from benchmarks.measuring import draw_faces; draw_faces()").output
        folder = Path(drawn.splitlines()[-1])
    return find_splits(folder.resolve())


def draw_faces() -> None:
    """Draw the built-in faces where that was not done yet, and print where they lie."""
    from hydra import compose, initialize_config_dir

    from fer_exp.config.instantiate import build
    from fer_exp.config.schema import CONFIG_DIR

    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        print(build(compose("train"), "data").find().root)


def count_images(layout: "Layout") -> tuple[int, int]:
    """Number of training and of validation images."""
    from fer_exp.data.sources.class_folders import list_images

    return len(list_images(layout.train).files), len(list_images(layout.validation).files)


def make_parser(name: str, description: str, rounds: int, on_data: bool = True) -> argparse.ArgumentParser:
    """The options of every benchmark; ``rounds`` is the default of how often each thing is measured."""
    parser = argparse.ArgumentParser(f"python -m benchmarks.{name}", description=description)
    if on_data:
        parser.add_argument("--data", type=Path, metavar="DIR", help="class folders; without it, the drawn faces")
    parser.add_argument("--rounds", type=int, default=rounds, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser


def find_and_count(parser: argparse.ArgumentParser, folder: Path | None) -> tuple["Layout", tuple[int, int]]:
    """The class folders that are measured with, and their images; a mistake ends the command."""
    from fer_exp.errors import UserError

    try:
        layout = find_data(folder)
    except UserError as error:
        parser.error(str(error))
    return layout, count_images(layout)


def describe_machine(load: float | None) -> dict[str, Any]:
    """Device, cores, instruction sets that matter here, versions, and ``load_before``. Imports torch."""
    import torch

    from fer_exp.training.hardware import available_cores, choose_accelerator, device_name

    capabilities = torch.cpu.get_capabilities()
    found = {"avx2": "AVX2", "avx512_f": "AVX512", "avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX-BF16"}
    return {
        "device": device_name(choose_accelerator("auto")[0]),
        "cores": available_cores(),
        "instructions": [name for key, name in found.items() if capabilities.get(key)],
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("fer_exp", "torch", "lightning")},
        },
        "load_before": load,
    }


def format_machine(machine: Mapping[str, Any]) -> str:
    """Two lines about the machine, from ``describe_machine``."""
    load = machine["load_before"]
    instructions = ", ".join(machine["instructions"]) or "none of AVX2, AVX512 and AMX"
    busy = "" if load is None else f"; load average before the benchmark began: {load:.1f}"
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return f"{machine['device']}; {machine['cores']} cores; {instructions}{busy}\n{versions}"


def load_before() -> float | None:
    """Processes that wanted a core in the last minute: on a machine that does other work, figures say little."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def align(rows: Sequence[Sequence[str]]) -> str:
    """Rows of words as a table of text: the first row is its head, the first column stands left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        first, *others = zip(row, widths, strict=True)
        words = [f"{first[0]:<{first[1]}}", *(f"{word:>{width}}" for word, width in others)]
        lines.append("   ".join(words))
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def write_json(path: Path, facts: Mapping[str, Any]) -> None:
    """Write what was measured, and what it was measured on."""
    path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def quoted(path: Path) -> str:
    """A path as the value of an override, whatever its characters."""
    return "'" + str(path).replace("\\", "\\\\").replace("'", "\\'") + "'"
