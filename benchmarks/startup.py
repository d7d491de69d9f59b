"""Measure the time to the first step, and the memory of a run: ``python -m benchmarks.startup --data DIR``.

Each measurement is a new process, and the processes take turns. Two unmeasured ones run first: they fill a temporary
cache of decoded images and Python's bytecode cache.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.measuring import (
    align,
    find_images,
    in_turn,
    load_before,
    make_parser,
    report,
    require_positive,
    run_python,
    spread,
)

LOAD = """
import logging, sys
from benchmarks.startup import time_loading
logging.disable()
print(time_loading(sys.argv[1]))
"""
FIRST_STEP = "+callbacks.end._target_=benchmarks.callbacks.EndAtFirstStep"
# A run of a few batches: it holds as much memory as a full epoch.
SHORT_RUN = ("trainer.max_epochs=1", "trainer.limit_train_batches=10", "trainer.limit_val_batches=5")


@dataclass
class Measurement:
    """The values of one row: seconds (``s``) or peak memory (``MiB``), once per round."""

    unit: str
    values: list[float] = field(default_factory=list)


def time_loading(root: str) -> float:
    """Seconds to load both splits as a run does, without imports."""
    from fer_exp.data.sources.class_folders import FolderDataModule

    start = time.perf_counter()
    FolderDataModule(root=root, batch_size=1, seed=0).setup()
    return time.perf_counter() - start


class Processes:
    """The measured processes; each method runs some and adds to ``measurements``.

    Args:
        root: folder with both splits.
        folder: for caches and runs.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder, self.count = root, folder, 0
        self.measurements: dict[str, Measurement] = {}
        self.load(folder / "cache")
        self.train(*SHORT_RUN)

    def add(self, name: str, unit: str, value: float) -> None:
        """Add a value to a row."""
        self.measurements.setdefault(name, Measurement(unit)).values.append(value)

    def load(self, cache: Path) -> float:
        """Seconds to load the images with a cache folder."""
        return float(run_python("-c", LOAD, str(self.root), env={"FER_EXP_CACHE": str(cache)}).output)

    def train(self, *overrides: str) -> tuple[float, float]:
        """Seconds and peak memory of a training command with the filled cache."""
        self.count += 1
        place = (f"data.root={self.root}", f"hydra.run.dir={self.folder}/run{self.count}")
        env = {"FER_EXP_CACHE": str(self.folder / "cache")}
        ended = run_python("-m", "fer_exp.train", "data=folders", *place, *overrides, env=env)
        return ended.seconds, ended.peak_mib

    def idle(self) -> None:
        """A process that only imports lightning: the lower bound."""
        ended = run_python("-c", "import lightning")
        self.add("import lightning", "s", ended.seconds)
        self.add("import lightning, peak memory", "MiB", ended.peak_mib)

    def answers(self) -> None:
        """Commands that need no torch, and an empty Hydra app over the same ``conf/``."""
        self.add("empty Hydra app, --help", "s", run_python("-m", "benchmarks.empty_app", "--help").seconds)
        for option in (("--help",), ("--cfg", "job")):
            name = " ".join(("fer_exp.train", *option))
            self.add(name, "s", run_python("-m", "fer_exp.train", *option).seconds)

    def first_step(self) -> None:
        """A training that ends where its first step would begin."""
        self.add("start to first step, images cached", "s", self.train(FIRST_STEP)[0])

    def loading(self) -> None:
        """Loading the images, with an empty cache and again."""
        self.count += 1
        for state in ("empty", "filled"):
            self.add(f"load the images, {state} cache", "s", self.load(self.folder / f"cache{self.count}"))

    def run(self) -> None:
        """A short run."""
        self.add("run of 10 steps, peak memory", "MiB", self.train(*SHORT_RUN)[1])


def measure(root: Path, rounds: int) -> dict[str, Measurement]:
    """Let the processes take turns; the measurements, by row."""
    with tempfile.TemporaryDirectory() as folder:
        processes = Processes(root, Path(folder))
        turns: dict[str, Callable[[], None]] = {
            name: getattr(processes, name) for name in ("idle", "answers", "first_step", "loading", "run")
        }
        for round_ in range(rounds):
            for name in in_turn(list(turns), round_):
                turns[name]()
            print(f"round {round_ + 1} of {rounds}", file=sys.stderr)
    return processes.measurements


def format_table(measurements: dict[str, Measurement]) -> str:
    """A row for each measurement, times before memory."""
    digits = {"s": 2, "MiB": 0}
    rows = [
        (name, spread(each.values).show(digits[each.unit]), each.unit)
        for name, each in sorted(measurements.items(), key=lambda item: item[1].unit == "MiB")
    ]
    return align([("what", "median [min..max]", "unit"), *rows])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    load = load_before()
    parser = make_parser("startup", __doc__, rounds=5)
    options = parser.parse_args(arguments)
    require_positive(parser, rounds=options.rounds)
    root, counts = find_images(parser, options.data)
    measurements = measure(root, options.rounds)
    report(
        options.json,
        load,
        f"{counts[0]:,} training and {counts[1]:,} validation images; {options.rounds} rounds",
        format_table(measurements),
        {
            "data": {"train": counts[0], "validation": counts[1]},
            "rounds": options.rounds,
            "measured": {name: asdict(each) for name, each in measurements.items()},
            "medians": {name: asdict(spread(each.values)) for name, each in measurements.items()},
        },
    )


if __name__ == "__main__":
    main()
