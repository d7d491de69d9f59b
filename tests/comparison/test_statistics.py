import math

import numpy as np
import pytest
from scipy import stats

from fer_exp.comparison import statistics
from fer_exp.comparison.statistics import PairedDifference, paired_difference, spread


def test_spread_is_numpys():
    values = [0.51, 0.55, 0.532, 0.49]
    found = spread(values)
    assert (found.n, found.min, found.max) == (4, 0.49, 0.55)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.std == pytest.approx(np.std(values, ddof=1))
    assert found.median == pytest.approx((0.51 + 0.532) / 2)


@pytest.mark.parametrize(
    ("values", "median"), [([3, math.inf, 5], 5), ([3, math.inf], math.inf), ([math.inf, 2, math.inf], math.inf)]
)
def test_infinity_stays_in_the_median(values, median):
    found = spread(values)
    assert found.median == median
    assert found.mean == found.max == math.inf
    assert found.min == min(values)
    assert math.isnan(found.std)


def test_spread_of_one_and_of_none():
    one, none = spread([0.4]), spread([])
    assert (one.mean, one.median, one.min, one.max) == (0.4,) * 4
    assert math.isnan(one.std)
    assert none.n == 0
    assert all(math.isnan(v) for v in (none.mean, none.std, none.median, none.min, none.max))


@pytest.mark.parametrize("n", [2, 3, 5, 12])
def test_interval_and_p_value_are_scipys(n):
    differences = np.random.default_rng(n).normal(0.02, 0.03, n)
    found = paired_difference(differences)
    interval = stats.bootstrap(
        (differences,), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert (found.n, found.mean) == (n, pytest.approx(differences.mean()))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-12)
    assert found.p_value == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, rel=1e-9)


def test_the_other_way_round_is_the_mirror_image():
    differences = [0.031, 0.012, -0.004, 0.02, 0.017]
    there, back = paired_difference(differences), paired_difference([-d for d in differences])
    assert (back.mean, back.low, back.high) == pytest.approx((-there.mean, -there.high, -there.low), rel=1e-6)
    assert back.p_value == pytest.approx(there.p_value)
    assert there.is_claimed == back.is_claimed


def test_where_there_is_no_interval_nothing_is_claimed():
    for differences, n in (([], 0), ([0.1], 1), ([0.1, math.inf, 0.1], 3), ([0.1, math.nan], 2)):
        found = paired_difference(differences)
        assert found.n == n
        assert math.isnan(found.low)
        assert math.isnan(found.high)
        assert not found.excludes_zero
        assert not found.is_claimed
    assert paired_difference([0.1]).mean == 0.1
    assert math.isnan(paired_difference([0.1, math.inf]).mean)


def in_float32(*hits):
    """Accuracies of 700 images as records of earlier versions have them."""
    return [float(np.float32(n) / np.float32(700)) for n in hits]


# Also where rounding makes them unlike in the last digit, as 0.52 - 0.50 and 0.42 - 0.40 are.
@pytest.mark.parametrize(
    "same",
    [
        lambda n: [0.02] * n,
        lambda n: [0.52 - 0.5, 0.42 - 0.4, *[0.02] * (n - 2)],
        lambda n: [
            a - b for a, b in zip(in_float32(*range(651, 651 + n)), in_float32(*range(637, 637 + n)), strict=True)
        ],
    ],
)
def test_differences_that_are_all_the_same_are_tested_by_their_sign(same):
    for n, p, is_claimed in ((2, 1 / 2, False), (3, 1 / 4, False), (5, 1 / 16, False), (6, 1 / 32, True)):
        found = paired_difference(same(n))
        assert (found.low, found.high, found.p_value) == (pytest.approx(0.02), pytest.approx(0.02), p)
        assert found.excludes_zero
        assert found.is_claimed == is_claimed
    assert paired_difference([0.0, 0.0, 0.0]) == PairedDifference(3, 0, 0, 0, 1)


def test_what_is_rounding_alone_is_no_difference():
    assert paired_difference([1e-8, -2e-8, 3e-8, 1e-8, 1e-8, 1e-8]) == PairedDifference(6, 0, 0, 0, 1)
    assert paired_difference([1e-8]).mean == 0
    assert paired_difference([1 / 3589] * 6).is_claimed  # an image more, each time


def share_of(n, repetitions, draw):
    """Shares of simulated comparisons in which a difference is claimed, and in which the interval excludes zero."""
    found = [paired_difference(draw(n)) for _ in range(repetitions)]
    return np.mean([d.is_claimed for d in found]), np.mean([d.excludes_zero for d in found])


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_false_claims_are_as_rare_as_promised(n, monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 999)
    noise = np.random.default_rng(n)
    claimed, by_bootstrap = share_of(n, 4000, lambda n: noise.normal(0, 0.01, n))
    assert claimed < 0.06  # 5 %, and three standard errors of 4000 draws
    if n == 3:
        assert by_bootstrap == pytest.approx(0.25, abs=0.025)  # all of one sign, which is why there is the t-test


@pytest.mark.parametrize("n", [2, 3, 5])
def test_false_claims_stay_rare_where_few_images_make_coarse_accuracies(n, monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 999)
    noise = np.random.default_rng(n)  # two images of fifty: equal differences are common
    claimed, _ = share_of(n, 4000, lambda n: np.round(noise.normal(0, 2, n)) / 50)
    assert claimed < 0.06


@pytest.mark.parametrize(("n", "least"), [(3, 0.8), (5, 0.99)])
def test_a_clear_difference_is_found(n, least, monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 999)
    noise = np.random.default_rng(n)
    claimed, _ = share_of(n, 1000, lambda n: noise.normal(0.05, 0.01, n))  # five standard deviations
    assert claimed > least


def test_interval_and_test_must_both_say_so():
    assert PairedDifference(5, 0.02, 0.01, 0.03, 0.01).is_claimed
    assert PairedDifference(5, -0.02, -0.03, -0.01, 0.01).is_claimed
    assert not PairedDifference(5, 0.02, 0.01, 0.03, 0.06).is_claimed
    assert not PairedDifference(5, 0.02, -0.01, 0.03, 0.01).is_claimed
    assert not PairedDifference(5, 0.02, 0.0, 0.03, 0.01).is_claimed
