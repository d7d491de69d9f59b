"""Augmentation against torchvision, image by image."""

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as torchvision

from fer_exp.data.augmentation import Augmentation, affine_maps, transform


@pytest.fixture
def faces():
    """(64, 1, 48, 48) in [0, 1], smooth as photographs are."""
    noise = torch.rand(64, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(noise, (48, 48), mode="bicubic").clamp(0, 1)


def inner(images, margin=12):
    return images[..., margin:-margin, margin:-margin]


def test_maps_are_those_of_torchvision(faces):
    generator = torch.Generator().manual_seed(1)
    mirrored = torch.rand(64, generator=generator) < 0.5
    degrees = torch.rand(64, generator=generator) * 60 - 30
    scale = torch.rand(64, generator=generator) * 0.3 + 1.0
    shift = torch.randint(-3, 4, (64, 2), generator=generator) / 48
    changed = transform(faces, affine_maps(mirrored, degrees, scale, shift))
    for i, face in enumerate(faces):
        expected = torchvision.affine(
            torchvision.hflip(face) if mirrored[i] else face, degrees[i].item(),
            [int(s) for s in (shift[i] * 48).round()], scale[i].item(), [0.0, 0.0], InterpolationMode.BILINEAR,
        )  # fmt: skip
        assert torch.allclose(inner(changed[i]), inner(expected), atol=1e-4)


def test_what_comes_from_outside_is_the_edge(faces):
    moved = transform(
        faces, affine_maps(torch.zeros(64) > 0, torch.zeros(64), torch.ones(64), torch.full((64, 2), 0.25))
    )
    assert torch.allclose(moved[..., 12:, 12:], faces[..., :-12, :-12], atol=1e-5)
    assert torch.allclose(moved[..., 12:, 0], faces[..., :-12, 0], atol=1e-5)


def test_a_mirror_image_is_exact(faces):
    torch.manual_seed(0)
    changed = Augmentation(flip=1.0)(faces)
    assert torch.allclose(changed, faces.flip(3), atol=1e-6)


def test_each_image_has_a_draw_of_its_own(faces):
    torch.manual_seed(0)
    same = faces[:1].expand(64, -1, -1, -1)
    for settings in (
        {"flip": 0, "rotation": 10.0}, {"flip": 0, "shift": 0.1}, {"flip": 0, "scale": (0.9, 1.1)},
        {"flip": 0, "brightness": 0.2}, {"flip": 0, "contrast": 0.2}, {"flip": 0, "erase": 1.0},
    ):  # fmt: skip
        changed = Augmentation(**settings)(same)
        assert len(changed.flatten(1).unique(dim=0)) == 64, settings
        assert changed.min() >= 0
        assert changed.max() <= 1
    assert len(Augmentation(flip=0.5)(same).mul(1e4).round().flatten(1).unique(dim=0)) == 2


def test_probabilities_are_those_asked_for(faces):
    torch.manual_seed(0)
    many = faces[:1].expand(4000, -1, -1, -1)
    flipped = (Augmentation(flip=0.25)(many) - many).abs().amax((1, 2, 3)) > 0.01
    assert flipped.float().mean() == pytest.approx(0.25, abs=0.03)
    erased = (Augmentation(flip=0, erase=0.4, erase_area=(0.1, 0.1))(many) != many).float().mean((1, 2, 3))
    assert (erased > 0).float().mean() == pytest.approx(0.4, abs=0.03)
    assert erased[erased > 0].mean() == pytest.approx(0.1, abs=0.01)


def test_shifts_and_angles_fill_their_range_evenly():
    torch.manual_seed(0)
    ramp = torch.linspace(0, 1, 48).expand(4000, 1, 48, 48)
    # The middle of a ramp tells by how much it was shifted.
    middle = Augmentation(flip=0, shift=0.25)(ramp)[:, 0, 24, 24] - ramp[0, 0, 24, 24]
    shifts = (middle * 47 / 48).numpy()
    assert np.abs(shifts).max() <= 0.2501
    counts, _ = np.histogram(shifts, bins=5, range=(-0.25, 0.25))
    assert counts / 4000 == pytest.approx(np.full(5, 0.2), abs=0.03)


def test_contrast_is_about_the_mean_and_brightness_moves_it(faces):
    torch.manual_seed(0)
    grey = 0.4 + 0.2 * faces  # nothing is cut off at 0 or 1
    contrasted = Augmentation(flip=0, contrast=0.3)(grey)
    assert torch.allclose(contrasted.mean((1, 2, 3)), grey.mean((1, 2, 3)), atol=1e-5)
    ratio = contrasted.std((1, 2, 3)) / grey.std((1, 2, 3))
    assert 0.7 <= ratio.min() < 0.8
    assert 1.2 < ratio.max() <= 1.3
    brighter = Augmentation(flip=0, brightness=0.1)(grey) - grey
    assert torch.allclose(brighter.amax((1, 2, 3)), brighter.amin((1, 2, 3)), atol=1e-6)
    assert 0.08 < brighter.max() <= 0.1


def test_in_evaluation_nothing_changes(faces):
    augmentation = Augmentation(rotation=10, shift=0.1, brightness=0.3, erase=1.0).eval()
    assert augmentation(faces) is faces


def test_the_same_seed_makes_the_same_images(faces):
    augmentation = Augmentation(rotation=10, shift=0.1, scale=(0.9, 1.1), brightness=0.2, contrast=0.2, erase=0.5)
    torch.manual_seed(3)
    first = augmentation(faces)
    torch.manual_seed(3)
    assert torch.equal(augmentation(faces), first)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"flip": 1.5}, "flip=1.5: expected a probability"),
        ({"erase": -0.1}, "erase=-0.1: expected a probability"),
        ({"rotation": -5}, "rotation=-5: expected 0 or more"),
        ({"shift": float("nan")}, "shift=nan: expected 0 or more"),
        ({"contrast": 1}, "contrast=1: expected a share"),
        ({"scale": (1.1, 0.9)}, r"scale=\[1.1, 0.9\]: expected two numbers"),
        ({"erase_area": (0.1, 2.0)}, "erase_area"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        Augmentation(**settings)
