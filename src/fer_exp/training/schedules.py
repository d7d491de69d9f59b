"""Learning-rate schedules that torch does not have as one."""

import math
from collections.abc import Mapping
from typing import Any

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


_DECAY = 0.2


class WarmupStableDecay(LambdaLR):
    """Rises evenly to the optimizer's rate, stays there, and falls at the end as 1 - sqrt(x) does.

    All before the fall is the same whenever and however it comes, so that a run whose rate has not begun to fall can be
    made longer or shorter: the schedule of Hägele et al. 2024, "Scaling Laws and Compute-Optimal Training Beyond Fixed
    Training Durations", with its shape of the fall.

    Args:
        optimizer: whose rates follow the schedule; what they are at first is the highest.
        total_steps: optimizer steps of the whole run.
        warmup: steps in which the rate rises.
        decay: share of the steps in which it falls, at the end.
        final: the rate at the end, as a share of the highest.
        last_epoch: the last step that was taken, -1 for none; torch's word for it.

    Raises:
        ValueError: ``warmup`` is negative, ``decay`` or ``final`` is not in [0, 1], or the fall would begin before the
            rise has ended.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        warmup: int = 500,
        decay: float = _DECAY,
        final: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        if warmup < 0:
            raise ValueError(f"warmup={warmup}: expected a number of steps, 0 for none")
        for name, value in (("decay", decay), ("final", final)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value}: expected a share in [0, 1]")
        falling = decay * total_steps
        stable_until = total_steps - falling
        if warmup > stable_until:
            raise ValueError(
                f"warmup={warmup}, decay={decay}: the rate would fall from step {stable_until:.0f} of {total_steps}, "
                "before it has risen; expected fewer steps of warm-up or a smaller share of decay"
            )

        def share(step: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1)
            if step <= stable_until or not falling:
                return 1.0
            done = min(1.0, (step - stable_until) / falling)
            return final + (1 - final) * (1 - math.sqrt(done))

        super().__init__(optimizer, share, last_epoch)


END = ("max_epochs", "decay", "final")  # what says when and how a run's rate falls at its end


def end_is_open_until(settings: Mapping[str, Any]) -> float:
    """Epochs for which a schedule is the same whatever its end: until then the settings in ``END`` can be changed.

    Args:
        settings: of the schedule, as checkpoints hold them: its arguments, ``_target_``, and the run's ``max_epochs``.
    """
    if settings.get("_target_") != f"{__name__}.{WarmupStableDecay.__name__}":
        return 0.0
    return float((1 - settings.get("decay", _DECAY)) * settings["max_epochs"])
