"""The arithmetic of a comparison: spreads over seeds, and differences between runs that share a seed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 9999  # SciPy's default for the bootstrap
_ROUNDING = 2e-7  # of the difference of two accuracies in float32, as older records have them
_MOST_AT_ONCE = 1_000_000  # numbers that the bootstrap holds in memory


@dataclass(frozen=True)
class SummaryStats:
    """Mean, standard deviation (of a sample: n - 1), median and extremes of n values; infinities stay in."""

    n: int
    mean: float
    std: float
    median: float
    min: float
    max: float


def spread(values: Sequence[float]) -> SummaryStats:
    """Describe values; all NaN where there are none, ``std`` NaN where there is one or an infinity."""
    array = np.asarray(values, dtype=np.float64)
    if not len(array):
        return SummaryStats(0, *[math.nan] * 5)
    finite = bool(np.isfinite(array).all())
    std = float(array.std(ddof=1)) if finite and len(array) > 1 else math.nan
    return SummaryStats(
        len(array), float(array.mean()), std, float(np.median(array)), float(array.min()), float(array.max())
    )


@dataclass(frozen=True)
class PairedDifference:
    """Mean of n paired differences, how sure it is, and what may be said.

    Attributes:
        n: number of pairs.
        mean: of the differences.
        low: lower end of the bootstrap interval.
        high: its upper end.
        p_value: of Student's paired t-test; NaN below two pairs. Where all differences are the same, of the sign
            test: there is no spread to set the mean against.
    """

    n: int
    mean: float
    low: float
    high: float
    p_value: float

    @property
    def is_constant(self) -> bool:
        """Whether all differences are the same, so that ``p_value`` is the sign test's."""
        return self.low == self.high

    @property
    def excludes_zero(self) -> bool:
        """Whether the bootstrap interval lies on one side of zero."""
        return self.low > 0 or self.high < 0

    @property
    def is_claimed(self) -> bool:
        """Whether a difference may be claimed: interval and t-test must both say so.

        The bootstrap alone is too sure of few pairs. Of three differences that are noise, all have the same sign
        one time in four, and then no resample has a mean beyond zero. The t-test allows for that.
        """
        return self.excludes_zero and self.p_value < 1 - CONFIDENCE


def paired_difference(differences: Sequence[float]) -> PairedDifference:
    """Estimate the mean of paired differences.

    The interval is the percentile bootstrap over pairs (Efron & Tibshirani 1993, chapter 13), always with the same
    resamples, so that a report that is made again says the same.

    Args:
        differences: one a pair. Where one is infinite or NaN there is no interval.
    """
    array = np.asarray(differences, dtype=np.float64)
    if not len(array) or not np.isfinite(array).all():
        return PairedDifference(len(array), *[math.nan] * 4)
    if np.abs(array).max() <= _ROUNDING:  # level
        array = np.zeros_like(array)
    mean = float(array.mean())
    if len(array) < 2:
        return PairedDifference(1, mean, *[math.nan] * 3)
    if np.ptp(array) <= _ROUNDING + 1e-9 * np.abs(array).max():  # all the same but for rounding: no spread to estimate
        # Accuracies count images: two differences are easily the same by chance, and the t-test would be certain.
        return PairedDifference(len(array), mean, mean, mean, 2.0 ** (1 - len(array)) if mean else 1.0)
    interval = stats.bootstrap(
        (array,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, _MOST_AT_ONCE // len(array)),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    p_value = float(stats.ttest_1samp(array, 0).pvalue)
    return PairedDifference(len(array), mean, float(interval.low), float(interval.high), p_value)
