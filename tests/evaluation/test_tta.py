"""What the network is shown, and the mean of its answers."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fer_exp.errors import UserError
from fer_exp.evaluation.protocol import VIEWS
from fer_exp.evaluation.tta import log_probabilities
from fer_exp.runs.checkpoint import LoadedModel


@pytest.fixture
def trained(tmp_path):
    """A network that looks at each place of a face in another way."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48 * 48, 7)).eval()
    return LoadedModel(tmp_path / "best.ckpt", network, 1, {})


@pytest.fixture
def faces():
    return torch.randint(0, 256, (5, 1, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def crops(image):
    """Corners and centre, brought back to 48x48, and their mirrors; (1, 1, 48, 48) each."""
    for top, left in ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2)):
        crop = F.interpolate(image[..., top : top + 44, left : left + 44], size=(48, 48), mode="bilinear")
        yield crop
        yield crop.flip(-1)


BY_HAND = {"single": lambda image: [image], "flip": lambda image: [image, image.flip(-1)], "ten_crop": crops}


@pytest.mark.parametrize("view", VIEWS)
def test_probabilities_are_averaged_over_the_views(trained, faces, view):
    found = log_probabilities(trained, faces.split(2), view, 5)
    assert (found.shape, found.dtype) == ((5, 7), torch.float64)
    with torch.no_grad():
        for row, face in zip(found, faces, strict=True):
            answers = [trained.network(image).softmax(1) for image in BY_HAND[view](face[None].float() / 255)]
            torch.testing.assert_close(row.exp(), torch.cat(answers).mean(0).double(), atol=1e-6, rtol=1e-5)


def test_views_differ_where_left_and_right_do(trained, faces):
    single, flip, ten_crop = (log_probabilities(trained, [faces], view, 5) for view in VIEWS)
    mirrored = log_probabilities(trained, [faces.flip(-1)], "flip", 5)
    torch.testing.assert_close(flip, mirrored)
    assert not torch.allclose(single, flip)
    assert not torch.allclose(flip, ten_crop)


def test_progress_is_told(trained, faces):
    told = []
    log_probabilities(trained, faces.split(2), "single", 5, lambda *count: told.append(count))
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_answers_that_are_not_finite_are_refused(trained, faces):
    with torch.no_grad():
        trained.network[1].bias[2] = float("nan")
    with pytest.raises(UserError, match=r"not finite; .* did not diverge\.$"):
        log_probabilities(trained, [faces], "single", 5)
    with pytest.raises(UserError, match=r"did not diverge, or trainer\.precision=32-true\.$"):
        log_probabilities(replace(trained, precision="16-mixed"), [faces], "single", 5)
