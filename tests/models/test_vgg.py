import re
from itertools import pairwise

import pytest
import torch
from torch import nn

from fer_exp.config.checks import check_config
from fer_exp.config.instantiate import build
from fer_exp.errors import UserError
from fer_exp.models.layers import list_layers
from fer_exp.models.vgg import VGG

SMALL = {"widths": (4, 8), "convolutions": (1, 2), "dense": (16,)}


def test_layers_stand_in_the_order_of_the_plan():
    layers = list_layers(VGG(widths=(8, 16), convolutions=(1, 2), dense=(32,)), (1, 48, 48))
    assert [(layer.kind, layer.output_shape) for layer in layers] == [
        ("Conv2d", (8, 48, 48)),
        ("BatchNorm2d", (8, 48, 48)),
        ("MaxPool2d", (8, 24, 24)),
        ("ReLU", (8, 24, 24)),
        ("ByteDropout", (8, 24, 24)),
        ("Conv2d", (16, 24, 24)),
        ("BatchNorm2d", (16, 24, 24)),
        ("ReLU", (16, 24, 24)),
        ("Conv2d", (16, 24, 24)),
        ("BatchNorm2d", (16, 24, 24)),
        ("MaxPool2d", (16, 12, 12)),
        ("ReLU", (16, 12, 12)),
        ("ByteDropout", (16, 12, 12)),
        ("Flatten", (2304,)),
        ("Linear", (32,)),
        ("BatchNorm1d", (32,)),
        ("ReLU", (32,)),
        ("ByteDropout", (32,)),
        ("Linear", (7,)),
    ]


def count(widths, convolutions, dense):
    """Parameters: 9 weights a pair of channels, two numbers of batch norm a channel, a bias a class."""
    channels = [1, *(width for width, n in zip(widths, convolutions, strict=True) for _ in range(n))]
    features = [widths[-1] * (48 // 2 ** len(widths)) ** 2, *dense]
    return (
        sum(9 * a * b + 2 * b for a, b in pairwise(channels))
        + sum(a * b + 2 * b for a, b in pairwise(features))
        + (features[-1] + 1) * 7
    )


@pytest.mark.parametrize(
    ("choice", "total"),
    [
        ("vgg", count((64, 128, 256, 512), (2, 2, 2, 2), (256,))),
        ("vgg_small", count((32, 64, 128, 256), (1, 2, 2, 2), (256,))),
    ],
)
def test_parameter_counts_of_the_choices(composed, choice, total):
    network = build(composed(f"model={choice}"), "model")
    assert sum(p.numel() for p in network.parameters()) == total


@pytest.mark.parametrize("dense", [(), (16,), (16, 8)])
def test_parameter_counts_of_other_heads(dense):
    network = VGG(**{**SMALL, "dense": dense})
    assert sum(p.numel() for p in network.parameters()) == count((4, 8), (1, 2), dense)
    assert network.eval()(torch.zeros(2, 1, 48, 48)).shape == (2, 7)


def test_kernels_start_he_normal():
    torch.manual_seed(0)
    for name, module in VGG().named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            # Seven rows or nine weights a row are few: five standard errors.
            error = 5 / (2 * module.weight.numel()) ** 0.5
            assert module.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=error), name
            assert module.bias is None or not module.bias.any(), name


def test_logits_are_of_order_one_at_the_start():
    # He's initialisation keeps the variance through the layers, however many there are.
    torch.manual_seed(0)
    logits = VGG(widths=(16, 16, 16, 16), convolutions=(3, 3, 3, 3))(torch.rand(32, 1, 48, 48))
    assert 0.3 < logits.std() < 3


@pytest.mark.parametrize("fast", [True, False])
def test_the_rate_of_dropout_is_the_one_given(fast):
    drops = [m for m in VGG(**SMALL, dropout=0.5, fast_dropout=fast).modules() if "Dropout" in type(m).__name__]
    assert [drop.p for drop in drops] == [0.5] * 3


def test_evaluation_repeats_itself_and_training_by_its_seed():
    network, x = VGG(**SMALL), torch.rand(8, 1, 48, 48)
    outputs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outputs.append(network(x))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    network.eval()
    assert torch.equal(network(x), network(x))


def test_channels_last_computes_the_same():
    torch.manual_seed(0)
    network, x = VGG(**SMALL).eval(), torch.rand(4, 1, 48, 48)
    expected = network(x)
    network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(network(x.to(memory_format=torch.channels_last)), expected, rtol=0, atol=1e-5)


def test_learns_two_batches(learns):
    torch.manual_seed(0)
    learns(VGG(**SMALL))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"widths": [64, 0, 256, 512]}, "widths=[64, 0, 256, 512]: expected whole numbers from 1 up"),
        ({"widths": [64, "half", 256, 512]}, "widths=[64, 'half', 256, 512]: expected whole numbers"),
        ({"convolutions": [2, True, 2, 2]}, "convolutions=[2, True, 2, 2]: expected whole numbers"),
        ({"convolutions": [2, 2, 1.5, 2]}, "expected whole numbers"),
        ({"dense": "many"}, "dense=many: expected a list of whole numbers"),
        ({"dense": None}, "dense=None: expected a list of whole numbers"),
        ({"widths": [8, 8]}, "widths=[8, 8] and convolutions=[2, 2, 2, 2]: expected lists of the same length"),
        ({"widths": [], "convolutions": []}, "widths=[]: expected 1 to 5 blocks"),
        ({"widths": [1] * 6, "convolutions": [1] * 6}, "expected 1 to 5 blocks, as each halves 48 pixels"),
        ({"dropout": 1.0}, "dropout=1.0: expected a share from 0"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_with_words(settings, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        VGG(**settings)


def test_lists_are_read_from_the_configuration(composed):
    cfg = composed("model=vgg", "model.widths=[4,8]", "model.convolutions=[1,3]", "model.dense=[]")
    check_config(cfg)
    assert sum(p.numel() for p in build(cfg, "model").parameters()) == count((4, 8), (1, 3), ())
    cfg.model.widths = 64
    check_config(cfg)
    with pytest.raises(UserError, match="widths=64: expected a list of whole numbers"):
        build(cfg, "model")


def test_five_blocks_are_the_most():
    network = VGG(widths=(2, 2, 2, 2, 2), convolutions=(1, 1, 1, 1, 1), dense=())
    assert network.layers.logits.in_features == 2
