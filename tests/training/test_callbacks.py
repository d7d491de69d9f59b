"""Metrics of a user's own code, early stopping, plots and loggers that fail."""

import csv
import errno
import logging
import math
import threading

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils._python_dispatch import TorchDispatchMode

from fer_exp.config.instantiate import build
from fer_exp.errors import UserError
from fer_exp.runs.record import read_history, read_summary
from fer_exp.train import train

OWN_CODE = """
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger

class AtEpochEnd(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        pl_module.log("own_error", float(trainer.current_epoch != 1))

class EveryOtherEpoch(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch % 2 == 0:
            pl_module.log("own", 1.0)

class AtValidation(Callback):
    def on_validation_epoch_end(self, trainer, pl_module):
        if trainer.state.fn == "fit":
            self.log("own_error", float(trainer.current_epoch != 1))

class Ends(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = True

class FailsToConnect(CSVLogger):
    @property
    def experiment(self):
        raise ConnectionError("no network")

class FailsToLog(CSVLogger):
    def log_metrics(self, metrics, step=None):
        raise ConnectionError("no network")
"""


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    (tmp_path / "own_code_of_a_user.py").write_text(OWN_CODE)
    monkeypatch.syspath_prepend(tmp_path)
    return lambda name: f"{{_target_:own_code_of_a_user.{name}}}"


@pytest.mark.parametrize("callback", ["AtEpochEnd", "AtValidation"])
def test_metric_of_a_callback_is_a_column_and_can_be_the_monitor(tiny, tmp_path, own_code, caplog, callback):
    caplog.set_level(logging.INFO, logger="fer_exp")
    train(tiny(f"+callbacks.own={own_code(callback)}", "monitor=own_error", "trainer.max_epochs=9",
               "callbacks.early_stopping.patience=2", "scheduler.patience=0"))  # fmt: skip
    rows, summary = read_history(tmp_path / "run"), read_summary(tmp_path / "run")
    assert [row["own_error"] for row in rows] == [1, 0, 1, 1]
    assert summary["stopped_by"] == "early_stopping"
    assert summary["best"]["epoch"] == 2
    assert torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)["epoch"] == 1
    assert [row["lr"] for row in rows] == pytest.approx([1e-3, 1e-3, 1e-3, 2e-4])
    assert all("own_error" in line for line in caplog.messages if line.startswith("Epoch "))


def test_metric_is_recorded_only_in_epochs_that_log_it(tiny, tmp_path, own_code):
    train(tiny(f"+callbacks.own={own_code('EveryOtherEpoch')}", "trainer.max_epochs=3"))
    assert [row["own"] for row in read_history(tmp_path / "run")] == pytest.approx([1, math.nan, 1], nan_ok=True)


def test_monitor_that_is_not_logged_is_refused_in_the_first_epoch(tiny):
    with pytest.raises(UserError, match=r"monitor=own_error.*val_loss"):
        train(tiny("monitor=own_error"))


def test_run_that_another_callback_ended_says_so(tiny, tmp_path, own_code):
    train(tiny(f"+callbacks.ends={own_code('Ends')}", "trainer.max_epochs=3"))
    summary = read_summary(tmp_path / "run")
    assert (summary["status"], summary["epochs"], summary["stopped_by"]) == ("completed", 1, "another_callback")


def test_early_stopping_and_plateau_act_in_the_epoch_that_reports_them(tiny, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="fer_exp")
    # No epoch is better by 100: the lr falls after each epoch but the first, and the second of those stops the run.
    settings = ("scheduler.patience=0", "scheduler.threshold=100", "callbacks.early_stopping.min_delta=100")
    train(tiny(*settings, "callbacks.early_stopping.patience=2", "trainer.max_epochs=9"))
    events = [line for line in caplog.messages if line.startswith(("Epoch", "  Learning", "  Early"))]
    assert [line.split()[0] for line in events] == ["Epoch", "Epoch", "Learning", "Epoch", "Learning", "Early"]
    assert "2.0e-04" in events[2]
    assert read_summary(tmp_path / "run")["stopped_by"] == "early_stopping"


def test_csv_logger_of_lightning_works_by_yaml(tiny, tmp_path):
    train(tiny("logger=csv"))
    with (tmp_path / "run/csv/metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val_acc"]]
    assert [float(row["val_acc"]) for row in rows] == pytest.approx(
        [r["val_acc"] for r in read_history(tmp_path / "run")]
    )
    assert (tmp_path / "run/csv/hparams.yaml").exists()


@pytest.mark.parametrize("logger", ["FailsToConnect", "FailsToLog"])
def test_logger_that_fails_does_not_end_the_run(tiny, tmp_path, own_code, logger):
    cfg = tiny("logger=csv")
    cfg.logger["_target_"] = f"own_code_of_a_user.{logger}"
    train(cfg)
    summary = read_summary(tmp_path / "run")
    assert (summary["status"], summary["epochs"]) == ("completed", 2)
    assert summary["missing"] == [logger]
    assert sum("no network" in warning for warning in summary["warnings"]) == 1


def test_tensorboard_on_a_full_disk_does_not_end_the_run(tiny, tmp_path, monkeypatch, capfd, caplog):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", fail)  # runs in a thread
    monkeypatch.setattr("threading.excepthook", threading.__excepthook__)
    caplog.set_level(logging.INFO, logger="fer_exp")
    train(tiny("logger=tensorboard"))
    summary = read_summary(tmp_path / "run")
    assert (summary["status"], summary["missing"]) == ("completed", ["TensorBoardLogger"])
    assert "Traceback" not in capfd.readouterr().err
    assert "tensorboard --logdir" not in caplog.text


def test_plot_that_fails_does_not_end_the_run(small, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no font")

    for name in ("samples", "model", "curves", "confusion"):
        monkeypatch.setattr(f"fer_exp.training.callbacks.plots.{name}_figure", fail)
    train(small("model=vgg", "model.widths=[8]", "model.convolutions=[1]", "trainer.max_epochs=1"))
    summary = read_summary(tmp_path)
    assert summary["status"] == "completed"
    assert summary["missing"] == ["samples.png", "model.png", "curves.png", "confusion_matrix.png"]
    assert sum("no font" in warning for warning in summary["warnings"]) == 4


class Waiting(TorchDispatchMode):
    """Records operations that wait for a GPU: those that read values, or whose output size depends on values."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "bincount", "is_nonzero")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__.startswith(self.WAITING):
            self.found.append(function)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "recipe",
    [
        ("optimizer=adam",),
        ("optimizer=sgd_nesterov", "augmentation=strong", "mixup=cutmix", "mixup.mixup_alpha=0.2",
         "scheduler=one_cycle", "loss.label_smoothing=0.1", "loss.class_weights=balanced",
         "weight_decay_exclude_1d=true"),
    ],
    ids=["notebook", "everything"],
)  # fmt: skip
def test_no_step_waits_for_the_device(tiny, monkeypatch, recipe):
    with Waiting() as trial:
        assert float(torch.ones(2).sum()) == 2
    assert len(trial.found) == 1
    found = []

    class Watch(Callback):
        def on_train_batch_start(self, *arguments):
            self.waiting = Waiting()
            self.waiting.__enter__()

        def on_train_batch_end(self, *arguments):
            self.waiting.__exit__(None, None, None)
            found.append(self.waiting.found)

    monkeypatch.setattr(
        "fer_exp.training.build.build",
        lambda cfg, name: Watch() if name == "callbacks.early_stopping" else build(cfg, name),
    )
    train(tiny(*recipe, "trainer.max_epochs=1"))
    assert found == [[]] * 7
