"""Grad-CAM maps of a network's last convolution."""

import torch
from captum.attr import LayerGradCam  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.nn import functional as F

from fer_exp.data.dataset import normalise
from fer_exp.models.summary import eval_mode, list_layers


def gradcam_maps(network: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Compute how much each location of an image supports a class: Grad-CAM (Selvaraju et al. 2017, section 3).

    The channels of the last convolution whose output is larger than 1x1 are summed, weighted by the mean gradient of
    the class's logit. The positive part is resized to the image (bilinear) and divided by its maximum, so that values
    of different images cannot be compared.

    Args:
        network: maps normalised images (K, C, S, S) to logits. It runs in evaluation mode and is left unchanged.
        images: (K, C, S, S) uint8, K > 0.
        targets: the class to explain for each image, (K,) int64.

    Returns:
        (K, S, S) float32 in [0, 1], on the images' device; 0 everywhere if nothing supports the class.

    Raises:
        ValueError: the network has no such convolution, for example a transformer.
    """
    device = next(network.parameters()).device
    with eval_mode(network):
        grad_cam = LayerGradCam(network, _last_convolution(network, images.shape[1:]))
        maps = grad_cam.attribute(normalise(images).to(device), targets.to(device), relu_attributions=True).detach()
    maps = maps.float().nan_to_num(0, posinf=0)  # a diverged network
    maps = F.interpolate(maps, images.shape[2:], mode="bilinear", align_corners=False).squeeze(1)
    highest = maps.amax(dim=(1, 2), keepdim=True)
    return (maps / highest.where(highest > 0, 1)).to(images.device)


def _last_convolution(network: nn.Module, image_shape: torch.Size) -> nn.Conv2d:
    for layer in reversed(list_layers(network, image_shape)):
        module = network.get_submodule(layer.name)
        if isinstance(module, nn.Conv2d) and max(layer.output_shape[1:]) > 1 and not _is_patch_embedding(module):
            return module
    raise ValueError(f"{type(network).__name__} has no convolution with an output larger than 1x1 to explain")


def _is_patch_embedding(convolution: nn.Conv2d) -> bool:
    """Whether kernels do not overlap, as in the first layer of a vision transformer."""
    sides = zip(convolution.kernel_size, convolution.stride, strict=True)
    return all(1 < kernel <= stride for kernel, stride in sides)
