"""Factories: a value that a class refuses is reported with its settings, before training starts."""

import pytest
import torch

from fer_exp.config.checks import check_config
from fer_exp.config.instantiate import build, build_optimizer_factories
from fer_exp.errors import UserError

# Keras's defaults (keras.io/api/optimizers) under torch's names.
KERAS = {
    "adam": {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-7, "weight_decay": 0, "amsgrad": False},
    "sgd": {"lr": 1e-2, "momentum": 0, "nesterov": False, "weight_decay": 0},
    "rmsprop": {"lr": 1e-3, "alpha": 0.9, "momentum": 0, "eps": 1e-7, "centered": False, "weight_decay": 0},
}


@pytest.mark.parametrize("name", KERAS)
def test_optimizers_have_the_defaults_of_keras(config, name):
    make_optimizer, _ = build_optimizer_factories(config(f"optimizer={name}"))
    group = make_optimizer([torch.nn.Parameter(torch.zeros(2))]).param_groups[0]
    assert {key: list(v) if isinstance(v := group[key], tuple) else v for key in KERAS[name]} == KERAS[name]


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("optimizer.lr", -1, "lr=-1"),
        ("optimizer.betas", [2, 2], "beta"),
        ("scheduler.factor", 2, "factor=2"),
    ],
)
def test_a_value_that_the_class_refuses_is_reported(config, key, value, word):
    with pytest.raises(UserError, match=rf"(?s)^{key.partition('.')[0]}: .*{word}"):
        build_optimizer_factories(config(values={key: value}))


def test_an_optimizer_without_parameter_groups_cannot_exclude_parameters_from_weight_decay(config):
    lbfgs = {"_target_": "torch.optim.LBFGS", "_partial_": True}
    with pytest.raises(UserError, match="optimizer: LBFGS"):
        build_optimizer_factories(
            config("scheduler=none", values={"weight_decay_exclude_1d": True, "optimizer": lbfgs})
        )


class NoClosure(torch.optim.SGD):
    def step(self):
        pass


class OddState(torch.optim.SGD):
    def __init__(self, params, lr):
        super().__init__(params, lr)
        self.param_groups[0]["schedule"] = lambda step: 1 / step


class NoReason(torch.optim.SGD):
    def __init__(self, params, lr):
        raise AssertionError


@pytest.mark.parametrize(
    ("cls", "word"),
    [(NoClosure, "NoClosure.*closure"), (OddState, "OddState.*checkpoint"), (NoReason, "AssertionError")],
)
def test_an_optimizer_that_lightning_or_a_checkpoint_cannot_use_is_refused(config, monkeypatch, cls, word):
    monkeypatch.setattr("torch.optim.Mine", cls, raising=False)
    cfg = config(values={"optimizer": {"_target_": "torch.optim.Mine", "_partial_": True, "lr": 0.1}})
    check_config(cfg)
    with pytest.raises(UserError, match=f"^optimizer: .*{word}"):
        build_optimizer_factories(cfg)


def test_a_class_that_refuses_its_settings_is_reported_with_them(config):
    assert build(config(values={"model.dropout": 0.3}), "model")
    with pytest.raises(UserError, match=r"model: .*dropout=1\.5"):
        build(config(values={"model.dropout": 1.5}), "model")
    with pytest.raises(UserError, match="patience=0"):
        build(config(values={"callbacks.early_stopping.patience": 0}).callbacks, "early_stopping")
