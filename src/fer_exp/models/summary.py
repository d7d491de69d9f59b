"""The layers of a network as plain data, for the printed summary and the diagram."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fer_exp.errors import UserError, join_first

_MAX_LINES = 30  # of the printed list of layers


@dataclass(frozen=True)
class Layer:
    """One call of a module that computes something itself.

    Attributes:
        name: dotted path in the network, e.g. ``layers.conv1``.
        kind: class name, e.g. ``Conv2d``.
        output_shape: shape of the output without the batch axis, e.g. ``(64, 48, 48)``.
        trainable: number of trainable parameters.
        fixed: number of stored values that are not trained: frozen parameters, running statistics of batch norm.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    trainable: int
    fixed: int


def list_layers(network: nn.Module, image_shape: Sequence[int]) -> list[Layer]:
    """Run one blank image through ``network`` and list the modules that compute something, in calling order.

    These are the leaves except ``nn.Identity``, and other modules with parameters or buffers of their own. Of several
    outputs, the first tensor counts; a module without one is not listed.

    Args:
        network: any module that takes a batch of images. Its mode and weights do not change.
        image_shape: (C, H, W).
    """
    layers: list[Layer] = []

    def record(name: str, module: nn.Module, output: Any) -> None:
        many = output.values() if isinstance(output, Mapping) else output
        parts = many if isinstance(many, Iterable) and not isinstance(many, Tensor) else [many]
        first = next((part for part in parts if isinstance(part, Tensor)), None)
        if first is not None:
            own = list(module.parameters(recurse=False))
            trainable = sum(p.numel() for p in own if p.requires_grad)
            fixed = sum(p.numel() for p in own) - trainable + _count_own_buffers(module)
            layers.append(Layer(name, type(module).__name__, tuple(first.shape[1:]), trainable, fixed))

    hooks = [
        module.register_forward_hook(lambda m, _, out, name=name: record(name, m, out))
        for name, module in network.named_modules()
        if not isinstance(module, nn.Identity)
        and (not list(module.children()) or list(module.parameters(recurse=False)) or _count_own_buffers(module))
    ]
    try:
        output_shape(network, image_shape)
    finally:
        for hook in hooks:
            hook.remove()
    return layers


def output_shape(network: nn.Module, image_shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of ``network``'s output for one blank image, without the batch axis.

    Raises:
        UserError: the network does not accept such images, or does not return a tensor.
    """
    parameter = next(network.parameters())
    given = f"model: {type(network).__name__}, called with images of shape (N, {', '.join(map(str, image_shape))}),"
    try:
        with eval_mode(network), torch.no_grad():
            output = network(torch.zeros(1, *image_shape, device=parameter.device, dtype=parameter.dtype))
    except (RuntimeError, AssertionError, ValueError) as error:
        hint = "; it needs data.color=rgb" if image_shape[0] == 1 and "3 channels" in str(error) else ""
        raise UserError(f"{given} fails: {error}{hint}") from error
    if not isinstance(output, Tensor):
        raise UserError(f"{given} returns a {type(output).__name__}; expected a tensor of logits (N, classes).")
    return tuple(output.shape[1:])


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Set all modules to evaluation mode; at the end, restore the mode of each: some may be frozen in it."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def count_parameters(network: nn.Module) -> tuple[int, int]:
    """Number of trainable parameters, and of stored values that are not trained (as Keras counts them)."""
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in network.parameters()) - trainable
    return trainable, frozen + sum(_count_own_buffers(module) for module in network.modules())


def _count_own_buffers(module: nn.Module) -> int:
    """Values in buffers that checkpoints hold. ``num_batches_tracked`` is an integer counter and does not count."""
    names = module._non_persistent_buffers_set
    buffers = module.named_buffers(recurse=False)
    return sum(b.numel() for name, b in buffers if b.is_floating_point() and name not in names)


def format_layers(layers: Sequence[Layer]) -> str:
    """One line per layer with parameters: name, kind, output shape and number of parameters. Long lists are cut."""
    rows = [
        (layer.name.rpartition(".")[2], layer.kind, " x ".join(map(str, layer.output_shape)), total)
        for layer in layers
        if (total := layer.trainable + layer.fixed)
    ]
    widths = [max((len(str(row[i])) for row in rows), default=0) for i in range(3)]
    lines = [f"  {a:{widths[0]}}  {b:{widths[1]}}  {c:>{widths[2]}}  {n:>9,}" for a, b, c, n in rows]
    return join_first(lines, _MAX_LINES, "\n", "\n  and {} more layers: see model.png")
