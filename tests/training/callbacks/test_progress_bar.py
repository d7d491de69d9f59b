"""The progress bar: what it shows on a terminal, and that it reads the metrics rarely."""

import io

import rich
from rich.console import Console

from fer_exp.train import train
from fer_exp.training.epoch_metrics import EpochMetrics


def shown(tiny, monkeypatch, seconds):
    """What a terminal shows of a run, and how often the metrics are computed."""
    terminal, reads = io.StringIO(), []
    compute = EpochMetrics.compute
    monkeypatch.setattr(rich, "get_console", lambda: console)
    monkeypatch.setattr("fer_exp.training.callbacks.progress_bar._SECONDS_CPU", seconds)
    monkeypatch.setattr(EpochMetrics, "compute", lambda self: reads.append(self.split) or compute(self))
    console = Console(file=terminal, force_terminal=True, width=120)
    train(tiny("trainer.max_epochs=1"))
    return terminal.getvalue(), reads


def test_bar_shows_loss_and_accuracy_and_moves_during_validation(tiny, monkeypatch):
    text, reads = shown(tiny, monkeypatch, 0.0)
    assert reads == ["train"] * 7 + ["val"] * 4
    assert all(part in text for part in ("epoch 1/1", "validation", "loss", "acc", "images/s"))


def test_bar_waits_for_the_device_once_per_interval(tiny, monkeypatch):
    text, reads = shown(tiny, monkeypatch, 100.0)
    assert reads == ["train", "val"]  # for the history
    assert "epoch 1/1" in text
