import pytest
import torch
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score

from fer_exp.metrics import METRICS, Metric
from fer_exp.training.epoch_metrics import EpochMetrics


def test_metrics_agree_with_torchmetrics_over_uneven_batches():
    torch.manual_seed(0)
    logits, labels = torch.randn(100, 7), torch.randint(7, (100,))
    metrics = EpochMetrics("val", 7)
    for x, y in zip(logits.split(32), labels.split(32), strict=True):
        metrics.update(F.cross_entropy(x, y), x, y)
    values = metrics.compute()
    assert values["val_acc"] == pytest.approx(MulticlassAccuracy(7, average="micro")(logits, labels).item())
    assert values["val_macro_f1"] == pytest.approx(MulticlassF1Score(7, average="macro")(logits, labels).item())
    assert values["val_loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert torch.equal(metrics.confusion, MulticlassConfusionMatrix(7)(logits, labels))
    metrics.reset()
    assert set(metrics.compute().values()) == {0.0}


def test_class_never_seen_nor_predicted_counts_as_zero():
    metrics = EpochMetrics("val", 3)
    logits, labels = torch.eye(3)[:2], torch.tensor([0, 1])
    metrics.update(F.cross_entropy(logits, labels), logits, labels)
    assert metrics.compute()["val_acc"] == 1
    assert metrics.compute()["val_macro_f1"] == pytest.approx(2 / 3)


def test_a_row_of_the_table_is_a_metric(monkeypatch):
    first = Metric("val_first", "max", "recall of the first class", "%", lambda c: float(c[0, 0] / c[0].sum()))
    monkeypatch.setitem(METRICS, "val_first", first)
    metrics = EpochMetrics("val", 2)
    metrics.update(torch.tensor(1.0), torch.tensor([[1.0, 0], [1, 0], [0, 1]]), torch.tensor([0, 0, 0]))
    assert metrics.compute()["val_first"] == pytest.approx(2 / 3)


def test_batches_before_the_first_infinite_loss_are_counted():
    metrics = EpochMetrics("train", 2)
    for loss in (1.0, 2.0, float("inf"), 1.0, float("nan")):
        metrics.update(torch.tensor(loss), torch.eye(2), torch.tensor([0, 1]))
    assert metrics.finite_batches == 2


def test_accuracy_is_exact():
    def accuracy(hits, n):
        metrics = EpochMetrics("val", 2)
        metrics.update(torch.tensor(1.0), torch.tensor([[1.0, 0.0]]).expand(n, 2), (torch.arange(n) >= hits).long())
        return metrics.compute()["val_acc"]

    assert accuracy(490, 700) == 0.7
    assert accuracy(651, 3589) == 651 / 3589
