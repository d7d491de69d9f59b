import pytest
import torch
import torchvision
from torch import nn

from fer_exp.models.layers import list_layers
from fer_exp.models.resnet import ResNet18


def torchvision_resnet18():
    """torchvision's own, with the stem for small images."""
    network = torchvision.models.resnet18(num_classes=7)
    network.conv1 = nn.Conv2d(1, 64, kernel_size=3, stride=1, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network


def test_fits_faces_of_48_pixels():
    layers = {layer.name: layer for layer in list_layers(ResNet18(), (1, 48, 48))}
    assert layers["network.conv1"].output_shape == (64, 48, 48)
    assert layers["network.layer4.1.conv2"].output_shape == (512, 6, 6)
    assert layers["network.fc"].output_shape == (7,)


def test_parameter_count():
    # torchvision's 11,689,512, less 512 * 993 + 993 for 7 classes of 1000, less 64 * (3 * 49 - 9) for the stem.
    count = sum(p.numel() for p in ResNet18().parameters())
    assert count == 11_689_512 - 993 * 513 - 64 * (3 * 49 - 9)


def test_computes_what_torchvision_computes():
    torch.manual_seed(0)
    theirs, ours = torchvision_resnet18(), ResNet18()
    ours.network.load_state_dict(theirs.state_dict())
    x = torch.rand(2, 1, 48, 48)
    for train in (True, False):  # training first, so that the running statistics are no longer 0 and 1
        theirs.train(train), ours.train(train)
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.network.state_dict(), theirs.state_dict())


def test_starts_as_torchvision_does():
    torch.manual_seed(0)
    for name, module in ResNet18().named_modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.weight.shape[0] * module.weight[0, 0].numel()
            # Five standard errors: the first kernel has 576 weights.
            error = 5 / (2 * module.weight.numel()) ** 0.5
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=error), name


@pytest.mark.parametrize("width", [8, 32])
def test_width_scales_every_stage(width):
    layers = list_layers(ResNet18(width=width, stem_stride=2), (1, 48, 48))
    shapes = {layer.name: layer.output_shape for layer in layers}
    assert [shapes[f"network.layer{i}.1.conv2"] for i in (1, 2, 3, 4)] == [
        (width, 24, 24),
        (2 * width, 12, 12),
        (4 * width, 6, 6),
        (8 * width, 3, 3),
    ]
    # 3x3 kernels, in units of width**2: 4 in the first stage, (2 + 3 * 4) * 4**k / 4 in the others, and 1x1 shortcuts.
    kernels = 9 * (4 + 14 + 56 + 224) + (2 + 8 + 32)
    norms = 2 * (5 + 5 * 2 + 5 * 4 + 5 * 8)
    expected = width**2 * kernels + width * (9 + norms + 8 * 7) + 7
    assert sum(layer.parameters for layer in layers) == expected


def test_dropout_stands_before_the_last_layer():
    torch.manual_seed(0)
    network = ResNet18(width=8, stem_stride=2, dropout=0.5).eval()
    x, seen = torch.rand(32, 1, 48, 48), []
    network.network.fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(x)
    network.network.drop.train()
    network(x)
    kept = seen[1] != 0
    assert kept.float().mean().item() == pytest.approx(0.5, abs=0.05)
    torch.testing.assert_close(seen[1][kept], 2 * seen[0][kept])


def test_evaluation_repeats_itself():
    network, x = ResNet18(width=4, dropout=0.5), torch.rand(4, 1, 48, 48)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


def test_learns_two_batches(learns):
    torch.manual_seed(0)
    learns(ResNet18(width=4, stem_stride=2))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"width": 0}, "width=0: expected a whole number from 1 up"),
        ({"stem_stride": 3}, "stem_stride=3: expected 1 or 2"),
        ({"dropout": 1.5}, "dropout probability has to be between 0 and 1, but got 1.5"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        ResNet18(**settings)
