"""The score of a comparison: a metric at the best or at the last epoch; and how a report shows values."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from fer_exp.comparison.load import Measure, Run
from fer_exp.comparison.settings import Setting
from fer_exp.comparison.statistics import PairedTest, Summary, summarize
from fer_exp.metrics import describe

NO_VALUE = "\u2013"  # for no value


@dataclass(frozen=True)
class Score:
    """A metric at an epoch. Fractions are shown in %, their differences in points.

    Attributes:
        metric: a column of the history.
        measure: the epoch: ``best`` or ``final``.
    """

    metric: str
    measure: Measure

    @property
    def label(self) -> str:
        """The metric as text: ``validation accuracy``."""
        return describe(self.metric).label

    @property
    def column(self) -> str:
        """The metric with its unit, for the header of a column."""
        return self.metric + (", %" if self.is_percent else "")

    @property
    def is_percent(self) -> bool:
        """Whether values are fractions that are shown in %."""
        return describe(self.metric).unit == "%"

    @property
    def sign(self) -> int:
        """1 if higher is better, -1 if lower is."""
        return describe(self.metric).sign

    @property
    def points(self) -> str:
        """The unit of a difference, with a space before it; empty for a metric without a unit."""
        return " points" if self.is_percent else ""

    def of(self, run: Run) -> float:
        """The score of a run; NaN if it did not log the metric."""
        return run.metric(self.measure, self.metric)

    def summarize(self, runs: Iterable[Run]) -> Summary:
        """Describe the scores of the runs that logged the metric."""
        values = [self.of(run) for run in runs]
        return summarize([value for value in values if not math.isnan(value)])

    def number(self, value: float) -> str:
        """A value without its unit."""
        if not math.isfinite(value):
            return NO_VALUE if math.isnan(value) else "∞" if value > 0 else "-∞"
        return f"{100 * value:.1f}" if self.is_percent else f"{value:.4f}"

    def text(self, value: float) -> str:
        """A value with its unit."""
        return self.number(value) + (" %" if self.is_percent and math.isfinite(value) else "")

    def mean_std(self, values: Summary) -> str:
        """Mean ± standard deviation, without the unit."""
        return self.number(values.mean) + ("" if math.isnan(values.std) else f" ± {self.number(values.std)}")

    def difference(self, value: float) -> str:
        """A difference with its sign, without the unit."""
        if not math.isfinite(value):
            return NO_VALUE
        return f"{100 * value:+.2f}" if self.is_percent else f"{value:+.4f}"

    def estimate(self, test: PairedTest) -> str:
        """A mean difference with its 95 % interval, without the unit."""
        interval = f" [{self.difference(test.low)}, {self.difference(test.high)}]"
        return self.difference(test.mean) + ("" if math.isnan(test.low) else interval)


def format_p(value: float) -> str:
    """A p value to three decimals."""
    return NO_VALUE if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def format_count(value: float) -> str:
    """A number of epochs or steps; infinity is a target that was not reached."""
    if not math.isfinite(value):
        return NO_VALUE if math.isnan(value) else "not reached"
    return f"{value:,.1f}".removesuffix(".0")


def format_duration(seconds: float) -> str:
    """Seconds in the unit that suits; infinity is a target that was not reached."""
    if not math.isfinite(seconds):
        return format_count(seconds)
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def format_setting(value: Setting) -> str:
    """A setting as a config file writes it."""
    if value is None:
        return NO_VALUE
    return str(value).lower() if isinstance(value, bool) else str(value)


def number_range(numbers: set[int]) -> str:
    """The lowest and highest of some numbers: ``3`` or ``2 to 4``."""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"
