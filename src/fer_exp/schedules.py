"""Learning-rate schedules that torch does not have as one."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class WarmupCosine(LambdaLR):
    """Rises evenly from near 0 to the optimizer's rate, then falls along half a cosine (Loshchilov & Hutter 2017).

    Args:
        optimizer: whose rates follow the schedule; what they are at first is the highest.
        total_steps: optimizer steps of the whole run.
        warmup: share of the steps in which the rate rises.
        final: the rate at the end, as a share of the highest.
        last_epoch: the last step that was taken, -1 for none; torch's word for it.

    Raises:
        ValueError: ``warmup`` or ``final`` is not in [0, 1], or nothing is left after the warm-up.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        warmup: float = 0.05,
        final: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup={warmup}: expected a share in [0, 1)")
        if not 0 <= final <= 1:
            raise ValueError(f"final={final}: expected a share in [0, 1]")
        rising = warmup * total_steps

        def share(step: int) -> float:
            if step < rising:
                return (step + 1) / (rising + 1)
            done = min(1.0, (step - rising) / (total_steps - rising))
            return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2

        super().__init__(optimizer, share, last_epoch)
