"""Grad-CAM against its formulas, computed by hand."""

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fer_exp.data.dataset import normalize
from fer_exp.evaluation.pictures import gradcam_maps
from fer_exp.models.notebook_cnn import NotebookCNN

SPLIT = 5  # of the small network: its last convolution is the layer before


def images_of(count):
    return torch.randint(0, 256, (count, 1, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def small():
    """A random network with an in-place ReLU after its last convolution larger than 1x1."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(4),
        nn.Conv2d(6, 8, 3),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.AvgPool2d(5),
        nn.Flatten(),
        nn.Unflatten(1, (32, 1, 1)),
        nn.Conv2d(32, 16, 1),
        nn.Flatten(),
        nn.Tanh(),
        nn.Linear(16, 7),
    )
    network(normalize(images_of(8)))  # updates the running statistics
    return network


def by_hand(first, rest, images, targets):
    """Grad-CAM as the paper has it: equations 1 and 2."""
    features = first(normalize(images)).detach().requires_grad_()
    chosen = rest(features.clone()).gather(1, targets[:, None]).sum()
    (gradients,) = torch.autograd.grad(chosen, features)
    weights = gradients.mean((2, 3))
    maps = torch.einsum("kc,kchw->khw", weights, features.detach()).clamp(min=0)
    maps = F.interpolate(maps[:, None], (48, 48), mode="bilinear", align_corners=False)[:, 0]
    return maps / maps.amax((1, 2), keepdim=True).clamp(min=1e-30)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_maps_are_grad_cam(small, memory_format):
    images, targets = images_of(7), torch.arange(7)
    small.eval()
    expected = by_hand(small[:SPLIT], small[SPLIT:], images, targets)
    maps = gradcam_maps(small.to(memory_format=memory_format), images, targets)
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps, expected, atol=1e-5, rtol=1e-5)
    lit = maps.amax((1, 2))
    assert lit.count_nonzero() > 3
    torch.testing.assert_close(lit, (lit > 0).float())


@pytest.mark.parametrize("pool_before_relu", [True, False])
def test_the_notebook_network_is_explained_at_its_last_convolution(pool_before_relu):
    torch.manual_seed(0)
    network = NotebookCNN(pool_before_relu=pool_before_relu).eval()
    layers = OrderedDict(network.layers.named_children())
    end = list(layers).index("conv4") + 1
    images, targets = images_of(3), torch.tensor([0, 3, 6])
    expected = by_hand(network.layers[:end], network.layers[end:], images, targets)
    maps = gradcam_maps(network, images, targets)
    assert maps.shape == (3, 48, 48)
    assert maps.any()
    torch.testing.assert_close(maps, expected, atol=1e-4, rtol=1e-4)


def test_the_network_is_unchanged(small):
    small.train()
    small[1].eval()
    small[0].weight.requires_grad_(False)
    small[0].bias.grad = torch.ones(6)
    modes = [module.training for module in small.modules()]
    state = {name: value.clone() for name, value in small.state_dict().items()}
    images = images_of(2)
    first = gradcam_maps(small, images, torch.tensor([0, 1]))
    assert torch.equal(first, gradcam_maps(small, images, torch.tensor([0, 1])))  # no dropout
    assert torch.equal(images, images_of(2))
    assert [module.training for module in small.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in small.modules())
    assert all(torch.equal(value, state[name]) for name, value in small.state_dict().items())
    assert [name for name, weight in small.named_parameters() if not weight.requires_grad] == ["0.weight"]
    assert [name for name, weight in small.named_parameters() if weight.grad is not None] == ["0.bias"]
    assert torch.equal(small[0].bias.grad, torch.ones(6))


def test_frozen_weights_make_no_difference(small):
    images, targets = images_of(3), torch.tensor([0, 1, 2])
    expected = gradcam_maps(small, images, targets)
    small.requires_grad_(False)
    with torch.no_grad():
        torch.testing.assert_close(gradcam_maps(small, images, targets), expected)


@pytest.mark.parametrize("last", [0.0, float("nan"), float("inf")])
def test_no_evidence_gives_zeros(small, last):
    nn.init.constant_(small[-1].weight, last)
    assert not gradcam_maps(small, images_of(2), torch.tensor([0, 1])).any()


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 8, stride=8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.logits = nn.Linear(8, 7)

    def forward(self, x):
        return self.logits(self.block(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


@pytest.mark.parametrize(
    "network", [Transformer(), nn.Sequential(nn.Flatten(), nn.Linear(48 * 48, 7)), nn.Sequential(nn.Conv2d(1, 7, 48))]
)
def test_a_network_without_a_spatial_convolution_is_refused(network):
    network.train()
    with pytest.raises(ValueError, match=f"{type(network).__name__} has no convolution"):
        gradcam_maps(network, images_of(1), torch.tensor([0]))
    assert network.training
