"""Whole trainings in this process: what a run leaves, repeats, refuses and goes on from."""

import logging
import math
import shutil
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from torch.utils._python_dispatch import TorchDispatchMode

from fer_exp.config.instantiate import build
from fer_exp.config.schema import CONFIG_DIR
from fer_exp.data.classes import FER_CLASSES as CLASSES
from fer_exp.data.dataset import normalise
from fer_exp.data.sources.class_folders import FolderDataModule
from fer_exp.errors import UserError
from fer_exp.models.notebook_cnn import NotebookCNN
from fer_exp.plots.run import confusion_figure
from fer_exp.runs.record import read_history, read_summary
from fer_exp.train import train
from fer_exp.training.module import Classifier

TIMES = ("train_seconds", "val_seconds")


def figures(folder):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read_history(folder)]


@pytest.fixture(scope="module")
def run(tmp_path_factory, faces):
    """One run with everything on; (folder, config, lines that were printed, returned value, confusion matrix)."""
    drawn = []
    patch = pytest.MonkeyPatch()
    patch.setattr(
        "fer_exp.training.callbacks.plots.confusion_figure",
        lambda confusion, *arguments: drawn.append(confusion) or confusion_figure(confusion, *arguments),
    )
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
        patch.undo()
    (confusion,) = drawn
    return folder, cfg, lines, value, confusion


def test_history_has_a_row_an_epoch(run):
    rows = read_history(run[0])
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["step"] for row in rows] == [7, 14, 21]
    assert [row["lr"] for row in rows] == [1e-4] * 3
    assert all(0 <= row[name] <= 1 for row in rows for name in ("train_acc", "val_acc", "val_macro_f1"))
    assert all(row["val_acc"] * 35 == pytest.approx(round(row["val_acc"] * 35)) for row in rows)


def test_summary_tells_the_run(run):
    folder, cfg, _, value, _ = run
    summary, rows = read_summary(folder), read_history(folder)
    assert summary["status"] == "completed"
    assert summary["stopped_by"] == "max_epochs"
    assert summary["optimizer"]["name"] == "Adam"
    assert summary["optimizer"]["lr"] == 1e-4
    assert summary["model"]["name"] == "NotebookCNN"
    assert summary["seed"] == 0
    assert summary["params"] == {"trainable": 4_474_759, "non_trainable": 3_968}
    assert summary["data"]["train"] == 70
    assert summary["data"]["skipped"]["train"] == {"excluded": 0, "unreadable": 0}
    assert summary["data"]["validation"] == 35
    assert summary["data"]["classes"] == list(CLASSES)
    assert summary["config"]["data"]["root"] == cfg.data.root
    data = FolderDataModule(root=cfg.data.root, batch_size=10, seed=0)
    data.setup()
    fingerprints = {"train": data.train_set.fingerprint, "validation": data.val_set.fingerprint}
    assert summary["data"]["fingerprint"] == fingerprints
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
    folder, cfg, *_ = run
    for name in ("best", "last"):
        checkpoint = torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True)
        settings = checkpoint["hyper_parameters"]["settings"]
        assert settings["classes"] == list(CLASSES)
        assert settings["model"]["_target_"] == cfg.model._target_
        assert settings["fingerprint"] == read_summary(folder)["data"]["fingerprint"]
    assert checkpoint["epoch"] == 2  # last.ckpt: Lightning counts from 0


def test_restored_weights_are_those_of_the_lowest_loss_on_disk_and_in_the_matrix(run, faces):
    folder, *_, confusion = run
    restored = read_summary(folder)["restored"]
    assert confusion.trace() / confusion.sum() == pytest.approx(restored["val_acc"])
    saved = torch.load(folder / "checkpoints/restored.ckpt", weights_only=True)
    network = NotebookCNN().eval()
    network.load_state_dict({k.removeprefix("network."): v for k, v in saved["state_dict"].items()})
    data = FolderDataModule(root=faces, batch_size=10, seed=0)
    data.setup()
    with torch.no_grad():
        logits = network(normalise(data.val_set.images))
    loss = torch.nn.functional.cross_entropy(logits, data.val_set.labels)
    assert loss.item() == pytest.approx(restored["val_loss"], rel=1e-4)


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
    for name, epoch in (("samples", 0), ("model", 0), ("curves", 3), ("confusion_matrix", 3)):
        (picture,) = events.Images(name)
        assert picture.step == epoch
        assert picture.encoded_image_string == (run[0] / f"{name}.png").read_bytes()
        assert (picture.width, picture.height) == Image.open(run[0] / f"{name}.png").size
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


def test_a_resumed_run_that_changes_its_settings_is_refused(small, tmp_path, resumable):
    for override, said in (
        ("optimizer.lr=0.5", "settings: optimizer.lr was 0.001 and is 0.5. Give the same"),
        ("optimizer=sgd", "optimizer.name was Adam and is SGD"),
        ("model=resnet18", "model.name was NotebookCNN and is ResNet18"),
        ("data.val_fraction=0.5", "fingerprint.train was .* and is "),
        ("+trainer.accumulate_grad_batches=3", "settings: trainer.accumulate_grad_batches was None and is 3. Give"),
        ("trainer.limit_train_batches=3", "trainer.limit_train_batches was 1.0 and is 3"),
        ("channels_last=false", "channels_last was True and is False"),
        ("monitor=val_acc", "monitor was val_loss and is val_acc"),
        ("seed=1", "seed was 0 and is 1"),
        ("data.batch_size=12", "batch_size was 10 and is 12"),
        ("scheduler.factor=0.5", "scheduler.factor was"),
        ("trainer.max_epochs=1", "has trained 1 epochs, and trainer.max_epochs=1 leaves none"),
    ):
        with pytest.raises(UserError, match=said):
            train(small(f"resume={resumable}", override))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04"])
def test_a_file_that_is_no_checkpoint_is_refused(small, tmp_path_factory, content):
    file = tmp_path_factory.mktemp("other") / "checkpoints.ckpt"
    file.write_bytes(content)
    with pytest.raises(UserError, match="not a checkpoint to go on from"):
        train(small(f"resume={file}"))


def test_a_checkpoint_that_carries_code_is_refused_and_not_run(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evil")

    class Evil:
        def __reduce__(self):
            return (Path.touch, (folder / "code was run",))

    torch.save({"epoch": 0, "hyper_parameters": Evil()}, folder / "last.ckpt")
    with pytest.raises(UserError, match="not a checkpoint to go on from"):
        train(small(f"resume={folder}/last.ckpt"))
    assert not (folder / "code was run").exists()


def test_a_checkpoint_that_was_cut_short_is_refused(small, tmp_path, resumable):
    whole = resumable.read_bytes()
    for length in (1, 1000, len(whole) // 2, len(whole) - 1):
        resumable.write_bytes(whole[:length])
        with pytest.raises(UserError, match="not a checkpoint to go on from"):
            train(small(f"resume={resumable}"))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_other_classes_or_preprocessing_is_refused_and_an_older_one_is_not(small, tmp_path, resumable):
    checkpoint = torch.load(resumable, weights_only=True)
    settings = checkpoint["hyper_parameters"]["settings"]
    assert settings["preprocessing"] == {"size": [48, 48], "grey": True, "scale": "1/255"}
    for key, other in (("classes", ["happy", "sad"]), ("preprocessing", {"size": [64, 64], "grey": False})):
        checkpoint["hyper_parameters"]["settings"] = {**settings, key: other}
        torch.save(checkpoint, resumable)
        with pytest.raises(UserError, match=f"{key}.* was .* and is "):
            train(small(f"resume={resumable}"))
    assert list(tmp_path.iterdir()) == []
    for untold in ("preprocessing", "trainer", "monitor", "channels_last", "data.seed"):
        del settings[untold]
    checkpoint["hyper_parameters"]["settings"] = settings
    torch.save(checkpoint, resumable)
    train(small(f"resume={resumable}"))
    assert [row["epoch"] for row in read_history(tmp_path)] == [1, 2]


def test_a_run_is_resumed_with_the_order_of_its_images(small, resumable):
    with pytest.raises(UserError, match=r"other settings: data\.seed was 0 and is 1\."):
        train(small(f"resume={resumable}", "data.seed=1"))


def test_a_run_is_resumed_in_its_own_folder_and_in_no_other_run_s(small, resumable, tmp_path_factory):
    own = resumable.parents[1]
    other = tmp_path_factory.mktemp("other")
    (other / "summary.json").write_text("{}")
    with pytest.raises(UserError, match="holds the record of another run"):
        train(small(f"resume={resumable}", f"output_dir={other}"))
    train(small(f"resume={resumable}", f"output_dir={own}"))
    assert [row["epoch"] for row in read_history(own)] == [1, 2]
    seconds = read_summary(own)["seconds"]
    assert seconds["total"] > seconds["train"] + seconds["validation"]


@pytest.fixture
def resumable(small, tmp_path_factory):
    """The last checkpoint of a run of one epoch."""
    folder = tmp_path_factory.mktemp("resumable")
    train(small("trainer.max_epochs=1", f"output_dir={folder}"))
    return folder / "checkpoints/last.ckpt"


def test_the_events_of_an_epoch_are_told_in_that_epoch(small, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="fer_exp")
    # No epoch can be better by 100: the rate is cut after each but the first, and the second of those stops the run.
    settings = ("scheduler.patience=0", "scheduler.threshold=100", "callbacks.early_stopping.min_delta=100")
    train(small(*settings, "callbacks.early_stopping.patience=2", "trainer.max_epochs=9"))
    lines = [line for line in caplog.messages if line.startswith(("Epoch", "  New", "  Learning", "  Early"))]
    events = [line for line in lines if not line.startswith(("Epoch", "  New"))]
    assert [line.split(" - ")[0] for line in lines if line.startswith("Epoch")] == [
        "Epoch 1/9",
        "Epoch 2/9",
        "Epoch 3/9",
    ]
    assert lines[1].startswith("  New best val_acc 0.")
    assert events == [
        "  Learning rate cut to 2.0e-04",
        "  Learning rate cut to 4.0e-05",
        "  Early stopping: no better val_loss in 2 epochs",
    ]
    assert lines[-1] == events[-1]
    assert read_summary(tmp_path)["stopped_by"] == "early_stopping"


def test_a_run_whose_loss_is_lost_says_so(small, tmp_path):
    value = train(small("optimizer=sgd", "optimizer.lr=1e30", "trainer.max_epochs=5"))
    summary = read_summary(tmp_path)
    assert math.isnan(value)
    assert summary["status"] == "diverged"
    assert summary["stopped_by"] == "divergence"
    assert summary["error"].startswith(
        "the training loss was no longer finite in epoch 1 (step 2, learning rate 1.0e+30); "
        "no epoch had finite figures. A smaller optimizer.lr may help"
    )
    assert (summary["epochs"], summary["best"], summary["restored"]) == (1, None, None)
    assert not list((tmp_path / "checkpoints").iterdir())


def in_epoch(monkeypatch, epoch, change):
    """Do something to the classifier before each training step of an epoch (from 1)."""
    original = Classifier.training_step

    def step(self, batch, index):
        if self.current_epoch == epoch - 1:
            change(self, index)
        return original(self, batch, index)

    monkeypatch.setattr(Classifier, "training_step", step)


def lose_loss(classifier, index):
    if index == 3:  # what the tally would see
        classifier.train_metrics.update(torch.tensor(math.nan), torch.zeros(0, 7), torch.zeros(0, dtype=torch.int64))


def lose_weights(classifier, index):
    classifier.network.layers.norm1.running_var.fill_(math.inf)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lose_loss, "the training loss was no longer finite in epoch 3 (step 18, learning rate 1.0e-03)"),
        (lose_weights, "the weights were no longer finite in epoch 3 (step 21, learning rate 1.0e-03)"),
    ],
)
def test_a_run_that_is_lost_later_keeps_what_it_had(small, tmp_path, monkeypatch, change, said):
    in_epoch(monkeypatch, 3, change)
    train(small("trainer.max_epochs=5"))
    rows, summary = read_history(tmp_path), read_summary(tmp_path)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert summary["status"] == "diverged"
    loss, val_loss, val_acc = (f"{rows[1][name]:.4f}" for name in ("train_loss", "val_loss", "val_acc"))
    assert summary["error"] == (
        f"{said}; epoch 2 was the last with finite figures: loss {loss}, val_loss {val_loss}, val_acc {val_acc}. "
        "A smaller optimizer.lr may help"
    )
    assert summary["best"]["epoch"] < 3
    for name in ("best", "last", "restored"):
        checkpoint = torch.load(tmp_path / f"checkpoints/{name}.ckpt", weights_only=True)
        assert checkpoint["epoch"] < 2 or name == "restored"
        assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())


def test_a_folder_that_is_removed_under_a_run_is_said(small, tmp_path, monkeypatch):
    in_epoch(monkeypatch, 2, lambda classifier, index: shutil.rmtree(tmp_path / "run", ignore_errors=index > 0))
    with pytest.raises(UserError, match="run was removed while the run trained, and its record with it: run it again"):
        train(small(f"output_dir={tmp_path / 'run'}"))
    assert not (tmp_path / "run").exists()


def test_a_run_that_breaks_says_so(small, tmp_path, monkeypatch):
    monkeypatch.setattr("fer_exp.training.module.Classifier.training_step", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(small())
    assert read_summary(tmp_path)["status"] == "failed"
    assert "ZeroDivisionError" in read_summary(tmp_path)["error"]


def test_an_interrupted_run_says_so(small, tmp_path, monkeypatch, caplog):
    def interrupt(self, *_):
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        return original(self, *_)

    original = Classifier.training_step
    monkeypatch.setattr(Classifier, "training_step", interrupt)
    caplog.set_level(logging.INFO, logger="fer_exp")
    with pytest.raises(SystemExit):
        train(small())
    assert f"Interrupted after 1 epochs. Go on with resume={tmp_path}/checkpoints/last.ckpt" in caplog.text
    assert read_summary(tmp_path)["status"] == "interrupted"
    assert len(read_history(tmp_path)) == 1
    assert (tmp_path / "curves.png").exists()
    assert (tmp_path / "checkpoints/restored.ckpt").exists()


def test_a_run_interrupted_in_its_first_epoch_names_no_checkpoint(small, monkeypatch, caplog):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("fer_exp.training.module.Classifier.training_step", interrupt)
    caplog.set_level(logging.INFO, logger="fer_exp")
    with pytest.raises(SystemExit):
        train(small())
    assert "Interrupted after 0 epochs." in caplog.messages


def test_nothing_is_written_when_the_settings_are_wrong(small, tmp_path):
    with pytest.raises(UserError, match=r"data\.batch_size=71 fills no batch from the 70 training images"):
        train(small("data.batch_size=71"))
    assert list(tmp_path.iterdir()) == []


def test_a_run_from_disk_is_the_one_from_memory(small, tmp_path):
    for in_memory in ("true", "false"):
        train(small(f"data.in_memory={in_memory}", f"output_dir={tmp_path / in_memory}"))
    assert figures(tmp_path / "false") == figures(tmp_path / "true")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_whatever_the_precision(small, tmp_path, precision):
    train(small("trainer.gradient_clip_val=1e-9", "optimizer=sgd_nesterov", "optimizer.weight_decay=0",
                f"trainer.precision={precision}", "trainer.max_epochs=1"))  # fmt: skip
    weights = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    torch.manual_seed(0)
    start = NotebookCNN().state_dict()
    assert torch.allclose(weights["network.layers.conv1.weight"], start["layers.conv1.weight"], atol=1e-7)
    train(small("+trainer.gradient_clip_algorithm=value", "trainer.gradient_clip_val=1e-9", "trainer.max_epochs=1",
                f"output_dir={tmp_path / 'value'}"))  # fmt: skip


def test_clipping_that_float16_leaves_no_moment_for_is_refused(small, monkeypatch):
    monkeypatch.setattr("fer_exp.training.hardware.choose_precision", lambda *_: ("16-mixed", "as set"))
    with pytest.raises(UserError, match=r"gradient_clip_val with trainer.precision=16-mixed.*optimizer.fused=false"):
        train(small("trainer.gradient_clip_val=1"))


def test_a_batch_of_one_has_nothing_to_normalise_over(small):
    with pytest.raises(
        UserError, match=r"data\.batch_size=1: NotebookCNN normalises over the batch; expected 2 or more"
    ):
        train(small("data.batch_size=1"))


def test_another_network_is_one_yaml_and_one_module(small, tmp_path):
    train(small("model=resnet18", "trainer.max_epochs=1", "trainer.limit_train_batches=1"))
    assert read_summary(tmp_path)["model"]["name"] == "ResNet18"


def test_precision_is_chosen_recorded_and_used(small, tmp_path, monkeypatch):
    used = []
    monkeypatch.setattr(
        "fer_exp.training.hardware.choose_precision", lambda wanted, _: ("bf16-mixed", f"{wanted}: a test")
    )
    monkeypatch.setattr("fer_exp.models.layers.ByteDropout.forward", lambda _, x: used.append(x.dtype) or x)
    train(small("trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.precision=auto"))
    assert torch.bfloat16 in used
    assert read_summary(tmp_path)["environment"]["precision"] == "bf16-mixed"


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [True, False])
def test_gradients_come_from_patches_as_is_wanted_and_the_record_says_so(small, monkeypatch, wanted):
    taken = []
    monkeypatch.setattr(
        "fer_exp.models.layers.convolve",
        lambda x, weight, bias: taken.append(x.shape[2]) or torch.nn.functional.conv2d(x, weight, bias, padding=1),
    )
    cfg = small(
        "model=vgg", "model.widths=[8,8,256]", "model.convolutions=[1,1,2]", "trainer.precision=bf16-mixed",
        f"im2col_weight_grad={wanted}", "trainer.max_epochs=1", "trainer.limit_train_batches=2",
    )  # fmt: skip
    monkeypatch.setattr("fer_exp.models.layers.MAX_MAP_SIZE", 12)
    train(cfg)
    assert taken == ([12] * 2 if wanted else [])
    assert read_summary(Path(cfg.output_dir))["environment"]["im2col_weight_grad"] is wanted


@pytest.mark.parametrize("wanted", [True, False])
def test_memory_is_kept_where_that_is_wanted(small, monkeypatch, wanted):
    kept = []
    monkeypatch.setattr("fer_exp.training.hardware.keep_freed_memory", lambda: kept.append(True))
    train(small("model=vgg_small", f"retain_memory={wanted}", "trainer.max_epochs=1", "trainer.limit_train_batches=1"))
    assert kept == [True] * wanted


def test_the_default_run_learns_the_drawn_faces(composed, tmp_path):
    # The first thing a newcomer sees: 85 % within 10 epochs, where logistic regression stays below 60 %.
    cfg = composed()
    assert cfg.trainer.max_epochs <= 10
    assert train(cfg) >= 0.85


RECIPE = (
    "augmentation=strong", "mixup=cutmix", "mixup.mixup_alpha=0.2", "loss.label_smoothing=0.1",
    "loss.class_weights=balanced", "ema=default", "ema.decay=0.9", "callbacks=fixed_budget",
    "trainer.gradient_clip_val=1.0",
    "decay_norms_and_biases=false", "data.balanced_sampling=true", "monitor=val_acc",
    "trainer.limit_train_batches=3", "trainer.limit_val_batches=1",
)  # fmt: skip


@pytest.mark.parametrize(
    ("optimizer", "scheduler"),
    [
        ("adam", "cosine"), ("adamw", "one_cycle"), ("rmsprop", "cosine"), ("sgd", "one_cycle"),
        ("sgd_nesterov", "cosine"), ("sgd_nesterov", "plateau"),
    ],
)  # fmt: skip
def test_a_recipe_with_everything_goes_on_as_if_never_interrupted(small, tmp_path, monkeypatch, optimizer, scheduler):
    settings = (*RECIPE, f"optimizer={optimizer}", f"scheduler={scheduler}", "optimizer.weight_decay=1e-3")
    whole, part = tmp_path / "whole", tmp_path / "part"
    train(small(*settings, f"output_dir={whole}"))
    with monkeypatch.context() as patch:
        step = Classifier.training_step

        def interrupted(self, batch, index):
            if self.trainer.current_epoch == 1 and index == 1:
                raise KeyboardInterrupt
            return step(self, batch, index)

        patch.setattr(Classifier, "training_step", interrupted)
        with pytest.raises(SystemExit):
            train(small(*settings, f"output_dir={part}"))
    assert len(figures(part)) == 1
    train(small(*settings, f"output_dir={part}", f"resume={part}/checkpoints/last.ckpt"))
    assert figures(part) == figures(whole)
    assert len(figures(whole)) == 2
    for name in ("last", "best", "restored"):
        states = [torch.load(f / f"checkpoints/{name}.ckpt", weights_only=True)["state_dict"] for f in (whole, part)]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_schedule_over_the_run_falls_with_each_step_and_its_last_rate_is_told(small, tmp_path):
    train(small("scheduler=cosine", "scheduler.warmup=0.0", "callbacks=fixed_budget", "trainer.max_epochs=2"))
    # 14 steps; an epoch's rate is that of its last step.
    expected = [1e-3 * (1 + math.cos(math.pi * step / 14)) / 2 for step in (6, 13)]
    assert [row["lr"] for row in figures(tmp_path)] == pytest.approx(expected)
    with pytest.raises(UserError, match=r"scheduler\.max_epochs was 2 and is 4"):
        train(
            small(
                "scheduler=cosine", "scheduler.warmup=0.0", "callbacks=fixed_budget", "trainer.max_epochs=4",
                f"output_dir={tmp_path}", f"resume={tmp_path}/checkpoints/last.ckpt",
            )
        )  # fmt: skip


def test_a_run_whose_rate_has_not_begun_to_fall_can_be_given_another_length(small, tmp_path, monkeypatch):
    settings = ("scheduler=wsd", "scheduler.warmup=2", "scheduler.decay=0.5", "callbacks=fixed_budget")
    whole, part, rest = tmp_path / "whole", tmp_path / "part", tmp_path / "rest"
    train(small(*settings, "trainer.max_epochs=3", f"output_dir={whole}"))
    with monkeypatch.context() as patch:
        step = Classifier.training_step

        def interrupted(self, batch, index):
            if self.current_epoch == 1:
                raise KeyboardInterrupt
            return step(self, batch, index)

        patch.setattr(Classifier, "training_step", interrupted)
        with pytest.raises(SystemExit):
            train(small(*settings, "trainer.max_epochs=4", "scheduler.decay=0.25", f"output_dir={part}"))
    train(small(*settings, "trainer.max_epochs=3", f"output_dir={rest}", f"resume={part}/checkpoints/last.ckpt"))
    assert figures(rest) == figures(whole)
    assert figures(whole)[-1]["lr"] < figures(whole)[0]["lr"] == pytest.approx(1e-3)
    with pytest.raises(UserError, match=r"scheduler\.max_epochs was 3 and is 4"):  # its rate has fallen
        train(small(*settings, "trainer.max_epochs=4", f"output_dir={whole}", f"resume={whole}/checkpoints/last.ckpt"))


def test_weight_decay_spares_norms_and_biases_where_that_is_asked_for(small, tmp_path):
    # A rate of decay that leaves nothing: what is decayed is 0 after a step, and the gradients are cut off.
    settings = ("optimizer=sgd", "optimizer.lr=0.5", "optimizer.weight_decay=2", "trainer.gradient_clip_val=1e-30")
    settings += ("scheduler=none", "trainer.max_epochs=1", "decay_norms_and_biases=false")
    train(small(*settings))
    weights = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for name, parameter in NotebookCNN().named_parameters():
        trained = weights[f"network.{name}"]
        assert torch.allclose(trained, torch.zeros(()) if parameter.dim() > 1 else parameter, atol=1e-6), name
    assert sum(weights["network.layers.norm1.weight"]) == 64


def test_what_is_trained_is_changed_and_what_is_validated_is_not(small, tmp_path, monkeypatch):
    seen = {"training": [], "validation": []}
    logits = Classifier._logits

    def noting(self, faces):
        seen["training" if self.training else "validation"].append(faces)
        return logits(self, faces)

    monkeypatch.setattr(Classifier, "_logits", noting)
    train(small("augmentation=strong", "trainer.max_epochs=1"))
    datamodule = FolderDataModule(root=small().data.root, batch_size=10, seed=0)
    datamodule.setup()
    originals = {bytes(face.numpy()) for face in datamodule.train_set.images}
    as_bytes = [(batch * 255).round().to(torch.uint8) for batch in seen["training"]]
    assert not any(bytes(face.contiguous().numpy()) in originals for batch in as_bytes for face in batch)
    assert all((batch >= 0).all() and (batch <= 1).all() for batch in seen["training"])
    assert torch.equal(torch.cat(seen["validation"][:4]), normalise(datamodule.val_set.images))
    assert (tmp_path / "augmentation.png").exists()


def test_soft_labels_are_what_is_learned(small, tmp_path, faces):
    # The folders say one thing, the file another: what is predicted in the end is the file's.
    rows = [f"train/{path.parent.name}/{path.name},0,0,0,1,0,0,0" for path in sorted((faces / "train").rglob("*.png"))]
    votes = tmp_path / "votes.csv"
    votes.write_text("\n".join([f"file,{','.join(CLASSES)}", *rows]))
    folder = tmp_path / "run"
    train(small(f"data.soft_labels={votes}", f"output_dir={folder}", "optimizer.lr=1e-2"))
    last = figures(folder)[-1]
    assert last["train_acc"] > 0.9
    assert last["val_acc"] == pytest.approx(1 / 7)
    plain = tmp_path / "plain"
    train(small(f"output_dir={plain}", "trainer.max_epochs=1"))
    data, other = (read_summary(f)["data"] for f in (folder, plain))
    assert data["fingerprint"] == other["fingerprint"]  # of the images
    assert other["soft_labels"] is None
    assert len(data["soft_labels"]) == 64
    votes.write_text(votes.read_text().replace("0,0,0,1,0,0,0", "0,0,0,1,1,0,0"))
    with pytest.raises(UserError, match="that run had other settings: soft_labels was"):
        train(small(f"data.soft_labels={votes}", "optimizer.lr=1e-2", "trainer.max_epochs=3",
                    f"output_dir={tmp_path / 'other'}", f"resume={folder}/checkpoints/last.ckpt"))  # fmt: skip


def test_a_schedule_that_cannot_be_laid_over_the_run_is_said_before_anything_is_written(small, tmp_path):
    # torch divides by zero where the rising phase is one step long.
    with pytest.raises(UserError, match=r"scheduler: it cannot be laid over the 10 steps of this run \(float division"):
        train(small("scheduler=one_cycle", "scheduler.pct_start=0.1", "callbacks=fixed_budget",
                    "trainer.limit_train_batches=5"))  # fmt: skip
    assert list(tmp_path.iterdir()) == []


class EightLogits(NotebookCNN):
    def __init__(self):
        super().__init__(num_classes=8)


def test_a_network_with_another_number_of_logits_is_refused(small, tmp_path, monkeypatch):
    monkeypatch.setattr("fer_exp.models.notebook_cnn.EightLogits", EightLogits, raising=False)
    cfg = small()
    cfg.model = {"_target_": "fer_exp.models.notebook_cnn.EightLogits"}
    with pytest.raises(
        UserError, match=r"for a face the network gives \(8,\); expected \(7,\), a logit for each class"
    ):
        train(cfg)
    assert list(tmp_path.iterdir()) == []


class TwoOutputs(NotebookCNN):
    def forward(self, faces):
        return super().forward(faces), faces


def test_a_network_that_gives_something_else_than_logits_is_refused(small, tmp_path, monkeypatch):
    monkeypatch.setattr("fer_exp.models.notebook_cnn.TwoOutputs", TwoOutputs, raising=False)
    cfg = small()
    cfg.model = {"_target_": "fer_exp.models.notebook_cnn.TwoOutputs"}
    with pytest.raises(UserError, match=r"TwoOutputs gives a tuple; expected a tensor of logits"):
        train(cfg)
    assert list(tmp_path.iterdir()) == []


class EndsAfterOne(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = True


def test_a_run_that_another_callback_ended_says_so(small, tmp_path, monkeypatch):
    monkeypatch.setattr("fer_exp.training.callbacks.seeding.EndsAfterOne", EndsAfterOne, raising=False)
    cfg = small("trainer.max_epochs=3")
    OmegaConf.update(
        cfg, "callbacks.ends", {"_target_": "fer_exp.training.callbacks.seeding.EndsAfterOne"}, force_add=True
    )
    train(cfg)
    summary = read_summary(tmp_path)
    assert (summary["status"], summary["epochs"], summary["stopped_by"]) == ("completed", 1, "another_callback")


def test_a_share_that_is_less_than_a_batch_is_refused(small, tmp_path):
    for key, share, batches in (("limit_train_batches", 0.1, 7), ("limit_val_batches", 0.2, 4)):
        with pytest.raises(UserError, match=f"trainer.{key}={share}: this is less than one of the {batches} batches"):
            train(small(f"trainer.{key}={share}"))
    assert list(tmp_path.iterdir()) == []


def test_two_callbacks_of_which_a_checkpoint_could_hold_one_are_refused(small, tmp_path):
    again = "{_target_:fer_exp.training.callbacks.checkpoints.Checkpoints,folder:other,monitor:val_macro_f1}"
    with pytest.raises(UserError, match="callbacks: Found more than one stateful callback of type `Checkpoints`"):
        train(small(f"+callbacks.by_f1={again}"))
    assert list(tmp_path.iterdir()) == []


def test_a_schedule_is_laid_over_the_steps_that_are_taken_where_accumulation_changes(small, tmp_path):
    # 7 batches an epoch: in the first epoch 7 steps, then 3 of up to 3 batches, and the last rate is that of the end.
    accumulate = "{_target_:lightning.pytorch.callbacks.GradientAccumulationScheduler,scheduling:{0:1,1:3}}"
    train(small(f"+callbacks.accumulate={accumulate}", "scheduler=cosine", "scheduler.warmup=0",
                "callbacks=fixed_budget", "trainer.max_epochs=3"))  # fmt: skip
    rows = read_history(tmp_path)
    assert [row["step"] for row in rows] == [7, 10, 13]
    assert rows[-1]["lr"] == pytest.approx(1e-3 * (1 + math.cos(math.pi * 12 / 13)) / 2)


def test_a_checkpoint_is_found_under_the_home_folder(small, tmp_path, resumable, monkeypatch):
    monkeypatch.setenv("HOME", str(resumable.parents[1]))
    train(small("resume='~/checkpoints/last.ckpt'"))
    assert [row["epoch"] for row in read_history(tmp_path)] == [1, 2]


class Waiting(TorchDispatchMode):
    """Notes what a program would wait for on a GPU: values, or sizes that follow from values, that Python asks for."""

    ASKING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "bincount", "is_nonzero")

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__.startswith(self.ASKING):
            self.asked.append(function)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "recipe",
    [
        ("optimizer=adam",),
        ("optimizer=sgd_nesterov", "augmentation=strong", "mixup=cutmix", "mixup.mixup_alpha=0.2", "scheduler=one_cycle",
         "loss.label_smoothing=0.1", "loss.class_weights=balanced", "decay_norms_and_biases=false"),
    ],
    ids=["notebook", "everything"],
)  # fmt: skip
def test_no_step_asks_the_device_for_a_value(small, tmp_path, monkeypatch, recipe):
    with Waiting() as trial:
        assert float(torch.ones(2).sum()) == 2
    assert len(trial.asked) == 1
    asked = []

    class Watch(Callback):
        def on_train_batch_start(self, *arguments):
            self.waiting = Waiting()
            self.waiting.__enter__()

        def on_train_batch_end(self, *arguments):
            self.waiting.__exit__(None, None, None)
            asked.append(self.waiting.asked)

    monkeypatch.setattr("fer_exp.train.build", lambda cfg, name: Watch() if name == "checkpoints" else build(cfg, name))
    train(small(*recipe, "callbacks=fixed_budget", "trainer.max_epochs=1"))
    assert asked == [[]] * 7
