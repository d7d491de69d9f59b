"""Random changes of training faces: a draw of its own for each image, all images of a batch at once."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Augmentation(nn.Module):
    """Flips, rotates, scales, shifts, lights and partly covers faces; in evaluation it returns them as they are.

    All geometry is one bilinear resampling, so that an image is blurred once, whatever is done to it. Draws come from
    torch's global generator on the images' device: they are a function of the seed and the epoch, as dropout's are.
    (The transforms of torchvision draw once a call, so that all faces of a batch would be turned by the same angle.)

    Args:
        flip: probability of a mirror image, left for right.
        rotation: the largest angle, in degrees, either way.
        scale: the smallest and the largest factor of size; 1.1 shows a face a tenth larger.
        crop: the smallest and the largest side of a window that is cut out anywhere and shown at full size, as a share
            of the side; 0.9 is 43 of 48 pixels.
        shift: the largest way across and along, as a share of the side, in either direction.
        brightness: the largest amount added to or taken from all pixels, which lie in [0, 1].
        contrast: the largest change of the distance of pixels from their image's mean, as a share: 0.2 is 0.8 to 1.2.
        erase: probability that a rectangle is covered with noise (Zhong et al. 2020, random erasing).
        erase_area: the smallest and the largest share of the image that it covers.

    Raises:
        ValueError: a probability is not in [0, 1], an extent is negative, or a range is not one.
    """

    def __init__(
        self,
        flip: float = 0.5,
        rotation: float = 0.0,
        scale: tuple[float, float] = (1.0, 1.0),
        crop: tuple[float, float] = (1.0, 1.0),
        shift: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        erase: float = 0.0,
        erase_area: tuple[float, float] = (0.02, 0.2),
    ) -> None:
        super().__init__()
        for name, value in (("flip", flip), ("erase", erase)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value}: expected a probability in [0, 1]")
        for name, value in (("rotation", rotation), ("shift", shift), ("brightness", brightness)):
            if not value >= 0:
                raise ValueError(f"{name}={value}: expected 0 or more")
        if not 0 <= contrast < 1:
            raise ValueError(f"contrast={contrast}: expected a share in [0, 1)")
        for name, span, most in (
            ("scale", scale, math.inf),
            ("crop", crop, 1.0),
            ("erase_area", erase_area, 1.0),
        ):
            if len(span) != 2 or not 0 < span[0] <= span[1] <= most:
                reach = "" if most == math.inf else f" and up to {most:.0f}"
                raise ValueError(f"{name}={list(span)}: expected two numbers above 0{reach}, the smaller first")
        self.flip, self.rotation, self.shift = flip, rotation, shift
        self.scale, self.crop = (float(scale[0]), float(scale[1])), (float(crop[0]), float(crop[1]))
        self.brightness, self.contrast = brightness, contrast
        self.erase, self.erase_area = erase, (float(erase_area[0]), float(erase_area[1]))

    def forward(self, images: Tensor) -> Tensor:
        """Change faces (N, 1, H, W) in [0, 1], each in its own way; their values stay in [0, 1]."""
        if not self.training:
            return images
        if self.flip or self.rotation or self.shift or self.scale != (1.0, 1.0) or self.crop != (1.0, 1.0):
            with torch.autocast(images.device.type, enabled=False):  # bfloat16 would place pixels a tenth off
                images = transform(images, self._draw_maps(len(images), images.device))
        if self.brightness or self.contrast:
            images = self._light(images)
        return self._erase(images) if self.erase else images

    def extra_repr(self) -> str:
        """Show what is changed, and how much."""
        settings = {
            "flip": self.flip, "rotation": self.rotation, "scale": self.scale, "crop": self.crop, "shift": self.shift,
            "brightness": self.brightness, "contrast": self.contrast, "erase": self.erase,
        }  # fmt: skip
        return ", ".join(f"{name}={value}" for name, value in settings.items() if value not in (0, (1.0, 1.0)))

    def _draw_maps(self, n: int, device: torch.device) -> Tensor:
        zoom = 1 / _between(*self.crop, n, device)
        window = _between(-0.5, 0.5, 2 * n, device).view(n, 2) * (zoom - 1).view(n, 1)  # anywhere within the image
        return affine_maps(
            mirrored=torch.rand(n, device=device) < self.flip,
            degrees=_between(-self.rotation, self.rotation, n, device),
            scale=_between(*self.scale, n, device) * zoom,
            shift=_between(-self.shift, self.shift, 2 * n, device).view(n, 2) + window,
        )

    def _light(self, images: Tensor) -> Tensor:
        n, device = len(images), images.device
        contrast = 1 + _between(-self.contrast, self.contrast, n, device).view(n, 1, 1, 1)
        brightness = _between(-self.brightness, self.brightness, n, device).view(n, 1, 1, 1)
        mean = images.mean((1, 2, 3), keepdim=True)
        return ((images - mean) * contrast + mean + brightness).clamp_(0, 1)

    def _erase(self, images: Tensor) -> Tensor:
        n, _, height, width = images.shape
        device = images.device
        area = _between(*self.erase_area, n, device)
        stretch = _between(math.log(0.3), -math.log(0.3), n, device).exp()  # height to width, as in the paper
        covered = (torch.rand(n, device=device) < self.erase).view(n, 1, 1, 1)
        covered = covered & windows((area * stretch).sqrt(), (area / stretch).sqrt(), height, width)
        return torch.where(covered, torch.rand_like(images), images)


def affine_maps(mirrored: Tensor, degrees: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Maps for ``transform`` that mirror, then scale, then turn about the centre, then shift.

    Args:
        mirrored: (N,) bool.
        degrees: (N,), clockwise.
        scale: (N,), factors of size.
        shift: (N, 2), to the right and down, as shares of the side.
    """
    angle = degrees * (math.pi / 180)
    cos, sin, side = angle.cos() / scale, angle.sin() / scale, 1 - 2 * mirrored.float()
    # From a place in the new image to its place in the old one, thus all the other way round.
    back = torch.stack([torch.stack([side * cos, side * sin], 1), torch.stack([-sin, cos], 1)], 1)
    return torch.cat([back, -(back @ (2 * shift).unsqueeze(2))], 2)  # an image is 2 wide


def transform(images: Tensor, maps: Tensor) -> Tensor:
    """Resample each image by a map of its own; what comes from outside is the nearest pixel of its edge.

    Args:
        images: (N, C, H, W).
        maps: (N, 2, 3), each taking (x, y, 1) of a place in the new image to (x, y) in the old one, where the image
            reaches from -1 to 1 both ways (as in ``torch.nn.functional.affine_grid``).
    """
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def windows(heights: Tensor, widths: Tensor, height: int, width: int) -> Tensor:
    """(N, 1, height, width) bool: a rectangle in each image, drawn anywhere so that it lies wholly in it.

    Args:
        heights: (N,), shares of the image's height; more than 1 is taken for 1.
        widths: (N,), the same across.
        height: of the images, in pixels.
        width: the same across.
    """
    return _inside(heights, height).view(-1, 1, height, 1) & _inside(widths, width).view(-1, 1, 1, width)


def _between(low: float, high: float, n: int, device: torch.device) -> Tensor:
    """(n,) draws, uniform from ``low`` to ``high``."""
    return torch.rand(n, device=device) * (high - low) + low


def _inside(length: Tensor, side: int) -> Tensor:
    """(N, side): which pixels of a side lie in an interval of ``length`` (N,), a share, drawn so that it fits in."""
    half = length.clamp(max=1) / 2
    centre = half + torch.rand_like(half) * (1 - 2 * half)
    pixels = (torch.arange(side, device=half.device) + 0.5) / side
    return (pixels - centre.unsqueeze(1)).abs() <= half.unsqueeze(1)
