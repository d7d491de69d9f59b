"""The training loss against its formulas."""

import math

import pytest
import torch
from torch.nn import functional as F

from fer_exp.config.instantiate import build_loss
from fer_exp.errors import UserError
from fer_exp.training.losses import CrossEntropy

COUNTS = [60, 30, 10]


@pytest.fixture
def logits():
    return torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) * 3


@pytest.fixture
def labels():
    return torch.randint(3, (40,), generator=torch.Generator().manual_seed(1))


def test_without_settings_it_is_torchs_cross_entropy(logits, labels):
    assert torch.equal(CrossEntropy(COUNTS)(logits, labels), F.cross_entropy(logits, labels))


def test_labels_and_certain_probabilities_give_the_same(logits, labels):
    loss = CrossEntropy(COUNTS, label_smoothing=0.1, class_weights="balanced", logit_adjustment=1.0)
    assert torch.allclose(loss(logits, labels), loss(logits, F.one_hot(labels, 3).float()), rtol=1e-6)


def test_smoothing_spreads_a_fraction_over_all_classes(logits, labels):
    spread = 0.9 * F.one_hot(labels, 3) + 0.1 / 3
    expected = -(spread * logits.log_softmax(1)).sum(1).mean()
    assert torch.allclose(CrossEntropy(COUNTS, label_smoothing=0.1)(logits, labels), expected, rtol=1e-6)


def test_balanced_weights_let_each_class_count_the_same():
    weights = CrossEntropy(COUNTS, class_weights="balanced").weight
    assert torch.allclose(weights * torch.tensor(COUNTS), torch.full((3,), 100 / 3))
    # Over the whole set the weights are 1 on average, so the learning rate need not change.
    labels = torch.arange(3).repeat_interleave(torch.tensor(COUNTS))
    same = torch.zeros(100, 3)
    assert CrossEntropy(COUNTS, class_weights="balanced")(same, labels).item() == pytest.approx(math.log(3))


def test_a_batch_of_a_frequent_class_weighs_less_than_one_of_a_rare_class():
    loss = CrossEntropy(COUNTS, class_weights="balanced")
    same = torch.zeros(8, 3)
    common, rare = loss(same, torch.zeros(8, dtype=torch.int64)), loss(same, torch.full((8,), 2))
    assert (rare / common).item() == pytest.approx(60 / 10)


def test_adjusted_logits_are_those_of_menon(logits, labels):
    prior = torch.tensor(COUNTS) / 100
    expected = F.cross_entropy(logits + 1.5 * prior.log(), labels)
    assert torch.allclose(CrossEntropy(COUNTS, logit_adjustment=1.5)(logits, labels), expected, rtol=1e-6)


@pytest.mark.parametrize("setting", [{"label_smoothing": 1.0}, {"label_smoothing": -0.1}, {"logit_adjustment": -1.0}])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match=f"{next(iter(setting))}=.*expected"):
        CrossEntropy(COUNTS, **setting)


def test_a_wrong_setting_is_reported_by_its_key(composed):
    with pytest.raises(UserError, match=r"loss: label_smoothing=2.0: expected a fraction in \[0, 1\)"):
        build_loss(composed("loss.label_smoothing=2.0"), COUNTS)


def test_a_loss_that_takes_no_counts_is_built_without(composed):
    cfg = composed()
    cfg.loss = {"_target_": "torch.nn.CrossEntropyLoss", "label_smoothing": 0.2}
    assert build_loss(cfg, COUNTS).label_smoothing == 0.2
