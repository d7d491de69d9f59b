"""Whole trainings in this process: what a run leaves, repeats, refuses and goes on from."""

import logging

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from fer_exp.data.folders import CLASSES
from fer_exp.errors import UserError
from fer_exp.records import read_history, read_summary
from fer_exp.train import train

TIMES = ("train_seconds", "val_seconds")


def figures(folder):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read_history(folder)]


@pytest.fixture(scope="module")
def run(tmp_path_factory, faces):
    """One run with everything on; (folder, config, lines that were printed, returned value)."""
    from hydra import compose, initialize_config_dir

    from fer_exp.config import CONFIG_DIR

    folder = tmp_path_factory.mktemp("run")
    overrides = ["data=folders", f"data.root={faces}", "data.batch_size=10", "trainer.max_epochs=3"]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("train", [*overrides, f"output_dir={folder}", "trainer.precision=32-true", "optimizer.lr=1e-4"])
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.extend(record.getMessage().split("\n"))
    logger = logging.getLogger("fer_exp")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        value = train(cfg)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    return folder, cfg, lines, value


def test_history_has_a_row_an_epoch(run):
    rows = read_history(run[0])
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["step"] for row in rows] == [7, 14, 21]
    assert [row["lr"] for row in rows] == [1e-4] * 3
    assert all(0 <= row[name] <= 1 for row in rows for name in ("train_acc", "val_acc", "val_macro_f1"))
    assert all(row["val_acc"] * 35 == pytest.approx(round(row["val_acc"] * 35)) for row in rows)


def test_summary_tells_the_run(run):
    folder, _, _, value = run
    summary, rows = read_summary(folder), read_history(folder)
    assert summary["status"] == "completed"
    assert summary["stopped_by"] == "max_epochs"
    assert summary["optimizer"]["name"] == "Adam"
    assert summary["optimizer"]["lr"] == 1e-4
    assert summary["model"]["name"] == "NotebookCNN"
    assert summary["seed"] == 0
    assert summary["params"] == {"trainable": 4_474_759, "non_trainable": 3_968}
    assert summary["data"]["train"] == 70
    assert summary["data"]["classes"] == list(CLASSES)
    assert torch.__version__.startswith(summary["environment"]["versions"]["torch"])
    assert summary["environment"]["precision"] == "32-true"
    assert summary["best"] == max(rows, key=lambda row: row["val_acc"])
    assert value == summary["best"]["val_acc"]
    assert summary["restored"] == min(rows, key=lambda row: row["val_loss"])
    assert summary["last"] == rows[-1]
    assert summary["seconds"]["total"] > summary["seconds"]["train"]


def test_what_is_printed(run):
    lines, row = run[2], read_history(run[0])[1]
    assert "Found 70 images belonging to 7 classes." in " ".join(lines)
    assert any(line.startswith("layers.conv1 (Conv2d)") and line.endswith("640") for line in lines)
    assert "Trainable parameters: 4,474,759. Non-trainable: 3,968." in lines
    epoch = next(line for line in lines if line.startswith("Epoch 2/3"))
    assert f"s - loss {row['train_loss']:.4f} - acc {row['train_acc']:.4f} - val_loss {row['val_loss']:.4f}" in epoch
    assert epoch.endswith("- lr 1.0e-04")
    assert any(line.startswith("Completed after 3 epochs (max epochs)") for line in lines)
    assert "  checkpoints/best.ckpt" in lines


def test_pictures_are_there_and_not_blank(run):
    for name in ("samples", "model", "curves", "confusion_matrix"):
        with Image.open(run[0] / f"{name}.png") as picture:
            assert min(picture.size) >= 300
            assert len(picture.convert("L").getcolors()) > 20, name


def test_checkpoints_load_safely_and_tell_what_they_are(run):
    folder, cfg, _, _ = run
    for name in ("best", "last"):
        checkpoint = torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True)
        description = checkpoint["hyper_parameters"]["description"]
        assert description["classes"] == list(CLASSES)
        assert description["model"]["_target_"] == cfg.model._target_
    assert checkpoint["epoch"] == 2  # last.ckpt: Lightning counts from 0


def test_confusion_matrix_is_of_the_restored_weights(run, faces):
    from fer_exp.data.datamodule import FolderFaces
    from fer_exp.data.imageset import normalise
    from fer_exp.models.notebook_cnn import NotebookCNN

    folder = run[0]
    restored = read_summary(folder)["restored"]
    weights = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["callbacks"]["RestoreBestWeights"]
    network = NotebookCNN().eval()
    network.load_state_dict({k.removeprefix("network."): v for k, v in weights["weights"].items()})
    data = FolderFaces(faces, 10, 0)
    data.setup()
    with torch.no_grad():
        hits = network(normalise(data.validation_set.images)).argmax(1) == data.validation_set.labels
    assert hits.double().mean().item() == pytest.approx(restored["val_acc"])


def read_events(folder):
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


def test_tensorboard_shows_training_and_validation_under_the_same_tags(run):
    rows = read_history(run[0])
    for split, prefix in (("train", "train"), ("validation", "val")):
        events = read_events(run[0] / "tensorboard" / split)
        for tag in ("loss", "acc"):
            scalars = events.Scalars(tag)
            assert [event.step for event in scalars] == [1, 2, 3]
            assert [event.value for event in scalars] == pytest.approx([row[f"{prefix}_{tag}"] for row in rows])


def test_tensorboard_has_pictures_graph_rate_and_hyper_parameters(run):
    events = read_events(run[0] / "tensorboard")
    assert set(events.Tags()["images"]) == {"samples", "model", "curves", "confusion_matrix"}
    assert events.Tags()["graph"]
    assert [event.value for event in events.Scalars("lr")] == pytest.approx([1e-4] * 3)
    assert events.Scalars("result/val_acc")[0].value == pytest.approx(read_summary(run[0])["best"]["val_acc"])
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hparams = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert hparams["optimizer"].string_value == "Adam"
    assert hparams["optimizer/lr"].number_value == 1e-4


def test_same_seed_same_history_and_zero_is_a_seed(small, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        train(small(f"seed={seed}", f"output_dir={tmp_path / name}"))
    assert figures(tmp_path / "a") == figures(tmp_path / "b")
    assert figures(tmp_path / "a") != figures(tmp_path / "c")


def test_a_resumed_run_ends_as_one_that_was_never_interrupted(small, tmp_path):
    whole, part, rest = (tmp_path / name for name in ("whole", "part", "rest"))
    for folder in (whole, part, rest):
        folder.mkdir()
    settings = ("scheduler.patience=0", "scheduler.threshold=10", "callbacks=fixed_budget")  # a cut in each epoch
    train(small(*settings, "trainer.max_epochs=4", f"output_dir={whole}"))
    train(small(*settings, "trainer.max_epochs=2", f"output_dir={part}"))
    train(small(*settings, "trainer.max_epochs=4", f"output_dir={rest}", f"resume={part}/checkpoints/last.ckpt"))
    assert figures(rest) == figures(whole)
    assert [row["lr"] for row in figures(whole)] == pytest.approx([1e-3, 1e-3, 2e-4, 4e-5])
    for name in ("last", "best"):
        states = [torch.load(f / f"checkpoints/{name}.ckpt", weights_only=True)["state_dict"] for f in (whole, rest)]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_run_whose_loss_is_lost_says_so(small, tmp_path):
    train(small("optimizer=sgd", "optimizer.lr=1e30", "trainer.max_epochs=5"))
    summary = read_summary(tmp_path)
    assert summary["status"] == "diverged"
    assert summary["stopped_by"] == "divergence"
    assert "no longer finite in epoch" in summary["error"]
    assert summary["epochs"] < 5


def test_a_run_that_breaks_says_so(small, tmp_path, monkeypatch):
    monkeypatch.setattr("fer_exp.classifier.Classifier.training_step", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(small())
    assert read_summary(tmp_path)["status"] == "failed"
    assert "ZeroDivisionError" in read_summary(tmp_path)["error"]


def test_an_interrupted_run_says_so(small, tmp_path, monkeypatch):
    def interrupt(self, *_):
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        return original(self, *_)

    from fer_exp.classifier import Classifier

    original = Classifier.training_step
    monkeypatch.setattr(Classifier, "training_step", interrupt)
    with pytest.raises(SystemExit):
        train(small())
    assert read_summary(tmp_path)["status"] == "interrupted"
    assert len(read_history(tmp_path)) == 1
    assert (tmp_path / "curves.png").exists()


def test_nothing_is_written_when_the_settings_are_wrong(small, tmp_path):
    with pytest.raises(UserError, match=r"data\.batch_size=71 fills no batch from the 70 training images"):
        train(small("data.batch_size=71"))
    assert list(tmp_path.iterdir()) == []


def test_another_network_is_one_yaml_and_one_module(small, tmp_path):
    train(small("model=resnet18", "trainer.max_epochs=1", "trainer.limit_train_batches=1"))
    assert read_summary(tmp_path)["model"]["name"] == "ResNet18"


def test_precision_is_chosen_and_recorded(small, tmp_path):
    cfg = small("trainer.max_epochs=1", "trainer.limit_train_batches=2")
    cfg.trainer.precision = "bf16-mixed"
    train(cfg)
    assert read_summary(tmp_path)["environment"]["precision"] == "bf16-mixed"
