"""How fast training is, beside others on the same images: ``python -m benchmarks.training --data DIR``.

The contenders: ``fer_exp``; ``plain``, the same steps in a plain PyTorch loop; ``lightning``, the notebook's network as
a tutorial of Lightning would train it; ``keras``, the notebook itself, which needs TensorFlow.

Each is a process of its own that is kept alive and works only when it is its turn. So imports and warm-up are paid
once and are not measured, turns are short and close together, so that other work on the machine meets all alike, and
no contender shares threads, memory or settings with another. In each round each takes two turns: a few steps, and an
epoch with its validation. Ratios are those of turns of the same round.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from benchmarks.contenders.turns import UNMEASURED, Contender, NotInstalledError
from benchmarks.measuring import (
    align,
    describe_machine,
    find_and_count,
    format_machine,
    in_turn,
    load_before,
    make_parser,
    median_ratio,
    spread,
    write_json,
)
from fer_exp.plots.sheet import white_ticks

MODULES = {
    "fer_exp": "benchmarks.contenders.own",
    "plain": "benchmarks.contenders.plain",
    "lightning": "benchmarks.contenders.naive_lightning",
    "keras": "benchmarks.contenders.keras_notebook",
}
OURS = "fer_exp"  # what the others are compared with
COLOURS = ("#8dd3c7", "#feffb3", "#fa8174", "#bfbbd9")


@dataclass
class Measured:
    """What one contender took.

    Attributes:
        facts: its precision, threads and versions.
        steps: mean seconds of a step, one a round.
        epochs: seconds of training and of validation, one pair a round; none where no epochs were asked for.
    """

    facts: dict[str, Any]
    steps: list[float] = field(default_factory=list)
    epochs: list[tuple[float, float]] = field(default_factory=list)

    @property
    def epoch_seconds(self) -> list[float]:
        """Training and validation together, one a round."""
        return [train + validation for train, validation in self.epochs]


@dataclass(frozen=True)
class Lengths:
    """How long turns are, in batches.

    Attributes:
        steps: the training batches of the short turn, the unmeasured ones among them.
        epoch: those of an epoch; 0 for no epochs.
        validation: the validation batches that belong to the epoch.
    """

    steps: int
    epoch: int
    validation: int


def epoch_batches(images: int, counts: tuple[int, int], batch_size: int) -> tuple[int, int]:
    """Training and validation batches of an epoch of ``images`` of the training images.

    A part of the training images is validated on the same part of the validation images. The training tail that fills
    no batch is dropped.

    Args:
        images: at most the number of training images.
        counts: number of training and of validation images.
        batch_size: images a batch.
    """
    validation = math.ceil(counts[1] * images / counts[0])
    return images // batch_size, math.ceil(validation / batch_size)


def measure(contenders: Mapping[str, Contender], lengths: Lengths, rounds: int) -> dict[str, Measured]:
    """Let the contenders take turns.

    Args:
        contenders: by their names.
        lengths: of the turns.
        rounds: in how many each takes its turns.

    Returns:
        What each took, by its name.
    """
    measured = {name: Measured(contender.facts) for name, contender in contenders.items()}
    for contender in contenders.values():
        contender.turn(UNMEASURED + 1, min(2, lengths.validation))  # caches are filled and graphs traced
    for round_ in range(rounds):
        order = in_turn(list(contenders), round_)
        for name in order:
            measured[name].steps.append(contenders[name].turn(lengths.steps, 1)["step_seconds"])
        for name in order if lengths.epoch else ():
            taken = contenders[name].turn(lengths.epoch, lengths.validation)
            measured[name].epochs.append((taken["train_seconds"], taken["val_seconds"]))
        latest = ", ".join(f"{name} {taken.steps[-1] * 1000:.1f} ms" for name, taken in measured.items())
        print(f"round {round_ + 1} of {rounds}: a step of {latest}", flush=True)
    return measured


def summarise(measured: Mapping[str, Measured], batch_size: int) -> dict[str, dict[str, Any]]:
    """Medians and spreads, and how many times as long as ``fer_exp`` each took, by the contenders' names.

    Returns:
        Of each: ``step_seconds``, ``epoch_seconds`` (or None), both as median, least and most; ``images_per_second``
        by the median step; ``step_ratio`` and ``epoch_ratio``, medians of the rounds' ratios, None without ``fer_exp``
        or without epochs.
    """
    ours = measured.get(OURS)
    return {
        name: {
            "step_seconds": asdict(spread(taken.steps)),
            "images_per_second": batch_size / spread(taken.steps).median,
            "epoch_seconds": asdict(spread(taken.epoch_seconds)) if taken.epochs else None,
            "step_ratio": median_ratio(taken.steps, ours.steps) if ours else None,
            "epoch_ratio": median_ratio(taken.epoch_seconds, ours.epoch_seconds) if ours and taken.epochs else None,
        }
        for name, taken in measured.items()
    }


def format_table(measured: Mapping[str, Measured], batch_size: int) -> str:
    """The table: a row a contender."""
    head = ("contender", "precision", "threads", "step ms", "images/s", "epoch s", f"steps/{OURS}", f"epochs/{OURS}")
    rows = [
        (
            name,
            str(measured[name].facts["precision"]),
            str(measured[name].facts["threads"]),
            spread(measured[name].steps).show(1, 1000),
            f"{figures['images_per_second']:,.0f}",
            spread(measured[name].epoch_seconds).show(2) if measured[name].epochs else "-",
            *("-" if figures[key] is None else f"{figures[key]:.2f}" for key in ("step_ratio", "epoch_ratio")),
        )
        for name, figures in summarise(measured, batch_size).items()
    ]
    return align([head, *rows])


@style.context("dark_background")
def chart(measured: Mapping[str, Measured], batch_size: int, caption: str) -> Figure:
    """Draw the median step, and beside it the median epoch where there is one, a bar a contender.

    Args:
        measured: by the contenders' names.
        batch_size: images a step.
        caption: what they were measured on.

    Returns:
        The figure; a line on each bar goes from the least to the most.
    """
    panels = [("Step", "ms", {name: [s * 1000 for s in taken.steps] for name, taken in measured.items()})]
    if all(taken.epochs for taken in measured.values()):
        panels.append(
            ("Epoch with validation", "s", {name: taken.epoch_seconds for name, taken in measured.items()}),
        )
    figure = Figure(
        figsize=(6.5 * len(panels), 1.8 + 0.6 * len(measured)),
        dpi=100,
        layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12),
    )
    figure.suptitle(f"Training, batches of {batch_size}: shorter is faster", size=15)
    figure.supxlabel(caption, size=9, color="0.75")
    for axes, (title, unit, values) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        spreads = {name: spread(each) for name, each in values.items()}
        furthest = max(each.most for each in spreads.values())
        for place, (name, each) in enumerate(spreads.items()):
            axes.barh(place, each.median, height=0.6, color=COLOURS[list(MODULES).index(name)])
            axes.plot([each.least, each.most], [place, place], color="0.45", linewidth=1.6, marker="|", markersize=9)
            axes.text(each.most + 0.02 * furthest, place, f"{each.median:,.4g} {unit}", va="center", size=11)
        labels = [f"{name}\n{measured[name].facts['precision']}" for name in spreads]
        axes.set_yticks(range(len(spreads)), labels, size=12)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.22 * furthest)
        axes.set_title(title, size=12)
        axes.set_xlabel(unit, size=11)
        axes.spines[["top", "right"]].set_visible(False)
        white_ticks(axes)
    return figure


def thread_variables(threads: int | None) -> dict[str, str]:
    """Environment variables by which torch and TensorFlow take ``threads`` threads; none for as many as they like."""
    if threads is None:
        return {}
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), str(threads))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser("training", "How fast training is, beside others", rounds=5)
    parser.add_argument(
        "--images", type=int, metavar="N", help="training images of an epoch (default: all); 0: measure no epochs"
    )
    parser.add_argument("--steps", type=int, default=20, help="measured steps of a short turn (default: 20)")
    parser.add_argument("--batch-size", type=int, default=128, help="(default: 128)")
    parser.add_argument("--contenders", default=",".join(MODULES), metavar="A,B", help="(default: %(default)s)")
    parser.add_argument("--precision", default="auto", help="of fer_exp and plain (default: auto)")
    parser.add_argument("--threads", type=int, metavar="N", help="of each contender (default: as each takes them)")
    parser.add_argument(
        "--keras-python",
        default=sys.executable,
        metavar="PATH",
        help="a Python that has TensorFlow, best in an environment of its own",
    )
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw them there, as PNG")
    options = parser.parse_args(arguments)
    options.contenders = options.contenders.split(",")
    if unknown := [name for name in options.contenders if name not in MODULES]:
        parser.error(f"--contenders: {', '.join(unknown)}; there are {', '.join(MODULES)}")
    if min(options.steps, options.rounds, options.batch_size, options.threads or 1) < 1:
        parser.error("--steps, --rounds, --batch-size and --threads are whole numbers from 1 up")
    if not Path(options.keras_python).is_file():
        parser.error(f"--keras-python={options.keras_python}: there is no such file")
    options.layout, options.counts = find_and_count(parser, options.data)
    if options.images is None:
        options.images = options.counts[0]
    if not (options.images == 0 or options.batch_size <= options.images <= options.counts[0]):
        parser.error(
            f"--images={options.images}: expected 0, or a number from --batch-size={options.batch_size} to the "
            f"{options.counts[0]} training images"
        )
    if (options.steps + UNMEASURED) * options.batch_size > options.counts[0]:
        parser.error(
            f"--steps={options.steps}: with {UNMEASURED} unmeasured steps, more than the {options.counts[0]} training "
            f"images fill; expected at most {options.counts[0] // options.batch_size - UNMEASURED}"
        )
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    load = load_before()
    options = parse(arguments)
    layout, counts = options.layout, options.counts
    settings = {
        "root": str(layout.root),
        "train": str(layout.train),
        "validation": str(layout.validation),
        "batch_size": options.batch_size,
        "precision": options.precision,
    }
    epoch, validation = epoch_batches(options.images, counts, options.batch_size)
    lengths = Lengths(options.steps + UNMEASURED, epoch, max(1, validation))
    machine = describe_machine(load)
    skipped = {}
    with ExitStack() as stack:
        contenders = {}
        for name in options.contenders:
            python = options.keras_python if name == "keras" else sys.executable
            try:
                contenders[name] = stack.enter_context(
                    Contender(MODULES[name], settings, python, thread_variables(options.threads))
                )
            except NotInstalledError as error:
                skipped[name] = f"{error} is not installed for {python}"
                print(
                    f"{name} is skipped: {skipped[name]}. Name a Python that has it with --keras-python."
                    if name == "keras"
                    else f"{name} is skipped: {skipped[name]}.",
                    flush=True,
                )
        if not contenders:
            sys.exit("There is nothing to measure.")
        for contender in contenders.values():
            machine["versions"] |= contender.facts["versions"]
        measured = measure(contenders, lengths, options.rounds)
    on = format_machine(machine)
    print(f"\n{on}")
    print(f"{counts[0]:,} training and {counts[1]:,} validation images; batches of {options.batch_size}")
    an_epoch = f" An epoch: {epoch} steps; validation batches: {validation}." if epoch else ""
    print(f"A step: mean of {options.steps}, after {UNMEASURED} that are not measured.{an_epoch}")
    print(f"Median of {options.rounds} rounds [least..most]; ratios are medians of the rounds' own.\n")
    print(format_table(measured, options.batch_size))
    if options.json:
        write_json(
            options.json,
            {
                "machine": machine,
                "data": {"train": counts[0], "validation": counts[1]},
                "batch_size": options.batch_size,
                "rounds": options.rounds,
                "unmeasured_steps": UNMEASURED,
                "turns": asdict(lengths),
                "skipped": skipped,
                "measured": {name: asdict(taken) for name, taken in measured.items()},
                "medians": summarise(measured, options.batch_size),
            },
        )
    if options.chart:
        chart(measured, options.batch_size, on.splitlines()[0]).savefig(options.chart, format="png")


if __name__ == "__main__":
    main()
