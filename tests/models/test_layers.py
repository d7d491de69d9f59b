"""The list of layers counts every parameter once, whatever a network is built of."""

import pytest
import torch
from torch import nn

from fer_exp.models.layers import count_values, evaluating, list_layers
from fer_exp.models.notebook_cnn import NotebookCNN
from fer_exp.models.resnet import ResNet18
from fer_exp.models.timm_model import TimmNetwork


class Attention(nn.Module):
    """A module with a parameter of its own, and one that returns a tuple and calls its last layer by no method."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 48))
        self.attention = nn.MultiheadAttention(48, 2, batch_first=True)
        self.logits = nn.Linear(48, 7)

    def forward(self, x):
        rows = torch.cat([self.token.expand(len(x), -1, -1), x.squeeze(1)], 1)
        return self.logits(self.attention(rows, rows, rows)[0][:, 0])


@pytest.mark.parametrize(
    "make",
    [NotebookCNN, ResNet18, lambda: TimmNetwork("mobilenetv3_small_050"), lambda: TimmNetwork("test_vit")],
    ids=["notebook_cnn", "resnet18", "batch norm with an activation", "transformer"],
)
def test_all_parameters_and_statistics_are_counted_once(make):
    network = make()
    layers = list_layers(network, (1, 48, 48))
    counts = sum(layer.parameters for layer in layers), sum(layer.buffers for layer in layers)
    assert counts == count_values(network)
    assert counts[0] == sum(p.numel() for p in network.parameters())


def test_a_module_that_returns_several_things_is_listed_by_the_first():
    network = Attention()
    shapes = {layer.kind: layer.output_shape for layer in list_layers(network, (1, 48, 48))}
    assert shapes == {"MultiheadAttention": (49, 48), "Linear": (7,), "Attention": (7,)}
    # 48 of the token, 4 x (48 x 48 + 48) of the attention, 48 x 7 + 7 of the logits.
    assert count_values(network) == (48 + 4 * 2352 + 343, 0)


def test_what_does_nothing_is_left_out():
    network = nn.Sequential(nn.Flatten(), nn.Identity(), nn.Linear(48 * 48, 7))
    assert [layer.kind for layer in list_layers(network, (1, 48, 48))] == ["Flatten", "Linear"]


def test_modules_that_are_frozen_stay_so():
    network = NotebookCNN()
    frozen = network.get_submodule("layers.norm1").eval()
    with evaluating(network):
        assert not any(module.training for module in network.modules())
    list_layers(network, (1, 48, 48))
    assert [module for module in network.modules() if not module.training] == [frozen]
