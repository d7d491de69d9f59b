"""Random changes of training images, on the training device, with one draw per image."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Range = tuple[float, float]


class Augmentation(nn.Module):
    """Flip, rotate, scale, crop, shift, brighten and partly erase images; the identity in evaluation mode.

    All geometric changes are one bilinear resampling. torchvision's transforms would draw once per batch: they rotate
    all its images by the same angle. Draws come from torch's global generator on the device of the images.

    Args:
        flip: probability of a horizontal flip.
        rotation: maximum angle in degrees, in either direction.
        scale: range of the size factor; 1.1 enlarges by a tenth.
        crop: range of the side of a random window that is shown at full size, as a fraction of the image's side.
        shift: maximum shift in each direction, as a fraction of the side.
        brightness: maximum change of all pixels, which are in [0, 1].
        contrast: maximum change of contrast, as a fraction: 0.2 is a factor from 0.8 to 1.2.
        erase: probability that a rectangle is replaced with noise (random erasing, Zhong et al. 2020).
        erase_area: range of the rectangle's area, as a fraction of the image.

    Raises:
        ValueError: a setting is out of range.
    """

    def __init__(
        self,
        flip: float = 0.5,
        rotation: float = 0.0,
        scale: Range = (1.0, 1.0),
        crop: Range = (1.0, 1.0),
        shift: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        erase: float = 0.0,
        erase_area: Range = (0.02, 0.2),
    ) -> None:
        super().__init__()
        for name, value, high in (
            ("flip", flip, 1.0),
            ("erase", erase, 1.0),
            ("contrast", contrast, 1.0),
            ("brightness", brightness, 1.0),
            ("shift", shift, 1.0),
            ("rotation", rotation, 180.0),
        ):
            if not 0 <= value <= high:
                raise ValueError(f"{name}={value}: expected a number from 0 to {high:g}")
        for name, bounds, high in (("scale", scale, math.inf), ("crop", crop, 1.0), ("erase_area", erase_area, 1.0)):
            if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] <= high:
                raise ValueError(f"{name}={list(bounds)}: expected [low, high] with 0 < low <= high <= {high:g}")
        self.flip, self.rotation, self.shift = flip, rotation, shift
        self.scale, self.crop = (float(scale[0]), float(scale[1])), (float(crop[0]), float(crop[1]))
        self.brightness, self.contrast = brightness, contrast
        self.erase, self.erase_area = erase, (float(erase_area[0]), float(erase_area[1]))

    def forward(self, images: Tensor) -> Tensor:
        """Change images (N, C, H, W) in [0, 1], each in its own way; they stay in [0, 1]."""
        if not self.training:
            return images
        if self.flip or self.rotation or self.shift or self.scale != (1.0, 1.0) or self.crop != (1.0, 1.0):
            with torch.autocast(images.device.type, enabled=False):  # bfloat16 is too coarse for pixel positions
                images = warp(images, self._draw_maps(len(images), images.device))
        if self.brightness or self.contrast:
            images = self._change_light(images)
        return self._erase(images) if self.erase else images

    def extra_repr(self) -> str:
        """Return the settings that have an effect."""
        names = ("flip", "rotation", "scale", "crop", "shift", "brightness", "contrast", "erase")
        settings = {name: getattr(self, name) for name in names}
        return ", ".join(f"{name}={value}" for name, value in settings.items() if value not in (0, (1.0, 1.0)))

    def _draw_maps(self, n: int, device: torch.device) -> Tensor:
        zoom = 1 / _uniform(*self.crop, n, device)
        window = _uniform(-0.5, 0.5, 2 * n, device).view(n, 2) * (zoom - 1).view(n, 1)  # anywhere in the image
        return affine_maps(
            flipped=torch.rand(n, device=device) < self.flip,
            degrees=_uniform(-self.rotation, self.rotation, n, device),
            scale=_uniform(*self.scale, n, device) * zoom,
            shift=_uniform(-self.shift, self.shift, 2 * n, device).view(n, 2) + window,
        )

    def _change_light(self, images: Tensor) -> Tensor:
        n, device = len(images), images.device
        contrast = 1 + _uniform(-self.contrast, self.contrast, n, device).view(n, 1, 1, 1)
        brightness = _uniform(-self.brightness, self.brightness, n, device).view(n, 1, 1, 1)
        mean = images.mean((1, 2, 3), keepdim=True)
        return ((images - mean) * contrast + mean + brightness).clamp_(0, 1)

    def _erase(self, images: Tensor) -> Tensor:
        n, _, height, width = images.shape
        area = _uniform(*self.erase_area, n, images.device)
        aspect = _uniform(math.log(0.3), -math.log(0.3), n, images.device).exp()  # the paper's range
        erased = (torch.rand(n, device=images.device) < self.erase).view(n, 1, 1, 1)
        erased = erased & random_windows((area * aspect).sqrt(), (area / aspect).sqrt(), height, width)
        return torch.where(erased, torch.rand_like(images), images)


def affine_maps(flipped: Tensor, degrees: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return the maps (N, 2, 3) of ``warp`` that flip, then scale, then rotate about the center, then shift.

    Args:
        flipped: (N,) bool.
        degrees: (N,), clockwise.
        scale: (N,) size factors.
        shift: (N, 2) to the right and down, as fractions of the side.
    """
    angle = degrees * (math.pi / 180)
    cos, sin, sign = angle.cos() / scale, angle.sin() / scale, 1 - 2 * flipped.float()
    # The inverse: from positions in the new image to positions in the old one.
    inverse = torch.stack([torch.stack([sign * cos, sign * sin], 1), torch.stack([-sin, cos], 1)], 1)
    return torch.cat([inverse, -(inverse @ (2 * shift).unsqueeze(2))], 2)  # an image spans 2 units


def warp(images: Tensor, maps: Tensor) -> Tensor:
    """Resample each image (N, C, H, W) by its own affine map; pixels outside repeat the edge.

    Args:
        images: (N, C, H, W).
        maps: (N, 2, 3), as of ``torch.nn.functional.affine_grid``.
    """
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def random_windows(heights: Tensor, widths: Tensor, height: int, width: int) -> Tensor:
    """Return masks (N, 1, height, width) of one rectangle per image, at a random place inside it.

    Args:
        heights: (N,) fractions of the image's height, clipped at 1.
        widths: (N,) fractions of the image's width, clipped at 1.
        height: pixels.
        width: pixels.
    """
    return _random_interval(heights, height).view(-1, 1, height, 1) & _random_interval(widths, width).view(
        -1, 1, 1, width
    )


def _random_interval(lengths: Tensor, side: int) -> Tensor:
    """(N, side) bool: the pixels of an interval of ``lengths`` (N,), fractions of the side."""
    half = lengths.clamp(max=1) / 2
    center = half + torch.rand_like(half) * (1 - 2 * half)
    pixels = (torch.arange(side, device=half.device) + 0.5) / side
    return (pixels - center.unsqueeze(1)).abs() <= half.unsqueeze(1)


def _uniform(low: float, high: float, n: int, device: torch.device) -> Tensor:
    return torch.rand(n, device=device) * (high - low) + low
