"""The moving average of the weights."""

import pytest
import torch

from fer_exp.runs.record import read_summary
from fer_exp.train import train
from fer_exp.training.callbacks.ema import WeightEMA
from fer_exp.training.module import Classifier


@pytest.fixture
def weights_after_each_step(monkeypatch):
    """The network's weights after each optimizer step of a training."""
    seen = []
    original = WeightEMA.on_train_batch_end

    def on_train_batch_end(self, trainer, module, *arguments):
        seen.append({name: value.clone() for name, value in module.network.state_dict().items()})
        original(self, trainer, module, *arguments)

    monkeypatch.setattr(WeightEMA, "on_train_batch_end", on_train_batch_end)
    return seen


@pytest.mark.parametrize("settings", [("monitor=val_acc",), ("monitor=train_loss", "optimizer.lr=0.1")])
def test_average_is_validated_saved_and_loaded_at_the_end(
    tiny, tmp_path, weights_after_each_step, monkeypatch, settings
):
    validated = []
    original = Classifier.validation_step

    def validation_step(self, batch, index):
        if index == 0:
            validated.append({name: value.clone() for name, value in self.network.state_dict().items()})
        original(self, batch, index)

    monkeypatch.setattr(Classifier, "validation_step", validation_step)
    train(tiny("ema=default", "ema.decay=0.3", "callbacks=fixed_budget", "trainer.max_epochs=3", *settings))
    averages = []
    for weights in weights_after_each_step:
        before, steps = averages[-1] if averages else weights, len(averages)
        decay = min(0.3, (1 + steps) / (10 + steps))
        averages.append({name: decay * before[name] + (1 - decay) * value for name, value in weights.items()})
    assert len(averages) == 21
    # The fourth validation is the one after training, of the best weights.
    best_epoch = read_summary(tmp_path / "run")["best"]["epoch"] - 1
    at = (averages[6], averages[13], averages[20], averages[6 + 7 * best_epoch])
    for checked, expected in zip(validated, at, strict=True):
        for name, value in expected.items():
            if not name.endswith("num_batches_tracked"):
                assert torch.allclose(checked[name], value, rtol=1e-4, atol=1e-6), name
    # Training continued with the trained weights, not with the average.
    last = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    trained = weights_after_each_step[-1]
    assert all(torch.equal(last["current_model_state"][f"network.{name}"], value) for name, value in trained.items())
    best = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    assert best["epoch"] == best_epoch
    for name, value in validated[best_epoch].items():
        assert torch.equal(best["state_dict"][f"network.{name}"], value)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_wrong_decay_is_refused(decay):
    with pytest.raises(ValueError, match="expected a fraction"):
        WeightEMA(decay)
