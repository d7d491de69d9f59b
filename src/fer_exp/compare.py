"""Compare recorded runs: ``python -m fer_exp.compare outputs/sweeps/DIR``.

Reads run records and nothing else: of one sweep or many, old ones, or copies from another machine.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fer_exp.errors import UserError
from fer_exp.plots.terminal import print_any_sign
from fer_exp.runs.sweep_record import SWEEP

if TYPE_CHECKING:
    from fer_exp.comparison.load import Measure

_OPTION = re.compile(r"(group_by|target|baseline|measure|output)=(.*)")


def compare_folders(
    places: Sequence[Path],
    output: Path,
    group_by: Sequence[str] | None = None,
    target: float | None = None,
    baseline: str | None = None,
    measure: "Measure | None" = None,
) -> None:
    """Compare all runs in and below ``places``, print the answer, and write the report to ``output``.

    Args:
        places: folders of runs, of sweeps, or above them.
        output: the report's folder.
        group_by: keys whose values make the groups; None for the arms of studies, or what the sweeps swept, and the
            optimizer otherwise.
        target: the val_acc of time-to-target, a fraction; None for one that suits the runs.
        baseline: label of the group that the others are compared with; None for the first that has a result.
        measure: ``best`` or ``final``, the epoch that the answer is about; None for the one that suits the runs.

    Raises:
        UserError: there are no runs, or no such key or group, or the report cannot be written.
    """
    from fer_exp.comparison.analysis import compare
    from fer_exp.comparison.load import find_runs, find_swept
    from fer_exp.comparison.report import format_answer, write_report

    if target is not None and not 0 < target <= 1:
        raise UserError(f"target={target}: expected an accuracy in (0, 1], e.g. target=0.6")
    runs, notes = find_runs(places)
    if group_by is None:
        # Of what was swept, that which runs have: a group that was deleted, for one, has no value.
        swept = [key for key in find_swept(places) if any(run.value(key) is not None for run in runs)]
        group_by = ["arm"] if all(run.value("arm") for run in runs) else swept or ["optimizer"]
    comparison = compare(runs, group_by, target, baseline, measure, notes)
    try:
        output.mkdir(parents=True, exist_ok=True)
        written = write_report(comparison, output)
    except OSError as error:
        raise UserError(
            f"{output}: the report cannot be written there ({error.strerror or error}); choose another --output"
        ) from error
    print(format_answer(comparison))
    print(f"\nWritten to {output}: {', '.join(path.name for path in written)}")


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; ``key=value``, as the training takes it, means ``--key value``."""
    parser = argparse.ArgumentParser(
        prog="python -m fer_exp.compare",
        description="Compare recorded runs: which choice is better, by how much, how sure.",
        epilog="Options can also be given as the training takes them: group_by=optimizer.lr target=0.6",
    )
    parser.add_argument("places", nargs="+", type=Path, metavar="DIR", help="a run, a sweep, or a folder above them")
    parser.add_argument(
        "--group-by",
        metavar="KEY[,KEY]",
        type=lambda text: [key.strip() for key in text.split(",")],
        help="keys whose values make the groups, e.g. optimizer, model, optimizer.lr; folder: the name of the folder "
        "that a run's lies in; arm: that of its study (default: what was swept, of studies the arm)",
    )
    parser.add_argument("--target", type=float, metavar="ACC", help="val_acc of time-to-target, e.g. 0.6")
    parser.add_argument("--baseline", metavar="GROUP", help="the group the others are compared with (default: first)")
    parser.add_argument(
        "--measure",
        choices=("best", "final"),
        help="the epoch that the answer is about (default: final where no early stopping ended the runs, else best)",
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
        words += [f"--{option[1].replace('_', '-')}", option[2]] if option else [word]
    return parser.parse_args(words)


def main() -> None:
    """The command; exits with status 1 where the runs cannot be compared."""
    print_any_sign()
    given = parse_arguments(sys.argv[1:])
    output = given.output
    if output is None:
        is_sweep = len(given.places) == 1 and (given.places[0] / SWEEP).exists()
        time = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
        output = given.places[0] if is_sweep else Path("outputs/comparisons") / time
    try:
        compare_folders(given.places, output, given.group_by, given.target, given.baseline, given.measure)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
