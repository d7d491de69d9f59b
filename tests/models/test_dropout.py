import pytest
import torch

from fer_exp.models.dropout import ByteDropout, random_mask


def test_rate_and_scale():
    torch.manual_seed(0)
    out = ByteDropout(0.25)(torch.ones(1_000_000))
    assert out.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert (out == 0).float().mean().item() == pytest.approx(0.25, abs=0.002)


@pytest.mark.parametrize("p", [0.25, 0.5])
def test_every_place_of_a_word_is_dropped_at_the_same_rate(p):
    # A word drawn without its top bit would drop half of every eighth place instead of a quarter.
    torch.manual_seed(0)
    dropped = (ByteDropout(p)(torch.ones(8_000_000)) == 0).view(-1, 8).float().mean(0)
    assert (dropped - p).abs().max() < 0.002  # four standard errors


@pytest.mark.parametrize("levels", [1, 64, 128, 200, 255])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_mask_is_of_zeros_or_of_ones_alone_at_each_rate(levels, dtype):
    torch.manual_seed(0)
    mask = random_mask(torch.empty(1_000_001, dtype=dtype), levels)
    assert mask.element_size() == dtype.itemsize
    assert set(mask.unique().tolist()) == {-1, 0}  # all bits set is -1
    assert (mask == 0).double().mean().item() == pytest.approx(levels / 256, abs=0.002)  # four standard errors


def test_the_two_values_that_share_a_draw_are_dropped_independently():
    torch.manual_seed(0)
    first, second = (random_mask(torch.empty(4_000_000), 64) == 0).view(2, -1).double()
    assert (first * second).mean().item() == pytest.approx(1 / 16, abs=0.0007)  # four standard errors


def test_a_dropped_value_is_zero_whatever_it_was():
    torch.manual_seed(0)
    out = ByteDropout(0.5)(torch.tensor([float("inf"), float("nan")]).repeat(100))
    assert (out == 0).sum() > 50


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_kept_values_are_scaled_as_torch_scales_them(dtype):
    # The scale itself is not rounded to the values' precision: in bfloat16, 4/3 would be 0.2 % too large.
    torch.manual_seed(0)
    x = torch.randn(10_000).to(dtype)
    out = ByteDropout(0.25)(x)
    expected = (x.double() / 0.75).to(dtype)
    torch.testing.assert_close(out[out != 0], expected[out != 0], rtol=torch.finfo(torch.float32).eps, atol=0)


@pytest.mark.parametrize("shape", [(13,), (3, 5), (4, 3, 6, 7)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_backward_uses_the_mask_of_forward_in_any_layout(shape, memory_format):
    if len(shape) != 4 and memory_format is torch.channels_last:
        memory_format = torch.contiguous_format
    torch.manual_seed(0)
    x = torch.ones(shape).to(memory_format=memory_format).requires_grad_()
    out = ByteDropout(0.5)(x)
    out.backward(torch.full_like(out, 3.0))
    torch.testing.assert_close(x.grad, 3 * out.detach())
    assert out.stride() == x.stride()


def test_second_derivatives_are_those_of_the_same_mask():
    # Optimizers that look at curvature ask for them.
    def dropped(x):
        torch.manual_seed(0)
        return ByteDropout(0.5)(x * x)

    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(dropped, x)
    assert torch.autograd.gradgradcheck(dropped, x)


def test_a_view_with_gaps_is_dropped_too():
    torch.manual_seed(0)
    out = ByteDropout(0.5)(torch.ones(100, 100)[:, ::2])
    assert (out == 0).float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_evaluation_leaves_values_alone():
    x = torch.randn(10)
    assert ByteDropout(0.25).eval()(x) is x
    assert ByteDropout(0.0)(x) is x


def test_a_rate_that_bytes_cannot_give_is_torch_s_own():
    x = torch.ones(100_000)
    torch.manual_seed(0)
    out = ByteDropout(0.3)(x)
    torch.manual_seed(0)
    assert torch.equal(out, torch.nn.functional.dropout(x, 0.3))


@pytest.mark.parametrize("p", [1.0, -0.25])
def test_what_is_no_share_is_refused(p):
    with pytest.raises(ValueError, match="expected a share from 0"):
        ByteDropout(p)
