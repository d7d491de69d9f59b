"""The findings of an audit as a table, as JSON, as a list of exclusions, and as sheets of images."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fer_exp.data.annotations import format_exclusion
from fer_exp.data.audit import SPLITS, Audit, Group
from fer_exp.files import printable
from fer_exp.plots.images import Row, Tile, sheet_figure
from fer_exp.plots.reports import text_table

MAX_GROUPS, MAX_TILES, TILES_PER_ROW = 60, 6, 8  # of a sheet, of a group, of a row


def findings_table(audit: Audit) -> dict[str, tuple[int, int]]:
    """Return finding -> number of training and of validation images."""
    modes = [mode for *_, mode in audit.originals]
    usual, _ = Counter(modes).most_common(1)[0]
    rows: dict[str, Collection[int]] = {
        "constant": audit.constant,
        "mostly one gray level": audit.one_gray,
        **_duplicates(audit, "exact duplicate", audit.exact),
        **_duplicates(audit, "exact or near duplicate", [*audit.exact, *(found.images for found in audit.near)]),
        "smaller than data.image_size": audit.small,
        "far from square": audit.oblong,
        "unusual color mode": [i for i, mode in enumerate(modes) if mode != usual],
    }
    unreadable = [split for _, split, _ in audit.unreadable]
    counts = {"unreadable": (unreadable.count("train"), unreadable.count("validation"))}
    for row, images in rows.items():
        validation = int(audit.is_validation[list(images)].sum()) if images else 0
        counts[row] = (len(images) - validation, validation)
    return counts


def _duplicates(audit: Audit, kind: str, groups: Sequence[Group]) -> dict[str, set[int]]:
    """Finding -> the images of groups of duplicates that have it."""
    firsts = [{bool(audit.is_validation[i]): i for i in reversed(group)}.values() for group in groups]
    repeated = ([i for i in group if i not in first] for group, first in zip(groups, firsts, strict=True))
    return {
        f"{kind} in the other split": {i for group in groups if audit.across_splits(group) for i in group},
        f"{kind} with another label": {i for group in groups if audit.contradictory(group) for i in group},
        f"{kind} of an earlier image of the split": set(chain.from_iterable(repeated)),
    }


def class_counts(audit: Audit) -> NDArray[np.int64]:
    """(2, C): images of each class in training and in validation."""
    splits = (audit.labels[~audit.is_validation], audit.labels[audit.is_validation])
    return np.stack([np.bincount(labels, minlength=len(audit.classes)) for labels in splits])


def imbalance(counts: NDArray[np.int64]) -> float | None:
    """The size of the largest class divided by that of the smallest; None if a class is empty."""
    return float(counts.max() / counts.min()) if counts.min() else None


def format_audit(audit: Audit) -> str:
    """Format classes and findings as tables for the terminal."""
    counts = class_counts(audit)
    rows = [[printable(name), *(f"{n:,}" for n in counts[:, c])] for c, name in enumerate(audit.classes)]
    ratios = [imbalance(split) for split in counts]
    rows.append(["largest / smallest class", *("-" if ratio is None else f"{ratio:.1f}" for ratio in ratios)])
    found = [[row, *(f"{n:,}" for n in cells)] for row, cells in findings_table(audit).items() if any(cells)]
    parts = [text_table(["class", *SPLITS], rows, "lrr")]
    parts.append(text_table(["finding", *SPLITS], found, "lrr") if found else "Nothing was found.")
    if not audit.near_is_complete:
        parts.append("The search for near duplicates stopped early: too many similar images. Reduce near_distance.")
    return "\n\n".join(parts)


def describe_audit(audit: Audit) -> dict[str, Any]:
    """Return all findings as plain values for JSON."""
    counts = class_counts(audit)

    def image(i: int) -> dict[str, Any]:
        return {"file": audit.names[i], "class": audit.class_of(i), "split": audit.split_of(i)}

    def group(images: Group) -> dict[str, Any]:
        return {
            "across_splits": audit.across_splits(images),
            "contradictory": audit.contradictory(images),
            "images": [image(i) for i in images],
        }

    sizes = Counter(f"{width}x{height}" for width, height, _ in audit.originals)
    return {
        "counts": {name: dict(zip(SPLITS, counts[:, c].tolist(), strict=True)) for c, name in enumerate(audit.classes)},
        "imbalance": {split: imbalance(counts[s]) for s, split in enumerate(SPLITS)},
        "modes": dict(Counter(mode for *_, mode in audit.originals).most_common()),
        "sizes": dict(sizes.most_common()),
        "findings": {row: dict(zip(SPLITS, cells, strict=True)) for row, cells in findings_table(audit).items()},
        "unreadable": [{"file": name, "split": split, "reason": why} for name, split, why in audit.unreadable],
        "constant": [image(i) for i in audit.constant],
        "one_gray": [{**image(i), "fraction": round(fraction, 4)} for i, fraction in audit.one_gray.items()],
        "exact_duplicates": [group(images) for images in audit.exact],
        "near_duplicates": [
            {"distance": near.distance, "correlation": round(near.correlation, 4), **group(near.images)}
            for near in audit.near
        ],
        "near_duplicates_complete": audit.near_is_complete,
        "small": [image(i) for i in audit.small],
        "far_from_square": [image(i) for i in audit.oblong],
    }


def exclusion_list(audit: Audit) -> list[str]:
    """Return the lines of a list for ``data.exclude``, with the reason for each image."""
    names = [format_exclusion(name) for name in audit.names]
    reasons = dict.fromkeys(audit.constant, "constant")
    for group in audit.exact:
        train = [i for i in group if not audit.is_validation[i]]
        validation = [i for i in group if audit.is_validation[i]]
        if validation:
            reasons |= dict.fromkeys(train, f"exact duplicate of {names[validation[0]]}")
        elif audit.contradictory(group):
            for i in train:
                other = next(j for j in group if audit.labels[j] != audit.labels[i])
                reasons[i] = f"exact duplicate of {names[other]}, which has another label"
        else:
            reasons |= dict.fromkeys(train[1:], f"exact duplicate of {names[train[0]]}")
    for near in audit.near:
        validation = [i for i in near.images if audit.is_validation[i]]
        for i in near.images if validation else ():
            if not audit.is_validation[i]:
                reasons.setdefault(i, f"near duplicate of {names[validation[0]]}")
    splits = [split for _, split, _ in audit.unreadable] + [audit.split_of(i) for i in reasons]
    unsure = [i for i in audit.one_gray if i not in reasons]
    return [
        f"# For data.exclude: {splits.count('train')} training and {splits.count('validation')} validation images.",
        "#",
        "# Excluded from both splits: unreadable and constant images.",
        "# Excluded from training: exact and near duplicates of validation images; exact duplicates with different",
        "# labels; and exact duplicates of an earlier image.",
        "# Not excluded: other validation images, so that results stay comparable with other work; near duplicates",
        "# within training.",
        *([] if audit.near_is_complete else ["# The search for near duplicates stopped early."]),
        "#",
        "# Paths are relative to data.root. Remove the lines of images that you want to use.",
        *(f"{format_exclusion(name)}  # unreadable: {reason}" for name, _, reason in audit.unreadable),
        *(f"{names[i]}  # {reasons[i]}" for i in sorted(reasons)),
        *(["#", "# Mostly one gray level. Remove the # in front of those to exclude."] if unsure else []),
        *(f"#{names[i]}" for i in unsure),
    ]


def finding_sheets(audit: Audit) -> Iterator[tuple[str, partial[Figure]]]:
    """Yield (name, function that draws the sheet) for each kind of finding that occurs."""
    exact, near = audit.exact, [found.images for found in audit.near]
    notes = {found.images: f"correlation {found.correlation:.2f}" for found in audit.near}
    sizes = {i: "{} x {}".format(*audit.originals[i]) for i in sorted({*audit.small, *audit.oblong})}
    gray = sorted(audit.one_gray, key=lambda i: -audit.one_gray[i])
    empty = dict.fromkeys(audit.constant, "constant") | {i: f"{100 * audit.one_gray[i]:.0f} % one level" for i in gray}

    kinds: list[tuple[str, str, Sequence[Group], dict[Any, str]]] = [
        ("empty", "Constant images, and images of mostly one gray level", [(i,) for i in empty], empty),
        ("contradictions", "Exact duplicates with different labels", list(filter(audit.contradictory, exact)), {}),
        ("leaks", "Exact duplicates in both splits", list(filter(audit.across_splits, exact)), {}),
        ("near_leaks", "Near duplicates in both splits", list(filter(audit.across_splits, near)), notes),
        ("near_duplicates", "Near duplicates in one split", [g for g in near if not audit.across_splits(g)], notes),
        ("sizes", "Images that are enlarged or far from square", [(i,) for i in sizes], sizes),
    ]
    for name, title, groups, note in kinds:
        if groups:  # those with several classes first: they are the worst
            yield name, partial(_sheet, audit, title, sorted(groups, key=lambda g: not audit.contradictory(g)), note)


def _sheet(audit: Audit, title: str, groups: Sequence[Group], notes: dict[Any, str]) -> Figure:
    """Draw groups from left to right and down; notes belong to groups, or to single images."""
    rows: list[list[list[Tile]]] = [[]]
    for group in groups[:MAX_GROUPS]:
        # At least one image of each split and class.
        firsts = {(bool(audit.is_validation[i]), int(audit.labels[i])): i for i in reversed(group)}.values()
        shown = sorted([*sorted(firsts), *(i for i in group if i not in firsts)][:MAX_TILES])
        tiles = []
        for i in shown:
            name = printable(audit.names[i].rpartition("/")[2])
            note = notes.get(group, notes.get(i, ""))
            if len(group) > len(shown) and i == shown[-1]:
                note = f"and {len(group) - len(shown)} more"
            tiles.append(Tile(audit.thumbnails[i], (name, f"{audit.class_of(i)}, {audit.split_of(i)}", note)))
        if rows[-1] and sum(map(len, rows[-1])) + len(tiles) > TILES_PER_ROW:
            rows.append([])
        rows[-1].append(tiles)
    subtitle = f"{len(groups):,} found" + (f", {MAX_GROUPS} shown" if len(groups) > MAX_GROUPS else "")
    return sheet_figure([Row(row) for row in rows], title, subtitle)
