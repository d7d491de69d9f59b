"""Test-time augmentation against versions made one by one."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fer_exp.errors import UserError
from fer_exp.evaluation.inference import load_model, log_probabilities
from fer_exp.evaluation.protocol import TTA
from fer_exp.runs.checkpoint import LoadedModel


def make_model(shape, folder):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), 7)).eval()
    return LoadedModel(folder / "best.ckpt", network, 1, {"config": {}})


def make_images(shape):
    return torch.randint(0, 256, (5, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def crops(image):
    """Corners, center and their mirror images of a 48-pixel image, resized to 48 pixels."""
    for top, left in ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2)):
        crop = F.interpolate(image[..., top : top + 44, left : left + 44], size=(48, 48), mode="bilinear")
        yield crop
        yield crop.flip(-1)


BY_HAND = {"none": lambda image: [image], "flip": lambda image: [image, image.flip(-1)], "ten_crop": crops}


@pytest.mark.parametrize("tta", TTA)
@pytest.mark.parametrize("channels", [1, 3])
def test_probabilities_are_the_mean_over_versions(tmp_path, tta, channels):
    model, images = make_model((channels, 48, 48), tmp_path), make_images((channels, 48, 48))
    found = log_probabilities(model, images.split(2), tta)
    assert (found.shape, found.dtype) == ((5, 7), torch.float64)
    with torch.no_grad():
        for row, image in zip(found, images, strict=True):
            outputs = [model.network(version).softmax(1) for version in BY_HAND[tta](image[None].float() / 255)]
            torch.testing.assert_close(row.exp(), torch.cat(outputs).mean(0).double(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("side", [8, 64, 97])
def test_every_image_size_has_ten_crops(tmp_path, side):
    model, images = make_model((1, side, side), tmp_path), make_images((1, side, side))
    found = log_probabilities(model, [images], "ten_crop")
    torch.testing.assert_close(found, log_probabilities(model, [images.flip(-1)], "ten_crop"))


def test_outputs_that_are_not_finite_are_refused(tmp_path):
    model, images = make_model((1, 48, 48), tmp_path), make_images((1, 48, 48))
    with torch.no_grad():
        model.network[1].bias[2] = float("nan")
    with pytest.raises(UserError, match=r"best\.ckpt"):
        log_probabilities(model, [images], "none")
    with pytest.raises(UserError, match=r"trainer\.precision=32-true"):
        log_probabilities(replace(model, precision="16-mixed"), [images], "none")


def test_a_model_computes_in_the_given_precision(tmp_path, monkeypatch):
    model, images = make_model((1, 48, 48), tmp_path), make_images((1, 48, 48)).float() / 255
    monkeypatch.setattr("fer_exp.evaluation.inference.read_checkpoint", lambda *_: model)
    whole, half = (load_model(tmp_path, "cpu", precision)[0] for precision in ("32-true", "bf16-mixed"))
    with torch.no_grad():
        torch.testing.assert_close(whole.logits(images), model.network(images))
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(half.logits(images), model.network(images))
    with pytest.raises(UserError, match=r"trainer\.precision=16-mixed"):
        load_model(tmp_path, "cpu", "16-mixed")
