"""Where a network looks: Grad-CAM maps of its last convolution."""

import torch
from captum.attr import LayerGradCam  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.nn import functional as F

from fer_exp.data.dataset import normalise
from fer_exp.models.summary import eval_mode, list_layers


def attention_maps(network: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Map how much each place of a face speaks for a class: Grad-CAM (Selvaraju et al. 2017, section 3).

    The channels of the last convolution with more than one place are added up, each weighted by the mean gradient of
    the class's logit with respect to it. What is positive of that is resampled to the size of the face (bilinear) and
    divided by its own maximum: maps tell where, not how much, and cannot be compared by their height.

    Args:
        network: maps normalised faces (K, 1, 48, 48) to logits (K, C). Run in evaluation mode, and left as it was.
        images: (K, 1, 48, 48) uint8, at least one; all go through the network at once.
        targets: class to explain of each image, (K,) int64.

    Returns:
        (K, 48, 48) float32 in [0, 1], on the images' device; all 0 where nothing speaks for the class.

    Raises:
        ValueError: the network has no such convolution, as a transformer.
    """
    device = next(network.parameters()).device
    with eval_mode(network):
        grad_cam = LayerGradCam(network, _last_convolution(network, images.shape[1:]))
        faces = normalise(images).to(device)
        maps = grad_cam.attribute(faces, targets.to(device), relu_attributions=True).detach()
    # A network that diverged says nothing either.
    maps = maps.float().nan_to_num(0, posinf=0)
    maps = F.interpolate(maps, images.shape[2:], mode="bilinear", align_corners=False).squeeze(1)
    highest = maps.amax(dim=(1, 2), keepdim=True)
    return (maps / highest.where(highest > 0, 1)).to(images.device)


def _last_convolution(network: nn.Module, input_shape: torch.Size) -> nn.Conv2d:
    for layer in reversed(list_layers(network, input_shape)):
        module = network.get_submodule(layer.name)
        if isinstance(module, nn.Conv2d) and max(layer.output_shape[1:]) > 1 and not _cuts_patches(module):
            return module
    raise ValueError(
        f"{type(network).__name__} has no convolution of more than 1x1 places, but for what only cuts a face into "
        "patches: Grad-CAM explains convolutional networks only"
    )


def _cuts_patches(convolution: nn.Conv2d) -> bool:
    """Whether no two kernels overlap, as in the first layer of a transformer: what it finds are not features yet."""
    sides = zip(convolution.kernel_size, convolution.stride, strict=True)
    return all(1 < kernel <= stride for kernel, stride in sides)
