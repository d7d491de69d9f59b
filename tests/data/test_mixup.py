"""Mixed images contain as much of each other as their targets say."""

import pytest
import torch

from fer_exp.data.mixup import Mixup


@pytest.fixture(params=[(1, 48), (3, 20)], ids=["gray 48", "rgb 20"])
def tagged(request):
    """512 images, each of one gray level of its own, and targets whose second class has that probability."""
    channels, size = request.param
    gray = torch.linspace(0, 1, 512)
    return gray.view(-1, 1, 1, 1).expand(-1, channels, size, size).contiguous(), torch.stack([1 - gray, gray], 1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(
    "settings", [{"mixup_alpha": 0.4}, {"cutmix_alpha": 1.0}, {"mixup_alpha": 0.4, "cutmix_alpha": 1.0}]
)
def test_targets_are_the_fraction_of_the_pixels(tagged, settings):
    images, targets = Mixup(**settings)(*tagged)
    assert torch.allclose(images.mean((1, 2, 3)), targets[:, 1], atol=1e-5)
    assert torch.allclose(targets.sum(1), torch.ones(512))
    assert not torch.allclose(targets, tagged[1], atol=0.1)


def test_cutmix_copies_one_window_of_one_other_image(tagged):
    images, _ = Mixup(cutmix_alpha=1.0)(*tagged)
    areas = []
    for image, original in zip(images, tagged[0], strict=True):
        inside = (image - original).abs().amax(0) > 1e-4
        assert len(image[:, inside].unique()) <= 1
        rows, columns = inside.any(1).nonzero(), inside.any(0).nonzero()
        if len(rows):  # the window is filled
            assert inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        areas.append(inside.float().mean().item())
    assert len(set(areas)) > 30  # one draw per image
    # Beta(1, 1) is uniform: the mean is within 4 standard errors of 1/2.
    assert sum(areas) / 512 == pytest.approx(0.5, abs=4 * (1 / 12 / 512) ** 0.5 + 0.01)


def test_mixup_weights_follow_the_beta_distribution():
    alpha = 0.4
    first = torch.tensor([[1.0, 0.0]]).expand(4096, 2)
    # Every other image has class 1, so that its probability is the weight.
    targets = torch.where(torch.arange(4096).view(-1, 1) % 2 == 0, first, first.flip(1))
    _, mixed = Mixup(mixup_alpha=alpha)(torch.zeros(4096, 1, 2, 2), targets)
    weights = mixed[::2, 1][mixed[::2, 1] > 0]  # the partner has the other class
    assert weights.mean().item() == pytest.approx(0.5, abs=0.05)
    assert weights.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_prob_is_the_fraction_of_mixed_images(tagged):
    _, targets = Mixup(cutmix_alpha=1.0, prob=0.25)(*tagged)
    assert (targets != tagged[1]).any(1).float().mean().item() == pytest.approx(0.25, abs=0.08)


def test_both_kinds_have_equal_probability(tagged):
    images, targets = Mixup(mixup_alpha=1.0, cutmix_alpha=1.0)(*tagged)
    changed = (targets != tagged[1]).any(1)
    is_constant = (images.flatten(1) == images[:, 0, 0, :1]).all(1)  # mixup of constant images is constant
    assert (is_constant & changed).float().sum().item() / changed.sum().item() == pytest.approx(0.5, abs=0.1)


def test_evaluation_mode_mixes_nothing(tagged):
    images, targets = Mixup(mixup_alpha=0.4).eval()(*tagged)
    assert images is tagged[0]
    assert targets is tagged[1]


@pytest.mark.parametrize("settings", [{}, {"mixup_alpha": -1.0}, {"cutmix_alpha": 1.0, "prob": 2.0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match="expected"):
        Mixup(**settings)
