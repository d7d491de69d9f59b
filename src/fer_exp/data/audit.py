"""What is wrong with a folder of faces: unreadable, empty, doubled and contradicting images.

Imports neither torch nor lightning: the worker processes start with this module, and start fast.
"""

import hashlib
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fer_exp.data.annotations import format_exclusion
from fer_exp.data.decode import (
    ImageFormat,
    ImageInput,
    PixelText,
    Progress,
    decode_image,
    failure_reason,
    map_chunks,
    open_image,
)

SPLITS = ("train", "validation")

CONSTANT_RANGE = 16  # grey levels of 255 between the darkest and the lightest pixel of an image that shows nothing
ONE_GREY_SHARE = 0.7  # of the pixels; on FER2013 faces of black on white reach 0.69, and beyond lie notices of websites
TOO_LONG = 1.5  # times the other side: squeezing such an image to a square distorts the face
MOST_PAIRS = 1_000_000  # of near duplicates; frames of films would fill the memory

Faces = NDArray[np.uint8]


@dataclass(frozen=True)
class Inspection:
    """N files as they were found.

    Attributes:
        faces: (N, S, S) uint8, in color (N, S, S, 3); black where a file cannot be read.
        hashes: (N, 64) bool, imagehash's ``phash`` of each face.
        sizes: (N, 2) int, width and height in pixels, 0 where a file cannot be read.
        modes: (N,) Pillow's names, ``L`` and ``RGB`` for example, empty where a file cannot be read.
        digests: (N,) hashes of the files' bytes.
        pixel_digests: (N, 32) uint8, hashes of ``faces``.
        unreadable: for each index of a file that cannot be read, the reason.
    """

    faces: Faces
    hashes: NDArray[np.bool_]
    sizes: NDArray[np.int64]
    modes: tuple[str, ...]
    digests: tuple[bytes, ...]
    pixel_digests: NDArray[np.uint8]
    unreadable: dict[int, str]


@dataclass(frozen=True)
class Pair:
    """Two images of different pixels that are the same photograph.

    Attributes:
        first: index of the one.
        second: index of the other, ``first < second``.
        distance: bits in which their perceptual hashes differ, of 64.
        correlation: Pearson's, of their pixels.
    """

    first: int
    second: int
    distance: int
    correlation: float


@dataclass(frozen=True)
class Audit:
    """All that was found in N files of both splits, training first.

    Attributes:
        files: N paths relative to the data folder.
        labels: (N,) int, indices into ``classes``.
        classes: class names.
        validation: (N,) bool, whether a file is of the validation split.
        inspection: the files as they were found.
        constant: indices of images whose pixels are all alike, or nearly.
        one_grey: indices of other images most of whose pixels have one grey level.
        copies: groups of two and more indices of images with the same pixels, constant ones left out.
        near: pairs of near duplicates, the most alike first. Of images with the same pixels one stands for all, so that
            the two are of different splits, and of different labels, where there are such.
        near_is_complete: whether the search for them came to its end.
        small: indices of images smaller than 48 pixels on a side, which are blown up.
        oblong: indices of images far from square, which are squeezed.
    """

    files: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    validation: NDArray[np.bool_]
    inspection: Inspection
    constant: list[int]
    one_grey: list[int]
    copies: list[list[int]]
    near: list[Pair]
    near_is_complete: bool
    small: list[int]
    oblong: list[int]

    def counts(self) -> NDArray[np.int64]:
        """(2, 7): files of each class in training and in validation."""
        splits = (self.labels[~self.validation], self.labels[self.validation])
        return np.stack([np.bincount(labels, minlength=len(self.classes)) for labels in splits])

    def label(self, i: int) -> str:
        """The class of file ``i``."""
        return self.classes[int(self.labels[i])]

    def split(self, i: int) -> str:
        """The split of file ``i``."""
        return SPLITS[int(self.validation[i])]


def inspect(
    inputs: Iterable[ImageInput], n: int, image_format: ImageFormat, progress: Progress | None = None
) -> Inspection:
    """Read all files, on all cores that this process may use.

    Args:
        inputs: N inputs of the decoder.
        n: N.
        image_format: of the decoded images.
        progress: called with (files done, N) as the work goes on.
    """
    inspect_chunk = partial(_inspect_chunk, image_format=image_format)
    parts: list[Inspection] = []
    unreadable: dict[int, str] = {}
    done = 0
    for part in map_chunks(inspect_chunk, inputs, n, progress):
        parts.append(part)
        unreadable |= {done + i: reason for i, reason in part.unreadable.items()}
        done += len(part.modes)
    empty = inspect_chunk([])
    return Inspection(
        faces=np.concatenate([part.faces for part in [empty, *parts]]),
        hashes=np.concatenate([part.hashes for part in [empty, *parts]]),
        sizes=np.concatenate([part.sizes for part in [empty, *parts]]),
        modes=tuple(mode for part in parts for mode in part.modes),
        digests=tuple(digest for part in parts for digest in part.digests),
        pixel_digests=np.concatenate([part.pixel_digests for part in [empty, *parts]]),
        unreadable=unreadable,
    )


def _inspect_chunk(paths: Sequence[ImageInput], image_format: ImageFormat) -> Inspection:
    channels, size, _ = image_format.shape
    faces = np.zeros((len(paths), size, size, channels), np.uint8)
    hashes = np.zeros((len(paths), 64), np.bool_)
    sizes = np.zeros((len(paths), 2), np.int64)
    modes, digests, unreadable = [""] * len(paths), [b""] * len(paths), {}
    pixel_digests = bytearray()
    for i, path in enumerate(paths):
        try:
            content = path if not isinstance(path, str) else Path(path).read_bytes()
            digests[i] = hashlib.sha256(content.text.encode() if isinstance(content, PixelText) else content).digest()
            with open_image(content) as image:
                sizes[i], modes[i] = image.size, image.mode
                faces[i] = decode_image(image, image_format).transpose(1, 2, 0)
            hashes[i] = imagehash.phash(Image.fromarray(faces[i].squeeze())).hash.ravel()
        except Exception as error:  # one odd file must not hide the others from the list
            unreadable[i] = failure_reason(error)
        pixel_digests += hashlib.sha256(faces[i]).digest()
    if channels == 1:
        faces = faces[..., 0]
    pixels = np.frombuffer(pixel_digests, np.uint8).reshape(-1, 32)
    return Inspection(faces, hashes, sizes, tuple(modes), tuple(digests), pixels, unreadable)


def audit(
    files: Sequence[str],
    labels: Sequence[int],
    classes: Sequence[str],
    validation: Sequence[bool],
    inspection: Inspection,
    near_distance: int,
    near_correlation: float,
) -> Audit:
    """Find what is wrong.

    Args:
        files: N paths, relative to the data folder.
        labels: N indices into ``classes``.
        classes: class names.
        validation: N times whether a file is of the validation split.
        inspection: of these files.
        near_distance: bits of 64 in which the perceptual hashes of near duplicates differ, at most.
        near_correlation: of the pixels of near duplicates, at least.
    """
    faces, sizes = inspection.faces, inspection.sizes
    readable = np.ones(len(files), np.bool_)
    readable[list(inspection.unreadable)] = False
    constant = is_constant(faces) & readable
    one_grey = np.zeros(len(files), np.bool_)
    sound = np.flatnonzero(readable & ~constant)
    one_grey[sound] = one_grey_share(faces[sound]) >= ONE_GREY_SHARE
    copies = [sound[group].tolist() for group in same_pixels(inspection.pixel_digests[sound])]
    further = {i for group in copies for i in group[1:]}
    # Notices and warning signs are much alike, and no faces.
    distinct = np.array([i for i in sound.tolist() if i not in further and not one_grey[i]], np.int64)
    near, is_complete = near_duplicates(faces[distinct], inspection.hashes[distinct], near_distance, near_correlation)
    # The first of each split and label stands for its like.
    of = _firsts(copies, validation, labels)

    def stand_for_all(pair: Pair) -> Pair:
        groups = (of.get(i, [i]) for i in distinct[[pair.first, pair.second]].tolist())
        both = min(
            itertools.product(*groups),
            key=lambda two: (validation[two[0]] == validation[two[1]], labels[two[0]] == labels[two[1]]),
        )
        return Pair(min(both), max(both), pair.distance, pair.correlation)

    return Audit(
        files=tuple(files),
        labels=np.asarray(labels, np.int64),
        classes=tuple(classes),
        validation=np.asarray(validation, np.bool_),
        inspection=inspection,
        constant=np.flatnonzero(constant).tolist(),
        one_grey=np.flatnonzero(one_grey).tolist(),
        copies=copies,
        near=sorted(map(stand_for_all, near), key=lambda pair: -pair.correlation),
        near_is_complete=is_complete,
        small=np.flatnonzero(readable & (sizes.min(1) < faces.shape[1])).tolist(),
        oblong=np.flatnonzero(readable & (sizes.max(1) > TOO_LONG * sizes.min(1))).tolist(),
    )


def is_constant(faces: Faces) -> NDArray[np.bool_]:
    """(N,): whether the pixels of each of ``faces`` (N, ...) span no more than ``CONSTANT_RANGE`` grey levels."""
    pixels = faces.reshape(len(faces), math.prod(faces.shape[1:]))
    constant = _spans_little(pixels[:, : pixels.shape[1] // 48])  # most faces are told by their first rows
    constant[constant] = _spans_little(pixels[constant])
    return constant


def _spans_little(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    little: NDArray[np.bool_] = pixels.max(1) - pixels.min(1) <= CONSTANT_RANGE
    return little


def one_grey_share(faces: Faces) -> NDArray[np.float64]:
    """(N,): the share of the pixels of each of ``faces`` (N, ...) that have its commonest grey level."""
    pixels = faces.reshape(len(faces), math.prod(faces.shape[1:]))
    return np.array([np.bincount(face).max() for face in pixels], np.float64) / max(pixels.shape[1], 1)


def same_pixels(digests: NDArray[np.uint8]) -> list[list[int]]:
    """The groups of two and more indices of equal ``digests`` (N, 32), each in rising order."""
    keys = np.ascontiguousarray(digests).view(np.uint64)[:, 0]
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    groups: dict[bytes, list[int]] = defaultdict(list)
    for i in np.flatnonzero(counts[inverse] > 1).tolist():
        groups[digests[i].tobytes()].append(i)
    return [group for group in groups.values() if len(group) > 1]


def near_duplicates(
    faces: Faces, hashes: NDArray[np.bool_], distance: int, correlation: float
) -> tuple[list[Pair], bool]:
    """Find pairs of images that are the same photograph, in another size, crop, brightness or compression.

    A hash proposes and the pixels decide: 48x48 faces that look straight ahead are so much alike that a hash alone
    takes many for one.

    Args:
        faces: (N, 48, 48), all different.
        hashes: (N, 64) perceptual hashes.
        distance: bits in which two hashes differ, at most.
        correlation: Pearson's, of the pixels, at least.

    Returns:
        The pairs, and whether these are all; the search ends at ``MOST_PAIRS`` proposals.
    """
    found: list[Pair] = []
    proposed = 0
    for first, second, bits in _close_hashes(hashes, distance):
        proposed += len(first)
        if proposed > MOST_PAIRS:
            return found, False
        for start in range(0, len(first), 2048):
            some = slice(start, start + 2048)
            likeness = _correlations(faces[first[some]], faces[second[some]])
            found += [
                Pair(int(first[start + k]), int(second[start + k]), int(bits[start + k]), float(likeness[k]))
                for k in np.flatnonzero(likeness >= correlation)
            ]
    return found, True


def _close_hashes(
    hashes: NDArray[np.bool_], distance: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """All pairs of hashes within ``distance``, as (first, second, bits), some rows at a time.

    A matrix product of signs counts the bits of all pairs in which they agree less those in which they differ:
    exact, and half a billion pairs in seconds.
    """
    signs = np.where(hashes, np.float32(1), np.float32(-1))
    for start in range(0, len(signs), 512):
        agreement = signs[start : start + 512] @ signs[start:].T
        first, second = np.nonzero(agreement >= signs.shape[1] - 2 * distance)
        first, second = first[second > first], second[second > first]
        bits = (signs.shape[1] - agreement[first, second]).astype(np.int64) // 2
        yield first + start, second + start, bits


def _correlations(a: Faces, b: Faces) -> NDArray[np.float32]:
    """(N,): Pearson's correlation of the pixels of each pair of faces (N, 48, 48)."""
    x, y = (faces.reshape(len(faces), -1).astype(np.float32) for faces in (a, b))
    x -= x.mean(1, keepdims=True)
    y -= y.mean(1, keepdims=True)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    correlations: NDArray[np.float32] = np.einsum("ij,ij->i", x, y) / np.maximum(norms, np.float32(1e-6))
    return correlations


@dataclass(frozen=True)
class Doubles:
    """Which images are in the data more than once: indices, in rising order.

    Attributes:
        across: those whose like is in the other split, with the first such one.
        contradicting: those whose like has another label, in either split.
        further: those whose like came earlier in the same split.
    """

    across: dict[int, int]
    contradicting: list[int]
    further: list[int]


def copied(audit: Audit) -> Doubles:
    """Which images have the same pixels as others."""
    return _doubles(audit, ((group, group) for group in audit.copies))


def alike(audit: Audit) -> Doubles:
    """Which images are near duplicates of others with other pixels."""
    of = {i: group for group in audit.copies for i in group}
    groups = [(of.get(pair.first, [pair.first]), of.get(pair.second, [pair.second])) for pair in audit.near]
    return _doubles(audit, groups + [(b, a) for a, b in groups])


def _doubles(audit: Audit, groups: Iterable[tuple[list[int], list[int]]]) -> Doubles:
    """Of each pair of groups, what the images of the first are to those of the second."""
    across: dict[int, int] = {}
    contradicting: set[int] = set()
    further: set[int] = set()
    for images, others in groups:  # a group may have thousands of images: they are not compared one by one
        first: dict[bool, int] = {}
        for j in others:
            first.setdefault(bool(audit.validation[j]), j)
        labels = {int(audit.labels[j]) for j in others}
        for i in images:
            split = bool(audit.validation[i])
            if (not split) in first:
                across.setdefault(i, first[not split])
            if first.get(split, i) < i:
                further.add(i)
            if labels - {int(audit.labels[i])}:
                contradicting.add(i)
    return Doubles(dict(sorted(across.items())), sorted(contradicting), sorted(further))


def _firsts(
    groups: Iterable[list[int]],
    validation: Sequence[bool] | NDArray[np.bool_],
    labels: Sequence[int] | NDArray[np.int64],
) -> dict[int, list[int]]:
    """For each image of a group, those of it that come first in their split and label, at most two a class.

    Groups are in rising order, and so are those.
    """
    of: dict[int, list[int]] = {}
    for group in groups:
        first: dict[tuple[bool, int], int] = {}
        for i in group:
            first.setdefault((bool(validation[i]), int(labels[i])), i)
        firsts = list(first.values())
        of |= dict.fromkeys(group, firsts)
    return of


def propose_exclusions(audit: Audit) -> list[str]:
    """The lines of a list for ``data.exclude``, under a head that says what is left out and what is kept."""
    inspection, same, near = audit.inspection, copied(audit), alike(audit)
    paths = [format_exclusion(file) for file in audit.files]
    reasons = {i: f"cannot be read: {reason}" for i, reason in sorted(inspection.unreadable.items())}
    reasons |= dict.fromkeys(audit.constant, "all pixels alike")
    training = [i for i in range(len(audit.files)) if not audit.validation[i] and i not in reasons]
    leaks = {i: f"same pixels as {paths[j]}" for i, j in same.across.items()}
    near_leaks = {i: f"same photograph as {paths[j]}" for i, j in near.across.items()}
    of = _firsts(audit.copies, audit.validation, audit.labels)
    for i in training:
        twins = [j for j in of.get(i, []) if not audit.validation[j]]
        other = next((j for j in twins if audit.labels[j] != audit.labels[i]), None)
        if i in leaks:
            reasons[i] = leaks[i]
        elif i in near_leaks:
            reasons[i] = near_leaks[i]
        elif other is not None:
            reasons[i] = f"same pixels as {paths[other]}, another label"
        elif twins and twins[0] < i:
            reasons[i] = f"same pixels as {paths[twins[0]]}"
    left = sum(not audit.validation[i] for i in reasons), sum(bool(audit.validation[i]) for i in reasons)
    unsure = [i for i in audit.one_grey if i not in reasons]
    return [
        f"# For data.exclude: {left[0]} training and {left[1]} validation files to leave out, and why.",
        "#",
        "# Of both splits: what cannot be read, and what shows nothing (all pixels alike).",
        "# Of training: images that are also in validation, as the same pixels or as the same photograph in another",
        "# crop, size or brightness, so that validation measures faces that were not learned; all images with the same",
        "# pixels and different labels; and of images with the same pixels and label all but the first.",
        "# Kept: every sound validation image, so that figures stay comparable with others' (to keep that split whole,",
        "# remove the lines that begin with it); near duplicates within training, whatever their labels.",
        "#",
        *([] if audit.near_is_complete else ["# The search for images of the same photograph was ended early.", "#"]),
        "# Paths are relative to data.root. Edit the list as you like.",
        *(f"{paths[i]}  # {reasons[i]}" for i in sorted(reasons)),
        *(["#", "# Mostly of one grey, seldom faces: take away the first # of those to leave out."] if unsure else []),
        *(f"#{paths[i]}" for i in unsure),
    ]


def describe(audit: Audit) -> dict[str, Any]:
    """All findings as plain values, for ``audit.json``."""
    inspection, counts = audit.inspection, audit.counts()
    same = copied(audit)
    shares = one_grey_share(inspection.faces[audit.one_grey])

    def place(i: int) -> dict[str, Any]:
        return {"file": audit.files[i], "class": audit.label(i), "split": audit.split(i)}

    return {
        "counts": {name: dict(zip(SPLITS, counts[:, c].tolist(), strict=True)) for c, name in enumerate(audit.classes)},
        "imbalance": {split: imbalance(counts[s]) for s, split in enumerate(SPLITS)},
        "modes": dict(Counter(mode for mode in inspection.modes if mode).most_common()),
        "sizes": {f"{w}x{h}": n for (w, h), n in Counter(map(tuple, inspection.sizes.tolist())).most_common() if w},
        "table": {row: dict(zip(SPLITS, cells, strict=True)) for row, cells in table(audit).items()},
        "unreadable": [{**place(i), "reason": reason} for i, reason in sorted(inspection.unreadable.items())],
        "constant": [place(i) for i in audit.constant],
        "one_grey": [{**place(i), "share": round(float(s), 4)} for i, s in zip(audit.one_grey, shares, strict=True)],
        "same_pixels": [
            {
                "across_splits": any(i in same.across for i in group),
                "contradicting": any(audit.labels[i] != audit.labels[group[0]] for i in group),
                "same_bytes": len({inspection.digests[i] for i in group}) == 1,
                "images": [place(i) for i in group],
            }
            for group in audit.copies
        ],
        "near_duplicates": [
            {
                "across_splits": audit.split(pair.first) != audit.split(pair.second),
                "contradicting": audit.label(pair.first) != audit.label(pair.second),
                "distance": pair.distance,
                "correlation": round(pair.correlation, 4),
                "images": [place(pair.first), place(pair.second)],
            }
            for pair in audit.near
        ],
        "near_duplicates_are_complete": audit.near_is_complete,
        "smaller_than_48": [place(i) for i in audit.small],
        "far_from_square": [place(i) for i in audit.oblong],
    }


def table(audit: Audit) -> dict[str, tuple[int, int]]:
    """For each kind of finding, in words, the number of images in training and in validation."""
    same, near = copied(audit), alike(audit)
    usual = Counter(mode for mode in audit.inspection.modes if mode).most_common(1)
    other_modes = [i for i, mode in enumerate(audit.inspection.modes) if mode and mode != usual[0][0]]
    rows: dict[str, Iterable[int]] = {
        "cannot be read": audit.inspection.unreadable,
        "all pixels alike": audit.constant,
        "mostly of one grey": audit.one_grey,
        "same pixels in the other split": same.across,
        "same pixels with another label": same.contradicting,
        "same pixels as an earlier image of the split": same.further,
        "near duplicate in the other split": near.across,
        "same pixels or near duplicate in the other split": same.across | near.across,
        "near duplicate with another label": near.contradicting,
        "near duplicate of an earlier image of the split": near.further,
        "smaller than the network's images, blown up": audit.small,
        f"longer than {TOO_LONG:g} times their width, squeezed": audit.oblong,
        "another colour mode than most": other_modes,
    }
    return {row: _by_split(audit, indices) for row, indices in rows.items()}


def _by_split(audit: Audit, indices: Iterable[int]) -> tuple[int, int]:
    of_validation = int(audit.validation[list(indices)].sum()) if indices else 0
    return len(list(indices)) - of_validation, of_validation


def imbalance(counts: NDArray[np.int64]) -> float | None:
    """How many times as many images the largest class has as the smallest; None where that has none."""
    return float(counts.max() / counts.min()) if counts.min() else None


def glance(
    digests: NDArray[np.uint8],
    labels: NDArray[np.int64],
    constant: NDArray[np.bool_],
    n_train: int,
    others: str = "validation",
) -> str:
    """What is clearly wrong with decoded images; empty where nothing is.

    Args:
        digests: (N, 32) uint8, hashes of the images' pixels, training first.
        labels: (N,) int.
        constant: (N,) whether an image shows nothing (see ``is_constant``).
        n_train: number of training images.
        others: what the validation images are called.
    """
    leaked = mislabelled = contradicting = 0
    for group in same_pixels(digests):
        if constant[group[0]]:
            continue
        training = [i for i in group if i < n_train]
        validated = {int(labels[i]) for i in group if i >= n_train}
        if validated:
            leaked += len(training)
            mislabelled += sum(validated != {int(labels[i])} for i in training)
        if len({int(labels[i]) for i in training}) > 1:
            contradicting += len(training)
    found = []
    if leaked:
        found.append(f"{leaked:,} training images are also in {others}, {mislabelled:,} of them with another label")
    if contradicting:
        found.append(f"{contradicting:,} training images have the same pixels as others of training with another label")
    if constant.any():
        found.append(f"{constant.sum():,} images show nothing (all pixels alike)")
    return "; ".join(found)
