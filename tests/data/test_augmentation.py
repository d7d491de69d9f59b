"""Augmentation against torchvision, image by image."""

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as torchvision

from fer_exp.data.augmentation import Augmentation, affine_maps, warp


@pytest.fixture(params=[(1, 48), (3, 64)], ids=["gray 48", "rgb 64"])
def images(request):
    """(64, C, S, S) in [0, 1], smooth as photographs are."""
    channels, size = request.param
    noise = torch.rand(64, channels, size // 4, size // 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(noise, (size, size), mode="bicubic").clamp(0, 1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def inner(images, margin=12):
    return images[..., margin:-margin, margin:-margin]


def test_maps_are_those_of_torchvision(images):
    size = images.shape[-1]
    flipped = torch.rand(64) < 0.5
    degrees = torch.rand(64) * 60 - 30
    scale = torch.rand(64) * 0.3 + 1.0
    shift = torch.randint(-3, 4, (64, 2)) / size
    changed = warp(images, affine_maps(flipped, degrees, scale, shift))
    for i, image in enumerate(images):
        expected = torchvision.affine(
            torchvision.hflip(image) if flipped[i] else image, degrees[i].item(),
            [int(s) for s in (shift[i] * size).round()], scale[i].item(), [0.0, 0.0], InterpolationMode.BILINEAR,
        )  # fmt: skip
        assert torch.allclose(inner(changed[i]), inner(expected), atol=1e-4)


def test_pixels_from_outside_repeat_the_edge(images):
    quarter = images.shape[-1] // 4
    maps = affine_maps(torch.zeros(64) > 0, torch.zeros(64), torch.ones(64), torch.full((64, 2), 0.25))
    moved = warp(images, maps)
    assert torch.allclose(moved[..., quarter:, quarter:], images[..., :-quarter, :-quarter], atol=1e-5)
    assert torch.allclose(moved[..., quarter:, 0], images[..., :-quarter, 0], atol=1e-5)


def test_flip_is_exact(images):
    assert torch.allclose(Augmentation(flip=1.0)(images), images.flip(3), atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"rotation": 10.0},
        {"shift": 0.1},
        {"scale": (0.9, 1.1)},
        {"crop": (0.7, 0.9)},
        {"brightness": 0.2},
        {"contrast": 0.2},
        {"erase": 1.0},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_each_image_gets_its_own_draw(images, settings):
    changed = Augmentation(flip=0, **settings)(images[:1].expand(64, -1, -1, -1))
    assert len(changed.flatten(1).unique(dim=0)) == 64
    assert changed.min() >= 0
    assert changed.max() <= 1


def test_probabilities_and_areas_are_as_set(images):
    many = images[:1].expand(2000, -1, -1, -1)
    flipped = (Augmentation(flip=0.25)(many) - many).abs().amax((1, 2, 3)) > 0.01
    assert flipped.float().mean() == pytest.approx(0.25, abs=0.04)
    erased = (Augmentation(flip=0, erase=0.4, erase_area=(0.1, 0.1))(many) != many).float().mean((1, 2, 3))
    assert (erased > 0).float().mean() == pytest.approx(0.4, abs=0.04)
    assert erased[erased > 0].mean() == pytest.approx(0.1, abs=0.01)


def test_shifts_fill_their_range_evenly():
    ramp = torch.linspace(0, 1, 48).expand(4000, 1, 48, 48)
    # The value at the center of a ramp shows the shift.
    center = Augmentation(flip=0, shift=0.25)(ramp)[:, 0, 24, 24] - ramp[0, 0, 24, 24]
    shifts = (center * 47 / 48).numpy()
    assert np.abs(shifts).max() <= 0.2501
    counts, _ = np.histogram(shifts, bins=5, range=(-0.25, 0.25))
    assert counts / 4000 == pytest.approx(np.full(5, 0.2), abs=0.03)


def test_contrast_keeps_the_mean_and_brightness_moves_it(images):
    gray = 0.4 + 0.2 * images  # nothing is clipped
    contrasted = Augmentation(flip=0, contrast=0.3)(gray)
    assert torch.allclose(contrasted.mean((1, 2, 3)), gray.mean((1, 2, 3)), atol=1e-5)
    ratio = contrasted.std((1, 2, 3)) / gray.std((1, 2, 3))
    assert 0.7 <= ratio.min() < 0.8
    assert 1.2 < ratio.max() <= 1.3
    brighter = Augmentation(flip=0, brightness=0.1)(gray) - gray
    assert torch.allclose(brighter.amax((1, 2, 3)), brighter.amin((1, 2, 3)), atol=1e-6)
    assert 0.08 < brighter.max() <= 0.1


def test_evaluation_mode_changes_nothing(images):
    augmentation = Augmentation(rotation=10, shift=0.1, brightness=0.3, erase=1.0).eval()
    assert augmentation(images) is images


def test_same_seed_gives_the_same_images(images):
    augmentation = Augmentation(rotation=10, shift=0.1, scale=(0.9, 1.1), brightness=0.2, contrast=0.2, erase=0.5)
    torch.manual_seed(3)
    first = augmentation(images)
    torch.manual_seed(3)
    assert torch.equal(augmentation(images), first)


@pytest.mark.parametrize(
    "settings",
    [
        {"flip": 1.5},
        {"erase": -0.1},
        {"rotation": -5},
        {"shift": float("nan")},
        {"contrast": 2},
        {"scale": (1.1, 0.9)},
        {"crop": (0.5, 1.1)},
        {"erase_area": (0.1, 2.0)},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Augmentation(**settings)
