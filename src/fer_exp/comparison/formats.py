"""How a report shows counts, durations, p values and settings; a dash for no value."""

import math

from fer_exp.comparison.settings import Setting

NO_VALUE = "\u2013"


def p_value(value: float) -> str:
    """A p value to three decimals."""
    return NO_VALUE if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def count(value: float) -> str:
    """A number of epochs or steps; infinity is a target that was not reached."""
    if not math.isfinite(value):
        return NO_VALUE if math.isnan(value) else "not reached"
    return f"{value:,.1f}".removesuffix(".0")


def duration(seconds: float) -> str:
    """Seconds in the unit that suits; infinity is a target that was not reached."""
    if not math.isfinite(seconds):
        return count(seconds)
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def setting(value: Setting) -> str:
    """A setting as a config file writes it."""
    if value is None:
        return NO_VALUE
    return str(value).lower() if isinstance(value, bool) else str(value)


def number_range(numbers: set[int]) -> str:
    """The lowest and highest of some numbers: ``3`` or ``2 to 4``."""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"
