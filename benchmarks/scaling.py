"""Measure whether the epoch time is proportional to the images: ``python -m benchmarks.scaling --data DIR``.

Trains ``fer_exp`` on an eighth, a quarter, a half and all of the training images, each with the same fraction of the
validation images, in one process. The sizes take turns.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from benchmarks.contenders.turns import WARMUP_STEPS, Contender
from benchmarks.measuring import (
    align,
    find_images,
    in_turn,
    load_before,
    make_parser,
    report,
    require_positive,
    spread,
)
from benchmarks.training import FER_EXP, MODULES, epoch_batches, thread_variables

FRACTIONS = {"1/8": 8, "1/4": 4, "1/2": 2, "all": 1}


@dataclass
class Epochs:
    """The epochs of one size.

    Attributes:
        images: training images.
        steps: training batches.
        validation: validation batches.
        train: seconds of training, once per round.
        val: seconds of validation, once per round.
    """

    images: int
    steps: int
    validation: int
    train: list[float] = field(default_factory=list)
    val: list[float] = field(default_factory=list)


def measure(contender: Contender, sizes: Mapping[str, Epochs], rounds: int) -> None:
    """Add the seconds of ``rounds`` epochs of each size."""
    contender.turn(WARMUP_STEPS + 1, 1)
    for round_ in range(rounds):
        for name in in_turn(list(sizes), round_):
            size = sizes[name]
            turn = contender.turn(size.steps, size.validation)
            size.train.append(turn["train_seconds"])
            size.val.append(turn["val_seconds"])
        print(f"round {round_ + 1} of {rounds}", file=sys.stderr)


def format_table(sizes: Mapping[str, Epochs]) -> str:
    """A row for each size."""
    rows = [
        (
            name,
            f"{size.images:,}",
            spread(size.train).show(2),
            spread([seconds / size.images for seconds in size.train]).show(3, 1000),
            spread([train + val for train, val in zip(size.train, size.val, strict=True)]).show(2),
        )
        for name, size in sizes.items()
    ]
    return align([("fraction", "images", "training s", "ms per image", "epoch with validation s"), *rows])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    load = load_before()
    parser = make_parser("scaling", __doc__, rounds=3)
    parser.add_argument("--images", type=int, metavar="N", help="images of the full epoch (default: all)")
    parser.add_argument("--batch-size", type=int, default=128, help="(default: 128)")
    parser.add_argument("--threads", type=int, metavar="N", help="(default: torch's choice)")
    options = parser.parse_args(arguments)
    require_positive(parser, rounds=options.rounds, batch_size=options.batch_size, threads=options.threads)
    root, counts = find_images(parser, options.data)
    images = options.images or counts[0]
    if not max(FRACTIONS.values()) * options.batch_size <= images <= counts[0]:
        parser.error(
            f"an eighth of {images} images must fill a batch of {options.batch_size}, and there are {counts[0]}: "
            "change --images or --batch-size"
        )
    sizes = {}
    for name, divisor in FRACTIONS.items():
        steps, validation = epoch_batches(images // divisor, counts, options.batch_size)
        sizes[name] = Epochs(steps * options.batch_size, steps, validation)
    settings = {"root": str(root), "batch_size": options.batch_size}
    with Contender(MODULES[FER_EXP], settings, env=thread_variables(options.threads)) as contender:
        measure(contender, sizes, options.rounds)
        facts = contender.facts
    report(
        options.json,
        load,
        f"Batch size {options.batch_size}, {facts['precision']}, {facts['threads']} threads; median of "
        f"{options.rounds} rounds [min..max]",
        format_table(sizes),
        {
            "batch_size": options.batch_size,
            "facts": facts,
            "rounds": options.rounds,
            "measured": {name: asdict(size) for name, size in sizes.items()},
        },
    )


if __name__ == "__main__":
    main()
