"""What comes before training, and what a run holds in memory: ``python -m benchmarks.startup --data DIR``.

Each figure is that of a process of its own, and the processes take turns, so that other work on the machine meets all
alike. First come two that are not measured: they fill the cache of decoded images that the others start from, a
temporary one, have Python compile what is imported, and bring it from the disk into memory.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.measuring import (
    Finished,
    align,
    describe_machine,
    find_and_count,
    format_machine,
    in_turn,
    load_before,
    make_parser,
    quoted,
    run_python,
    spread,
    write_json,
)

IDLE = "import lightning"
# What is said of the images would stand beside the figure.
LOAD = """
import logging, sys
from benchmarks.startup import time_loading
logging.disable()
print(time_loading(sys.argv[1]))
"""
STEPS, VALIDATION = 10, 5  # batches of the run whose memory is measured: they hold as much as an epoch's


@dataclass(frozen=True)
class Figure:
    """One thing that is measured.

    Attributes:
        unit: ``s`` or ``MiB``.
        values: one a round.
    """

    unit: str
    values: list[float]


def time_loading(root: str) -> float:
    """Load both splits as a run does; the seconds that it took, imports left out."""
    from fer_exp.data.datamodule import ImageDataModule

    start = time.perf_counter()
    ImageDataModule(root, batch_size=1, seed=0).setup()
    return time.perf_counter() - start


def measure(root: Path, rounds: int) -> dict[str, Figure]:
    """Let the processes take turns.

    Args:
        root: the folder that holds both splits.
        rounds: how often each is run.

    Returns:
        What each took, by its name in the table.
    """
    with tempfile.TemporaryDirectory() as folder:
        warm = {"FER_EXP_CACHE": f"{folder}/cache"}
        figures: dict[str, Figure] = {}

        def note(name: str, unit: str, value: float) -> None:
            figures.setdefault(name, Figure(unit, [])).values.append(value)

        def train(*overrides: str) -> tuple[str, ...]:
            return ("-m", "fer_exp.train", "data=folders", f"data.root={quoted(root)}", *overrides)

        def load(cache: Path) -> float:
            return float(run_python("-c", LOAD, str(root), env={"FER_EXP_CACHE": str(cache)}).output)

        def idle(round_: int) -> None:
            taken = run_python("-c", IDLE)
            note("idle process that imports lightning", "s", taken.seconds)
            note("idle process that imports lightning, peak", "MiB", taken.peak_mib)

        def answers(round_: int) -> None:
            note("fer_exp.train --help", "s", run_python("-m", "fer_exp.train", "--help").seconds)
            note("fer_exp.train --cfg job", "s", run_python("-m", "fer_exp.train", "--cfg", "job").seconds)

        def first_step(round_: int) -> None:
            end = "+callbacks.end._target_=benchmarks.first_step.EndAtFirstStep"
            taken = run_python(*train(end, f"hydra.run.dir={quoted(Path(folder, f'first{round_}'))}"), env=warm)
            note("start to first step, images cached", "s", taken.seconds)

        def loading(round_: int) -> None:
            cache = Path(folder, f"cache{round_}")
            note("loading the images, nothing cached", "s", load(cache))
            note("loading the images, cached", "s", load(cache))

        def train_for_a_moment(name: str) -> Finished:
            return run_python(
                *train(
                    "trainer.max_epochs=1",
                    f"trainer.limit_train_batches={STEPS}",
                    f"trainer.limit_val_batches={VALIDATION}",
                    f"hydra.run.dir={quoted(Path(folder, name))}",
                ),
                env=warm,
            )

        def run(round_: int) -> None:
            note(f"run of {STEPS} steps, peak", "MiB", train_for_a_moment(f"run{round_}").peak_mib)

        load(Path(warm["FER_EXP_CACHE"]))
        train_for_a_moment("unmeasured")
        turns = {turn.__name__: turn for turn in (idle, answers, first_step, loading, run)}
        for round_ in range(rounds):
            for name in in_turn(list(turns), round_):
                turns[name](round_)
            print(f"round {round_ + 1} of {rounds} is done", flush=True)
    return figures


def format_table(figures: dict[str, Figure]) -> str:
    """The table: a row a figure."""
    digits = {"s": 2, "MiB": 0}
    rows = [
        (name, spread(figure.values).show(digits[figure.unit]), figure.unit)
        for name, figure in sorted(figures.items(), key=lambda item: item[1].unit == "MiB")
    ]
    return align([("what", "median [least..most]", "unit"), *rows])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    load = load_before()
    parser = make_parser("startup", "What comes before training", rounds=5)
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds: expected a whole number from 1 up")
    layout, counts = find_and_count(parser, options.data)
    figures = measure(layout.root, options.rounds)
    machine = describe_machine(load)  # now: what this process imports would count towards its children's memory
    print(f"\n{format_machine(machine)}")
    print(f"{counts[0]:,} training and {counts[1]:,} validation images; {options.rounds} rounds\n")
    print(format_table(figures))
    if options.json:
        write_json(
            options.json,
            {
                "machine": machine,
                "data": {"train": counts[0], "validation": counts[1]},
                "rounds": options.rounds,
                "measured": {name: asdict(figure) for name, figure in figures.items()},
                "medians": {name: asdict(spread(figure.values)) for name, figure in figures.items()},
            },
        )


if __name__ == "__main__":
    main()
