"""Whether a sweep's time is in proportion to its jobs: ``python -m benchmarks.sweep``.

Runs sweeps of several lengths, seed after seed, each as the command that a person gives, from its start to its
comparison, in a process of its own. The lengths take turns, so that other work on the machine meets all alike.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.measuring import (
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

STEPS, VALIDATION = 20, 5  # batches of a job's one epoch


def measure(root: Path, lengths: Sequence[int], batch_size: int, rounds: int) -> dict[int, list[float]]:
    """Let the sweeps take turns; one job, which fills the cache of decoded images, comes first and is not kept.

    Args:
        root: the folder that holds both splits.
        lengths: numbers of jobs.
        batch_size: images a step.
        rounds: how often each sweep is run.

    Returns:
        For each length the seconds of its sweeps, one a round.
    """
    taken: dict[int, list[float]] = {length: [] for length in lengths}
    with tempfile.TemporaryDirectory() as folder:

        def sweep(jobs: int, name: str) -> float:
            return run_python(
                *("-m", "fer_exp.train", "-m", "data=folders"),
                *(f"data.root={quoted(root)}", f"data.batch_size={batch_size}"),
                *("callbacks=fixed_budget", "scheduler=none", "trainer.max_epochs=1"),
                *(f"trainer.limit_train_batches={STEPS}", f"trainer.limit_val_batches={VALIDATION}"),
                f"seed={','.join(map(str, range(jobs)))}",
                f"hydra.sweep.dir={quoted(Path(folder, name))}",
                env={"FER_EXP_CACHE": f"{folder}/cache"},
            ).seconds

        sweep(1, "first")
        for round_ in range(rounds):
            for length in (int(name) for name in in_turn([str(length) for length in lengths], round_)):
                taken[length].append(sweep(length, f"{round_}-{length}"))
            print(f"round {round_ + 1} of {rounds} is done", flush=True)
    return taken


def format_table(taken: Mapping[int, Sequence[float]]) -> str:
    """The table: a row a length. In proportion is what has the same seconds for each job beyond those of the least."""
    (fewest, least), *_ = sorted((jobs, spread(seconds).median) for jobs, seconds in taken.items())
    rows = []
    for jobs, seconds in sorted(taken.items()):
        more = f"{(spread(seconds).median - least) / (jobs - fewest):.2f}" if jobs > fewest else "-"
        rows.append((f"{jobs:,}", spread(seconds).show(2), more))
    return align([("jobs", "seconds", f"seconds a job more than {fewest}"), *rows])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    load = load_before()
    parser = make_parser("sweep", "Sweeps of several lengths", rounds=3)
    parser.add_argument("--jobs", default="1,2,4,8", metavar="N,N,...", help="lengths of sweeps (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        lengths = sorted({int(jobs) for jobs in options.jobs.split(",")})
    except ValueError:
        lengths = []
    if len(lengths) < 2 or lengths[0] < 1 or min(options.rounds, options.batch_size) < 1:
        parser.error("--jobs takes two whole numbers or more, as 1,2,4; --rounds and --batch-size one from 1 up")
    layout, counts = find_and_count(parser, options.data)
    if counts[0] < options.batch_size:
        parser.error(f"--batch-size {options.batch_size} fills no batch from {counts[0]} training images")
    taken = measure(layout.root, lengths, options.batch_size, options.rounds)
    machine = describe_machine(load)
    print(f"\n{format_machine(machine)}")
    print(
        f"An epoch of {STEPS} steps at batch size {options.batch_size} a job; {options.rounds} rounds, median "
        f"[least..most]\n"
    )
    print(format_table(taken))
    if options.json:
        write_json(
            options.json,
            {
                "machine": machine,
                "batch_size": options.batch_size,
                "steps": STEPS,
                "rounds": options.rounds,
                "seconds": {str(jobs): seconds for jobs, seconds in taken.items()},
                "medians": {str(jobs): asdict(spread(seconds)) for jobs, seconds in taken.items()},
            },
        )


if __name__ == "__main__":
    main()
