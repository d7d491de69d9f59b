"""The layers of a network as plain data, for the printed table and the diagram."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fer_exp.errors import UserError
from fer_exp.plots.tables import column_widths, padded


@dataclass(frozen=True)
class Layer:
    """One module of a network that does something itself, in the order in which it is called.

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
    """Run one blank image through ``network`` and list the modules that work on it, in calling order.

    Those are its leaves, but for ``nn.Identity``, and others that have parameters or statistics of their own.

    Args:
        network: any module that takes a batch of images.
        input_shape: (channels, height, width) of one image.

    Returns:
        One entry per call of such a module. The network's mode and weights are left as they were.
    """
    layers: list[Layer] = []

    def note(name: str, module: nn.Module, output: Any) -> None:
        if not isinstance(output, Tensor):  # attention gives its weights as well
            output = next(part for part in output if isinstance(part, Tensor))
        layers.append(
            Layer(
                name=name,
                kind=type(module).__name__,
                output_shape=tuple(output.shape[1:]),
                parameters=sum(p.numel() for p in module.parameters(recurse=False) if p.requires_grad),
                buffers=sum(b.numel() for b in module.buffers(recurse=False) if b.is_floating_point()),
            )
        )

    hooks = [
        module.register_forward_hook(lambda m, _, out, name=name: note(name, m, out))
        for name, module in network.named_modules()
        if _works_itself(module)
    ]
    try:
        output_shape(network, input_shape)
    finally:
        for hook in hooks:
            hook.remove()
    return layers


def output_shape(network: nn.Module, input_shape: Sequence[int]) -> tuple[int, ...]:
    """The shape that ``network`` gives for a batch of one blank image of ``input_shape``, without the batch axis.

    Raises:
        UserError: it gives something else than a tensor.
    """
    parameter = next(network.parameters())
    with evaluating(network), torch.no_grad():
        output = network(torch.zeros(1, *input_shape, device=parameter.device, dtype=parameter.dtype))
    if not isinstance(output, Tensor):
        raise UserError(
            f"model: for faces (N, {', '.join(map(str, input_shape))}) {type(network).__name__} gives a "
            f"{type(output).__name__}; expected a tensor of logits, one for each class."
        )
    return tuple(output.shape[1:])


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put all modules in evaluation mode, and each back to its own at the end: some may be frozen in it."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def count_values(network: nn.Module) -> tuple[int, int]:
    """Number of trainable values, and of stored ones that are not trained (batch norm's running statistics)."""
    return (
        sum(p.numel() for p in network.parameters() if p.requires_grad),
        # num_batches_tracked is a counter, not a statistic: Keras has none, and it is not counted.
        sum(b.numel() for b in network.buffers() if b.is_floating_point()),
    )


def _works_itself(module: nn.Module) -> bool:
    if isinstance(module, nn.Identity):
        return False
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return bool(own) or not list(module.children())


def format_layers(layers: Sequence[Layer]) -> str:
    """The table that the notebook prints: name and kind, output shape (N stands for the batch), parameters."""
    rows = [
        (f"{layer.name} ({layer.kind})", str(("N", *layer.output_shape)).replace("'", ""), _count(layer))
        for layer in layers
    ]
    rows.insert(0, ("Layer", "Output shape", "Parameters"))
    widths = column_widths(rows)
    lines = ["  ".join(padded(row, widths, "llr")) for row in rows]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


def _count(layer: Layer) -> str:
    return f"{layer.parameters + layer.buffers:,}"
