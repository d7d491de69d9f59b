import zipfile
from pathlib import Path

import pytest
import torch

from fer_exp.errors import UserError
from fer_exp.models.resnet import ResNet18
from fer_exp.runs.checkpoint import LoadedModel, load_checkpoint, read_checkpoint

MODEL = {"_target_": "fer_exp.models.resnet.ResNet18", "width": 16}
CLASSES = ["cat", "dog", "fox"]
SHAPE = (3, 32, 32)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return ResNet18(num_classes=3, in_channels=3, width=16).eval()


@pytest.fixture
def checkpoint(tmp_path, network):
    """Write a checkpoint; ``checkpoint(classes=["a"])`` changes a hyper-parameter."""

    def write(**changed):
        settings = {
            "config": {"model": MODEL},
            "classes": CLASSES,
            "image_shape": list(SHAPE),
            "run_id": "a",
            **changed,
        }
        weights = {f"network.{name}": value for name, value in network.state_dict().items()}
        content = {"epoch": 3, "optimizer_states": [], "hyper_parameters": settings}
        content["state_dict"] = weights | {"loss.weight": torch.ones(7)}
        torch.save(content, tmp_path / "best.ckpt")
        return tmp_path / "best.ckpt"

    return write


def test_network_is_rebuilt_for_its_classes_and_images(checkpoint, network):
    model = read_checkpoint(checkpoint())
    images = torch.rand(2, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(model.logits(images), network(images))
    assert (model.epoch, model.classes, model.image_shape) == (4, tuple(CLASSES), SHAPE)
    assert not model.network.training


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16), ("16-mixed", torch.float16)],
)
def test_logits_in_each_precision(network, tmp_path, precision, dtype):
    with torch.no_grad():
        logits = LoadedModel(tmp_path, network, 1, {"config": {}}, precision).logits(torch.rand(2, *SHAPE))
    assert logits.dtype == dtype


def test_pretrained_weights_are_not_loaded_again(checkpoint, monkeypatch):
    asked = []

    class Pretrained(ResNet18):
        def __init__(self, num_classes: int, in_channels: int, width: int, pretrained: bool) -> None:
            asked.append(pretrained)
            super().__init__(num_classes=num_classes, in_channels=in_channels, width=width)

    monkeypatch.setattr("fer_exp.models.resnet.ResNet18", Pretrained)
    read_checkpoint(checkpoint(config={"model": {**MODEL, "pretrained": True}}))
    assert asked == [False]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"classes": CLASSES[:2]}, "do not fit"),
        ({"config": {"model": {**MODEL, "_target_": "os.system"}}}, r"model\._target_=os\.system"),
        ({"config": {"model": {**MODEL, "_target_": "antigravity.fly"}}}, r"model\._target_=antigravity\.fly"),
        ({"config": {"model": {**MODEL, "_target_": "torch.hub.load"}}}, r"model\._target_=torch\.hub\.load"),
        ({"config": {"model": {**MODEL, "depth": 3}}}, r"model\.depth"),
        ({"config": {"model": {"name": "ResNet18"}}}, r"_target_"),
        ({"config": {}}, "not a checkpoint"),
        ({"image_shape": None}, "not a checkpoint"),
    ],
)
def test_unsuitable_checkpoints_are_refused(checkpoint, changed, said):
    with pytest.raises(UserError, match=said) as refused:
        read_checkpoint(checkpoint(**changed))
    assert "best.ckpt" in str(refused.value)


def test_modules_of_other_packages_are_not_imported_unless_allowed(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "networks_of_others.py").write_text(
        "from fer_exp.models.resnet import ResNet18\nopen('imported', 'w').close()\nclass Mine(ResNet18): pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    path = checkpoint(config={"model": {**MODEL, "_target_": "networks_of_others.Mine"}})
    with pytest.raises(UserError, match="networks_of_others"):
        read_checkpoint(path)
    assert not (tmp_path / "imported").exists()
    assert read_checkpoint(path, packages=("networks_of_others",)).epoch == 4


@pytest.mark.parametrize("key", ["widths", "dense"])
def test_nothing_inside_the_network_s_settings_is_called(checkpoint, tmp_path, key):
    file = {"_target_": "pathlib.Path", "_args_": [str(tmp_path / "written")]}
    writing = {"_target_": "pathlib.Path.write_text", "_args_": [file, "x"]}
    interpolation = f"${{oc.create:{{_target_:pathlib.Path.write_text,_args_:[{tmp_path / 'written'},x]}}}}"
    for part in (writing, [8, writing], interpolation):
        model = {"_target_": "fer_exp.models.vgg.VGG", key: part}
        with pytest.raises(UserError, match=rf"model\.{key}"):
            read_checkpoint(checkpoint(config={"model": model}))
    assert not (tmp_path / "written").exists()


class Evil:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (Path.touch, (self.file,))


def test_files_that_are_no_checkpoints_are_refused(checkpoint, tmp_path):
    whole = checkpoint().read_bytes()
    damaged = bytearray(whole)
    with zipfile.ZipFile(tmp_path / "best.ckpt") as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    damaged[largest.header_offset + 500] ^= 1
    other = tmp_path / "other.ckpt"
    for content in (b"", b"no checkpoint", whole[: len(whole) // 2], bytes(damaged)):
        other.write_bytes(content)
        with pytest.raises(UserError, match="not a checkpoint"):
            load_checkpoint(other)
    for content in ({"epoch": Evil(tmp_path / "code was run")}, {"epoch": 1}, [1]):
        torch.save(content, other)
        with pytest.raises(UserError, match="not a checkpoint"):
            load_checkpoint(other)
    assert not (tmp_path / "code was run").exists()
    with pytest.raises(UserError, match="no such file"):
        load_checkpoint(tmp_path / "nowhere.ckpt")
