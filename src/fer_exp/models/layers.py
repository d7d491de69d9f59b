"""The layers of a network as plain data, for the printed table and the diagram."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Layer:
    """One leaf module of a network, in the order in which it is called.

    Attributes:
        name: dotted path in the network, e.g. ``features.conv1``.
        kind: class name, e.g. ``Conv2d``.
        output_shape: shape of the output without the batch axis, e.g. ``(64, 48, 48)``.
        parameters: number of trainable parameters.
        buffers: number of values that are stored but not trained (batch norm's running statistics).
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    buffers: int


def list_layers(network: nn.Module, input_shape: Sequence[int]) -> list[Layer]:
    """Run one blank image through ``network`` and list its leaf modules in calling order.

    Args:
        network: any module that takes a batch of images.
        input_shape: (channels, height, width) of one image.

    Returns:
        One entry per call of a leaf module. The network's mode and weights are left as they were.
    """
    layers: list[Layer] = []

    def note(name: str, module: nn.Module, output: Tensor) -> None:
        layers.append(
            Layer(
                name=name,
                kind=type(module).__name__,
                output_shape=tuple(output.shape[1:]),
                parameters=sum(p.numel() for p in module.parameters() if p.requires_grad),
                # num_batches_tracked is a counter, not a statistic: Keras has none, and it is not counted.
                buffers=sum(b.numel() for b in module.buffers() if b.is_floating_point()),
            )
        )

    hooks = [
        module.register_forward_hook(lambda m, _, out, name=name: note(name, m, out))
        for name, module in network.named_modules()
        if not list(module.children())
    ]
    parameter = next(network.parameters())
    was_training = network.training
    try:
        network.eval()
        with torch.no_grad():
            network(torch.zeros(1, *input_shape, device=parameter.device, dtype=parameter.dtype))
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return layers


def format_layers(layers: Sequence[Layer]) -> str:
    """The table that the notebook prints: name and kind, output shape (N stands for the batch), parameters."""
    rows = [
        (f"{layer.name} ({layer.kind})", str(("N", *layer.output_shape)).replace("'", ""), _count(layer))
        for layer in layers
    ]
    header = ("Layer", "Output shape", "Parameters")
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}" for a, b, c in (header, *rows)]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


def _count(layer: Layer) -> str:
    return f"{layer.parameters + layer.buffers:,}"
