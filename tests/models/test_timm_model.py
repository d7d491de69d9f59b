import re
import sys

import pytest
import timm
import torch

from fer_exp.config.checks import check_config
from fer_exp.config.instantiate import build
from fer_exp.errors import UserError
from fer_exp.models.timm_model import TimmNetwork

# timm's own miniatures, of a few hundred thousand parameters.
CONVOLUTIONAL, TRANSFORMER = "test_resnet", "test_vit"


@pytest.mark.parametrize("name", [CONVOLUTIONAL, TRANSFORMER])
def test_computes_what_timm_computes(name):
    torch.manual_seed(0)
    network = TimmNetwork(name)
    assert network.training
    size = {"img_size": 48} if name == TRANSFORMER else {}
    theirs = timm.create_model(name, in_chans=1, num_classes=7, **size).eval()
    theirs.load_state_dict(network.network.state_dict())
    x = torch.rand(3, 1, 48, 48)
    # The means over the three colours of what ImageNet's images have, or of the halves that some networks take.
    stated = timm.get_pretrained_cfg(name)
    mean, std = sum(stated.mean) / 3, sum(stated.std) / 3
    torch.testing.assert_close(network.eval()(x), theirs((x - mean) / std))


def test_a_transformer_has_patches_of_48_pixels():
    assert TimmNetwork(TRANSFORMER).network.patch_embed.grid_size == (3, 3)


def test_timm_is_given_what_was_chosen(monkeypatch):
    given, create = {}, timm.create_model

    def note(name, **settings):
        given.update(settings, name=name)
        return create(name, **{**settings, "pretrained": False})

    monkeypatch.setattr(timm, "create_model", note)
    TimmNetwork(CONVOLUTIONAL, pretrained=True, dropout=0.25, drop_path=0.1)
    assert given == {
        "name": CONVOLUTIONAL,
        "pretrained": True,
        "in_chans": 1,
        "num_classes": 7,
        "drop_rate": 0.25,
        "drop_path_rate": 0.1,
        "img_size": None,
    }


def test_trying_the_size_leaves_the_network_as_timm_made_it():
    torch.manual_seed(0)
    theirs = timm.create_model(CONVOLUTIONAL, in_chans=1, num_classes=7)
    torch.manual_seed(0)
    ours = TimmNetwork(CONVOLUTIONAL)
    torch.testing.assert_close(ours.network.state_dict(), theirs.state_dict(), rtol=0, atol=0)


def test_evaluation_repeats_itself():
    network, x = TimmNetwork(CONVOLUTIONAL, dropout=0.5), torch.rand(4, 1, 48, 48)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


@pytest.mark.parametrize("name", [CONVOLUTIONAL, TRANSFORMER])
def test_learns_two_batches(learns, name):
    torch.manual_seed(0)
    learns(TimmNetwork(name))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "mobilenetv3_smal_100"}, "has no such model; did you mean mobilenetv3_small_100 or "),
        ({"name": "zzzz"}, "name=zzzz: timm"),
        ({"name": 5}, "name=5: timm"),
        ({"name": "hf-hub:someone/something"}, "has no such model"),
        ({"name": "resnet10t.elsewhere"}, "Invalid pretrained tag (elsewhere)"),
        ({"name": "halonet26t"}, "timm's halonet26t cannot take faces of 48x48 pixels (AssertionError)"),
        ({"dropout": 1}, "dropout=1: expected a share in [0, 1)"),
        ({"drop_path": -0.1}, "drop_path=-0.1: expected a share in [0, 1)"),
    ],
)
def test_what_cannot_be_is_refused_with_words(settings, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        TimmNetwork(**{"name": CONVOLUTIONAL, **settings})


@pytest.fixture
def refusal(composed):
    """What a person reads who trains with these settings."""

    def refuse(*settings):
        cfg = composed("model=timm", *(f"model.{setting}" for setting in settings))
        check_config(cfg)
        with pytest.raises(UserError) as error:
            build(cfg, "model")
        assert "\n" not in str(error.value)
        return str(error.value)

    return refuse


def test_a_refusal_by_timm_says_which_model_and_why(refusal):
    said = refusal("name=efficientformer_l1")
    assert "timm's efficientformer_l1 cannot take faces of 48x48 pixels (The size of tensor" in said
    said = refusal("name=ghostnet_050", "drop_path=0.1")
    assert "timm's ghostnet_050 cannot be made with these settings (GhostNet.__init__() got" in said


def test_without_timm_the_refusal_names_what_to_install(refusal, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert 'pip install "fer_exp[timm]"' in refusal()


def test_weights_that_cannot_be_fetched_are_said(refusal, monkeypatch):
    def fail(*_, **__):
        raise OSError("no connection")

    monkeypatch.setattr(timm.models._builder, "load_pretrained", fail)
    assert "(no connection)" in refusal(f"name={CONVOLUTIONAL}", "pretrained=true")
