"""The moving average of the weights: what it is, and that it is what a run validates, keeps and restores."""

import pytest
import torch

from fer_exp.callbacks.weight_averaging import MovingAverage
from fer_exp.classifier import Classifier
from fer_exp.train import train


@pytest.fixture
def weights_after_each_step(monkeypatch):
    """The network's weights after each optimizer step of a training."""
    seen = []
    original = MovingAverage.on_train_batch_end

    def noting(self, trainer, module, *arguments):
        seen.append({name: value.clone() for name, value in module.network.state_dict().items()})
        original(self, trainer, module, *arguments)

    monkeypatch.setattr(MovingAverage, "on_train_batch_end", noting)
    return seen


def test_the_average_is_validated_kept_and_restored(small, tmp_path, weights_after_each_step, monkeypatch):
    validated = []
    original = Classifier.validation_step

    def noting(self, batch, index):
        if index == 0:
            validated.append({name: value.clone() for name, value in self.network.state_dict().items()})
        original(self, batch, index)

    monkeypatch.setattr(Classifier, "validation_step", noting)
    train(small("averaging=ema", "averaging.decay=0.6", "callbacks=fixed_budget", "monitor=val_acc"))
    averages = []
    for weights in weights_after_each_step:
        before = averages[-1] if averages else weights
        averages.append({name: 0.6 * before[name] + 0.4 * value for name, value in weights.items()})
    assert len(averages) == 14
    for checked, expected in zip(validated, (averages[6], averages[13]), strict=False):
        for name, value in expected.items():
            if not name.endswith("num_batches_tracked"):
                assert torch.allclose(checked[name], value, rtol=1e-4, atol=1e-6), name
    # The weights went on from where they were, not from the average.
    last = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    trained = weights_after_each_step[-1]
    assert all(torch.equal(last["current_model_state"][f"network.{name}"], value) for name, value in trained.items())
    best = torch.load(tmp_path / "checkpoints/best.ckpt", weights_only=True)
    restored = torch.load(tmp_path / "checkpoints/restored.ckpt", weights_only=True)["state_dict"]
    of_best = validated[best["epoch"]]
    for name, value in of_best.items():
        assert torch.equal(best["state_dict"][f"network.{name}"], value)
        assert torch.equal(restored[f"network.{name}"], value)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_that_is_none_is_refused(decay):
    with pytest.raises(ValueError, match="expected a share"):
        MovingAverage(decay)
