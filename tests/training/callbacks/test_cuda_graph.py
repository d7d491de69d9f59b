"""Captured passes: the training is the same as without. On a CPU a stand-in keeps the rules of captured networks."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from fer_exp.config.instantiate import build
from fer_exp.errors import UserError
from fer_exp.models.vgg import VGG
from fer_exp.runs.record import read_history
from fer_exp.train import train
from fer_exp.training.build import build_parts
from fer_exp.training.callbacks.cuda_graph import CudaGraphCallback

RECIPE = ("augmentation=strong", "mixup=mixup", "ema=default", "callbacks=fixed_budget", "trainer.max_epochs=2")


def replaying(network, samples):
    """``torch.cuda.make_graphed_callables`` as a CPU can do it.

    It warms up in training mode, reads images from one place alone, whose shape is fixed, and knows weights and
    statistics by their addresses.
    """
    assert network.training
    (placed,) = samples
    original = network.forward
    for _ in range(3):
        torch.autograd.grad(original(placed).sum(), tuple(network.parameters()))
    addresses = [value.data_ptr() for value in (*network.parameters(), *network.buffers())]

    def forward(images):
        if not network.training:
            return original(images)
        assert images.shape == placed.shape
        assert [value.data_ptr() for value in (*network.parameters(), *network.buffers())] == addresses
        placed.copy_(images)
        return original(placed)

    network.forward = forward
    return network


@pytest.fixture
def captured(monkeypatch):
    """Networks are captured, on a CPU too; the networks that were."""
    seen = []

    def build_captured(cfg):
        arguments, callbacks = build_parts(cfg)
        return arguments, [*callbacks, CudaGraphCallback()]

    monkeypatch.setattr("fer_exp.training.build.build_parts", build_captured)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(
        torch.cuda, "make_graphed_callables", lambda network, samples: seen.append(replaying(network, samples))
    )
    return seen


def outcome(folder):
    rows = [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in read_history(folder)]
    names = ("last", "best")
    states = [torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True)["state_dict"] for name in names]
    return rows, states


def test_a_captured_run_equals_a_plain_one_also_when_resumed(tiny, tmp_path, request, monkeypatch):
    plain, whole, rest = tmp_path / "plain", tmp_path / "whole", tmp_path / "rest"
    train(tiny(*RECIPE, folder=plain))
    networks = request.getfixturevalue("captured")
    train(tiny(*RECIPE, folder=whole))
    train(tiny(*RECIPE, "trainer.max_epochs=3", f"resume={whole}/checkpoints/last.ckpt", folder=rest))
    assert len(networks) == 2
    rows, states = outcome(plain)
    captured_rows, captured_states = outcome(whole)
    assert captured_rows == rows == outcome(rest)[0][:2]
    for state, captured_state in zip(states, captured_states, strict=True):
        assert all(torch.equal(state[name], captured_state[name]) for name in state)


def test_a_network_that_cannot_be_captured_ends_the_run_with_the_remedy(tiny, captured, monkeypatch):
    def refusing(network, samples):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", refusing)
    with pytest.raises(UserError, match=r"operation not permitted .*cuda_graph=false"):
        train(tiny("callbacks=fixed_budget"))


def test_the_capture_leaves_the_statistics_of_the_network_alone(captured):
    class Trainer:
        class datamodule:  # noqa: N801 (as Lightning names it)
            batch_size = 4
            train_set = SimpleNamespace(images=torch.zeros(1, 1, 48, 48))

        class precision_plugin:  # noqa: N801 (as Lightning names it)
            forward_context = torch.enable_grad

    class Module:
        network = VGG(widths=(8, 16), convolutions=(1, 1))
        device = torch.device("cpu")

    before = {name: value.clone() for name, value in Module.network.state_dict().items()}
    CudaGraphCallback().on_train_start(Trainer, Module)
    assert captured == [Module.network]
    for name, value in Module.network.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.gpu
def test_a_captured_network_gives_the_gradients_of_the_same_network():
    torch.manual_seed(0)
    networks = [VGG(widths=(8, 16), convolutions=(1, 1), dropout=0.0).cuda() for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    torch.cuda.make_graphed_callables(networks[1], (torch.zeros(32, 1, 48, 48, device="cuda"),))
    networks[1].load_state_dict(networks[0].state_dict())
    for _ in range(3):
        images = torch.rand(32, 1, 48, 48, device="cuda")
        for network in networks:
            network.zero_grad()
            network(images).logsumexp(dim=1).sum().backward()
        for one, other in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-4)
    for one, other in zip(networks[0].buffers(), networks[1].buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
def test_each_replay_drops_other_values_and_a_seed_repeats_them():
    network = VGG(widths=(8, 16), convolutions=(1, 1), dropout=0.5).cuda()
    images = torch.rand(32, 1, 48, 48, device="cuda")
    torch.cuda.make_graphed_callables(network, (torch.zeros_like(images),))
    seen = []
    for seed in (0, None, 0):
        if seed is not None:
            torch.manual_seed(seed)
        seen.append(network(images).detach().clone())
    assert not torch.equal(seen[0], seen[1])
    torch.testing.assert_close(seen[0], seen[2])


@pytest.mark.gpu
@pytest.mark.parametrize(
    "recipe",
    [("cuda_graph=false",), ("cuda_graph=true",), ("cuda_graph=true", *RECIPE)],
    ids=["launched", "captured", "everything"],
)
def test_no_step_waits_for_the_gpu(tiny, monkeypatch, request, recipe):
    steps = []
    request.addfinalizer(lambda: torch.cuda.set_sync_debug_mode("default"))

    class Watch(Callback):
        def on_exception(self, *arguments):
            torch.cuda.set_sync_debug_mode("default")

        def on_train_batch_start(self, *arguments):
            torch.cuda.set_sync_debug_mode("error")

        def on_train_batch_end(self, *arguments):
            torch.cuda.set_sync_debug_mode("default")
            steps.append(arguments[-1])

    monkeypatch.setattr(
        "fer_exp.training.build.build",
        lambda cfg, name: Watch() if name == "callbacks.checkpoints" else build(cfg, name),
    )
    train(tiny("callbacks=fixed_budget", "trainer.max_epochs=2", *recipe, "trainer.accelerator=gpu"))
    assert len(steps) == 14


@pytest.mark.gpu
def test_a_run_on_a_gpu_learns_as_much_captured_as_not(tiny, tmp_path):
    rows = []
    for graph in ("true", "false"):
        folder = tmp_path / graph
        train(
            tiny(
                "trainer.accelerator=gpu", "model=vgg_small", "model.dropout=0", f"cuda_graph={graph}",
                "callbacks=fixed_budget", "trainer.max_epochs=3", "trainer.deterministic=true", folder=folder,
            )
        )  # fmt: skip
        rows.append([row["train_loss"] for row in read_history(folder)])
    assert rows[0] == pytest.approx(rows[1], rel=1e-2)
