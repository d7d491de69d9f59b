"""A comparison for a paper: a booktabs table and a paragraph on methods."""

import re

from fer_exp.comparison.analysis import Comparison
from fer_exp.comparison.formats import number_range
from fer_exp.comparison.sections import Report
from fer_exp.comparison.statistics import ALPHA
from fer_exp.files import printable

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
    seeds = number_range({len(group.counted) for group in comparison.counted_groups})
    score = comparison.score
    epoch = "the last epoch" if score.measure == "final" else f"the epoch with the best {runs[0].monitor}"
    trials = sum(len(tuning.trials) for tuning in comparison.tunings)
    tuned = f" Settings were chosen in {trials} trials on images held out of training." if trials else ""
    return (
        f"We compared {len(comparison.groups)} groups by {', '.join(comparison.group_by)} with {seeds} seeds each "
        f"({'; '.join(report.provenance)}).{tuned} The score is {score.label} at {epoch}. All groups share initial "
        "weights and data order for the same seed, so differences are paired by seed. We report 95 % t intervals and "
        f"paired t-tests with Holm's correction for {len(comparison.tested)} comparisons at the level {ALPHA}."
    )


def escape(text: str) -> str:
    """Return text that LaTeX prints as it is."""
    return re.sub(r"[\\~^±∞]|[&%$#_{}]", lambda sign: _SPECIAL.get(sign[0], "\\" + sign[0]), printable(text))
