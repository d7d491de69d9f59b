"""Mixed faces hold as much of one another as their labels say."""

import pytest
import torch

from fer_exp.data.mixup import Mixing


@pytest.fixture
def tagged():
    """512 images, each all of one grey of its own, and targets that are as large a share of class 1."""
    grey = torch.linspace(0, 1, 512)
    return grey.view(-1, 1, 1, 1).expand(-1, 1, 48, 48).contiguous(), torch.stack([1 - grey, grey], 1)


@pytest.mark.parametrize("settings", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_the_label_is_the_share_of_the_pixels(tagged, settings):
    torch.manual_seed(0)
    images, targets = Mixing(**settings)(*tagged)
    assert torch.allclose(images.mean((1, 2, 3)), targets[:, 1], atol=1e-5)
    assert torch.allclose(targets.sum(1), torch.ones(512))
    assert not torch.allclose(targets, tagged[1], atol=0.1)


def test_cutmix_puts_in_one_window_of_one_other_image(tagged):
    torch.manual_seed(0)
    images, _ = Mixing(cutmix=1.0)(*tagged)
    areas = []
    for image, original in zip(images[:, 0], tagged[0][:, 0], strict=True):
        inside = (image - original).abs() > 1e-4
        assert len(image[inside].unique()) <= 1
        rows, columns = inside.any(1).nonzero(), inside.any(0).nonzero()
        if len(rows):  # the window is filled
            assert inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        areas.append(inside.float().mean().item())
    assert len(set(areas)) > 50  # each image has a draw of its own
    # Beta(1, 1) is uniform; the sample's mean is within 4 standard errors of its 1/2.
    assert sum(areas) / 512 == pytest.approx(0.5, abs=4 * (1 / 12 / 512) ** 0.5 + 0.01)


def test_shares_of_mixup_are_those_of_the_beta_distribution(tagged):
    torch.manual_seed(0)
    alpha = 0.4
    black_and_white = torch.zeros(4096, 1, 2, 2)
    first = torch.cat([torch.ones(4096, 1), torch.zeros(4096, 1)], 1)
    # Every other image is of class 1, so that what is seen of it is its share.
    targets = torch.where(torch.arange(4096).view(-1, 1) % 2 == 0, first, first.flip(1))
    _, mixed = Mixing(mixup=alpha)(black_and_white, targets)
    share = mixed[::2, 1][mixed[::2, 1] > 0]  # of those whose partner is of the other class
    assert share.mean().item() == pytest.approx(0.5, abs=0.05)
    assert share.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_a_share_of_the_images_is_mixed(tagged):
    torch.manual_seed(0)
    _, targets = Mixing(cutmix=1.0, share=0.25)(*tagged)
    assert (targets != tagged[1]).any(1).float().mean().item() == pytest.approx(0.25, abs=0.08)


def test_both_kinds_have_an_equal_chance(tagged):
    torch.manual_seed(0)
    images, targets = Mixing(mixup=1.0, cutmix=1.0)(*tagged)
    changed = (targets != tagged[1]).any(1)
    one_grey = (images.flatten(1) == images[:, 0, 0, :1]).all(1)  # mixup of plain greys is a plain grey
    assert (one_grey & changed).float().sum().item() / changed.sum().item() == pytest.approx(0.5, abs=0.1)


def test_nothing_is_mixed_in_evaluation(tagged):
    images, targets = Mixing(mixup=0.4).eval()(*tagged)
    assert images is tagged[0]
    assert targets is tagged[1]


@pytest.mark.parametrize("settings", [{}, {"mixup": -1.0}, {"cutmix": 1.0, "share": 2.0}])
def test_what_mixes_nothing_is_refused(settings):
    with pytest.raises(ValueError, match="expected"):
        Mixing(**settings)
