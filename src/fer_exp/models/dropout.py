"""Dropout whose mask is cut from random bytes: the same distribution as ``nn.Dropout``, faster on a CPU."""

from typing import Any

import torch
from torch import Tensor, nn

_LEVELS = 256  # values of a byte: the rates a mask of bytes can give are multiples of 1/256
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by the bytes of a value


class _Masked(torch.autograd.Function):
    """``x`` times ``scale`` where all bits of ``mask`` are set, and 0 where none is.

    Joining bits is faster than multiplying by booleans, which torch turns into numbers first: several times in
    bfloat16, twice in float32. Autograd sees no values in integers; this function is its own derivative, at any order.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return (x.view(mask.dtype) & mask).view(x.dtype).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return _Masked.apply(grads[0], mask, ctx.scale), None, None  # type: ignore[no-untyped-call]


def random_mask(like: Tensor, dropped_levels: int) -> Tensor:
    """Integers as wide as the values of ``like``, from torch's global generator: 0 where dropped, else all bits set.

    Eight bytes come from each draw of a 64-bit integer, and each byte decides about one value. ``random_()`` without a
    range leaves the top bit of a signed integer at 0, which would bias every eighth byte: the full range is asked for.

    Args:
        like: gives the shape, the order in memory and the width of a value.
        dropped_levels: a value is dropped with probability ``dropped_levels`` / 256; 1 to 255.
    """
    pairs = (like.numel() + 1) // 2
    drawn = torch.empty((pairs + 3) // 4, dtype=torch.int64, device=like.device).random_(-(2**63), None)
    first = drawn.view(torch.int16)[:pairs]
    # The least integer that is kept. Its lower byte is 0, so that the upper byte alone decides; that of ``first`` for
    # the first half of the values, and the lower byte, put in its place, for the second.
    least = (dropped_levels - _LEVELS // 2) * _LEVELS
    mask = torch.empty(2 * pairs, dtype=torch.int16, device=like.device)
    torch.clamp(first, least - 1, least, out=mask[:pairs])
    torch.clamp(first << 8, least - 1, least, out=mask[pairs:])
    mask = mask.neg_().add_(least - 1).to(_INTEGERS[like.element_size()])[: like.numel()]
    # The values are masked in their order in memory, whatever that is: no copy, and no bias either way.
    return mask.as_strided(like.shape, like.stride()) if _is_dense(like) else mask.view(like.shape)


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))


class ByteDropout(nn.Module):
    """Dropout with a mask cut from random bytes, at rates that are a multiple of 1/256; at others it is torch's own.

    A dropped value is 0 whatever it was, infinite or not a number too, where torch's own would make it not a number.

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
        mask, scale = random_mask(x, self.dropped_levels), _LEVELS / (_LEVELS - self.dropped_levels)
        result: Tensor = _Masked.apply(x, mask, scale)  # type: ignore[no-untyped-call]
        return result

    def extra_repr(self) -> str:
        """Show the rate, as ``nn.Dropout`` does."""
        return f"p={self.p}"
