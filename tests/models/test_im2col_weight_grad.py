import copy  # noqa: I001

import pytest
import torch
from fer_exp.models.im2col_weight_grad import LARGEST_MAP, convolve, use_patch_gradients
from torch import nn
from torch.nn import functional as F

from fer_exp.models.notebook_cnn import NotebookCNN


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_all_gradients_are_those_of_torch(kernel, biased, memory_format):
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 6, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    weight = torch.randn(2, 3, kernel, kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True) if biased else None
    inputs = [value for value in (x, weight, bias) if value is not None]
    ours, theirs = convolve(x, weight, bias), F.conv2d(x, weight, bias, padding="same")
    torch.testing.assert_close(ours, theirs)
    out = torch.randn_like(ours)
    for a, b in zip(torch.autograd.grad(ours, inputs, out), torch.autograd.grad(theirs, inputs, out), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_second_derivatives_are_right():
    # Optimizers that look at curvature ask for them.
    torch.manual_seed(0)
    shapes = ((2, 3, 4, 4), (2, 3, 3, 3), (2,))
    inputs = tuple(torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    assert torch.autograd.gradgradcheck(convolve, inputs)


def test_the_network_learns_the_same_under_autocast():
    torch.manual_seed(0)
    plain = NotebookCNN(dropout=0.0).to(memory_format=torch.channels_last)
    patched = copy.deepcopy(plain)
    use_patch_gradients(patched)
    faces, labels = torch.rand(16, 1, 48, 48), torch.randint(7, (16,))
    for network in (plain, patched):
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(network(faces), labels)
        loss.backward()
    # conv4 alone: the maps of the others are larger or their channels fewer.
    assert len([node for node in _graph(_logits(patched, faces)) if node.name() == "_ConvolutionBackward"]) == 1
    assert list(patched.state_dict()) == list(plain.state_dict())
    for (name, a), b in zip(plain.named_parameters(), patched.parameters(), strict=True):
        # Both round a sum of the same products to bfloat16 once: 8 bits.
        assert (a.grad - b.grad).norm() <= 0.01 * a.grad.norm() + 1e-6, name


def _logits(network, faces):
    with torch.autocast("cpu", torch.bfloat16):
        return network(faces)


def _graph(tensor):
    seen, waiting = set(), [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting.extend(following for following, _ in node.next_functions)
    return seen


def test_without_autocast_it_is_torch_s_own():
    torch.manual_seed(0)
    network = NotebookCNN()
    use_patch_gradients(network)
    assert not [node for node in _graph(network(torch.rand(2, 1, 48, 48))) if node.name() == "_ConvolutionBackward"]


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(256, 256, 3, padding=0),
        nn.Conv2d(256, 256, 3, padding=1, stride=2),
        nn.Conv2d(256, 256, 3, padding=2, dilation=2),
        nn.Conv2d(256, 256, 3, padding=1, groups=2),
        nn.Conv2d(256, 256, (3, 1), padding="same"),
        nn.Conv2d(256, 256, 2, padding="same"),
        nn.Conv2d(256, 256, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(255, 256, 3, padding=1),
        nn.Conv2d(256, 255, 3, padding=1),
        nn.Conv2d(256, 256, 5, padding=2),
        nn.LazyConv2d(256, 3, padding=1),
    ],
    ids=str,
)
def test_other_convolutions_are_left_alone(convolution):
    before = type(convolution)
    use_patch_gradients(convolution)
    assert type(convolution) is before


@pytest.mark.parametrize("size", [LARGEST_MAP, LARGEST_MAP + 1])
def test_each_convolution_decides_by_the_size_of_its_maps(size):
    convolution = nn.Conv2d(256, 256, 3, padding=1)
    use_patch_gradients(convolution)
    with torch.autocast("cpu", torch.bfloat16):
        out = convolution(torch.rand(2, 256, size, size))
    assert (out.grad_fn.name() == "_ConvolutionBackward") is (size == LARGEST_MAP)
    assert out.dtype == torch.bfloat16


def test_an_image_without_a_batch_is_torch_s_own():
    convolution = nn.Conv2d(256, 256, 3, padding=1)
    use_patch_gradients(convolution)
    with torch.autocast("cpu", torch.bfloat16):
        convolution(torch.rand(256, 6, 6)).sum().backward()
    assert convolution.weight.grad.any()


def test_a_frozen_kernel_gets_no_gradient_and_passes_it_on():
    convolution = nn.Conv2d(256, 256, 3, padding=1)
    use_patch_gradients(convolution)
    convolution = copy.deepcopy(convolution)
    convolution.weight.requires_grad_(False)
    x = torch.rand(2, 256, 6, 6, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        convolution(x).sum().backward()
    assert convolution.weight.grad is None
    assert x.grad.any()
    assert convolution.bias.grad.tolist() == [72] * 256
