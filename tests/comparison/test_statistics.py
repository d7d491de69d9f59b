import math

import numpy as np
import pytest
from scipy import stats

from fer_exp.comparison.statistics import holm, paired_t_test, seeds_needed, summarize, t_interval, wilson


def test_summary_equals_numpy():
    values = [0.51, 0.55, 0.532, 0.49]
    found = summarize(values)
    assert found.n == 4
    assert found.mean == pytest.approx(np.mean(values))
    assert found.std == pytest.approx(np.std(values, ddof=1))
    assert found.median == pytest.approx(np.median(values))


@pytest.mark.parametrize(
    ("values", "median"), [([3, math.inf, 5], 5), ([3, math.inf], math.inf), ([math.inf, 2, math.inf], math.inf)]
)
def test_infinity_stays_in_the_median(values, median):
    found = summarize(values)
    assert found.median == median
    assert found.mean == math.inf
    assert math.isnan(found.std)


@pytest.mark.parametrize("n", [2, 3, 5, 12])
def test_interval_and_p_value_equal_scipy(n):
    a, b = np.random.default_rng(n).normal(0.5, 0.03, (2, n))
    found = paired_t_test(a - b)
    reference = stats.ttest_rel(a, b)
    interval = reference.confidence_interval(0.95)
    assert (found.n, found.mean) == (n, pytest.approx((a - b).mean()))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p_value == pytest.approx(reference.pvalue)
    assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0)


@pytest.mark.parametrize("differences", [[], [0.1], [0.1, math.inf, 0.1], [0.1, math.nan]])
def test_without_two_finite_pairs_there_is_no_interval(differences):
    found = paired_t_test(differences)
    assert found.n == len(differences)
    assert all(map(math.isnan, (found.low, found.high, found.p_value)))


def test_equal_differences_have_no_interval_and_the_p_value_of_the_sign_test():
    found = paired_t_test([0.01, 0.01, 0.01])
    assert math.isnan(found.low)
    assert found.p_value == pytest.approx(stats.binomtest(3, 3).pvalue)


def test_float32_rounding_is_no_difference():
    assert paired_t_test([1e-8, -6e-8, 3e-8]).p_value == 1


def test_t_intervals_of_columns_equal_those_of_the_test():
    values = np.random.default_rng(0).normal(size=(4, 3))
    low, high = t_interval(values)
    tests = [paired_t_test(column) for column in values.T]
    assert low == pytest.approx([test.low for test in tests])
    assert high == pytest.approx([test.high for test in tests])


def test_holm_equals_the_published_example():
    # Holm's procedure as statsmodels and R (p.adjust) compute it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == pytest.approx([1.0, 1.0])
    adjusted = holm([0.02, math.nan, 0.03])
    assert adjusted[0] == pytest.approx(0.04)
    assert math.isnan(adjusted[1])


@pytest.mark.parametrize("effect", [0.6, 1.0, 2.5])
@pytest.mark.parametrize("tests", [1, 6])
def test_the_number_of_seeds_gives_the_power(effect, tests):
    n = seeds_needed([effect - 1, effect, effect + 1], tests)  # standard deviation 1
    samples = np.random.default_rng(0).normal(effect, 1, (20_000, n))
    power = (stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05 / tests).mean()
    assert power > 0.79
    if n > 3:
        fewer = stats.ttest_1samp(samples[:, :-1], 0, axis=1).pvalue
        assert (fewer < 0.05 / tests).mean() < 0.81


def test_the_number_of_seeds_is_unknown_for_one_pair_or_a_tiny_difference():
    assert seeds_needed([0.1]) is None
    assert seeds_needed([-0.1, 0.1001]) is None


def test_wilson_has_a_width_at_zero_and_one():
    for successes in (0, 1, 30, 55):
        reference = stats.binomtest(successes, 55).proportion_ci(method="wilson")
        assert wilson(successes, 55) == pytest.approx((reference.low, reference.high), abs=1e-9)
    assert wilson(0, 55)[1] > 0.06
