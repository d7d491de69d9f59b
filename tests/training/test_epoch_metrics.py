import pytest
import torch
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score

from fer_exp.training.epoch_metrics import EpochMetrics


def test_figures_agree_with_torchmetrics_over_uneven_batches():
    torch.manual_seed(0)
    logits, labels = torch.randn(100, 7), torch.randint(7, (100,))
    tally = EpochMetrics(7)
    for x, y in zip(logits.split(32), labels.split(32), strict=True):
        tally.update(F.cross_entropy(x, y), x, y)
    # torchmetrics averages over the classes unless told otherwise: the plain share of hits is "micro".
    assert tally.accuracy == pytest.approx(MulticlassAccuracy(7, average="micro")(logits, labels).item())
    assert tally.macro_f1 == pytest.approx(MulticlassF1Score(7, average="macro")(logits, labels).item())
    assert tally.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert torch.equal(tally.confusion, MulticlassConfusionMatrix(7)(logits, labels))


def test_a_class_never_seen_nor_predicted_counts_as_zero():
    tally = EpochMetrics(3)
    logits, labels = torch.eye(3)[:2], torch.tensor([0, 1])
    tally.update(F.cross_entropy(logits, labels), logits, labels)
    assert tally.accuracy == 1
    assert tally.macro_f1 == pytest.approx(2 / 3)


def test_batches_are_counted_until_the_first_that_is_lost():
    tally = EpochMetrics(2)
    for loss in (1.0, 2.0, float("inf"), 1.0, float("nan")):
        tally.update(torch.tensor(loss), torch.eye(2), torch.tensor([0, 1]))
    assert tally.finite_batches == 2


def test_shares_are_as_exact_as_a_history_can_hold_them():
    def share(hits, n):
        tally = EpochMetrics(2)
        labels = (torch.arange(n) >= hits).long()
        tally.update(torch.tensor(1.0), torch.tensor([[1.0, 0.0]]).expand(n, 2), labels)
        return tally.accuracy

    assert share(490, 700) == 0.7  # "0.7 or more" is reached
    assert share(651, 3589) == 651 / 3589


def test_reset_forgets():
    tally = EpochMetrics(2)
    tally.update(torch.tensor(5.0), torch.eye(2), torch.tensor([0, 1]))
    tally.reset()
    assert (tally.loss, tally.accuracy, int(tally.confusion.sum()), tally.finite_batches) == (0, 0, 0, 0)
