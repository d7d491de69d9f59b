"""Faster layers with the same function as PyTorch's: dropout from random bytes, weight gradients by im2col.

The keys ``model.fast_dropout`` and ``im2col_weight_grad`` switch them. docs/performance.md has the measured gains.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

_LEVELS = 256  # values of a byte: dropout probabilities that a byte can express are multiples of 1/256
_INT_OF_SIZE = {2: torch.int16, 4: torch.int32, 8: torch.int64}

# Where im2col is faster in bfloat16 on AMX: oneDNN takes 2 and 7 times as long for 3x3 kernels with 512 channels on 6x6
# and 3x3 maps. On larger maps, with fewer channels or without AMX, oneDNN is as fast or faster.
MAX_MAP_SIZE = 6
MIN_CHANNELS = 256


class ByteDropout(nn.Module):
    """``nn.Dropout`` with a mask from random bytes, on a CPU and where ``p`` is a multiple of 1/256.

    Elsewhere it is PyTorch's dropout. A dropped value becomes 0 even if it is infinite or NaN.

    Args:
        p: probability that a value is dropped; the others are scaled by 1 / (1 - p).

    Raises:
        ValueError: ``p`` is not in [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout={p}: expected a fraction in [0, 1)")
        self.p = p
        self.dropped_levels = round(p * _LEVELS)
        self._is_exact = self.dropped_levels / _LEVELS == p

    def forward(self, x: Tensor) -> Tensor:
        """Drop values of ``x`` (any shape) in training; return ``x`` itself in evaluation."""
        if not self.training or self.p == 0:
            return x
        if not self._is_exact or x.device.type != "cpu":  # a GPU draws and applies PyTorch's mask in one kernel
            return F.dropout(x, self.p)
        mask = random_mask(x, self.dropped_levels)
        result: Tensor = _Mask.apply(x, mask, _LEVELS / (_LEVELS - self.dropped_levels))  # type: ignore[no-untyped-call]
        return result

    def extra_repr(self) -> str:
        """The dropout probability, as ``nn.Dropout`` shows it."""
        return f"p={self.p}"


class _Mask(torch.autograd.Function):
    """``x * scale`` where all bits of ``mask`` are set, 0 where none is set.

    A bitwise AND is several times faster than a product with booleans, which PyTorch converts to floats first. Autograd
    does not follow integer views; the function is its own derivative.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return (x.view(mask.dtype) & mask).view(x.dtype).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return _Mask.apply(grads[0], mask, ctx.scale), None, None  # type: ignore[no-untyped-call]


def random_mask(like: Tensor, dropped_levels: int) -> Tensor:
    """Integers with all bits 0 (dropped) or all bits 1, drawn from PyTorch's global CPU generator.

    Args:
        like: gives shape, memory order and bytes per value.
        dropped_levels: a value is dropped with probability ``dropped_levels`` / 256; 1 to 255.
    """
    pairs = (like.numel() + 1) // 2
    # One int64 decides eight values. Without a range, random_() leaves the top bit 0 and biases every eighth value.
    drawn = torch.empty((pairs + 3) // 4, dtype=torch.int64, device=like.device).random_(-(2**63), None)
    halves = drawn.view(torch.int16)[:pairs]
    # The smallest int16 that is not dropped. Its lower byte is 0, so only the upper byte of a drawn value decides: the
    # byte itself for the first half of the values, and the lower byte, shifted up, for the second half.
    threshold = (dropped_levels - _LEVELS // 2) * _LEVELS
    mask = torch.empty(2 * pairs, dtype=torch.int16, device=like.device)
    torch.clamp(halves, threshold - 1, threshold, out=mask[:pairs])
    torch.clamp(halves << 8, threshold - 1, threshold, out=mask[pairs:])
    mask = mask.neg_().add_(threshold - 1).to(_INT_OF_SIZE[like.element_size()])[: like.numel()]
    is_dense = like.is_contiguous() or (like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last))
    return mask.as_strided(like.shape, like.stride()) if is_dense else mask.view(like.shape)


def use_im2col_weight_grad(network: nn.Module) -> None:
    """Let the 3x3 convolutions of ``network`` with many channels compute weight gradients as one matrix product.

    Only on small maps, on a CPU and under autocast; elsewhere the convolution is PyTorch's. Parameter names stay.
    """
    for module in network.modules():
        if (
            type(module) is nn.Conv2d
            and module.kernel_size == (3, 3)
            and module.padding in ("same", (1, 1))
            and module.padding_mode == "zeros"
            and module.stride == module.dilation == (1, 1)
            and module.groups == 1
            and min(module.in_channels, module.out_channels) >= MIN_CHANNELS
        ):
            module.__class__ = _Im2colConv2d


class _Im2colConv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        is_small = x.dim() == 4 and max(x.shape[2:]) <= MAX_MAP_SIZE
        if not (is_small and x.device.type == "cpu" and torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")):
            return super().forward(x)
        dtype = torch.get_autocast_dtype("cpu")
        bias = None if self.bias is None else self.bias.to(dtype)
        with torch.autocast("cpu", enabled=False):
            return im2col_conv2d(x.to(dtype), self.weight.to(dtype), bias)


def im2col_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``F.conv2d(x, weight, bias, padding="same")`` whose weight gradient is one matrix product over im2col patches.

    Args:
        x: (N, C, H, W).
        weight: (D, C, K, K), K odd.
        bias: (D,), or None.

    Returns:
        (N, D, H, W).
    """
    result: Tensor = _Im2colConv.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return result


class _Im2colConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        (grad,), (needs_x, needs_weight, needs_bias) = grads, ctx.needs_input_grad
        n_out, n_in, kernel, _ = weight.shape
        grad_rows = grad.permute(0, 2, 3, 1).reshape(-1, n_out)
        grad_x = conv2d_input(x.shape, weight, grad, padding=kernel // 2) if needs_x else None
        grad_weight = None
        if needs_weight:
            grad_weight = (grad_rows.t() @ _im2col(x, kernel)).view(n_out, kernel, kernel, n_in).permute(0, 3, 1, 2)
        return grad_x, grad_weight, grad_rows.sum(0) if needs_bias else None


def _im2col(x: Tensor, kernel: int) -> Tensor:
    """The input patch of each output pixel: (N * H * W, K * K * C). ``F.unfold`` would give N small products."""
    _, channels, height, width = x.shape
    pad = kernel // 2
    padded = F.pad(x, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
    shifts = [padded[:, i : i + height, j : j + width] for i in range(kernel) for j in range(kernel)]
    return torch.cat(shifts, dim=-1).reshape(-1, kernel * kernel * channels)
