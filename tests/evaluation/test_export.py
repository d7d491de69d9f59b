"""Exported files, read without fer_exp."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from fer_exp.errors import UserError
from fer_exp.evaluation.export import export_model
from fer_exp.models.notebook_cnn import NotebookCNN
from fer_exp.models.resnet import ResNet18

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.load")

FACTS = {"classes": ["a", "b", "c"], "weights": "epoch 4 of 9"}


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()


def make_images(count, shape):
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def run_onnx(file, images):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


READERS = {"onnx": run_onnx, "torchscript": lambda file, images: torch.jit.load(file)(images)}


@pytest.mark.parametrize("format_name", READERS)
def test_exported_models_take_pixels_and_return_probabilities(network, tmp_path, format_name):
    file = export_model(network, (3, 20, 20), format_name, tmp_path, FACTS)
    for count in (1, 5):
        images = make_images(count, (3, 20, 20))
        with torch.no_grad():
            expected = network(images.float() / 255).softmax(dim=1)
            torch.testing.assert_close(READERS[format_name](file, images), expected, atol=1e-5, rtol=1e-4)
    assert {path.name for path in tmp_path.iterdir()} == {file.name, "model.json"}
    assert json.loads((tmp_path / "model.json").read_text()) == {**FACTS, "file": file.name}
    if format_name == "onnx":
        assert {item.key: json.loads(item.value) for item in onnx.load(file).metadata_props} == FACTS


@pytest.mark.parametrize("make", [NotebookCNN, ResNet18])
@pytest.mark.parametrize("format_name", READERS)
@pytest.mark.slow
def test_the_networks_of_the_project_can_be_exported(tmp_path, make, format_name):
    network = make(num_classes=7).eval()
    file = export_model(network, (1, 48, 48), format_name, tmp_path, FACTS)
    images = make_images(4, (1, 48, 48))
    with torch.no_grad():
        expected = network(images.float() / 255).softmax(dim=1)
        np.testing.assert_allclose(READERS[format_name](file, images), expected, atol=1e-5)


class Irregular(nn.Module):
    """Depends on the values of its input, which a trace does not record."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, images):
        logits = self.linear(images.flatten(1))
        return logits if images.shape[0] == 2 else 10 * logits


def test_a_network_that_a_format_cannot_hold_is_refused(tmp_path):
    with pytest.raises(UserError, match="format=torchscript"):
        export_model(Irregular().eval(), (1, 2, 2), "torchscript", tmp_path, FACTS)
    assert list(tmp_path.iterdir()) == []
