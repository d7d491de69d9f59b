"""A checkpoint read back, and all that is none."""

import zipfile
from pathlib import Path

import pytest
import torch

from fer_exp.config.schema import PRECISIONS
from fer_exp.data.classes import FER_CLASSES as CLASSES
from fer_exp.errors import UserError
from fer_exp.models.resnet import ResNet18
from fer_exp.runs.checkpoint import LoadedModel, read_checkpoint

MODEL = {"_target_": "fer_exp.models.resnet.ResNet18", "num_classes": 7, "width": 16}


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ResNet18(num_classes=7, width=16).eval()


@pytest.fixture
def checkpoint(tmp_path, network):
    """Write a checkpoint: ``checkpoint(classes=["a"])`` changes a setting."""

    def write(path: Path = tmp_path / "best.ckpt", **changed) -> Path:
        run = {"config": {"model": changed.pop("model", MODEL)}, "classes": list(CLASSES), "image_shape": [1, 48, 48]}
        weights = {f"network.{name}": value for name, value in network.state_dict().items()}
        content = {"epoch": 3, "optimizer_states": [], "hyper_parameters": run | changed}
        content["state_dict"] = weights | {"loss.weight": torch.ones(7)}  # what else a classifier holds
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path)
        return path

    return write


def test_the_network_answers_as_it_did(checkpoint, network):
    trained = read_checkpoint(checkpoint())
    faces = torch.rand(3, 1, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(trained.logits(faces), network(faces))
    assert (trained.epoch, trained.classes, trained.network.training) == (4, CLASSES, False)


@pytest.mark.parametrize("precision", sorted({*PRECISIONS} - {"auto"}))
def test_each_precision_is_one_that_networks_answer_in(network, tmp_path, precision):
    with torch.no_grad():
        logits = LoadedModel(tmp_path, network, 1, {}, precision).logits(torch.rand(3, 1, 48, 48))
    kinds = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    assert logits.dtype == kinds[precision]


def test_weights_from_elsewhere_are_not_fetched_again(checkpoint, monkeypatch):
    asked = []

    class Pretrained(ResNet18):
        def __init__(self, num_classes: int, width: int, pretrained: bool) -> None:
            asked.append(pretrained)
            super().__init__(num_classes=num_classes, width=width)

    monkeypatch.setattr("fer_exp.models.resnet.ResNet18", Pretrained)
    read_checkpoint(checkpoint(model={**MODEL, "pretrained": True}))
    assert asked == [False]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"classes": list(CLASSES[:6])}, "weights do not fit"),
        ({"model": {**MODEL, "_target_": "os.system"}}, "expected a class that is a kind of torch.nn"),
        ({"model": {**MODEL, "_target_": "no.such.Network"}}, "cannot be imported"),
        ({"model": {**MODEL, "depth": 3}}, "takes no such key"),
        ({"model": {**MODEL, "width": 8}}, "weights do not fit"),
        ({"model": {"width": 16}}, "_target_"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(checkpoint, changed, said):
    with pytest.raises(UserError, match=said) as refused:
        read_checkpoint(checkpoint(**changed))
    assert "best.ckpt" in str(refused.value)


@pytest.mark.parametrize("place", ["widths", "dense"])
def test_a_checkpoint_calls_nothing_within_its_network_s_settings(checkpoint, tmp_path, place):
    file = {"_target_": "pathlib.Path", "_args_": [str(tmp_path / "written")]}
    writing = {"_target_": "pathlib.Path.write_text", "_args_": [file, "x"]}
    made = f"${{oc.create:{{_target_:pathlib.Path.write_text,_args_:[{tmp_path / 'written'},x]}}}}"
    for part in (writing, [8, writing], made):
        model = {"_target_": "fer_exp.models.vgg.VGG", "num_classes": 7, place: part}
        with pytest.raises(
            UserError, match=rf"model\.{place}.*Path\.write_text: expected a class that is a kind of torch"
        ):
            read_checkpoint(checkpoint(model=model))
    assert not (tmp_path / "written").exists()


def test_a_file_that_is_no_checkpoint_is_refused(checkpoint, tmp_path):
    whole = checkpoint().read_bytes()
    damaged = bytearray(whole)
    with zipfile.ZipFile(tmp_path / "best.ckpt") as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    damaged[largest.header_offset + 500] ^= 1
    for content in (b"", b"no checkpoint", whole[: len(whole) // 2], bytes(damaged)):
        (tmp_path / "other.ckpt").write_bytes(content)
        with pytest.raises(UserError, match="not a checkpoint of a run"):
            read_checkpoint(tmp_path / "other.ckpt")
    torch.save({"epoch": print}, tmp_path / "code.ckpt")
    with pytest.raises(UserError, match="not a checkpoint of a run"):
        read_checkpoint(tmp_path / "code.ckpt")
    with pytest.raises(UserError, match="there is no such checkpoint"):
        read_checkpoint(tmp_path / "nowhere.ckpt")
