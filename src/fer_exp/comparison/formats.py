"""Numbers as a report shows them: fractions in %, differences in points, durations, a dash for no value."""

import math

from fer_exp.comparison.settings import Setting
from fer_exp.comparison.statistics import PairedTest, Summary
from fer_exp.metrics import describe

NO_VALUE = "\u2013"


def is_percent(name: str) -> bool:
    """Whether the metric ``name`` is a fraction that is shown in %."""
    return describe(name).unit == "%"


def number(value: float, name: str) -> str:
    """A value of the metric ``name`` without its unit."""
    if not math.isfinite(value):
        return NO_VALUE if math.isnan(value) else "∞" if value > 0 else "-∞"
    return f"{100 * value:.1f}" if is_percent(name) else f"{value:.4f}"


def score(value: float, name: str) -> str:
    """A value of the metric ``name`` with its unit."""
    return number(value, name) + (" %" if is_percent(name) and math.isfinite(value) else "")


def mean_std(values: Summary, name: str) -> str:
    """Mean ± standard deviation, without the unit."""
    return number(values.mean, name) + ("" if math.isnan(values.std) else f" ± {number(values.std, name)}")


def difference(value: float, name: str) -> str:
    """A difference with its sign, in points for a metric in %."""
    if not math.isfinite(value):
        return NO_VALUE
    return f"{100 * value:+.2f}" if is_percent(name) else f"{value:+.4f}"


def interval(low: float, high: float, name: str) -> str:
    """Both ends of the interval of a difference."""
    return NO_VALUE if math.isnan(low) else f"[{difference(low, name)}, {difference(high, name)}]"


def estimate(test: PairedTest, name: str) -> str:
    """A mean difference with its interval."""
    return difference(test.mean, name) + ("" if math.isnan(test.low) else f" {interval(test.low, test.high, name)}")


def unit(name: str) -> str:
    """The unit of a difference of the metric ``name``, for a header."""
    return ", points" if is_percent(name) else ""


def p_value(value: float) -> str:
    """A p value to three decimals."""
    return NO_VALUE if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def count(value: float) -> str:
    """A number of epochs or steps; infinity is a target that was not reached."""
    if not math.isfinite(value):
        return NO_VALUE if math.isnan(value) else "not reached"
    return f"{value:,.1f}".removesuffix(".0")


def duration(seconds: float) -> str:
    """Seconds in the unit that suits."""
    if not math.isfinite(seconds):
        return NO_VALUE if math.isnan(seconds) else "not reached"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def setting(value: Setting) -> str:
    """A setting as a config file writes it."""
    if value is None:
        return NO_VALUE
    return str(value).lower() if isinstance(value, bool) else str(value)


def plural(n: int, word: str) -> str:
    """A count with its noun: ``1 run``, ``2 runs``."""
    return f"{n:,} {word}" if n == 1 else f"{n:,} {word}s"
