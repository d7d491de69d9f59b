"""What each choice for speed brings: ``python -m benchmarks.choices --data DIR``.

Times steps of ``fer_exp`` as configured, and with each of the choices switched off by its key. Float32 switches
``im2col_weight_grad`` off too, which is of bfloat16; the others are off alone. They take turns, and each turn is a process
of its own: some choices are of the process, and where the system happens to put a process's memory makes a step several
percent longer or shorter.
"""  # noqa: E501

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks.contenders.turns import UNMEASURED, Contender
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
from benchmarks.training import MODULES, OURS, thread_variables

AS_CONFIGURED = "as configured"
# Without AMX or a CUDA device some of them change nothing.
SWITCHED_OFF = (
    "trainer.precision=32-true",
    "channels_last=false",
    "retain_memory=false",
    "im2col_weight_grad=false",
    "cuda_graph=false",
    "model.fast_dropout=false",
    "model.pool_before_relu=false",
    "optimizer.fused=false",
)


def measure(start: Mapping[str, Callable[[], Contender]], steps: int, rounds: int) -> dict[str, list[float]]:
    """Let them take turns.

    Args:
        start: what starts a process, by what is switched off in it.
        steps: measured steps of a turn.
        rounds: in how many each takes a turn.

    Returns:
        Mean seconds of a step, one a round, by what is switched off.
    """
    taken: dict[str, list[float]] = {name: [] for name in start}
    for round_ in range(rounds):
        for name in in_turn(list(start), round_):
            with start[name]() as contender:
                contender.turn(UNMEASURED + 1, 1)  # kernels are chosen
                taken[name].append(contender.turn(steps + UNMEASURED, 1)["step_seconds"])
        print(f"round {round_ + 1} of {rounds} is done", flush=True)
    return taken


def ratios(taken: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """How many times as long as a step as configured each took: medians of the rounds' own ratios."""
    return {name: median_ratio(seconds, taken[AS_CONFIGURED]) for name, seconds in taken.items()}


def format_table(taken: Mapping[str, Sequence[float]]) -> str:
    """The table: a row a choice that is switched off."""
    rows = [(name, spread(taken[name]).show(0, 1000), f"{ratio:.2f}") for name, ratio in ratios(taken).items()]
    return align([("switched off", "step ms", "over as configured"), *rows])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    load = load_before()
    parser = make_parser("choices", "What each choice for speed brings", rounds=5)
    parser.add_argument("--steps", type=int, default=10, help="measured steps of a turn (default: 10)")
    parser.add_argument("--batch-size", type=int, default=128, help="(default: 128)")
    parser.add_argument("--threads", type=int, metavar="N", help="(default: as torch takes them)")
    parser.add_argument(
        "--choices", nargs="+", default=SWITCHED_OFF, metavar="KEY=VALUE", help=f"(default: {' '.join(SWITCHED_OFF)})"
    )
    options = parser.parse_args(arguments)
    layout, counts = find_and_count(parser, options.data)
    if min(options.rounds, options.steps, options.batch_size, options.threads or 1) < 1:
        parser.error("--steps, --rounds, --batch-size and --threads are whole numbers from 1 up")
    if (options.steps + UNMEASURED) * options.batch_size > counts[0]:
        parser.error(f"--steps={options.steps}: the {counts[0]} training images fill fewer batches")
    settings: dict[str, Any] = {"root": str(layout.root), "batch_size": options.batch_size}
    overrides = {AS_CONFIGURED: [], **{choice: [choice] for choice in options.choices}}
    env = thread_variables(options.threads)
    start = {
        name: partial(Contender, MODULES[OURS], {**settings, "overrides": each}, env=env)
        for name, each in overrides.items()
    }
    taken = measure(start, options.steps, options.rounds)
    machine = describe_machine(load)
    print(f"\n{format_machine(machine)}")
    print(f"Batches of {options.batch_size}; a step: mean of {options.steps}")
    print(f"Median of {options.rounds} rounds [least..most]\n")
    print(format_table(taken))
    if options.json:
        write_json(
            options.json,
            {
                "machine": machine,
                "batch_size": options.batch_size,
                "steps": options.steps,
                "rounds": options.rounds,
                "step_seconds": taken,
                "ratios": ratios(taken),
            },
        )


if __name__ == "__main__":
    main()
