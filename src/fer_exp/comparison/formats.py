"""How numbers of a comparison are written: in percent, in seconds, or as a dash where there is none."""

import math

from fer_exp.comparison.load import Setting
from fer_exp.comparison.statistics import SummaryStats

SHOWN = {"val_acc": "val_acc", "val_loss": "val_loss", "val_macro_f1": "macro-F1"}
NOTHING = "\u2013"  # a dash, in a cell without a figure


def mean(values: SummaryStats, name: str) -> str:
    """Mean and standard deviation of the figure ``name``, with its unit."""
    mean, std = plain(values.mean, name), plain(values.std, name)
    unit = "" if name == "val_loss" or not math.isfinite(values.mean) else " %"
    return (mean if std == NOTHING else f"{mean} ± {std}") + unit


def plain(value: float, name: str) -> str:
    """A figure without its unit: accuracies and macro-F1 in percent."""
    if not math.isfinite(value):
        return NOTHING if math.isnan(value) else "∞" if value > 0 else "-∞"
    return f"{value:.3f}" if name == "val_loss" else f"{100 * value:.1f}"


def signed(value: float, name: str) -> str:
    """As ``plain``, a gain with its sign."""
    return ("+" if value > 0 else "") + plain(value, name)


def interval(low: float, high: float, name: str) -> str:
    """Both ends of an interval, with their signs."""
    return NOTHING if math.isnan(low) or math.isnan(high) else f"[{signed(low, name)}, {signed(high, name)}]"


def p_value(value: float) -> str:
    """To three places, and no closer to zero than they tell."""
    return NOTHING if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def points(fraction: float) -> str:
    """A fraction in percent: a whole number as such."""
    return f"{100 * fraction:.1f}".removesuffix(".0")


def count(value: float) -> str:
    """A number of epochs or steps; a median of runs most of which missed is never."""
    if not math.isfinite(value):
        return NOTHING if math.isnan(value) else "never"
    return f"{value:,.1f}".removesuffix(".0")


def duration(seconds: float, missing: str = "∞") -> str:
    """Seconds, in the unit that suits; ``missing`` for infinity."""
    if not math.isfinite(seconds):
        return NOTHING if math.isnan(seconds) else missing
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def setting(value: Setting) -> str:
    """A setting as its configuration writes it."""
    if value is None:
        return NOTHING
    return str(value).lower() if isinstance(value, bool) else str(value)


def plural(word: str, number: int) -> str:
    """The word as it goes with the number."""
    return word if number == 1 else f"{word}s"
