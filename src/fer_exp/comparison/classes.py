"""Results per class, from the confusion matrices of the validation images."""

import math
from collections.abc import Sequence

import numpy as np

from fer_exp.comparison import formats
from fer_exp.comparison.analysis import Comparison
from fer_exp.comparison.grouping import Group, pairs
from fer_exp.comparison.load import Floats
from fer_exp.comparison.statistics import paired_t_test, wilson
from fer_exp.comparison.tables import Section, Table

MAX_CLASSES = 12  # of a confusion matrix that is shown


def recalls(confusion: Floats) -> Floats:
    """Return the recall of each class, (C,); NaN for a class without images."""
    totals = confusion.sum(1)
    recall: Floats = np.divide(confusion.diagonal(), totals, out=np.full(len(totals), np.nan), where=totals > 0)
    return recall


def macro_f1(confusion: Floats) -> float:
    """Return the mean F1 over the classes, as ``metrics.macro_f1`` computes it."""
    seen_or_predicted = confusion.sum(0) + confusion.sum(1)
    return float(np.mean(2 * confusion.diagonal() / np.maximum(seen_or_predicted, 1)))


def class_sections(comparison: Comparison) -> list[Section]:
    """Return recall per class, its differences to the reference, and the confusion matrices; empty without records."""
    groups = [group for group in comparison.groups if any(run.confusion is not None for run in group.counted)]
    if not groups:
        return []
    classes = groups[0].counted[0].classes
    places = tuple(comparison.groups.index(group) for group in groups)
    values = [_mean_recalls(group) for group in groups]
    f1 = [float(np.mean([macro_f1(confusion) for confusion in _confusions(group)])) for group in groups]
    rows = [
        (group.label, *(_recall(group, i, value) for i, value in enumerate(recall)), f"{100 * mean_f1:.1f}")
        for group, recall, mean_f1 in zip(groups, values, f1, strict=True)
    ]
    heat = [[*recall.tolist(), mean_f1] for recall, mean_f1 in zip(values, f1, strict=True)]
    align = "l" + "r" * (len(classes) + 1)
    recall_table = Table(("group", *classes, "macro-F1"), rows, align, groups=places, heat=heat)
    note = (
        "Recall per class and macro-F1 in %, mean over seeds, with the weights of best.ckpt. At 0 and 100 % the "
        "brackets hold the 95 % Wilson interval over the images of all seeds."
    )
    sections = [Section("Classes", (note,), (recall_table,))]
    if table := _difference_table(comparison, groups, classes):
        note = (
            "Differences in points with 95 % t intervals over paired seeds, not corrected: for looking, not for claims."
        )
        sections.append(Section("Classes: differences", (note,), (table,), is_folded=True))
    if len(classes) <= MAX_CLASSES:
        note = "Predicted classes in % of the images of each true class, over all seeds."
        matrices = tuple(_matrix_table(group, classes) for group in groups)
        sections.append(Section("Confusion matrices", (note,), matrices, is_folded=True))
    return sections


def _confusions(group: Group) -> list[Floats]:
    return [run.confusion for run in group.counted if run.confusion is not None]


def _mean_recalls(group: Group) -> Floats:
    mean: Floats = np.mean([recalls(confusion) for confusion in _confusions(group)], axis=0)
    return mean


def _recall(group: Group, index: int, mean: float) -> str:
    if math.isnan(mean):
        return formats.NO_VALUE
    if mean in (0, 1):
        images = int(sum(confusion[index].sum() for confusion in _confusions(group)))
        low, high = wilson(round(mean * images), images)
        return f"{100 * mean:.0f} [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * mean:.1f}"


def _difference_table(comparison: Comparison, groups: Sequence[Group], classes: Sequence[str]) -> Table | None:
    """A row per class, a column per group: rows of classes stay readable with many groups in print."""
    reference = comparison.reference
    others = [group for group in groups if group is not reference]
    if reference is None or not others or not _confusions(reference):
        return None
    rows = []
    for group in others:
        both = [(a.confusion, b.confusion) for a, b in pairs(group, reference)]
        known = [(a, b) for a, b in both if a is not None and b is not None]
        differences = np.array([[*(recalls(a) - recalls(b)), macro_f1(a) - macro_f1(b)] for a, b in known])
        tests = [paired_t_test(column) for column in differences.T] if len(known) else []
        rows.append((group.label, *(_cell(test.mean, test.low, test.high) for test in tests)))
    places = tuple(comparison.groups.index(group) for group in others)
    rows = [row for row in rows if len(row) > 1]
    return Table(("group", *classes, "macro-F1"), rows, "l" + "r" * (len(classes) + 1), groups=places) if rows else None


def _cell(mean: float, low: float, high: float) -> str:
    if math.isnan(mean):
        return formats.NO_VALUE
    return f"{100 * mean:+.1f}" + ("" if math.isnan(low) else f" [{100 * low:+.1f}, {100 * high:+.1f}]")


def _matrix_table(group: Group, classes: Sequence[str]) -> Table:
    total = np.sum(_confusions(group), axis=0)
    fractions = total / np.maximum(total.sum(1, keepdims=True), 1)
    rows = [(name, *(f"{100 * value:.0f}" for value in row)) for name, row in zip(classes, fractions, strict=True)]
    align = "l" + "r" * len(classes)
    return Table(("true \\ predicted", *classes), rows, align, caption=group.label, heat=fractions.tolist())
