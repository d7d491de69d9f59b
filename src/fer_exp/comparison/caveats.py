"""What to know before trusting a comparison, from the records of its runs."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise

from fer_exp.comparison.analysis import Comparison
from fer_exp.comparison.grouping import constant_guess
from fer_exp.comparison.load import Run
from fer_exp.comparison.score import format_setting
from fer_exp.errors import join_first, plural
from fer_exp.metrics import describe
from fer_exp.runs.record import FINISHED

_TIMES, _RESULTS = "their times are not comparable", "results may differ for that reason"
_ENVIRONMENT = {
    "device": _TIMES,
    "threads": _TIMES,
    "versions.torch": _RESULTS,
    "versions.fer_exp": _RESULTS,
    "git_commit": _RESULTS,
}


def find_caveats(comparison: Comparison) -> list[str]:
    """Return the caveats, one sentence each, the most important first."""
    found = [
        *_data(comparison),
        *_at_chance(comparison),
        *comparison.messages,
        *_tuning(comparison),
        *_selection(comparison),
        *_warnings(comparison.runs),
        *_unfinished(comparison.runs),
        *_empty_classes(comparison.counted),
        *_environment(comparison.counted),
        *_shared_machines([*comparison.runs, *(trial for each in comparison.tunings for trial in each.trials)]),
        *(f"{group.label} is not compared: {group.reason}" for group in comparison.groups if group.reason),
    ]
    return [sentence if sentence.endswith(".") else f"{sentence}." for sentence in found]


def _data(comparison: Comparison) -> Iterator[str]:
    fingerprints = {str(run.value("data.fingerprint")).partition("/")[2] for run in comparison.counted}
    if len(fingerprints) > 1:
        yield f"The runs were validated on {len(fingerprints)} different sets of images: the ranking mixes them"
    keys = ("trainer.limit_train_batches", "trainer.limit_val_batches")
    limits = {(key, run.value(key)) for run in comparison.counted for key in keys}
    if given := sorted(f"{key}={value}" for key, value in limits if value not in (1, None)):
        yield f"Each epoch used a part of the images ({join_first(given)})"


def _at_chance(comparison: Comparison) -> Iterator[str]:
    if labels := [group.label for group in comparison.groups if group.at_chance]:
        guesses = {constant_guess(group.counted) for group in comparison.groups if group.at_chance}
        texts = ", ".join(map(comparison.score.text, sorted(guesses)))
        yield f"At chance, not above a constant guess ({texts}): {join_first(labels)}"


def _tuning(comparison: Comparison) -> Iterator[str]:
    rates: dict[str, set[str]] = {}
    for run in comparison.counted:
        rates.setdefault(str(run.value("optimizer")), set()).add(format_setting(run.value("optimizer.lr")))
    if len(rates) > 1 and not comparison.tunings and all(len(values) == 1 for values in rates.values()):
        listed = join_first([f"{name} {value}" for name, values in rates.items() for value in values])
        yield f"Each optimizer ran at one untuned learning rate ({listed})"
    hits = [f"{each.label} ({', '.join(each.boundary_hits)})" for each in comparison.tunings if each.boundary_hits]
    if hits:
        yield f"The best setting is at the edge of its range; a wider one may contain a better one: {join_first(hits)}"


def _selection(comparison: Comparison) -> Iterator[str]:
    runs = comparison.counted
    if len(comparison.groups) > 2 and not comparison.has_baseline:
        yield "The reference was selected as the group with the best observed mean, so its mean is slightly optimistic"
    if comparison.score.measure == "best":
        monitors = ", ".join(sorted({describe(run.monitor).label for run in runs}))
        yield f"Validation images chose the epoch (best {monitors}), so the scores are optimistic"
    if held_out := sum(run.held_out for run in runs):
        scope = "All" if held_out == len(runs) else f"{held_out} of {len(runs)}"
        fraction = "a fraction of the training images (data.val_fraction)"
        yield f"{scope} runs were validated on {fraction}. Use their scores only to select"
    led = [group.label for group in comparison.counted_groups if any(map(_is_plateau, group.counted))]
    if 0 < len(led) < len(comparison.counted_groups):
        yield f"Only {join_first(led)} reduced the learning rate by validation metrics, which favors these"


def _is_plateau(run: Run) -> bool:
    return str(run.value("scheduler._target_")).endswith("ReduceLROnPlateau") and run.monitor.startswith("val_")


def _warnings(runs: Sequence[Run]) -> Iterator[str]:
    for text, n in Counter(text for run in runs for text in dict.fromkeys(run.warnings)).items():
        yield text if n == len(runs) else f"{text.rstrip('.')} ({n} of {len(runs)} runs)"


def _unfinished(runs: Sequence[Run]) -> Iterator[str]:
    for sentence, some in {
        "still running or killed, and excluded": [run for run in runs if run.status == "running"],
        "interrupted and excluded": [run for run in runs if run.status == "interrupted"],
        "failed and excluded": [run for run in runs if run.status == "failed"],
        "ended without an epoch and excluded": [run for run in runs if run.status in FINISHED and not run.counts],
        "diverged and counted with the last epoch": [run for run in runs if run.status == "diverged" and run.counts],
    }.items():
        reasons = sorted({str(run.value("error")) for run in some if run.value("error")})
        because = f" ({join_first(reasons, separator='; ')})" if reasons else ""
        if some:
            folders = join_first([str(run.folder) for run in some])
            yield f"{plural(len(some), 'run')} {sentence}{because}: {folders}"


def _empty_classes(runs: Sequence[Run]) -> Iterator[str]:
    for run in runs:
        if run.class_counts is not None:
            empty = [name for name, images in zip(run.classes, run.class_counts, strict=False) if not images]
            if empty:
                yield f"No validation images of {join_first(empty)}: recall is undefined, macro-F1 uses 0 for them"
            return


def _environment(runs: Sequence[Run]) -> Iterator[str]:
    for key, consequence in _ENVIRONMENT.items():
        length = 8 if key == "git_commit" else 40
        found = {str(value)[:length] for run in runs if (value := run.value(f"environment.{key}")) is not None}
        if len(found) > 1:
            name = key.rpartition(".")[2].replace("_", " ")
            yield f"The runs have different values of {name} ({join_first(sorted(found))}): {consequence}"


def _shared_machines(runs: Sequence[Run]) -> Iterator[str]:
    spans: dict[str, set[tuple[datetime, datetime]]] = {}
    for run in runs:
        host = run.value("environment.host")
        if run.span and host:
            spans.setdefault(str(host), set()).add(run.span)  # a set: a copy of a record is the same run
    # Sorted by start, a run that overlaps any later one overlaps the next.
    shared = sorted(host for host, times in spans.items() if any(b[0] < a[1] for a, b in pairwise(sorted(times))))
    if shared:
        yield f"Runs shared a machine at the same time ({join_first(shared, 3)}): times are not comparable"
