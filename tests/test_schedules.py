"""Schedules that span a run, against torch's and their formula."""

from itertools import pairwise

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from fer_exp.schedules import WarmupCosine


def optimizer(lr=0.4):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def rates(make, steps):
    opt = optimizer()
    schedule = make(opt)
    seen = []
    for _ in range(steps):
        seen.append(opt.param_groups[0]["lr"])
        opt.step()
        schedule.step()
    return seen


def test_without_warmup_it_is_torch_s_cosine():
    ours = rates(lambda opt: WarmupCosine(opt, 50, warmup=0.0, final=0.1), 50)
    assert ours == pytest.approx(rates(lambda opt: CosineAnnealingLR(opt, 50, eta_min=0.04), 50))


def test_it_rises_evenly_to_the_optimizer_s_rate_and_falls_from_there():
    seen = rates(lambda opt: WarmupCosine(opt, 100, warmup=0.2), 101)
    rising = [after - before for before, after in pairwise(seen[:21])]
    assert rising == pytest.approx([0.4 / 21] * 20)
    assert seen[20] == max(seen) == pytest.approx(0.4)
    assert all(after < before for before, after in pairwise(seen[20:]))
    assert seen[100] == pytest.approx(0.0, abs=1e-12)


def test_it_goes_on_from_a_saved_state():
    whole = rates(lambda opt: WarmupCosine(opt, 30), 30)
    opt = optimizer()
    first = WarmupCosine(opt, 30)
    for _ in range(11):
        opt.step()
        first.step()
    other = optimizer()
    resumed = WarmupCosine(other, 30)
    resumed.load_state_dict(first.state_dict())
    other.load_state_dict(opt.state_dict())
    seen = []
    for _ in range(11, 30):
        seen.append(other.param_groups[0]["lr"])
        other.step()
        resumed.step()
    assert seen == whole[11:]


@pytest.mark.parametrize("setting", [{"warmup": 1.0}, {"warmup": -0.1}, {"final": 1.5}])
def test_shares_that_are_none_are_refused(setting):
    with pytest.raises(ValueError, match=f"{next(iter(setting))}=.*expected a share"):
        WarmupCosine(optimizer(), 10, **setting)
