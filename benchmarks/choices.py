"""Measure what each speed key brings: ``python -m benchmarks.choices --data DIR``.

Times training steps of ``fer_exp`` with the default config, and with each speed key off. Float32 also turns off
``im2col_weight_grad``, which needs bfloat16. Each turn is a new process: memory placement alone changes the step time
by several percent.
"""

import sys
from collections.abc import Mapping, Sequence

from benchmarks.contenders.turns import WARMUP_STEPS, Contender
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
from benchmarks.training import FER_EXP, MODULES, thread_variables

DEFAULT = "default"
OVERRIDES = (
    "trainer.precision=32-true",
    "channels_last=false",
    "retain_memory=false",
    "im2col_weight_grad=false",
    "model.fast_dropout=false",
    "model.pool_before_relu=false",
    "optimizer.fused=false",
)


def measure(
    settings: Mapping[str, object], overrides: Sequence[str], steps: int, rounds: int, threads: int | None
) -> dict[str, list[float]]:
    """Mean seconds of a step, once per round: for the default config and for each override.

    Args:
        settings: of ``benchmarks.contenders.own``.
        overrides: each is measured alone.
        steps: measured steps of a turn.
        rounds: turns of each.
        threads: of each process; None for torch's choice.
    """
    seconds: dict[str, list[float]] = {name: [] for name in (DEFAULT, *overrides)}
    for round_ in range(rounds):
        for name in in_turn(list(seconds), round_):
            own = {**settings, "overrides": [] if name == DEFAULT else [name]}
            with Contender(MODULES[FER_EXP], own, env=thread_variables(threads)) as contender:
                contender.turn(WARMUP_STEPS + 1, 1)
                seconds[name].append(contender.turn(steps + WARMUP_STEPS, 1)["step_seconds"])
        print(f"round {round_ + 1} of {rounds}", file=sys.stderr)
    return seconds


def ratios(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Step time relative to the default config: median of the ratios per round."""
    return {name: median_ratio(values, seconds[DEFAULT]) for name, values in seconds.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    load = load_before()
    parser = make_parser("choices", __doc__, rounds=5)
    parser.add_argument("--steps", type=int, default=10, help="measured steps of a turn (default: 10)")
    parser.add_argument("--batch-size", type=int, default=128, help="(default: 128)")
    parser.add_argument("--threads", type=int, metavar="N", help="(default: torch's choice)")
    parser.add_argument(
        "--overrides", nargs="+", default=OVERRIDES, metavar="KEY=VALUE", help="(default: every speed key)"
    )
    options = parser.parse_args(arguments)
    require_positive(
        parser, steps=options.steps, rounds=options.rounds, batch_size=options.batch_size, threads=options.threads
    )
    root, counts = find_images(parser, options.data)
    if (options.steps + WARMUP_STEPS) * options.batch_size > counts[0]:
        parser.error(f"--steps={options.steps}: the {counts[0]} training images fill fewer batches")
    settings = {"root": str(root), "batch_size": options.batch_size}
    seconds = measure(settings, options.overrides, options.steps, options.rounds, options.threads)
    relative = ratios(seconds)
    rows = [(name, spread(values).show(0, 1000), f"{relative[name]:.2f}") for name, values in seconds.items()]
    report(
        options.json,
        load,
        f"Batch size {options.batch_size}; a step is the mean of {options.steps}; median of {options.rounds} rounds "
        "[min..max]",
        align([("override", "step ms", "relative to the default"), *rows]),
        {
            "batch_size": options.batch_size,
            "steps": options.steps,
            "rounds": options.rounds,
            "step_seconds": seconds,
            "ratios": relative,
        },
    )


if __name__ == "__main__":
    main()
