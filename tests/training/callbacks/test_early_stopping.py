"""The validation losses of the notebook, replayed through the configured callbacks and schedule."""

import lightning as L
import pytest
import torch
from torch import nn

from fer_exp.config.instantiate import build, build_optimizer_factories
from fer_exp.data.dataset import ImageDataset, hash_images
from fer_exp.data.loaders import TrainingBatches, ValidationBatches
from fer_exp.runs.record import RunRecord
from fer_exp.training.callbacks.checkpoints import Checkpoints
from fer_exp.training.callbacks.early_stopping import EarlyStopping
from fer_exp.training.callbacks.history import HistoryCallback
from fer_exp.training.module import Classifier

# The log prints four digits. Epochs 10 and 12 both read 1.0688, yet training went on after epoch 13: with patience 3
# and "better" meaning strictly lower, epoch 12 must have been lower by less than the log shows.
NOTEBOOK_VAL_LOSS = [
    1.7229, 1.4641, 1.4188, 1.2958, 1.4361, 1.1260, 1.1967, 1.1446, 1.0745,
    1.0688, 1.0726, 1.06876, 1.1160, 0.9925, 1.0203, 1.0347, 1.0348,
]  # fmt: skip


class Replay(Classifier):
    """A classifier with given validation losses, whose weights are the number of the epoch they were trained in."""

    def __init__(self, *args, losses, **kwargs):
        super().__init__(nn.Sequential(nn.Flatten(), nn.Linear(48 * 48, 7)), *args, **kwargs)
        self.losses = losses
        self.register_buffer("epoch_of_weights", torch.tensor(0))
        self.lrs = []

    def on_train_epoch_start(self):
        super().on_train_epoch_start()
        self.epoch_of_weights.fill_(self.current_epoch + 1)
        self.lrs.append(self.trainer.optimizers[0].param_groups[0]["lr"])

    def on_validation_epoch_end(self):
        given = {"val_loss": self.losses[self.current_epoch], "val_acc": 0.5, "val_macro_f1": 0.5}
        self.val_metrics.compute = lambda: given
        super().on_validation_epoch_end()


def replay(cfg, losses, tmp_path, **kwargs):
    optimizer, scheduler = build_optimizer_factories(cfg)
    described = {"run_id": "replay", "config": {"model": {}}, "classes": [], "image_shape": []}
    classifier = Replay(optimizer, scheduler, cfg.monitor, 7, losses=losses, hyper_parameters=described)
    history = HistoryCallback(RunRecord(tmp_path, {"run_id": "replay", "monitor": cfg.monitor}), 0.0)
    callbacks = [build(cfg.callbacks, name) for name, callback in cfg.callbacks.items() if callback]
    trainer = L.Trainer(
        max_epochs=kwargs.pop("max_epochs", len(losses)), callbacks=[history, *callbacks], accelerator="cpu",
        logger=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )  # fmt: skip
    images = torch.zeros(2, 1, 48, 48, dtype=torch.uint8)
    blank = ImageDataset(images, torch.tensor([0, 1]), ("a", "b"), ("a", "b"), hash_images(images))
    device = torch.device("cpu")
    trainer.fit(classifier, TrainingBatches(blank, 2, 0, device), ValidationBatches(blank, 2, device), **kwargs)
    return classifier, trainer


def test_notebook(composed, tmp_path):
    cfg = composed("data=folders", "data.root=.")
    classifier, trainer = replay(cfg, NOTEBOOK_VAL_LOSS + [0.1] * 33, tmp_path, max_epochs=50)
    assert trainer.current_epoch == 17  # stopped after epoch 17
    assert classifier.lrs == [1e-3] * 13 + [pytest.approx(2e-4)] * 4  # reduced after epoch 13
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(4e-5)  # reduced after epoch 17
    assert classifier.epoch_of_weights == 14  # loaded at the end


def test_tie_in_the_printed_losses_would_have_stopped_the_notebook(composed, tmp_path):
    losses = [round(loss, 4) for loss in NOTEBOOK_VAL_LOSS]
    classifier, trainer = replay(composed(), losses, tmp_path)
    assert trainer.current_epoch == 13
    assert classifier.epoch_of_weights == 10


def test_patience_10_gives_the_schedule_time(composed, tmp_path):
    cfg = composed("experiment=notebook_patient", "data.root=.")
    losses = [1.0] + [1.1] * 12
    classifier, trainer = replay(cfg, losses, tmp_path)
    assert trainer.current_epoch == 11
    assert classifier.lrs == pytest.approx([1e-3] * 4 + [2e-4] * 3 + [4e-5] * 3 + [8e-6])


def test_plateau_ignores_gains_within_its_absolute_min_delta(composed, tmp_path):
    cfg = composed("callbacks=fixed_budget")
    classifier, _ = replay(cfg, [5.0, 4.99995, 4.9999 + 1e-6, 4.99991, 4.0], tmp_path)
    assert classifier.lrs == pytest.approx([1e-3] * 4 + [2e-4])


def test_best_weights_are_loaded_after_the_last_epoch(composed, tmp_path):
    classifier, trainer = replay(composed("callbacks=fixed_budget"), [1.0, 0.5, 0.7], tmp_path)
    assert trainer.current_epoch == 3
    assert classifier.epoch_of_weights == 2


def test_last_checkpoint_has_the_last_epoch_and_best_the_first_best(composed, tmp_path):
    replay(composed("callbacks=fixed_budget"), [1.0, 0.5, 0.5, 0.7], tmp_path)
    last = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    best = torch.load(tmp_path / "checkpoints/best.ckpt", weights_only=True)
    assert last["state_dict"]["epoch_of_weights"] == 4
    assert best["state_dict"]["epoch_of_weights"] == 2


def test_direction_is_that_of_the_monitor(composed):
    assert composed("monitor=val_acc", "callbacks=fixed_budget").scheduler.mode == "max"
    assert EarlyStopping("val_acc", 3).mode == "max"
    assert EarlyStopping("val_loss", 3).mode == "min"


def test_resumed_run_uses_the_patience_of_its_config(composed, tmp_path):
    losses = [1.0, *(1.1 + i / 100 for i in range(20))]
    _, trainer = replay(composed(), losses, tmp_path, max_epochs=50)
    assert trainer.current_epoch == 4
    cfg = composed("callbacks.early_stopping.patience=6")
    checkpoint = tmp_path / "checkpoints/last.ckpt"
    second, trainer = replay(cfg, losses, tmp_path, max_epochs=50, ckpt_path=checkpoint, weights_only=True)
    assert trainer.current_epoch == 7
    # The checkpoint holds the reduction after epoch 4, and the plateau's counter starts again after it.
    assert second.lrs == pytest.approx([2e-4] * 3)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(4e-5)
    assert second.epoch_of_weights == 1


def test_stopped_run_that_is_resumed_does_not_train(composed, tmp_path):
    losses = [1.0, *(1.1 + i / 100 for i in range(20))]
    first, trainer = replay(composed(), losses, tmp_path, max_epochs=50)
    again, resumed = replay(
        composed(), losses, tmp_path, max_epochs=50, ckpt_path=tmp_path / "checkpoints/last.ckpt", weights_only=True
    )
    assert resumed.current_epoch == trainer.current_epoch == 4
    assert again.lrs == []
    assert again.epoch_of_weights == first.epoch_of_weights == 1


def test_best_checkpoint_is_written_before_the_last_one(composed, tmp_path, monkeypatch):
    def die(*_):
        raise RuntimeError("killed between the two")

    monkeypatch.setattr(Checkpoints, "_copy", die)
    with pytest.raises(RuntimeError, match="killed between the two"):
        replay(composed(), [1.0], tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["best.ckpt"]
