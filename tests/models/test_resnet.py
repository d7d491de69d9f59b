import torch

from fer_exp.models.layers import list_layers
from fer_exp.models.resnet import ResNet18


def test_fits_faces_of_48_pixels():
    layers = {layer.name: layer for layer in list_layers(ResNet18(), (1, 48, 48))}
    assert layers["network.conv1"].output_shape == (64, 48, 48)
    assert layers["network.layer4.1.conv2"].output_shape == (512, 6, 6)
    assert layers["network.fc"].output_shape == (7,)


def test_parameter_count():
    # torchvision's 11,689,512, less 512 * 993 + 993 for 7 classes of 1000, less 64 * (3 * 49 - 9) for the stem.
    count = sum(p.numel() for p in ResNet18().parameters())
    assert count == 11_689_512 - 993 * 513 - 64 * (3 * 49 - 9)


def test_takes_batches():
    assert ResNet18().eval()(torch.zeros(2, 1, 48, 48)).shape == (2, 7)
