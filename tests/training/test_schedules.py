"""Schedules that span a run, against torch's and their formula."""

import math
import re
from itertools import pairwise

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from fer_exp.training.schedules import WarmupCosine, WarmupStableDecay, is_constant_until


def optimizer(lr=0.4):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def learning_rates(make, steps):
    opt = optimizer()
    schedule = make(opt)
    seen = []
    for _ in range(steps):
        seen.append(opt.param_groups[0]["lr"])
        opt.step()
        schedule.step()
    return seen


def test_without_warmup_it_is_torchs_cosine():
    ours = learning_rates(lambda opt: WarmupCosine(opt, 50, warmup=0.0, final=0.1), 50)
    assert ours == pytest.approx(learning_rates(lambda opt: CosineAnnealingLR(opt, 50, eta_min=0.04), 50))


def test_warmup_is_linear_and_ends_at_the_lr_of_the_optimizer():
    seen = learning_rates(lambda opt: WarmupCosine(opt, 100, warmup=0.2), 101)
    rising = [after - before for before, after in pairwise(seen[:21])]
    assert rising == pytest.approx([0.4 / 21] * 20)
    assert seen[20] == max(seen) == pytest.approx(0.4)
    assert all(after < before for before, after in pairwise(seen[20:]))
    assert seen[100] == pytest.approx(0.0, abs=1e-12)


def test_warmup_stable_decay():
    seen = learning_rates(lambda opt: WarmupStableDecay(opt, 100, warmup=9, decay=0.25, final=0.1), 101)
    assert seen[:10] == pytest.approx([0.04 * (step + 1) for step in range(10)])
    assert seen[9:76] == pytest.approx([0.4] * 67)
    # 1 - sqrt(x) of Hägele et al. 2024, section 3, over the last quarter
    assert seen[76:] == pytest.approx([0.04 + 0.36 * (1 - math.sqrt((step - 75) / 25)) for step in range(76, 101)])


def test_before_the_decay_the_lr_does_not_depend_on_the_length_of_the_run():
    shorter, longer = (
        learning_rates(lambda opt, n=n: WarmupStableDecay(opt, n, warmup=10, decay=0.2), 80) for n in (100, 300)
    )
    assert shorter == longer
    config = {"scheduler": {"_target_": "fer_exp.training.schedules.WarmupStableDecay", "decay": 0.2}}
    config["trainer"] = {"max_epochs": 100}
    assert is_constant_until(config) == 80
    config["scheduler"]["_target_"] = "fer_exp.training.schedules.WarmupCosine"
    assert is_constant_until(config) == 0


def test_decay_of_no_steps():
    assert learning_rates(lambda opt: WarmupStableDecay(opt, 20, warmup=0, decay=0.0), 21) == [0.4] * 21


@pytest.mark.parametrize(
    ("schedule", "setting", "message"),
    [
        (WarmupStableDecay, {"warmup": -1}, "warmup=-1: expected a number of steps"),
        (WarmupStableDecay, {"warmup": 0, "decay": 1.5}, "decay=1.5: expected a fraction"),
        (WarmupStableDecay, {"warmup": 0, "final": -0.5}, "final=-0.5: expected a fraction"),
        (WarmupStableDecay, {"warmup": 10}, "start at step 8 of 10"),
        (WarmupCosine, {"warmup": 1.0}, "warmup=1.0: expected a fraction"),
        (WarmupCosine, {"warmup": -0.1}, "warmup=-0.1: expected a fraction"),
        (WarmupCosine, {"final": 1.5}, "final=1.5: expected a fraction"),
    ],
)
def test_impossible_settings_are_refused(schedule, setting, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        schedule(optimizer(), 10, **setting)
