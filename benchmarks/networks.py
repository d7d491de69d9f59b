"""What a training step of each network costs: ``python -m benchmarks.networks``.

Forward and backward pass at one batch size, on random faces, with the precision and the memory order that a run takes
by itself. The networks take turns, so that other work on the machine meets all alike.
"""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import (
    align,
    describe_machine,
    format_machine,
    in_turn,
    load_before,
    make_parser,
    median_ratio,
    spread,
    write_json,
)

if TYPE_CHECKING:
    from torch import nn

NETWORKS = "notebook_cnn,vgg_small,vgg,resnet18"
STEPS = 2  # in a turn; the first turn is not measured


def build_network(choice: str) -> "nn.Module":
    """The network of ``model=CHOICE``; ``timm:NAME`` is ``model=timm model.name=NAME``."""
    from hydra import compose, initialize_config_dir

    from fer_exp.config.instantiate import build
    from fer_exp.config.schema import CONFIG_DIR

    model, _, name = choice.partition(":")
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return build(compose("train", [f"model={model}", *([f"model.name={name}"] if name else [])]), "model")


def describe(network: "nn.Module") -> dict[str, Any]:
    """Trainable parameters, and the GFLOP of one face's forward pass, a multiplication and an addition being two."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from fer_exp.models.summary import count_parameters

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, 1, 48, 48))
    return {"parameters": count_parameters(network)[0], "gflop": counter.get_total_flops() / 1e9}


def measure(networks: Mapping[str, "nn.Module"], batch_size: int, rounds: int) -> dict[str, list[float]]:
    """Let the networks take turns; for each the seconds of a step, one a round."""
    import torch  # noqa: I001
    from fer_exp.models.layers import use_im2col_weight_grad

    from fer_exp.training.hardware import (
        choose_accelerator,
        choose_patch_gradients,
        choose_precision,
        keep_freed_memory,
    )

    accelerator, _ = choose_accelerator("auto")
    precision, _ = choose_precision("auto", accelerator)
    low = precision == "bf16-mixed"
    patches, _ = choose_patch_gradients("auto", accelerator, precision)
    if accelerator == "cpu":
        keep_freed_memory()
    faces = torch.rand(batch_size, 1, 48, 48, device=accelerator).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(7, (batch_size,), device=accelerator)
    for network in networks.values():
        network.train().to(accelerator, memory_format=torch.channels_last)
        if patches:
            use_im2col_weight_grad(network)

    def turn(network: "nn.Module") -> float:
        start = time.perf_counter()
        for _ in range(STEPS):
            network.zero_grad()
            with torch.autocast(accelerator, torch.bfloat16, enabled=low):
                loss = torch.nn.functional.cross_entropy(network(faces), labels)
            loss.backward()
        loss.item()  # waits for a GPU
        return (time.perf_counter() - start) / STEPS

    taken: dict[str, list[float]] = {name: [] for name in networks}
    for round_ in range(rounds + 1):
        for name in in_turn(list(networks), round_):
            seconds = turn(networks[name])
            if round_:
                taken[name].append(seconds)
    return taken


def format_table(facts: Mapping[str, Mapping[str, Any]], taken: Mapping[str, Sequence[float]]) -> str:
    """The table: a row a network; the last column is over the first one, median of the rounds."""
    first = next(iter(taken.values()))
    rows = [
        (
            name,
            f"{facts[name]['parameters']:,}",
            f"{facts[name]['gflop']:.2f}",
            spread(seconds).show(0, 1000),
            f"{median_ratio(seconds, first):.2f}",
        )
        for name, seconds in taken.items()
    ]
    return align([("network", "parameters", "GFLOP", "step ms", "over the first"), *rows])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    load = load_before()
    parser = make_parser("networks", "Training steps of several networks", rounds=5, on_data=False)
    parser.add_argument("--networks", default=NETWORKS, metavar="NAME,...", help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=128, help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    if min(options.rounds, options.batch_size) < 1:
        parser.error("--rounds and --batch-size are whole numbers from 1 up")
    networks = {name: build_network(name) for name in options.networks.split(",")}
    facts = {name: describe(network) for name, network in networks.items()}
    taken = measure(networks, options.batch_size, options.rounds)
    machine = describe_machine(load)
    print(
        f"{format_machine(machine)}\nBatch size {options.batch_size}, median of {options.rounds} rounds [least..most]\n"
    )
    print(format_table(facts, taken))
    if options.json:
        write_json(
            options.json,
            {"machine": machine, "batch_size": options.batch_size, "networks": facts, "seconds": taken},
        )


if __name__ == "__main__":
    main()
