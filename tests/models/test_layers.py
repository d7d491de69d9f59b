"""The faster layers compute what PyTorch's compute."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fer_exp.models.layers import MAX_MAP_SIZE, ByteDropout, im2col_conv2d, random_mask, use_im2col_weight_grad
from fer_exp.models.notebook_cnn import NotebookCNN

FOUR_STANDARD_ERRORS = 0.002  # of a fraction of about a million values


@pytest.mark.parametrize("p", [0.25, 0.5])
def test_every_place_of_a_word_is_dropped_with_the_same_probability(p):
    # A word drawn without its top bit would drop half of every eighth value.
    torch.manual_seed(0)
    out = ByteDropout(p)(torch.ones(8_000_000))
    assert out.unique().tolist() == [0.0, pytest.approx(1 / (1 - p))]
    assert ((out == 0).view(-1, 8).float().mean(0) - p).abs().max() < FOUR_STANDARD_ERRORS


@pytest.mark.parametrize("levels", [1, 64, 255])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_mask_has_all_bits_or_none(levels, dtype):
    torch.manual_seed(0)
    mask = random_mask(torch.empty(1_000_001, dtype=dtype), levels)
    assert mask.element_size() == dtype.itemsize
    assert set(mask.unique().tolist()) == {-1, 0}
    assert (mask == 0).double().mean().item() == pytest.approx(levels / 256, abs=FOUR_STANDARD_ERRORS)


def test_values_that_share_a_draw_are_dropped_independently():
    torch.manual_seed(0)
    first, second = (random_mask(torch.empty(4_000_000), 64) == 0).view(2, -1).double()
    assert (first * second).mean().item() == pytest.approx(1 / 16, abs=0.0007)  # four standard errors


def test_a_dropped_value_is_zero_even_if_it_is_not_finite():
    torch.manual_seed(0)
    assert (ByteDropout(0.5)(torch.tensor([float("inf"), float("nan")]).repeat(100)) == 0).sum() > 50


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_other_values_are_scaled_in_full_precision(dtype):
    torch.manual_seed(0)
    x = torch.randn(10_000).to(dtype)
    out = ByteDropout(0.25)(x)
    expected = (x.double() / 0.75).to(dtype)
    torch.testing.assert_close(out[out != 0], expected[out != 0], rtol=torch.finfo(torch.float32).eps, atol=0)


@pytest.mark.parametrize("x", [torch.ones(13), torch.ones(4, 3, 6, 7).to(memory_format=torch.channels_last)])
def test_backward_uses_the_mask_of_forward(x):
    x = x.clone().requires_grad_()
    out = ByteDropout(0.5)(x)
    out.backward(torch.full_like(out, 3.0))
    torch.testing.assert_close(x.grad, 3 * out.detach())
    assert out.stride() == x.stride()


def test_second_derivatives_of_dropout():
    def dropped(x):
        torch.manual_seed(0)
        return ByteDropout(0.5)(x * x)

    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(dropped, x)


def test_dropout_is_torchs_where_bytes_are_too_coarse_and_nothing_in_evaluation():
    x = torch.ones(1000)
    torch.manual_seed(0)
    out = ByteDropout(0.3)(x)
    torch.manual_seed(0)
    assert torch.equal(out, F.dropout(x, 0.3))
    assert ByteDropout(0.25).eval()(x) is x


@pytest.mark.parametrize(("kernel", "biased"), [(1, True), (3, False), (5, True)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_im2col_gradients_are_torchs(kernel, biased, memory_format):
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 6, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    weight = torch.randn(2, 3, kernel, kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True) if biased else None
    inputs = [value for value in (x, weight, bias) if value is not None]
    ours, theirs = im2col_conv2d(x, weight, bias), F.conv2d(x, weight, bias, padding="same")
    torch.testing.assert_close(ours, theirs)
    out = torch.randn_like(ours)
    for a, b in zip(torch.autograd.grad(ours, inputs, out), torch.autograd.grad(theirs, inputs, out), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_second_derivatives_of_im2col():
    torch.manual_seed(0)
    shapes = ((2, 3, 4, 4), (2, 3, 3, 3), (2,))
    inputs = tuple(torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    assert torch.autograd.gradgradcheck(im2col_conv2d, inputs)


def test_the_notebooks_network_has_the_same_gradients_under_autocast():
    torch.manual_seed(0)
    plain = NotebookCNN(dropout=0.0).to(memory_format=torch.channels_last)
    fast = copy.deepcopy(plain)
    use_im2col_weight_grad(fast)
    assert list(fast.state_dict()) == list(plain.state_dict())
    x, labels = torch.rand(8, 1, 48, 48), torch.randint(7, (8,))
    for network in (plain, fast):
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(network(x), labels)
        loss.backward()
    for (name, a), b in zip(plain.named_parameters(), fast.parameters(), strict=True):
        # Both round a sum of the same products to bfloat16: 8 bits.
        assert (a.grad - b.grad).norm() <= 0.01 * a.grad.norm() + 1e-6, name


@pytest.mark.parametrize(
    ("convolution", "size", "precision", "expected"),
    [
        (nn.Conv2d(256, 256, 3, padding=1), MAX_MAP_SIZE, torch.bfloat16, True),
        (nn.Conv2d(256, 256, 3, padding=1), MAX_MAP_SIZE + 1, torch.bfloat16, False),
        (nn.Conv2d(256, 256, 3, padding=1), MAX_MAP_SIZE, None, False),
        (nn.Conv2d(256, 256, 3, padding=1, groups=2), MAX_MAP_SIZE, torch.bfloat16, False),
        (nn.Conv2d(256, 256, 3, padding=2, dilation=2), MAX_MAP_SIZE, torch.bfloat16, False),
        (nn.Conv2d(256, 256, 3, padding=1, padding_mode="reflect"), MAX_MAP_SIZE, torch.bfloat16, False),
        (nn.Conv2d(255, 256, 3, padding=1), MAX_MAP_SIZE, torch.bfloat16, False),
    ],
)
def test_im2col_is_used_only_where_it_is_faster(convolution, size, precision, expected):
    use_im2col_weight_grad(convolution)
    with torch.autocast("cpu", precision, enabled=precision is not None):
        out = convolution(torch.rand(2, convolution.in_channels, size, size))
    assert ("Im2col" in out.grad_fn.name()) is expected
