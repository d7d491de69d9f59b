"""Faces mixed with one another, and their labels with them."""

import torch
from torch import Tensor, nn
from torch.distributions import Beta

from fer_exp.data.augmentation import windows


class Mixing(nn.Module):
    """Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019), with a draw of its own for each image.

    Each image is mixed with another one of its batch. Mixup lays the other one over it, CutMix puts a rectangle of the
    other one into it; where both are asked for, each image has one of them, with equal chance. In evaluation nothing
    is mixed. Draws come from torch's global generator.

    Args:
        mixup: alpha of the Beta(alpha, alpha) that the shares of mixup are drawn from; 0 for none.
        cutmix: the same for CutMix.
        share: probability that an image is mixed at all.

    Raises:
        ValueError: an alpha is negative, both are 0, or ``share`` is not in [0, 1].
    """

    def __init__(self, mixup: float = 0.0, cutmix: float = 0.0, share: float = 1.0) -> None:
        super().__init__()
        if mixup < 0 or cutmix < 0 or mixup == cutmix == 0:
            raise ValueError(f"mixup={mixup}, cutmix={cutmix}: expected 0 or more, and one of them more than 0")
        if not 0 <= share <= 1:
            raise ValueError(f"share={share}: expected a probability in [0, 1]")
        self.mixup, self.cutmix, self.share = mixup, cutmix, share

    def extra_repr(self) -> str:
        """Show how faces are mixed."""
        return f"mixup={self.mixup}, cutmix={self.cutmix}, share={self.share}"

    def forward(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mix faces (N, 1, H, W) and their targets (N, C), which are probabilities."""
        if not self.training:
            return images, targets
        n, device = len(images), images.device
        other = torch.randperm(n, device=device)
        mixed = torch.rand(n, device=device) < self.share
        by_mixup = torch.rand(n, device=device) < (0.5 if self.mixup and self.cutmix else float(self.mixup > 0))
        weight = torch.zeros(n, *images.shape[1:], device=device)  # of the other image, pixel by pixel
        if self.mixup:
            faded = (1 - _beta(self.mixup, n, device)).view(n, 1, 1, 1)
            weight = torch.where((mixed & by_mixup).view(n, 1, 1, 1), faded, weight)
        if self.cutmix:
            side = (1 - _beta(self.cutmix, n, device)).sqrt()  # of a window with the image's proportions
            window = windows(side, side, images.shape[2], images.shape[3]).to(weight.dtype)
            weight = torch.where((mixed & ~by_mixup).view(n, 1, 1, 1), window, weight)
        # What an image lost is what its pixels lost: a window holds whole pixels.
        share = weight.mean((1, 2, 3)).view(n, 1)
        return torch.lerp(images, images[other], weight), torch.lerp(targets, targets[other], share)


def _beta(alpha: float, n: int, device: torch.device) -> Tensor:
    concentration = torch.full((n,), float(alpha), device=device)
    # Unchecked: the check would wait for the device.
    return Beta(concentration, concentration, validate_args=False).sample()
