"""Every optimizer that can be chosen trains, and a loaded state trains on in the same way."""

import copy

import pytest
import torch
from torch import nn

from fer_exp.config.instantiate import build_optimizer_factories
from fer_exp.config.schema import CONFIG_DIR

NAMES = sorted(path.stem for path in CONFIG_DIR.glob("optimizer/*.yaml"))


def problem():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
    x = torch.randn(64, 10)
    return network, x, (x[:, :3]).argmax(1)


def steps(network, optimizer, x, y, count):
    losses = []
    for _ in range(count):
        loss = nn.functional.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls(composed, name):
    make_optimizer, _ = build_optimizer_factories(composed(f"optimizer={name}"))
    network, x, y = problem()
    losses = steps(network, make_optimizer(network.parameters()), x, y, 100)
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_loaded_state_takes_the_same_steps(composed, name, tmp_path):
    make_optimizer, _ = build_optimizer_factories(composed(f"optimizer={name}"))
    network, x, y = problem()
    optimizer = make_optimizer(network.parameters())
    steps(network, optimizer, x, y, 5)
    torch.save({"network": network.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")
    expected = steps(network, optimizer, x, y, 5)
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    other = copy.deepcopy(network)
    other.load_state_dict(saved["network"])
    resumed = make_optimizer(other.parameters())
    resumed.load_state_dict(saved["optimizer"])
    assert steps(other, resumed, x, y, 5) == expected


@pytest.mark.parametrize(
    "name", [name for name in NAMES if "fused:" in (CONFIG_DIR / f"optimizer/{name}.yaml").read_text()]
)
def test_a_fused_optimizer_computes_the_same(composed, name):
    weights = []
    for fused in ("true", "false"):
        make_optimizer, _ = build_optimizer_factories(composed(f"optimizer={name}", f"optimizer.fused={fused}"))
        network, x, y = problem()
        steps(network, make_optimizer(network.parameters()), x, y, 20)
        weights.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    start = torch.cat([p.detach().flatten() for p in problem()[0].parameters()])
    assert (weights[0] - start).abs().max() > 1e-2
    assert torch.allclose(weights[0], weights[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("target", ["RAdam", "NAdam", "Adamax", "Adam"])
def test_a_list_in_a_yaml_can_be_read_back_from_a_checkpoint(composed, target, tmp_path):
    cfg = composed()
    cfg.optimizer = {"_target_": f"torch.optim.{target}", "_partial_": True, "lr": 0.01, "betas": [0.8, 0.99]}
    make_optimizer, _ = build_optimizer_factories(cfg)
    network, x, y = problem()
    optimizer = make_optimizer(network.parameters())
    steps(network, optimizer, x, y, 2)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    assert tuple(saved["param_groups"][0]["betas"]) == (0.8, 0.99)
