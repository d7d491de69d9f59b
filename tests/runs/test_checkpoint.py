"""A checkpoint read back, and all that is none."""

import zipfile
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from fer_exp.config.schema import PRECISIONS
from fer_exp.data.dataset import PREPROCESSING
from fer_exp.data.sources.class_folders import CLASSES
from fer_exp.errors import UserError
from fer_exp.models.resnet import ResNet18
from fer_exp.runs.checkpoint import LoadedModel, check_source, find_checkpoint, load_network, read_checkpoint
from fer_exp.runs.record import RunRecord

MODEL = {"name": "ResNet18", "_target_": "fer_exp.models.resnet.ResNet18", "num_classes": 7, "width": 16}


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ResNet18(num_classes=7, width=16).eval()


@pytest.fixture
def checkpoint(tmp_path, network):
    """Write a checkpoint: ``checkpoint(classes=["a"])`` changes a setting."""

    def write(path: Path = tmp_path / "best.ckpt", **changed) -> Path:
        settings = {"model": MODEL, "classes": list(CLASSES), "preprocessing": PREPROCESSING, **changed}
        weights = {f"network.{name}": value for name, value in network.state_dict().items()}
        content = {"epoch": 3, "optimizer_states": [], "hyper_parameters": {"settings": settings}}
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


def test_a_network_answers_in_the_precision_that_is_asked_for(checkpoint, network, monkeypatch):
    kept = []
    monkeypatch.setattr("fer_exp.training.hardware.keep_freed_memory", lambda: kept.append(True))
    faces = torch.rand(3, 1, 48, 48)
    whole, said = load_network(checkpoint(), "cpu", "32-true")
    assert said.startswith("Device: ")
    assert said.endswith("(as set). Precision: 32-true (as set).")
    half, said = load_network(checkpoint(), "cpu", "bf16-mixed")
    assert said.endswith("Precision: bf16-mixed (as set).")
    with torch.no_grad():
        torch.testing.assert_close(whole.logits(faces), network(faces))
        with torch.autocast("cpu", torch.bfloat16):
            expected = network(faces)
        torch.testing.assert_close(half.logits(faces), expected)
        assert expected.dtype == torch.bfloat16
    assert kept == [True, True]
    with pytest.raises(UserError, match=r"trainer\.precision=16-mixed: needs a GPU"):
        load_network(checkpoint(), "cpu", "16-mixed")


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
        ({"classes": list(CLASSES[:6])}, "names other classes"),
        ({"preprocessing": {**PREPROCESSING, "size": [224, 224]}}, "prepared as .*224"),
        ({"model": {**MODEL, "_target_": "os.system"}}, "expected a class that is a kind of torch.nn"),
        ({"model": {**MODEL, "_target_": "no.such.Network"}}, "cannot be imported"),
        ({"model": {**MODEL, "depth": 3}}, "takes no such key"),
        ({"model": {**MODEL, "num_classes": 5}}, "weights do not fit"),
        ({"model": {"name": "ResNet18"}}, "not a checkpoint of a run"),
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
        model = {"name": "VGG", "_target_": "fer_exp.models.vgg.VGG", "num_classes": 7, place: part}
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


def source(**given):
    cfg = {
        "run": None,
        "ckpt": None,
        "weights": "best",
        "batch_size": 8,
        "trainer": {"accelerator": "cpu", "precision": "32-true"},
    }
    return OmegaConf.create({**cfg, **given})


def test_a_checkpoint_is_found_by_its_run_and_a_run_by_its_checkpoint(checkpoint, tmp_path):
    run = tmp_path / "run"
    best = checkpoint(run / "checkpoints/best.ckpt")
    RunRecord(run, {}).finish("completed", 1.0)
    copied = checkpoint(tmp_path / "copy.ckpt")
    path, folder, summary = find_checkpoint(source(run=str(run)))
    assert (path, folder, summary["status"]) == (best, run, "completed")
    assert find_checkpoint(source(ckpt=str(best)))[:2] == (best, run)
    assert find_checkpoint(source(ckpt=str(copied))) == (copied, None, {})
    with pytest.raises(UserError, match=r"weights=last: .*expected one of those there are: best"):
        find_checkpoint(source(run=str(run), weights="last"))
    with pytest.raises(UserError, match=r"it holds runs: .*run"):
        find_checkpoint(source(run=str(tmp_path)))
    (run / "summary.json").write_text("{")
    with pytest.raises(UserError, match="record cannot be read"):
        find_checkpoint(source(run=str(run)))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "either run=DIR"),
        ({"run": "a", "ckpt": "b"}, "either run=DIR"),
        ({"run": "a", "weights": "worst"}, "best, restored, last"),
        ({"ckpt": "a", "weights": "last"}, "give run=DIR weights=last"),
        ({"run": "a", "batch_size": 0}, "batch_size=0"),
        ({"run": "a", "trainer": {"accelerator": "abacus"}}, "accelerator=abacus"),
        ({"run": "a", "trainer": {"accelerator": "cpu", "precision": "64"}}, "precision=64"),
    ],
)
def test_one_network_must_be_named(given, said):
    with pytest.raises(UserError, match=said):
        check_source(source(**given))
