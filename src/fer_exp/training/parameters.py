"""The parameters of a network: the last layer and the layers before it, and the groups that an optimizer gets."""

from collections.abc import Collection, Iterable
from typing import Any

from torch import nn

from fer_exp.errors import UserError


def find_backbone(network: nn.Module, num_classes: int) -> tuple[list[nn.Parameter], list[nn.Module]]:
    """The trainable parameters outside the last layer, and the modules outside it that are in training mode.

    The last layer is the last module of the network that has an output for each class.

    Raises:
        UserError: there is no such layer.
    """
    for head in reversed([*network.modules()]):
        if num_classes in (getattr(head, "out_features", None), getattr(head, "out_channels", None)):
            own_parameters, own_modules = {*head.parameters()}, {*head.modules()}
            return (
                [each for each in network.parameters() if each.requires_grad and each not in own_parameters],
                [each for each in network.modules() if each.training and each not in own_modules],
            )
    raise UserError(
        f"{type(network).__name__} has no last layer with {num_classes} outputs, which head_epochs and "
        "backbone_lr_factor need"
    )


def parameter_groups(
    parameters: Iterable[nn.Parameter], weight_decay_exclude_1d: bool, backbone: Collection[nn.Parameter] = ()
) -> list[dict[str, Any]]:
    """The groups of the trainable parameters, for an optimizer.

    Args:
        parameters: of the network, and of a loss that has parameters.
        weight_decay_exclude_1d: make a group of its own, without weight decay, for biases and norm weights.
        backbone: those that get groups of their own, with the entry ``is_backbone``. They come last: ``lr`` is the
            learning rate of the first group.
    """
    others = {*backbone}
    own = [parameter for parameter in parameters if parameter.requires_grad and parameter not in others]
    groups: list[dict[str, Any]] = [{"params": own}]
    if backbone:
        groups.append({"params": list(backbone), "is_backbone": True})
    if not weight_decay_exclude_1d:
        return groups
    split = []
    for group in groups:
        kernels = [parameter for parameter in group["params"] if parameter.dim() > 1]
        vectors = [parameter for parameter in group["params"] if parameter.dim() <= 1]
        split += [group | {"params": kernels}, group | {"params": vectors, "weight_decay": 0.0}]
    return split
