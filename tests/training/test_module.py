"""The LightningModule: gradients, weight decay, what is trained on and what is validated."""

import math
from functools import partial

import pytest
import torch

from fer_exp.config.instantiate import build
from fer_exp.data.dataset import normalize
from fer_exp.errors import UserError
from fer_exp.runs.record import read_history, read_summary
from fer_exp.train import train
from fer_exp.training.module import Classifier


def weights(tmp_path):
    return torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["state_dict"]


@pytest.fixture
def initial(monkeypatch):
    """The weights at the start of each run."""
    states = []
    original = Classifier.on_train_epoch_start

    def on_train_epoch_start(self):
        states.append({name: value.clone() for name, value in self.network.state_dict().items()})
        original(self)

    monkeypatch.setattr(Classifier, "on_train_epoch_start", on_train_epoch_start)
    return states


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_are_clipped_in_any_precision(tiny, tmp_path, initial, precision, algorithm):
    train(tiny("trainer.gradient_clip_val=1e-9", "optimizer=sgd_nesterov", "+optimizer.fused=true",
               "optimizer.weight_decay=0",
               f"trainer.precision={precision}", f"+trainer.gradient_clip_algorithm={algorithm}",
               "trainer.max_epochs=1"))  # fmt: skip
    key = "layers.conv1_1.weight"
    assert torch.allclose(weights(tmp_path)[f"network.{key}"], initial[0][key], atol=1e-7)


def test_weight_decay_excludes_parameters_with_one_axis(tiny, tmp_path, initial):
    # Decay that removes everything in a step, and no gradients.
    train(tiny("optimizer=sgd", "optimizer.lr=0.5", "optimizer.weight_decay=2", "trainer.gradient_clip_val=1e-30",
               "scheduler=none", "trainer.max_epochs=1", "weight_decay_exclude_1d=true"))  # fmt: skip
    trained = weights(tmp_path)
    for name, value in initial[0].items():
        if "running" not in name and "tracked" not in name:
            expected = torch.zeros(()) if value.dim() > 1 else value
            assert torch.allclose(trained[f"network.{name}"], expected, atol=1e-6), name


def test_parameters_of_a_loss_are_trained():
    loss = torch.nn.BCEWithLogitsLoss()
    loss.scale = torch.nn.Parameter(torch.ones(()))
    classifier = Classifier(torch.nn.Linear(4, 7), partial(torch.optim.SGD, lr=0.1), None, "val_loss", 7, loss=loss)
    (group,) = classifier.configure_optimizers().param_groups
    assert [parameter.shape for parameter in group["params"]] == [(7, 4), (7,), ()]


def test_clipping_with_a_fused_optimizer_in_float16_is_refused(tiny, monkeypatch):
    monkeypatch.setattr("fer_exp.training.hardware.choose_precision", lambda *_: "16-mixed")
    with pytest.raises(UserError, match=r"optimizer\.fused=false"):
        train(tiny("trainer.gradient_clip_val=1"))


def test_training_images_are_augmented_and_validation_images_are_not(tiny, monkeypatch):
    seen = {True: [], False: []}
    original = Classifier._logits

    def logits(self, images):
        seen[self.training].append(images)
        return original(self, images)

    monkeypatch.setattr(Classifier, "_logits", logits)
    cfg = tiny("augmentation=strong", "trainer.max_epochs=1")
    train(cfg)
    datamodule = build(cfg, "data")
    datamodule.setup()
    originals = {bytes(image.numpy()) for image in datamodule.train_set.images}
    trained = torch.cat(seen[True])
    as_bytes = (trained * 255).round().to(torch.uint8).contiguous()
    assert not any(bytes(image.numpy()) in originals for image in as_bytes)
    assert trained.min() >= 0
    assert trained.max() <= 1
    validated = torch.cat(seen[False])[: len(datamodule.val_set)]
    ours = sorted(bytes(image.contiguous().numpy()) for image in validated)
    assert ours == sorted(bytes(image.numpy()) for image in normalize(datamodule.val_set.images))


def test_soft_labels_are_the_targets(tiny, tmp_path, faces):
    from fer_exp.data.classes import FER_CLASSES

    # The folders say one class, the file another: the network learns the file's.
    rows = [f"train/{path.parent.name}/{path.name},0,0,0,1,0,0,0" for path in sorted((faces / "train").rglob("*.png"))]
    votes = tmp_path / "votes.csv"
    votes.write_text("\n".join([f"file,{','.join(FER_CLASSES)}", *rows]))
    train(tiny(f"data.soft_labels={votes}", "optimizer.lr=3e-2", "trainer.max_epochs=3"))
    last = read_history(tmp_path / "run")[-1]
    assert last["train_acc"] > 0.9
    assert last["val_acc"] == pytest.approx(1 / 7)
    assert len(read_summary(tmp_path / "run")["data"]["soft_labels"]) == 64


def test_schedule_spans_the_steps_taken_if_accumulation_changes(tiny, tmp_path):
    # 7 batches per epoch: 7 steps in the first epoch, then 3 of up to 3 batches each.
    accumulate = "{_target_:lightning.pytorch.callbacks.GradientAccumulationScheduler,scheduling:{0:1,1:3}}"
    train(tiny(f"+callbacks.accumulate={accumulate}", "scheduler=cosine", "scheduler.warmup=0",
               "callbacks=fixed_budget", "trainer.max_epochs=3"))  # fmt: skip
    rows = read_history(tmp_path / "run")
    assert [row["step"] for row in rows] == [7, 10, 13]
    assert rows[-1]["lr"] == pytest.approx(1e-3 * (1 + math.cos(math.pi * 12 / 13)) / 2)


@pytest.mark.parametrize("retain", [True, False])
def test_memory_is_retained_as_set(tiny, monkeypatch, retain):
    calls = []
    monkeypatch.setattr("fer_exp.training.hardware.retain_memory", lambda: calls.append(True))
    train(tiny(f"retain_memory={retain}", "trainer.max_epochs=1", "trainer.limit_train_batches=1"))
    assert calls == [True] * retain
