"""Compare recorded runs: ``python -m fer_exp.compare outputs/sweeps/DIR``.

Reads run records and nothing else: of one sweep or several, or copies from another machine.
"""

import argparse
import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fer_exp.errors import UserError
from fer_exp.plots.terminal import protect_streams
from fer_exp.runs.sweep_record import SWEEP

if TYPE_CHECKING:
    from fer_exp.comparison.load import Measure

WATCH_SECONDS = 30
_OPTION = re.compile(r"(group_by|target|baseline|measure|metric|title|output)=(.*)", re.DOTALL)


def compare_folders(
    places: Sequence[Path],
    output: Path,
    group_by: Sequence[str] | None = None,
    target: float | None = None,
    baseline: str | None = None,
    measure: "Measure | None" = None,
    metric: str = "val_acc",
    title: str | None = None,
    latex: bool = False,
    watch: bool = False,
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
        watch: let a browser load the page again while runs are unfinished.

    Returns:
        Whether runs are unfinished or jobs of a sweep are missing.

    Raises:
        UserError: there are no runs, no such key or group, or the report cannot be written.
    """
    from fer_exp.comparison.analysis import compare
    from fer_exp.comparison.grouping import default_keys
    from fer_exp.comparison.load import find_records
    from fer_exp.comparison.report import HTML, render_text, write_report

    if target is not None and not 0 < target <= 1:
        raise UserError(f"target={target}: expected a fraction in (0, 1], e.g. target=0.6")
    records = find_records(places)
    is_unfinished = records.missing_jobs > 0 or any(run.status == "running" for run in records.runs)
    comparison = compare(records, group_by or default_keys(records), target, baseline, measure, metric)
    try:
        report, written = write_report(
            comparison, output, title, latex, WATCH_SECONDS if watch and is_unfinished else None
        )
    except OSError as error:
        raise UserError(
            f"{output}: cannot write the report ({error.strerror or error}); choose another --output"
        ) from error
    print(render_text(report, shutil.get_terminal_size((100, 24)).columns))
    others = ", ".join(path.name for path in written if path.parent == output and path.name != HTML)
    print(f"\nReport: {output / HTML} (also {others}, figures/)")
    return is_unfinished


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; ``key=value``, as for training, means ``--key value``."""
    parser = argparse.ArgumentParser(
        prog="python -m fer_exp.compare",
        description="Compare recorded runs: which group is best, by how much, and how sure that is.",
        epilog="Options can also be written as overrides: group_by=optimizer.lr target=0.6",
    )
    parser.add_argument("places", nargs="+", type=Path, metavar="DIR", help="a run, a sweep, or a folder above them")
    parser.add_argument(
        "--group-by",
        metavar="KEY[,KEY]",
        type=lambda text: [key.strip() for key in text.split(",") if key.strip()],
        help="keys whose values make the groups, e.g. optimizer, model, optimizer.lr; folder: the sweep's folder; arm: "
        "the study's arm (default: what was swept; the arm for studies)",
    )
    parser.add_argument("--baseline", metavar="GROUP", help="compare every group with this one (default: the best)")
    parser.add_argument("--metric", default="val_acc", metavar="NAME", help="the score (default: val_acc)")
    parser.add_argument(
        "--measure",
        choices=("best", "final"),
        help="the epoch of the score (default: final if no run stopped early, otherwise best)",
    )
    parser.add_argument("--target", type=float, metavar="SCORE", help="score of time-to-target, e.g. 0.6")
    parser.add_argument("--title", help="of the report")
    parser.add_argument(
        "--latex", action="store_true", help="also write comparison.tex: a table and a methods paragraph"
    )
    parser.add_argument(
        "--watch", action="store_true", help=f"repeat every {WATCH_SECONDS} s until all runs have ended"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="where the report goes (default: into the sweep, or outputs/comparisons/TIME for several folders)",
    )
    words: list[str] = []
    for word in arguments:
        option = _OPTION.fullmatch(word)
        words += [f"--{option[1].replace('_', '-')}={option[2]}"] if option else [word]
    return parser.parse_args(words)


def main() -> None:
    """Run the command; exit with status 1 if the runs cannot be compared."""
    protect_streams()
    given = parse_arguments(sys.argv[1:])
    if given.output is None:
        is_sweep = len(given.places) == 1 and (given.places[0] / SWEEP).exists()
        now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
        given.output = given.places[0] if is_sweep else Path("outputs/comparisons") / now
    try:
        while compare_folders(**vars(given)) and given.watch:
            time.sleep(WATCH_SECONDS)
        sys.stdout.flush()
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # `| head` has read enough; the report is written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
