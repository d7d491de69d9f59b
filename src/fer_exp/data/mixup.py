"""Mixup and CutMix, with one draw per image."""

import torch
from torch import Tensor, nn
from torch.distributions import Beta

from fer_exp.data.augmentation import random_windows


class Mixup(nn.Module):
    """Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019); the identity in evaluation mode.

    Each image is mixed with another image of its batch. Mixup blends the two, CutMix copies a rectangle of the other
    image. With both, each image gets one of them with equal probability. Draws come from torch's global generator.

    Args:
        mixup_alpha: mixing weights of mixup are drawn from Beta(alpha, alpha); 0 disables it.
        cutmix_alpha: the same for the areas of CutMix.
        prob: probability that an image is mixed.

    Raises:
        ValueError: a setting is out of range, or both kinds are disabled.
    """

    def __init__(self, mixup_alpha: float = 0.0, cutmix_alpha: float = 0.0, prob: float = 1.0) -> None:
        super().__init__()
        if mixup_alpha < 0 or cutmix_alpha < 0 or mixup_alpha == cutmix_alpha == 0:
            raise ValueError(
                f"mixup_alpha={mixup_alpha}, cutmix_alpha={cutmix_alpha}: expected numbers >= 0, one of them > 0"
            )
        if not 0 <= prob <= 1:
            raise ValueError(f"prob={prob}: expected a probability in [0, 1]")
        self.mixup_alpha, self.cutmix_alpha, self.prob = mixup_alpha, cutmix_alpha, prob

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"mixup_alpha={self.mixup_alpha}, cutmix_alpha={self.cutmix_alpha}, prob={self.prob}"

    def forward(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mix images (N, C, H, W) and their targets (N, K), which are probabilities."""
        if not self.training:
            return images, targets
        n, device = len(images), images.device
        other = torch.randperm(n, device=device)
        is_mixed = torch.rand(n, device=device) < self.prob
        mixup_prob = 0.5 if self.mixup_alpha and self.cutmix_alpha else float(self.mixup_alpha > 0)
        by_mixup = torch.rand(n, device=device) < mixup_prob
        weight = torch.zeros(n, 1, *images.shape[2:], device=device)  # of the other image's pixels
        if self.mixup_alpha:
            blend = (1 - _beta(self.mixup_alpha, n, device)).view(n, 1, 1, 1)
            weight = torch.where((is_mixed & by_mixup).view(n, 1, 1, 1), blend, weight)
        if self.cutmix_alpha:
            side = (1 - _beta(self.cutmix_alpha, n, device)).sqrt()
            window = random_windows(side, side, *images.shape[2:]).to(weight.dtype)
            weight = torch.where((is_mixed & ~by_mixup).view(n, 1, 1, 1), window, weight)
        # The targets follow the pixels: a window has whole pixels, so its area differs a little from the draw.
        fraction = weight.mean((1, 2, 3)).view(n, 1)
        return torch.lerp(images, images[other], weight.expand_as(images)), torch.lerp(
            targets, targets[other], fraction
        )


def _beta(alpha: float, n: int, device: torch.device) -> Tensor:
    concentration = torch.full((n,), float(alpha), device=device)
    # Argument validation would wait for the device.
    return Beta(concentration, concentration, validate_args=False).sample()
