"""Results per class, from the confusion matrices of the validation images."""

from collections.abc import Sequence

import numpy as np

from fer_exp.comparison.analysis import Comparison
from fer_exp.comparison.grouping import Group, pairs
from fer_exp.comparison.load import Floats, Run
from fer_exp.comparison.score import Score
from fer_exp.comparison.statistics import paired_t_test, wilson
from fer_exp.comparison.tables import Section, Table

MAX_CLASSES = 12  # of a confusion matrix that is shown
RECALL = Score("val_acc", "best")  # shown as accuracy is


def class_scores(confusion: Floats) -> Floats:
    """Return the recall of each class, NaN without images, and macro-F1 as ``metrics.macro_f1`` has it: (C + 1,)."""
    right, images = confusion.diagonal(), confusion.sum(1)
    recall = np.divide(right, images, out=np.full(len(images), np.nan), where=images > 0)
    return np.append(recall, np.mean(2 * right / np.maximum(confusion.sum(0) + images, 1)))


def class_sections(comparison: Comparison) -> list[Section]:
    """Return recall per class, its differences to the reference, and the confusion matrices; empty without records."""
    groups = [group for group in comparison.groups if _confusions(group.counted)]
    if not groups:
        return []
    classes = groups[0].counted[0].classes
    header, align = ("group", *classes, "macro-F1"), "l" + "r" * (len(classes) + 1)
    heat = [np.mean([class_scores(matrix) for matrix in _confusions(group.counted)], axis=0) for group in groups]
    rows = [_recall_row(group, scores) for group, scores in zip(groups, heat, strict=True)]
    recall_table = Table(header, rows, align, heat=[scores.tolist() for scores in heat])
    note = (
        "Recall per class and macro-F1 in %, mean over seeds, with the weights of best.ckpt. At 0 and 100 % the "
        "brackets hold the 95 % Wilson interval over the images of all seeds."
    )
    sections = [Section("Classes", (note,), (recall_table,))]
    if rows := [row for group in groups if (row := _difference_row(group, comparison.reference))]:
        note = (
            "Differences in points with 95 % t intervals over paired seeds, not corrected: for looking, not for claims."
        )
        sections.append(Section("Classes: differences", (note,), (Table(header, rows, align),), is_folded=True))
    if len(classes) <= MAX_CLASSES:
        note = "Predicted classes in % of the images of each true class, over all seeds."
        matrices = tuple(_matrix_table(group, classes) for group in groups)
        sections.append(Section("Confusion matrices", (note,), matrices, is_folded=True))
    return sections


def _confusions(runs: Sequence[Run]) -> list[Floats]:
    return [run.confusion for run in runs if run.confusion is not None]


def _recall_row(group: Group, scores: Floats) -> tuple[str, ...]:
    images = np.append(np.sum(_confusions(group.counted), axis=(0, 2)), 0)  # no interval for macro-F1
    return (group.label, *(_recall(score, int(n)) for score, n in zip(scores, images, strict=True)))


def _recall(score: float, images: int) -> str:
    if score not in (0, 1) or not images:
        return RECALL.number(score)
    low, high = wilson(round(score * images), images)
    return f"{100 * score:.0f} [{100 * low:.1f}, {100 * high:.1f}]"


def _difference_row(group: Group, reference: Group) -> tuple[str, ...]:
    """Return the differences to the reference; empty for the reference itself, and without common seeds."""
    both = [_confusions(pair) for pair in pairs(group, reference)]
    differences = [class_scores(pair[0]) - class_scores(pair[1]) for pair in both if len(pair) == 2]
    if group.label == reference.label or not differences:
        return ()
    tests = [paired_t_test(column) for column in np.transpose(differences)]
    return (group.label, *map(RECALL.estimate, tests))


def _matrix_table(group: Group, classes: Sequence[str]) -> Table:
    total = np.sum(_confusions(group.counted), axis=0)
    fractions = total / np.maximum(total.sum(1, keepdims=True), 1)
    rows = [(name, *(f"{100 * value:.0f}" for value in row)) for name, row in zip(classes, fractions, strict=True)]
    align = "l" + "r" * len(classes)
    return Table(("true \\ predicted", *classes), rows, align, caption=group.label, heat=fractions.tolist())
