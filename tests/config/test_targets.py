"""Nodes with a ``_target_``: their class is checked, also deep inside a config, before anything is called."""

import sys
from pathlib import Path

import pytest
import torch
import torchvision
from omegaconf import OmegaConf
from torch import nn

from fer_exp.config.checks import check_config
from fer_exp.config.instantiate import build_checked, build_model
from fer_exp.config.schema import TRUSTED_PACKAGES
from fer_exp.config.targets import check_arguments
from fer_exp.errors import UserError


def touch(path: str) -> None:
    """A function of no class: called, it leaves a file."""
    Path(path).touch()


class Head(nn.Module):
    def __init__(self, num_classes: int, in_channels: int, image_size: int, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.layer = nn.Linear(in_channels * image_size**2, num_classes)
        self.inner = inner

    def forward(self, images):
        return self.layer(images.flatten(1))


def make_head(num_classes: int, in_channels: int) -> nn.Module:
    return Head(num_classes, in_channels, 48)


def make_anything(num_classes: int):
    return Head(num_classes, 1, 48)


class WrongType:
    def __new__(cls) -> nn.Module:
        return object()


def wrong_result() -> nn.Module:
    return 5


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setitem(sys.modules, "mine", sys.modules[__name__])


TOUCH = {"_target_": "mine.touch", "path": "touched"}


@pytest.mark.parametrize(
    ("key", "node"),
    [
        ("model", TOUCH),
        ("optimizer", {**TOUCH, "_partial_": True}),
        ("loss", {"_target_": "os.system", "command": "touch touched"}),
        ("data", {**TOUCH, "batch_size": 1, "root": "."}),
        ("callbacks.x", TOUCH),
        ("callbacks.checkpoints.folder", TOUCH),
        ("callbacks.early_stopping.patience", [TOUCH]),
        ("model.dropout", {"a": [{"b": TOUCH}]}),
        ("scheduler.factor", {"_target_": "builtins.open", "file": "touched", "mode": "w"}),
        ("logger.save_dir", {"_target_": "pathlib.Path.touch", "self": "touched"}),
    ],
)
def test_only_classes_of_the_right_base_are_called(config, tmp_path, monkeypatch, key, node):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        check_config(config(values={key: node}))
    assert key.split(".")[0] in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("node", "word"),
    [
        ({"_target_": "mine.Missing"}, "cannot be imported"),
        ({"_target_": 5}, "cannot be imported"),
        ({"dropout": 0.5}, "_target_"),
        ({"_target_": "mine.make_anything"}, "annotated"),
        ({"_target_": "torch.optim.Adam"}, "torch.nn"),
        ({"_target_": "mine.Head", "depth": 3}, "model.depth"),
        ({"_target_": "mine.wrong_result"}, "int"),
        ({"_target_": "mine.Head", "inner": {"_target_": "builtins.eval"}}, "model.inner._target_=builtins.eval"),
        ({"_target_": "mine.Head", "inner": "${nope}"}, "nope"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused(node, word):
    with pytest.raises(UserError, match=word):
        build_model(node, 7, (1, 48, 48))


def test_a_network_gets_the_number_of_classes_and_the_shape_of_the_images():
    model = build_model({"_target_": "mine.Head", "inner": {"_target_": "torch.nn.ReLU"}}, 3, (3, 24, 24))
    assert model(torch.zeros(2, 3, 24, 24)).shape == (2, 3)
    assert isinstance(model.inner, nn.ReLU)
    assert build_model({"_target_": "mine.Head", "num_classes": 5}, 3, (1, 8, 8)).layer.out_features == 5


def test_a_function_that_returns_a_network_is_accepted():
    assert build_model({"_target_": "mine.make_head"}, 4, (1, 48, 48)).layer.out_features == 4
    model = build_model({"_target_": "torchvision.models.squeezenet1_1", "num_classes": 7}, 7, (3, 48, 48))
    assert isinstance(model, torchvision.models.SqueezeNet)


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "antigravity.x"},
        {"_target_": "mine.Head"},
        {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "mine.Head"}]},
    ],
)
def test_a_foreign_file_can_name_classes_of_known_packages_only(node):
    with pytest.raises(UserError, match="fer_exp, torch, torchvision, timm"):
        build_model(node, 7, (1, 48, 48), packages=TRUSTED_PACKAGES)
    assert "antigravity" not in sys.modules
    assert isinstance(build_checked({"_target_": "torch.nn.ReLU"}, "model", nn.Module, TRUSTED_PACKAGES), nn.ReLU)


def test_arguments_are_compared_with_the_types_of_a_signature():
    def target(a: int, b: float = 1.0, c: bool | None = None, d: list[int] = (), e=0.5, f: torch.Tensor = None):
        pass

    def problems(**arguments):
        node = OmegaConf.create(arguments)
        return [problem.partition("=")[0] for problem in check_arguments("x", target, {k: node[k] for k in node})]

    assert problems(a=1, b=2, c=None, d=[1, 2], e=1, f=None) == []
    assert problems(a=1.5, b="x", c=1, d=["a"], e="x", f="x") == ["x.a", "x.b", "x.c", "x.d", "x.e"]
    assert problems(g=1) == ["x.g: target takes no such key; it takes a, b, c, d, e, f"]
