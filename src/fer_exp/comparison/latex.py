"""A comparison for a paper: a booktabs table and a paragraph on methods."""

import re

from fer_exp.comparison.sections import Report
from fer_exp.files import printable

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "∞": r"$\infty$",
}


def latex(report: Report) -> str:
    """Return a LaTeX table (package booktabs) and a paragraph that says how it was measured."""
    methods = [f"Compared: {'; '.join(report.provenance)}.", *report.sections[-1].paragraphs]
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
            r"\paragraph{Methods.} " + escape(" ".join(methods)),
            "",
        ]
    )


def escape(text: str) -> str:
    """Return text that LaTeX prints as it is."""
    return re.sub(r"[\\~^±∞]|[&%$#_{}]", lambda sign: _SPECIAL.get(sign[0], "\\" + sign[0]), printable(text))
