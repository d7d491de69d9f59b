"""Compare the runs in folders: read their records, compare, print the answer, write the report."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from fer_exp.comparison.analysis import compare
from fer_exp.comparison.grouping import default_keys
from fer_exp.comparison.load import Measure, find_records
from fer_exp.comparison.report import HTML, render_text, write_report
from fer_exp.errors import UserError


def compare_folders(
    places: Sequence[Path],
    output: Path,
    group_by: Sequence[str] | None = None,
    target: float | None = None,
    baseline: str | None = None,
    measure: Measure | None = None,
    metric: str = "val_acc",
    title: str | None = None,
    latex: bool = False,
    reload_seconds: int | None = None,
) -> bool:
    """Compare all runs in and below ``places``, print the answer, and write the report to ``output``.

    Args:
        places: folders of runs, of sweeps, or above them.
        output: the report's folder.
        group_by: keys whose values make the groups; None for the arms of studies, or what the sweeps swept, and the
            optimizer otherwise.
        target: the score of time-to-target, a fraction; None for one that suits the runs.
        baseline: label of the group that the others are compared with; None for the best.
        measure: ``best`` or ``final``, the epoch that scores are from; None for the one that suits the runs.
        metric: name of the metric that is the score.
        title: of the report.
        latex: also write a table and a paragraph on methods for a paper.
        reload_seconds: interval at which a browser loads the page again while runs are unfinished; None for never.

    Returns:
        Whether runs are unfinished or jobs of a sweep are missing.

    Raises:
        UserError: there are no runs, no such key or group, or the report cannot be written.
    """
    if target is not None and not 0 < target <= 1:
        raise UserError(f"target={target}: expected a fraction in (0, 1], e.g. target=0.6")
    records = find_records(places)
    is_unfinished = records.missing_jobs > 0 or any(run.status == "running" for run in records.runs)
    comparison = compare(records, group_by or default_keys(records), target, baseline, measure, metric)
    try:
        report, written = write_report(comparison, output, title, latex, reload_seconds if is_unfinished else None)
    except OSError as error:
        raise UserError(
            f"{output}: cannot write the report ({error.strerror or error}); choose another --output"
        ) from error
    print(render_text(report, shutil.get_terminal_size((100, 24)).columns))
    others = ", ".join(path.name for path in written if path.parent == output and path.name != HTML)
    print(f"\nReport: {output / HTML} (also {others}, figures/)")
    return is_unfinished
