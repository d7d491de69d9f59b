"""Statistics of a comparison: spread over seeds, paired t-tests, Holm's correction, sample sizes, proportions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special  # scipy.stats takes seconds to import

ALPHA = 0.05
POWER = 0.8
MAX_SEEDS = 100  # a difference that needs more seeds is reported as "more than 100"
_ROUNDING = 2e-7  # accuracies are computed in float32: smaller differences are rounding errors


@dataclass(frozen=True)
class Summary:
    """Mean, sample standard deviation and median of n values; infinities count as values."""

    n: int
    mean: float
    std: float
    median: float


def summarize(values: Sequence[float]) -> Summary:
    """Describe values. Everything is NaN for no values; ``std`` is NaN for one value or an infinite one."""
    array = np.asarray(values, dtype=np.float64)
    if not len(array):
        return Summary(0, math.nan, math.nan, math.nan)
    std = float(array.std(ddof=1)) if len(array) > 1 and np.isfinite(array).all() else math.nan
    return Summary(len(array), float(array.mean()), std, float(np.median(array)))


@dataclass(frozen=True)
class PairedTest:
    """Mean of paired differences with its t interval and the p value of the paired t-test.

    Attributes:
        differences: one per pair.
        mean: mean of the differences; NaN without pairs.
        low: lower end of the 95 % t interval of the mean; NaN below two pairs.
        high: upper end.
        p_value: two-sided; NaN below two pairs.
    """

    differences: tuple[float, ...]
    mean: float
    low: float
    high: float
    p_value: float

    @property
    def n(self) -> int:
        """Number of pairs."""
        return len(self.differences)


def paired_t_test(differences: Sequence[float]) -> PairedTest:
    """Test whether the mean of paired differences is zero.

    Equal differences have no spread that a t-test could use: their p value is that of the sign test, and they have
    no interval.

    Args:
        differences: one per pair, e.g. per seed; with a value that is not finite, mean and interval are NaN.
    """
    array = np.asarray(differences, dtype=np.float64)
    pairs = tuple(map(float, array))
    if not len(array) or not np.isfinite(array).all():
        return PairedTest(pairs, *[math.nan] * 4)
    mean = float(array.mean())
    if len(array) == 1:
        return PairedTest(pairs, mean, *[math.nan] * 3)
    if np.abs(array).max() <= _ROUNDING:
        return PairedTest(pairs, 0.0, 0.0, 0.0, 1.0)
    if np.ptp(array) <= _ROUNDING:
        return PairedTest(pairs, mean, math.nan, math.nan, 2.0 ** (1 - len(array)))
    t = mean / (array.std(ddof=1) / math.sqrt(len(array)))
    low, high = t_interval(array)
    return PairedTest(pairs, mean, float(low), float(high), float(2 * special.stdtr(len(array) - 1, -abs(t))))


def t_interval(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of the 95 % t intervals of the means over the first axis; NaN for one value."""
    n = len(values)
    if n < 2:
        return np.full(values.shape[1:], np.nan), np.full(values.shape[1:], np.nan)
    half = special.stdtrit(n - 1, 1 - ALPHA / 2) * values.std(axis=0, ddof=1) / math.sqrt(n)
    return values.mean(axis=0) - half, values.mean(axis=0) + half


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for the number of tests (Holm 1979). NaN stays NaN and does not count as a test."""
    adjusted = [math.nan] * len(p_values)
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def seeds_needed(differences: Sequence[float], tests: int = 1) -> int | None:
    """Return how many paired seeds give the t-test 80 % power, if the observed mean and spread are the true ones.

    Args:
        differences: the observed ones, one per pair.
        tests: number of comparisons; each is tested at the level ``ALPHA / tests``.

    Returns:
        The number of seeds in all, at least 3; None if more than ``MAX_SEEDS`` are needed, or below two pairs.
    """
    observed = summarize(differences)
    if observed.n < 2 or not math.isfinite(observed.std) or not observed.mean:
        return None
    if not observed.std:
        return 3
    n = np.arange(3, MAX_SEEDS + 1)
    critical = special.stdtrit(n - 1, 1 - ALPHA / tests / 2)
    power = 1 - special.nctdtr(n - 1, abs(observed.mean) / observed.std * np.sqrt(n), critical)
    enough = n[power >= POWER]
    return int(enough[0]) if len(enough) else None


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a proportion, which has a width at 0 and 1 too."""
    z = float(special.ndtri(1 - ALPHA / 2))
    center = (successes + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * math.sqrt(successes * (n - successes) / n + z**2 / 4)
    return max(0.0, center - half), min(1.0, center + half)
