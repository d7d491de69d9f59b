"""Measure the training speed beside other implementations: ``python -m benchmarks.training --data DIR``.

The contenders: ``fer_exp``; ``plain``, the same steps in a plain PyTorch loop; ``lightning``, the notebook's network as
in a Lightning tutorial; ``keras``, the notebook itself, which needs TensorFlow.

Each contender is a process that lives until the end and works only in its turn. So imports and warm-up are not
measured, turns are short, and load from other programs affects all alike. In each round each contender takes two turns:
a few steps, and an epoch with validation. Ratios compare turns of the same round.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.contenders.turns import WARMUP_STEPS, Contender, NotInstalledError
from benchmarks.measuring import (
    align,
    find_images,
    in_turn,
    load_before,
    make_parser,
    median_ratio,
    report,
    require_positive,
    spread,
)

FER_EXP = "fer_exp"  # the reference of the ratios
MODULES = {
    FER_EXP: "benchmarks.contenders.own",
    "plain": "benchmarks.contenders.plain",
    "lightning": "benchmarks.contenders.naive_lightning",
    "keras": "benchmarks.contenders.keras_notebook",
}


@dataclass
class Measured:
    """The measurements of one contender.

    Attributes:
        facts: its precision, threads and versions.
        steps: mean seconds of a step, once per round.
        epochs: seconds of an epoch with validation, once per round; empty if no epochs were requested.
    """

    facts: dict[str, Any]
    steps: list[float] = field(default_factory=list)
    epochs: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Lengths:
    """Lengths of the turns, in batches.

    Attributes:
        steps: training batches of the short turn, warm-up included.
        epoch: training batches of an epoch; 0 for no epochs.
        validation: validation batches of an epoch.
    """

    steps: int
    epoch: int
    validation: int


def epoch_batches(images: int, counts: tuple[int, int], batch_size: int) -> tuple[int, int]:
    """Training and validation batches of an epoch of ``images`` of the training images.

    A fraction of the training images is validated on the same fraction of the validation images. The last, incomplete
    training batch is dropped.

    Args:
        images: at most the number of training images.
        counts: numbers of training and validation images.
        batch_size: images of a batch.
    """
    validation = math.ceil(counts[1] * images / counts[0])
    return images // batch_size, math.ceil(validation / batch_size)


def measure(contenders: Mapping[str, Contender], lengths: Lengths, rounds: int) -> dict[str, Measured]:
    """Let the contenders take turns; the measurements, by contender."""
    measured = {name: Measured(contender.facts) for name, contender in contenders.items()}
    for contender in contenders.values():
        contender.turn(WARMUP_STEPS + 1, min(2, lengths.validation))
    for round_ in range(rounds):
        order = in_turn(list(contenders), round_)
        for name in order:
            measured[name].steps.append(contenders[name].turn(lengths.steps, 1)["step_seconds"])
        for name in order if lengths.epoch else ():
            turn = contenders[name].turn(lengths.epoch, lengths.validation)
            measured[name].epochs.append(turn["train_seconds"] + turn["val_seconds"])
        latest = ", ".join(f"{name} {each.steps[-1] * 1000:.1f} ms" for name, each in measured.items())
        print(f"round {round_ + 1} of {rounds}: a step of {latest}", file=sys.stderr)
    return measured


def summarize(measured: Mapping[str, Measured], batch_size: int) -> dict[str, dict[str, Any]]:
    """Statistics over the rounds, by contender.

    Returns:
        ``step_seconds`` and ``epoch_seconds`` (median, least, most), ``images_per_second`` of the median step, and
        ``step_ratio`` and ``epoch_ratio`` relative to ``fer_exp``. Values that were not measured are None.
    """
    reference = measured.get(FER_EXP)
    return {
        name: {
            "step_seconds": asdict(spread(each.steps)),
            "images_per_second": batch_size / spread(each.steps).median,
            "epoch_seconds": asdict(spread(each.epochs)) if each.epochs else None,
            "step_ratio": median_ratio(each.steps, reference.steps) if reference else None,
            "epoch_ratio": median_ratio(each.epochs, reference.epochs) if reference and each.epochs else None,
        }
        for name, each in measured.items()
    }


def format_table(measured: Mapping[str, Measured], batch_size: int) -> str:
    """A row for each contender."""
    head = ("contender", "precision", "threads", "step ms", "images/s", "epoch s", "step ratio", "epoch ratio")
    rows = [
        (
            name,
            str(measured[name].facts["precision"]),
            str(measured[name].facts["threads"]),
            spread(measured[name].steps).show(1, 1000),
            f"{statistics['images_per_second']:,.0f}",
            spread(measured[name].epochs).show(2) if measured[name].epochs else "-",
            *("-" if statistics[key] is None else f"{statistics[key]:.2f}" for key in ("step_ratio", "epoch_ratio")),
        )
        for name, statistics in summarize(measured, batch_size).items()
    ]
    return align([head, *rows])


def thread_variables(threads: int | None) -> dict[str, str]:
    """Environment variables that set the threads of torch and TensorFlow; none for their own choice."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
    return {} if threads is None else dict.fromkeys(names, str(threads))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line."""
    parser = make_parser("training", __doc__, rounds=5)
    parser.add_argument(
        "--images", type=int, metavar="N", help="training images of an epoch (default: all); 0: measure no epochs"
    )
    parser.add_argument("--steps", type=int, default=20, help="measured steps of a short turn (default: 20)")
    parser.add_argument("--batch-size", type=int, default=128, help="(default: 128)")
    parser.add_argument("--contenders", default=",".join(MODULES), metavar="A,B", help="(default: %(default)s)")
    parser.add_argument("--precision", default="auto", help="of fer_exp and plain (default: auto)")
    parser.add_argument("--threads", type=int, metavar="N", help="of each contender (default: its own choice)")
    parser.add_argument(
        "--keras-python", default=sys.executable, metavar="PATH", help="a Python interpreter that has TensorFlow"
    )
    options = parser.parse_args(arguments)
    options.contenders = options.contenders.split(",")
    if unknown := [name for name in options.contenders if name not in MODULES]:
        parser.error(f"--contenders={','.join(unknown)}: expected some of {', '.join(MODULES)}")
    require_positive(
        parser, steps=options.steps, rounds=options.rounds, batch_size=options.batch_size, threads=options.threads
    )
    if not Path(options.keras_python).is_file():
        parser.error(f"--keras-python={options.keras_python}: no such file")
    options.root, options.counts = find_images(parser, options.data)
    if options.images is None:
        options.images = options.counts[0]
    if not (options.images == 0 or options.batch_size <= options.images <= options.counts[0]):
        parser.error(
            f"--images={options.images}: expected 0, or an integer from {options.batch_size} (the batch size) to "
            f"{options.counts[0]} (the training images)"
        )
    if options.steps > (most := options.counts[0] // options.batch_size - WARMUP_STEPS):
        parser.error(f"--steps={options.steps}: the training images fill fewer batches; expected at most {most}")
    return options


def start(stack: ExitStack, options: argparse.Namespace) -> tuple[dict[str, Contender], dict[str, str]]:
    """Start the contenders; those that need a missing package are skipped.

    Returns:
        The contenders, and the reasons of the skipped ones, by name.
    """
    settings = {
        "root": str(options.root),
        "train": str(options.root / "train"),
        "validation": str(options.root / "validation"),
        "batch_size": options.batch_size,
        "precision": options.precision,
    }
    contenders, skipped = {}, {}
    for name in options.contenders:
        python = options.keras_python if name == "keras" else sys.executable
        try:
            contender = Contender(MODULES[name], settings, python, thread_variables(options.threads))
        except NotInstalledError as error:
            skipped[name] = f"{error} is not installed for {python}"
            print(f"{name} is skipped: {skipped[name]}", flush=True)
        else:
            contenders[name] = stack.enter_context(contender)
    return contenders, skipped


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    load = load_before()
    options = parse(arguments)
    counts, batch_size = options.counts, options.batch_size
    epoch, validation = epoch_batches(options.images, counts, batch_size)
    lengths = Lengths(options.steps + WARMUP_STEPS, epoch, max(1, validation))
    with ExitStack() as stack:
        contenders, skipped = start(stack, options)
        if not contenders:
            sys.exit("Error: no contender can be measured.")
        measured = measure(contenders, lengths, options.rounds)
    heading = [
        f"{counts[0]:,} training and {counts[1]:,} validation images; batch size {batch_size}",
        f"A step: mean of {options.steps} after {WARMUP_STEPS} for warm-up."
        + (f" An epoch: {epoch} steps and {validation} validation batches." if epoch else ""),
        f"Median of {options.rounds} rounds [min..max]; ratios relative to {FER_EXP} in the same round.",
    ]
    report(
        options.json,
        load,
        "\n".join(heading),
        format_table(measured, batch_size),
        {
            "data": {"train": counts[0], "validation": counts[1]},
            "batch_size": batch_size,
            "rounds": options.rounds,
            "warmup_steps": WARMUP_STEPS,
            "turns": asdict(lengths),
            "skipped": skipped,
            "measured": {name: asdict(each) for name, each in measured.items()},
            "medians": summarize(measured, batch_size),
        },
    )


if __name__ == "__main__":
    main()
