"""Dropout whose mask is cut from random bytes: the same distribution as ``nn.Dropout``, drawn faster on a CPU."""

from typing import Any

import torch
from torch import Tensor, nn

_LEVELS = 256  # values of a byte: the rates a mask of bytes can give are multiples of 1/256


class _ByteDropout(torch.autograd.Function):
    """``x * keep / (1 - p)``, which keeps one byte a value for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dropped_levels: int) -> Tensor:
        keep = random_bytes(x) >= dropped_levels
        ctx.save_for_backward(keep)
        ctx.scale = _LEVELS / (_LEVELS - dropped_levels)
        return torch.mul(x, keep).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return torch.mul(grads[0], keep).mul_(ctx.scale), None


def random_bytes(like: Tensor) -> Tensor:
    """Uniform bytes with the shape, memory format and device of ``like``, from torch's global generator.

    Eight bytes come from each draw of a 64-bit integer. ``random_()`` without a range leaves the top bit of a
    signed integer at 0, which would bias every eighth byte: the full range is asked for.
    """
    words = torch.empty((like.numel() + 7) // 8, dtype=torch.int64, device=like.device)
    words.random_(-(2**63), None)
    flat = words.view(torch.uint8)[: like.numel()]
    # The draws are laid out as the values are, whatever their order in memory: no copy, and no bias either way.
    return flat.as_strided(like.shape, like.stride()) if _is_dense(like) else flat.view(like.shape)


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))


class ByteDropout(nn.Module):
    """Dropout with a mask cut from random bytes, at rates that are a multiple of 1/256; at others it is torch's own.

    Args:
        p: share of values set to zero in training; the rest is scaled by 1 / (1 - p).

    Raises:
        ValueError: ``p`` is not in [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout={p}: expected a share from 0 up to, not with, 1")
        self.p = p
        self.dropped_levels = round(p * _LEVELS)
        self._by_bytes = self.dropped_levels / _LEVELS == p

    def forward(self, x: Tensor) -> Tensor:
        """Drop values of ``x`` (any shape) in training; return ``x`` itself in evaluation."""
        if not self.training or self.p == 0:
            return x
        if not self._by_bytes or x.device.type != "cpu":  # GPUs draw and apply torch's own mask in one kernel
            return nn.functional.dropout(x, self.p)
        result: Tensor = _ByteDropout.apply(x, self.dropped_levels)  # type: ignore[no-untyped-call]
        return result

    def extra_repr(self) -> str:
        """Show the rate, as ``nn.Dropout`` does."""
        return f"p={self.p}"
