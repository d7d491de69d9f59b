"""Measure whether the time of a sweep is proportional to its jobs: ``python -m benchmarks.sweep``.

Runs sweeps over seeds as commands, from process start to comparison. The numbers of jobs take turns.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.measuring import (
    align,
    find_images,
    load_before,
    make_parser,
    report,
    require_positive,
    run_python,
    spread,
)

STEPS, VALIDATION = 20, 5  # batches of the one epoch of a job


def measure(root: Path, jobs: Sequence[int], batch_size: int, rounds: int) -> dict[int, list[float]]:
    """Seconds of each sweep, once per round, by number of jobs. A first, unmeasured job fills the cache.

    Args:
        root: folder with both splits.
        jobs: numbers of jobs.
        batch_size: of the training.
        rounds: runs of each sweep.
    """
    seconds: dict[int, list[float]] = {count: [] for count in jobs}
    with tempfile.TemporaryDirectory() as folder:

        def sweep(count: int, name: str) -> float:
            return run_python(
                *("-m", "fer_exp.train", "-m", "data=folders", f"data.root={root}", f"data.batch_size={batch_size}"),
                *("callbacks=fixed_budget", "scheduler=none", "trainer.max_epochs=1"),
                *(f"trainer.limit_train_batches={STEPS}", f"trainer.limit_val_batches={VALIDATION}"),
                f"seed={','.join(map(str, range(count)))}",
                f"hydra.sweep.dir={folder}/{name}",
                env={"FER_EXP_CACHE": f"{folder}/cache"},
            ).seconds

        sweep(1, "first")
        for round_ in range(rounds):
            for count in jobs if round_ % 2 == 0 else reversed(jobs):
                seconds[count].append(sweep(count, f"{round_}-{count}"))
            print(f"round {round_ + 1} of {rounds}", file=sys.stderr)
    return seconds


def format_table(seconds: Mapping[int, Sequence[float]]) -> str:
    """A row for each number of jobs. Time is proportional if each additional job takes the same."""
    medians = {count: spread(values).median for count, values in sorted(seconds.items())}
    fewest = min(medians)
    rows = []
    for count in medians:
        added = f"{(medians[count] - medians[fewest]) / (count - fewest):.2f}" if count > fewest else "-"
        rows.append((f"{count:,}", spread(seconds[count]).show(2), added))
    return align([("jobs", "seconds", "seconds per additional job"), *rows])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    load = load_before()
    parser = make_parser("sweep", __doc__, rounds=3)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2, 4, 8], metavar="N", help="(default: 1 2 4 8)")
    parser.add_argument("--batch-size", type=int, default=16, help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    require_positive(parser, rounds=options.rounds, batch_size=options.batch_size, jobs=min(options.jobs))
    root, counts = find_images(parser, options.data)
    if counts[0] < options.batch_size:
        parser.error(f"--batch-size={options.batch_size}: there are only {counts[0]} training images")
    seconds = measure(root, sorted(set(options.jobs)), options.batch_size, options.rounds)
    report(
        options.json,
        load,
        f"One epoch of {STEPS} steps with batch size {options.batch_size} per job; median of {options.rounds} rounds "
        "[min..max]",
        format_table(seconds),
        {"batch_size": options.batch_size, "steps": STEPS, "rounds": options.rounds, "seconds": seconds},
    )


if __name__ == "__main__":
    main()
