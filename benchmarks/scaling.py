"""Whether an epoch's time is in proportion to its images: ``python -m benchmarks.scaling --data DIR``.

Trains ``fer_exp`` on an eighth, a quarter, a half and all of the training images, each with the same part of the
validation images, in one process that is kept alive. The sizes take turns, so that other work on the machine meets
all alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from benchmarks.contenders.turns import UNMEASURED, Contender
from benchmarks.measuring import (
    align,
    describe_machine,
    find_and_count,
    format_machine,
    in_turn,
    load_before,
    make_parser,
    spread,
    write_json,
)
from benchmarks.training import MODULES, OURS, epoch_batches, thread_variables

PARTS = {"1/8": 8, "1/4": 4, "1/2": 2, "all": 1}


@dataclass
class Epochs:
    """The epochs of one size.

    Attributes:
        images: training images that were trained on.
        steps: training batches.
        validation: validation batches.
        train: seconds of training, one a round.
        val: seconds of validation, one a round.
    """

    images: int
    steps: int
    validation: int
    train: list[float] = field(default_factory=list)
    val: list[float] = field(default_factory=list)


def measure(contender: Contender, sizes: Mapping[str, Epochs], rounds: int) -> None:
    """Let the sizes take turns, and note what each took."""
    contender.turn(UNMEASURED + 1, 1)
    for round_ in range(rounds):
        for name in in_turn(list(sizes), round_):
            size = sizes[name]
            taken = contender.turn(size.steps, size.validation)
            size.train.append(taken["train_seconds"])
            size.val.append(taken["val_seconds"])
        print(f"round {round_ + 1} of {rounds} is done", flush=True)


def format_table(sizes: Mapping[str, Epochs]) -> str:
    """The table: a row a size. In proportion is what has the same seconds an image in each."""
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
    return align([("part", "images", "training s", "training ms an image", "epoch with validation s"), *rows])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    load = load_before()
    parser = make_parser("scaling", "Epochs of several lengths", rounds=3)
    parser.add_argument("--images", type=int, metavar="N", help="what counts as all images (default: all)")
    parser.add_argument("--batch-size", type=int, default=128, help="(default: 128)")
    parser.add_argument("--threads", type=int, metavar="N", help="(default: as torch takes them)")
    options = parser.parse_args(arguments)
    layout, counts = find_and_count(parser, options.data)
    images = options.images or counts[0]
    if not max(PARTS.values()) * options.batch_size <= images <= counts[0]:
        parser.error(
            f"an eighth of {images} images must fill a batch of {options.batch_size}, and there are {counts[0]}: "
            f"give --images a number up to that, or a smaller --batch-size"
        )
    if min(options.rounds, options.threads or 1) < 1:
        parser.error("--rounds and --threads are whole numbers from 1 up")
    sizes = {}
    for name, part in PARTS.items():
        steps, validation = epoch_batches(images // part, counts, options.batch_size)
        sizes[name] = Epochs(steps * options.batch_size, steps, validation)
    settings = {"root": str(layout.root), "batch_size": options.batch_size}
    with Contender(MODULES[OURS], settings, env=thread_variables(options.threads)) as contender:
        measure(contender, sizes, options.rounds)
        facts = contender.facts
    machine = describe_machine(load)
    print(f"\n{format_machine(machine)}")
    print(
        f"Batches of {options.batch_size}, {facts['precision']}, {facts['threads']} threads; median of "
        f"{options.rounds} rounds [least..most]\n"
    )
    print(format_table(sizes))
    if options.json:
        write_json(
            options.json,
            {
                "machine": machine,
                "batch_size": options.batch_size,
                "facts": facts,
                "rounds": options.rounds,
                "measured": {name: asdict(size) for name, size in sizes.items()},
            },
        )


if __name__ == "__main__":
    main()
