import pytest
import torch

from fer_exp.models.dropout import ByteDropout, random_bytes


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


def test_bytes_are_uniform():
    torch.manual_seed(0)
    counts = torch.bincount(random_bytes(torch.empty(2_560_000)).long(), minlength=256)
    chi_square = ((counts - 10_000) ** 2 / 10_000).sum().item()
    assert chi_square < 345  # the 99.99 % point of chi-square with 255 degrees of freedom is 346


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
