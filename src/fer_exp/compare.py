"""Compare recorded runs: ``python -m fer_exp.compare outputs/sweeps/DIR``.

Reads run records and nothing else: of one sweep or several, or copies from another machine.
"""

import argparse
import re
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from fer_exp.cli import call
from fer_exp.runs.sweep_record import SWEEP

WATCH_SECONDS = 30
_OPTION = re.compile(r"(group_by|target|baseline|measure|metric|title|output)=(.*)", re.DOTALL)


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; ``key=value``, as for training, means ``--key value``."""
    parser = argparse.ArgumentParser(
        prog="python -m fer_exp.compare",
        description="Compare recorded runs: which group is best, by how much, and whether it is significant.",
        epilog="Options can also be written as overrides: group_by=optimizer.lr target=0.6",
    )
    parser.add_argument("places", nargs="+", type=Path, metavar="DIR", help="a run, a sweep, or a folder of them")
    parser.add_argument(
        "--group-by",
        metavar="KEY[,KEY]",
        type=lambda text: [key.strip() for key in text.split(",") if key.strip()],
        help="keys whose values define the groups, e.g. optimizer, model, optimizer.lr; folder: the sweep's folder; "
        "arm: the study's arm (default: arm for studies, the swept keys, or else optimizer)",
    )
    parser.add_argument("--baseline", metavar="GROUP", help="compare every group with this one (default: the best)")
    parser.add_argument("--metric", default="val_acc", metavar="NAME", help="the score (default: val_acc)")
    parser.add_argument(
        "--measure",
        choices=("best", "final"),
        help="the epoch of the score (default: best if a run uses early stopping, otherwise final)",
    )
    parser.add_argument(
        "--target",
        type=float,
        metavar="SCORE",
        help="score to reach, e.g. 0.6 (default: 95 %% of the best group's median)",
    )
    parser.add_argument("--title", help="title of the report")
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
        help="folder of the report (default: the folder of the sweep, or outputs/comparisons/TIME for other folders)",
    )
    words: list[str] = []
    for word in arguments:
        option = _OPTION.fullmatch(word)
        words += [f"--{option[1].replace('_', '-')}={option[2]}"] if option else [word]
    return parser.parse_args(words)


def run() -> None:
    """Compare the runs that the command line names; with ``--watch``, until all have ended."""
    given = parse_arguments(sys.argv[1:])
    from fer_exp.comparison.report import compare_folders

    if given.output is None:
        is_sweep = len(given.places) == 1 and (given.places[0] / SWEEP).exists()
        now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
        given.output = given.places[0] if is_sweep else Path("outputs/comparisons") / now
    seconds = WATCH_SECONDS if given.watch else None
    arguments = {key: value for key, value in vars(given).items() if key != "watch"}
    while compare_folders(**arguments, reload_seconds=seconds) and seconds:
        time.sleep(seconds)


def main() -> None:
    """Run the command; exit with status 1 if the runs cannot be compared."""
    call(run)


if __name__ == "__main__":
    main()
