"""What the benchmarks share: child processes, statistics over rounds, the data, and a description of the machine.

Imports only the standard library at the top: a contender can run in an environment without this project's packages, and
the memory of this process counts towards the peak that the system reports for its children.
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
from typing import Any

ROOT = Path(__file__).resolve().parents[1]  # working directory of child processes: `benchmarks` is importable there
START = "FER_EXP_BENCHMARK_START"  # environment variable of a child process: time.time() when it was started
SYNTHETIC = ROOT / "outputs" / "benchmark_images"


@dataclass(frozen=True)
class Finished:
    """A child process that has ended.

    Attributes:
        seconds: from its start to its end.
        peak_mib: peak resident memory in MiB.
        output: what it printed.
    """

    seconds: float
    peak_mib: float
    output: str


def run_python(*arguments: str, env: Mapping[str, str] | None = None) -> Finished:
    """Run Python in a child process.

    Args:
        arguments: of the interpreter.
        env: additional environment variables.

    Raises:
        RuntimeError: it failed; the message holds the end of its output.
    """
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, env=child_environment(env), stdout=output, stderr=output
        )
        _, status, usage = os.wait4(process.pid, 0)  # unlike process.wait(), it reports this child's peak memory
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors="replace")
    if process.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} ended with {process.returncode}:\n{last_lines(text)}")
    return Finished(seconds, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10), text)


def child_environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment variables of a child process: those of this process and ``env``.

    Without ``PYTHONDONTWRITEBYTECODE``: children that cannot cache bytecode compile torch and Lightning at each start.
    """
    own = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**own, **(env or {})}


def last_lines(text: str, count: int = 15) -> str:
    """The last ``count`` lines of a text."""
    return "\n".join(text.rstrip().splitlines()[-count:])


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum over the rounds."""

    median: float
    least: float
    most: float

    def show(self, digits: int = 0, unit: float = 1) -> str:
        """Format as ``439 [431..455]``, multiplied by ``unit`` (1000 for milliseconds)."""
        median, least, most = (f"{value * unit:,.{digits}f}" for value in (self.median, self.least, self.most))
        return f"{median} [{least}..{most}]"


def spread(values: Sequence[float]) -> Spread:
    """Median, minimum and maximum."""
    return Spread(statistics.median(values), min(values), max(values))


def median_ratio(values: Sequence[float], reference: Sequence[float]) -> float:
    """Median of the ratios per round."""
    return statistics.median(a / b for a, b in zip(values, reference, strict=True))


def in_turn(names: Sequence[str], round_: int) -> list[str]:
    """The order of a round: each round begins with the next name."""
    start = round_ % len(names)
    return [*names[start:], *names[:start]]


def make_parser(name: str, description: str | None, rounds: int, on_data: bool = True) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark; ``rounds`` is the default number of measurements."""
    parser = argparse.ArgumentParser(f"python -m benchmarks.{name}", description=(description or "").splitlines()[0])
    if on_data:
        parser.add_argument("--data", type=Path, metavar="DIR", help="class folders (default: synthetic images)")
    parser.add_argument("--rounds", type=int, default=rounds, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements to FILE")
    return parser


def require_positive(parser: argparse.ArgumentParser, **options: int | None) -> None:
    """Exit with a message if an option is given and below 1."""
    for name, value in options.items():
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')}={value}: expected an integer from 1 up")


def find_images(parser: argparse.ArgumentParser, folder: Path | None) -> tuple[Path, tuple[int, int]]:
    """The data folder, and its numbers of training and validation images; without a folder, synthetic images."""
    if folder is None:
        folder = SYNTHETIC
        if not folder.exists():
            code = "import sys; from benchmarks.measuring import write_synthetic; write_synthetic(sys.argv[1])"
            run_python("-c", code, str(folder))
    counts = []
    for split in ("train", "validation"):
        if not (folder / split).is_dir():
            parser.error(f"--data={folder}: expected a folder with train/ and validation/")
        counts.append(sum(1 for path in (folder / split).rglob("*") if path.is_file()))
    return folder.resolve(), (counts[0], counts[1])


def write_synthetic(folder: str) -> None:
    """Write 2,800 training and 700 validation images as class folders."""
    from fer_exp.data.sources.synthetic import write_images

    draft = Path(f"{folder}.draft")
    write_images(draft, train=2800, validation=700, seed=0)
    draft.rename(folder)


def load_before() -> float | None:
    """The load average before the benchmark: on a busy machine only ratios within one run are meaningful."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def describe_machine(load: float | None) -> dict[str, Any]:
    """Device, cores, relevant instruction sets, versions, and ``load_before``. Imports torch."""
    import torch

    from fer_exp.training.hardware import available_cores, choose_accelerator, device_name

    capabilities = torch.cpu.get_capabilities()
    found = {"avx2": "AVX2", "avx512_f": "AVX512", "avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX-BF16"}
    return {
        "device": device_name(choose_accelerator("auto")),
        "cores": available_cores(),
        "instructions": [name for key, name in found.items() if capabilities.get(key)],
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("fer_exp", "torch", "lightning")},
        },
        "load_before": load,
    }


def format_machine(machine: Mapping[str, Any]) -> str:
    """Two lines about the machine."""
    load = machine["load_before"]
    instructions = ", ".join(machine["instructions"]) or "no AVX2, AVX512 or AMX"
    busy = "" if load is None else f"; load average before the benchmark: {load:.1f}"
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return f"{machine['device']}; {machine['cores']} cores; {instructions}{busy}\n{versions}"


def report(path: Path | None, load: float | None, heading: str, table: str, results: Mapping[str, Any]) -> None:
    """Print the machine, a heading and the table; write ``results`` as JSON if ``path`` is given."""
    machine = describe_machine(load)
    print(f"\n{format_machine(machine)}\n{heading}\n\n{table}")
    if path:
        write_json(path, {"machine": machine, **results})


def align(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a text table: the first row is the header, the first column is left-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        first, *others = zip(row, widths, strict=True)
        words = [f"{first[0]:<{first[1]}}", *(f"{word:>{width}}" for word, width in others)]
        lines.append("   ".join(words))
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write indented JSON."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
