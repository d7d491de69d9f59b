"""A comparison for a paper: a booktabs table and a paragraph on methods."""

import re

from fer_exp.comparison.analysis import Comparison
from fer_exp.comparison.content import Report
from fer_exp.comparison.statistics import ALPHA
from fer_exp.files import printable
from fer_exp.metrics import describe

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "∞": r"$\infty$",
}


def latex(comparison: Comparison, report: Report) -> str:
    """Return a LaTeX table (package booktabs) and a paragraph that says how it was measured."""
    header, *rows = [" & ".join(map(escape, row[1:-1])) for row in (report.ranking.header, *report.ranking.rows)]
    caption = f"{report.verdict.headline} Mean ± standard deviation over n seeds; difference with 95 % t interval; "
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            f"  \\caption{{{escape(caption + 'p values with the correction of Holm.')}}}",
            r"  \begin{tabular}{lrrrr}",
            r"  \toprule",
            f"  {header} \\\\",
            r"  \midrule",
            *(f"  {row} \\\\" for row in rows),
            r"  \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
            r"\paragraph{Methods.} " + escape(_methods(comparison, report)),
            "",
        ]
    )


def _methods(comparison: Comparison, report: Report) -> str:
    runs = comparison.counted
    if not runs:
        return "No run has a result."
    seeds = sorted({len(group.counted) for group in comparison.groups if group.counted})
    number = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    epoch = "the last epoch" if comparison.measure == "final" else f"the epoch with the best {runs[0].monitor}"
    trials = sum(len(tuning.trials) for tuning in comparison.tunings)
    tuned = f" Settings were chosen in {trials} trials on images held out of training." if trials else ""
    tests = sum(each.test is not None for each in comparison.differences)
    return (
        f"We compared {len(comparison.groups)} groups by {', '.join(comparison.group_by)} with {number} seeds each "
        f"({'; '.join(report.provenance)}).{tuned} The score is {describe(comparison.metric).label} at {epoch}. All "
        "groups share initial weights and data order for the same seed, so differences are paired by seed. We report "
        f"95 % t intervals and paired t-tests with Holm's correction for {tests} comparisons at the level {ALPHA}."
    )


def escape(text: str) -> str:
    """Return text that LaTeX prints as it is."""
    return re.sub(r"[\\~^±∞]|[&%$#_{}]", lambda sign: _SPECIAL.get(sign[0], "\\" + sign[0]), printable(text))
