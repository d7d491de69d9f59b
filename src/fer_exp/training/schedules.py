"""Learning-rate schedules that torch does not have."""

import math
from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class WarmupCosine(LambdaLR):
    """Linear warm-up to the optimizer's learning rate, then half a cosine down (Loshchilov & Hutter 2017).

    Args:
        optimizer: its learning rates are the maximum of the schedule.
        total_steps: optimizer steps of the whole run.
        warmup: fraction of the steps with a rising learning rate.
        final: learning rate at the end, as a fraction of the maximum.

    Raises:
        ValueError: ``warmup`` is not in [0, 1), or ``final`` is not in [0, 1].
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: float = 0.05, final: float = 0.0) -> None:
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup={warmup}: expected a fraction in [0, 1)")
        if not 0 <= final <= 1:
            raise ValueError(f"final={final}: expected a fraction in [0, 1]")
        rising = warmup * total_steps

        def factor(step: int) -> float:
            if step < rising:
                return (step + 1) / (rising + 1)
            done = min(1.0, (step - rising) / (total_steps - rising))
            return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2

        super().__init__(optimizer, factor)


_DECAY = 0.2


class WarmupStableDecay(LambdaLR):
    """Linear warm-up to the optimizer's learning rate, a constant phase, then a decay as 1 - sqrt(x).

    The steps before the decay do not depend on when it starts, so a run that has not started to decay can be resumed
    with another length: the schedule of Hägele et al. 2024, "Scaling Laws and Compute-Optimal Training Beyond Fixed
    Training Durations".

    Args:
        optimizer: its learning rates are the maximum of the schedule.
        total_steps: optimizer steps of the whole run.
        warmup: number of steps with a rising learning rate.
        decay: fraction of the steps with a falling learning rate, at the end.
        final: learning rate at the end, as a fraction of the maximum.

    Raises:
        ValueError: ``warmup`` is negative, ``decay`` or ``final`` is not in [0, 1], or the decay would start before the
            warm-up ends.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        warmup: int = 500,
        decay: float = _DECAY,
        final: float = 0.0,
    ) -> None:
        if warmup < 0:
            raise ValueError(f"warmup={warmup}: expected a number of steps >= 0")
        for name, value in (("decay", decay), ("final", final)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value}: expected a fraction in [0, 1]")
        falling = decay * total_steps
        stable_until = total_steps - falling
        if warmup > stable_until:
            raise ValueError(
                f"warmup={warmup}, decay={decay}: the decay would start at step {stable_until:.0f} of {total_steps}, "
                "before the warm-up ends; use a smaller warmup or decay"
            )

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1)
            if step <= stable_until or not falling:
                return 1.0
            done = min(1.0, (step - stable_until) / falling)
            return final + (1 - final) * (1 - math.sqrt(done))

        super().__init__(optimizer, factor)


def is_constant_until(config: Mapping[str, Any]) -> float:
    """Number of epochs before a WarmupStableDecay schedule starts to decay; 0 for other schedules.

    Until then a resumed run may have another length or another decay.

    Args:
        config: of a run, resolved.
    """
    schedule = config.get("scheduler") or {}
    if schedule.get("_target_") != f"{__name__}.{WarmupStableDecay.__name__}":
        return 0.0
    return float((1 - schedule.get("decay", _DECAY)) * config["trainer"]["max_epochs"])
