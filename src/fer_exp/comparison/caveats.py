"""What to know before trusting a comparison, from the records of its runs."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise

from fer_exp.comparison import formats
from fer_exp.comparison.analysis import Comparison
from fer_exp.comparison.grouping import MAX_NAMED
from fer_exp.comparison.load import Run
from fer_exp.errors import join_first
from fer_exp.metrics import describe

_UNFINISHED = {"running": "still running or killed", "interrupted": "interrupted", "failed": "failed"}


def find_caveats(comparison: Comparison) -> list[str]:
    """Return the caveats, one sentence each, the most important first."""
    found = [
        *_at_chance(comparison),
        *comparison.messages,
        *_tuning(comparison),
        *_selection(comparison),
        *_warnings(comparison.runs),
        *_unfinished(comparison.runs),
        *_classes(comparison),
        *_environment(comparison.counted),
        *_shared_machines([*comparison.runs, *(trial for each in comparison.tunings for trial in each.trials)]),
        *(f"{each.group.label} is not compared: {each.reason}" for each in comparison.differences if not each.test),
    ]
    return [sentence if sentence.endswith(".") else f"{sentence}." for sentence in found]


def _at_chance(comparison: Comparison) -> Iterator[str]:
    labels = [group.label for group in comparison.groups if group.at_chance]
    if labels:
        guess = formats.score(comparison.chance, comparison.metric)
        yield f"At chance, not above a constant guess ({guess}): {join_first(labels, MAX_NAMED)}"


def _tuning(comparison: Comparison) -> Iterator[str]:
    rates: dict[str, set[object]] = {}
    for run in comparison.counted:
        rates.setdefault(str(run.value("optimizer")), set()).add(run.value("optimizer.lr"))
    if len(rates) > 1 and not comparison.tunings and all(len(values) == 1 for values in rates.values()):
        shown = [f"{name} {formats.setting(next(iter(values)))}" for name, values in rates.items()]  # type: ignore[arg-type]
        yield f"Each optimizer ran at one untuned learning rate ({join_first(shown, MAX_NAMED)})"
    hits = [
        f"{tuning.label} ({', '.join(tuning.boundary_hits)})" for tuning in comparison.tunings if tuning.boundary_hits
    ]
    if hits:
        listed = join_first(hits, MAX_NAMED)
        yield f"The best setting is at the edge of its range; a wider range may contain a better one: {listed}"
    if late := [tuning.label for tuning in comparison.tunings if tuning.winner is not tuning.best]:
        listed = join_first(late, MAX_NAMED)
        yield f"A trial that finished after the selection has a higher score than the selected one: {listed}"
    results = {tuning.label: sum(trial.counts for trial in tuning.trials) for tuning in comparison.tunings}
    if len(set(results.values())) > 1:
        listed = join_first([f"{label} {n}" for label, n in results.items()], MAX_NAMED)
        yield f"The groups have different numbers of trials with a result: {listed}"


def _selection(comparison: Comparison) -> Iterator[str]:
    runs = comparison.counted
    if len(comparison.groups) > 2 and not comparison.has_baseline:
        yield "The reference was selected as the group with the best observed mean, so its mean is slightly optimistic"
    if comparison.measure == "best":
        monitors = ", ".join(sorted({describe(run.monitor).label for run in runs}))
        yield f"Validation images chose the epoch (best {monitors}), so the scores are optimistic"
    if held_out := sum(run.held_out for run in runs):
        scope = "All" if held_out == len(runs) else f"{held_out} of {len(runs)}"
        fraction = "a fraction of the training images (data.val_fraction)"
        yield f"{scope} runs were validated on {fraction}. Use their scores only to select"
    led = [group.label for group in comparison.groups if any(map(_is_plateau, group.counted))]
    if 0 < len(led) < sum(bool(group.counted) for group in comparison.groups):
        yield f"Only {join_first(led, MAX_NAMED)} reduced the learning rate by validation metrics, which favours these"


def _is_plateau(run: Run) -> bool:
    return str(run.value("scheduler._target_")).endswith("ReduceLROnPlateau") and run.monitor.startswith("val_")


def _warnings(runs: Sequence[Run]) -> Iterator[str]:
    for text, n in Counter(text for run in runs for text in dict.fromkeys(run.warnings)).items():
        yield text if n == len(runs) else f"{text.rstrip('.')} ({n} of {len(runs)} runs)"


def _unfinished(runs: Sequence[Run]) -> Iterator[str]:
    for status, meaning in _UNFINISHED.items():
        if some := [run for run in runs if run.status == status]:
            reasons = sorted({str(run.value("error")) for run in some if run.value("error")}) * (status == "failed")
            listed = join_first([str(run.folder) for run in some], MAX_NAMED)
            because = f" ({join_first(reasons, MAX_NAMED, '; ')})" if reasons else ""
            yield f"{formats.plural(len(some), 'run')} {meaning} and excluded{because}: {listed}"
    if diverged := [run for run in runs if run.status == "diverged" and run.counts]:
        listed = join_first([str(run.folder) for run in diverged], MAX_NAMED)
        yield f"{formats.plural(len(diverged), 'run')} diverged and counted with the last epoch: {listed}"
    if empty := [run for run in runs if run.status in ("completed", "diverged") and not run.counts]:
        yield f"{formats.plural(len(empty), 'run')} without an epoch excluded: {join_first([str(r.folder) for r in empty], MAX_NAMED)}"  # noqa: E501


def _classes(comparison: Comparison) -> Iterator[str]:
    run = next((run for run in comparison.counted if run.class_counts is not None), None)
    if (
        run is not None
        and run.class_counts is not None
        and (empty := [name for name, n in zip(run.classes, run.class_counts, strict=False) if not n])
    ):
        listed = join_first(empty, MAX_NAMED)
        yield f"No validation images of {listed}: their recall is undefined, and macro-F1 uses 0 for them"


def _environment(runs: Sequence[Run]) -> Iterator[str]:
    for key, consequence in (
        ("environment.device", "their times are not comparable"),
        ("environment.threads", "their times are not comparable"),
        ("environment.versions.torch", "results may differ for that reason"),
        ("environment.versions.fer_exp", "results may differ for that reason"),
        ("environment.git_commit", "results may differ for that reason"),
    ):
        values = sorted({str(run.value(key))[:40] for run in runs if run.value(key) is not None})
        if len(values) > 1:
            values = [value[:8] for value in values] if key.endswith("commit") else values
            name = key.rpartition(".")[2].replace("_", " ")
            yield f"The runs have different values of {name} ({join_first(values, MAX_NAMED)}): {consequence}"


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
