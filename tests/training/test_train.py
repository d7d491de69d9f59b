"""What a training leaves behind: record, checkpoints, plots, TensorBoard."""

import math

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from fer_exp.data.dataset import normalize
from fer_exp.errors import UserError
from fer_exp.models.vgg import VGG
from fer_exp.runs.record import read_history, read_summary
from fer_exp.train import train
from fer_exp.training.module import Classifier

TIMES = ("train_seconds", "val_seconds")


def metrics(folder):
    return [{name: value for name, value in row.items() if name not in TIMES} for row in read_history(folder)]


@pytest.fixture(scope="module")
def run(tmp_path_factory, faces):
    """Folder, returned value and validation set of a run with the default logger and augmentation."""
    from hydra import compose, initialize_config_dir

    from fer_exp.config.instantiate import build
    from fer_exp.config.schema import CONFIG_DIR

    folder = tmp_path_factory.mktemp("run") / "run"
    overrides = [
        "data=folders", f"data.root={faces}", "data.batch_size=10", "trainer.max_epochs=3", "optimizer.lr=1e-2",
        "augmentation=mild", "model=vgg", "model.widths=[8,8,16]", "model.convolutions=[1,1,1]", "model.dense=[16]",
        "trainer.precision=32-true", "trainer.accelerator=cpu", f"output_dir={folder}",
    ]  # fmt: skip
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("train", overrides)
    value = train(cfg)
    datamodule = build(cfg, "data")
    datamodule.setup()
    return folder, value, datamodule.val_set


def test_history_has_a_row_per_epoch(run):
    rows = read_history(run[0])
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["step"] for row in rows] == [7, 14, 21]
    assert [row["lr"] for row in rows] == [1e-2] * 3
    assert all(row["val_acc"] * 35 == pytest.approx(round(row["val_acc"] * 35)) for row in rows)


def test_summary_describes_the_run(run):
    folder, value, val_set = run
    summary, rows = read_summary(folder), read_history(folder)
    assert (summary["status"], summary["stopped_by"], summary["epochs"]) == ("completed", "max_epochs", 3)
    assert summary["config"]["optimizer"]["lr"] == 1e-2
    assert summary["config"]["callbacks"]["early_stopping"]["monitor"] == "val_loss"  # resolved
    assert summary["data"]["validation"] == 35
    assert summary["data"]["fingerprint"]["validation"] == val_set.fingerprint
    assert summary["environment"]["precision"] == "32-true"
    assert summary["best"] == min(rows, key=lambda row: row["val_loss"])
    assert summary["last"] == rows[-1]
    assert value == summary["best"]["val_acc"]
    assert any("patience=2" in warning for warning in summary["warnings"])
    assert summary["missing"] == []
    assert summary["seconds"]["total"] > summary["seconds"]["train"] > 0


def test_best_checkpoint_has_the_best_weights_and_the_confusion_matrix_shows_them(run):
    folder, _, val_set = run
    summary = read_summary(folder)
    checkpoint = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)
    assert checkpoint["epoch"] + 1 == summary["best"]["epoch"]
    network = VGG(widths=(8, 8, 16), convolutions=(1, 1, 1), dense=(16,)).eval()
    network.load_state_dict({k.removeprefix("network."): v for k, v in checkpoint["state_dict"].items()})
    with torch.no_grad():
        logits = network(normalize(val_set.images))
    loss = torch.nn.functional.cross_entropy(logits, val_set.labels)
    assert loss.item() == pytest.approx(summary["best"]["val_loss"], rel=1e-4)
    confusion = torch.zeros(7, 7, dtype=torch.int64)
    for label, predicted in zip(val_set.labels, logits.argmax(1), strict=True):
        confusion[label, predicted] += 1
    assert summary["confusion"] == confusion.tolist()


def test_without_checkpoints_there_is_no_confusion_matrix_of_the_best_epoch(tiny, tmp_path):
    train(tiny("callbacks.checkpoints=null"))
    summary = read_summary(tmp_path / "run")
    assert (summary["status"], summary["confusion"]) == ("completed", None)
    assert not (tmp_path / "run/checkpoints").exists()


def test_checkpoints_describe_their_run(run):
    summary = read_summary(run[0])
    for name in ("best", "last"):
        content = torch.load(run[0] / f"checkpoints/{name}.ckpt", weights_only=True)["hyper_parameters"]
        assert set(content) == {"config", "classes", "image_shape", "precision", "fingerprint", "run_id"}
        assert content["config"] == summary["config"]
        assert content["classes"] == summary["data"]["classes"]
        assert content["image_shape"] == [1, 48, 48]
        assert content["run_id"] == summary["run_id"]


def test_plots_are_not_blank(run):
    for name in ("samples", "augmentation", "model", "curves", "confusion_matrix"):
        with Image.open(run[0] / f"{name}.png") as picture:
            assert min(picture.size) >= 300
            assert len(picture.convert("L").getcolors()) > 20, name


def read_events(folder):
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


def test_tensorboard_shows_training_and_validation_under_the_same_tags(run):
    rows = read_history(run[0])
    for split, prefix in (("train", "train"), ("validation", "val")):
        events = read_events(run[0] / "tensorboard/Adam_seed0" / split)
        for tag in ("loss", "acc"):
            scalars = events.Scalars(tag)
            assert [event.step for event in scalars] == [1, 2, 3]
            assert [event.value for event in scalars] == pytest.approx([row[f"{prefix}_{tag}"] for row in rows])


def test_tensorboard_has_images_graph_lr_and_hyper_parameters(run):
    events = read_events(run[0] / "tensorboard/Adam_seed0")
    for name, epoch in (("samples", 0), ("model", 0), ("augmentation", 0), ("curves", 3), ("confusion_matrix", 3)):
        (picture,) = events.Images(name)
        assert picture.step == epoch
        assert picture.encoded_image_string == (run[0] / f"{name}.png").read_bytes()
    assert events.Tags()["graph"]
    assert [event.value for event in events.Scalars("lr")] == pytest.approx([1e-2] * 3)
    # With an experiment summary, the HParams tab would show the keys of one run only.
    assert "_hparams_/experiment" not in events.summary_metadata
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hparams = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert hparams["optimizer"].string_value.lower() == "adam"
    assert hparams["optimizer/lr"].number_value == 1e-2


def test_same_seed_same_history(tiny, tmp_path):
    for name, *overrides in (("a", "seed=0"), ("b", "seed=0", "data.in_memory=false"), ("c", "seed=1")):
        train(tiny(*overrides, folder=tmp_path / name))
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b")
    for name in ("best", "last"):
        in_memory, on_disk = (
            torch.load(tmp_path / run / f"checkpoints/{name}.ckpt", weights_only=True)["state_dict"] for run in "ab"
        )
        assert in_memory.keys() == on_disk.keys()
        assert all(torch.equal(in_memory[key], on_disk[key]) for key in in_memory)
    assert metrics(tmp_path / "a") != metrics(tmp_path / "c")


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["data.batch_size=71"], "data.batch_size=71"),
        (["data.batch_size=1"], "data.batch_size=1"),
        (["trainer.limit_train_batches=0.1"], "trainer.limit_train_batches=0.1"),
        (["trainer.limit_val_batches=0.2"], "trainer.limit_val_batches=0.2"),
        (["cuda_graph=true"], "cuda_graph=true"),
        (["im2col_weight_grad=true"], "im2col_weight_grad=true"),
        (["scheduler=one_cycle", "scheduler.pct_start=0.1", "trainer.limit_train_batches=5"], "scheduler: .* 10 steps"),
        (["+callbacks.again=${callbacks.early_stopping}"], "callbacks: "),
        (["optimizer=sgd_nesterov", "+optimizer.fused=true", "head_epochs=1"], "optimizer.fused=false"),
    ],
)  # fmt: skip
def test_wrong_settings_are_reported_and_nothing_is_written(tiny, tmp_path, overrides, key):
    with pytest.raises(UserError, match=key):
        train(tiny(*overrides))
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize(
    "override",
    [
        "optimizer.betas=[0.9,1.5]", "scheduler.factor=1.5", "callbacks.early_stopping.min_delta=-1", "ema.decay=1",
        "mixup.prob=2", "augmentation.flip=2",
    ],
)  # fmt: skip
def test_settings_that_a_class_refuses_are_reported_before_images_are_read(tiny, monkeypatch, override):
    monkeypatch.setattr("fer_exp.data.datamodule.ImageDataModule.setup", lambda *_: pytest.fail("images are read"))
    group = override.partition("=")[0].rpartition(".")[0]
    with pytest.raises(UserError, match=f"^{group}: "):
        train(tiny("ema=default", "mixup=mixup", "augmentation=mild", override))


OWN_NETWORKS = """
from fer_exp.models.vgg import VGG

class EightLogits(VGG):
    def __init__(self):
        super().__init__(num_classes=8, widths=[4], convolutions=[1], dense=[])

class TwoOutputs(EightLogits):
    def forward(self, x):
        return super().forward(x), x

class TwoOutputsInTraining(EightLogits):
    def forward(self, x):
        logits = super().forward(x)[:, :7]
        return (logits, logits) if self.training else logits

class Frozen(EightLogits):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)
"""


@pytest.mark.parametrize("name", ["EightLogits", "TwoOutputs", "TwoOutputsInTraining", "Frozen"])
def test_network_that_cannot_be_trained_is_refused(tiny, tmp_path, monkeypatch, name):
    (tmp_path / "networks_of_a_user.py").write_text(OWN_NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)
    cfg = tiny()
    cfg.model = {"_target_": f"networks_of_a_user.{name}"}
    with pytest.raises(UserError, match=rf"model: {name}\b"):
        train(cfg)


def test_run_that_breaks_is_recorded_as_failed(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(Classifier, "training_step", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(tiny())
    summary = read_summary(tmp_path / "run")
    assert summary["status"] == "failed"
    assert "ZeroDivisionError" in summary["error"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), r"data\.batch_size"),
        (MisconfigurationException("Cannot use `LearningRateMonitor`"), "callbacks: .*LearningRateMonitor"),
    ],
)
def test_failure_that_the_user_can_fix_names_the_remedy(tiny, tmp_path, monkeypatch, error, expected):
    def fail(*_):
        raise error

    monkeypatch.setattr(Classifier, "training_step", fail)
    with pytest.raises(UserError, match=expected):
        train(tiny())
    assert read_summary(tmp_path / "run")["status"] == "failed"


def test_interrupted_run_is_recorded(tiny, tmp_path, interrupted):
    with interrupted(2):
        train(tiny())
    summary = read_summary(tmp_path / "run")
    assert (summary["status"], summary["epochs"], summary["best"]["epoch"]) == ("interrupted", 1, 1)


def test_interrupt_between_training_and_validation(tiny, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning.Trainer.validate", interrupt)
    with pytest.raises(SystemExit) as exit_info:
        train(tiny("trainer.max_epochs=1"))
    assert exit_info.value.code == 130
    assert read_summary(tmp_path / "run")["status"] == "interrupted"


def test_folder_removed_during_training(tiny, tmp_path, monkeypatch):
    import shutil

    original = Classifier.training_step

    def training_step(self, batch, index):
        if self.current_epoch == 1:
            shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return original(self, batch, index)

    monkeypatch.setattr(Classifier, "training_step", training_step)
    with pytest.raises(UserError, match="removed"):
        train(tiny())
    assert not (tmp_path / "run").exists()


def test_loss_that_becomes_infinite_is_divergence(tiny, tmp_path):
    value = train(tiny("optimizer=sgd", "optimizer.lr=1e30", "trainer.max_epochs=5"))
    summary = read_summary(tmp_path / "run")
    assert math.isnan(value)
    assert (summary["status"], summary["stopped_by"], summary["epochs"]) == ("diverged", "divergence", 1)
    assert "step 2" in summary["error"]
    assert (summary["best"], summary["confusion"]) == (None, None)
    assert not list((tmp_path / "run/checkpoints").iterdir())


def nan_loss(classifier, index):
    if index == 3:
        classifier.train_metrics.update(torch.tensor(math.nan), torch.zeros(0, 7), torch.zeros(0, dtype=torch.int64))


def infinite_weight(classifier, index):
    next(m for m in classifier.network.modules() if hasattr(m, "running_var")).running_var.fill_(math.inf)


@pytest.mark.parametrize(("change", "step"), [(nan_loss, 18), (infinite_weight, 21)])
def test_run_that_diverges_later_keeps_its_best_weights(tiny, tmp_path, monkeypatch, change, step):
    original = Classifier.training_step

    def training_step(self, batch, index):
        if self.current_epoch == 2:
            change(self, index)
        return original(self, batch, index)

    monkeypatch.setattr(Classifier, "training_step", training_step)
    train(tiny("trainer.max_epochs=5"))
    rows, summary = read_history(tmp_path / "run"), read_summary(tmp_path / "run")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert summary["status"] == "diverged"
    assert f"step {step}," in summary["error"]
    assert summary["best"]["epoch"] < 3
    assert sum(map(sum, summary["confusion"])) == 35
    for name in ("best", "last"):
        checkpoint = torch.load(tmp_path / f"run/checkpoints/{name}.ckpt", weights_only=True)
        assert checkpoint["epoch"] < 2
        assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())


@pytest.mark.slow
def test_default_run_learns_the_synthetic_images(composed):
    # The first thing a newcomer sees: over 90 %, where logistic regression stays below 60 %.
    assert train(composed()) >= 0.9
