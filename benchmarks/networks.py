"""Measure a training step of each network: ``python -m benchmarks.networks``.

Forward and backward pass on random images, with the default precision and memory format of a run. The networks take
turns.
"""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import (
    align,
    in_turn,
    load_before,
    make_parser,
    median_ratio,
    report,
    require_positive,
    spread,
)

if TYPE_CHECKING:
    from torch import nn

NETWORKS = "notebook_cnn,vgg_small,vgg,resnet18"
STEPS = 2  # of a turn
SHAPE = (1, 48, 48)


def build_network(choice: str) -> "nn.Module":
    """The network of ``model=CHOICE``; ``timm:NAME`` means ``model=timm model.name=NAME``."""
    from hydra import compose, initialize_config_dir

    from fer_exp.config.instantiate import build
    from fer_exp.config.schema import CONFIG_DIR

    model, _, name = choice.partition(":")
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return build(compose("train", [f"model={model}", *([f"model.name={name}"] if name else [])]), "model")


def describe(network: "nn.Module") -> dict[str, Any]:
    """Trainable parameters, and GFLOP of the forward pass of one image (a multiply-add counts as two)."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, *SHAPE))
    parameters = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    return {"parameters": parameters, "gflop": counter.get_total_flops() / 1e9}


def measure(networks: Mapping[str, "nn.Module"], batch_size: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of a step, once per round, by network. A round more is run first and discarded."""
    import torch

    from fer_exp.models.layers import use_im2col_weight_grad
    from fer_exp.training.hardware import (
        choose_accelerator,
        choose_im2col,
        choose_precision,
        retain_memory,
    )

    accelerator = choose_accelerator("auto")
    precision = choose_precision("auto", accelerator)
    if accelerator == "cpu":
        retain_memory()
    images = torch.rand(batch_size, *SHAPE, device=accelerator).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(7, (batch_size,), device=accelerator)
    for network in networks.values():
        network.train().to(accelerator, memory_format=torch.channels_last)
        if choose_im2col("auto", accelerator, precision):
            use_im2col_weight_grad(network)

    def turn(network: "nn.Module") -> float:
        start = time.perf_counter()
        for _ in range(STEPS):
            network.zero_grad()
            with torch.autocast(accelerator, torch.bfloat16, enabled=precision == "bf16-mixed"):
                loss = torch.nn.functional.cross_entropy(network(images), labels)
            loss.backward()
        loss.item()  # waits for a GPU
        return (time.perf_counter() - start) / STEPS

    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for round_ in range(rounds + 1):
        for name in in_turn(list(networks), round_):
            seconds[name].append(turn(networks[name]))
    return {name: values[1:] for name, values in seconds.items()}


def format_table(facts: Mapping[str, Mapping[str, Any]], seconds: Mapping[str, Sequence[float]]) -> str:
    """A row for each network; the last column is relative to the first network."""
    first = next(iter(seconds.values()))
    rows = [
        (
            name,
            f"{facts[name]['parameters']:,}",
            f"{facts[name]['gflop']:.2f}",
            spread(values).show(0, 1000),
            f"{median_ratio(values, first):.2f}",
        )
        for name, values in seconds.items()
    ]
    return align([("network", "parameters", "GFLOP", "step ms", "relative to the first"), *rows])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    load = load_before()
    parser = make_parser("networks", __doc__, rounds=5, on_data=False)
    parser.add_argument("--networks", default=NETWORKS, metavar="NAME,...", help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=128, help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    require_positive(parser, rounds=options.rounds, batch_size=options.batch_size)
    networks = {name: build_network(name) for name in options.networks.split(",")}
    facts = {name: describe(network) for name, network in networks.items()}
    seconds = measure(networks, options.batch_size, options.rounds)
    report(
        options.json,
        load,
        f"Batch size {options.batch_size}; median of {options.rounds} rounds [min..max]",
        format_table(facts, seconds),
        {"batch_size": options.batch_size, "networks": facts, "seconds": seconds},
    )


if __name__ == "__main__":
    main()
