"""Find unreadable, constant, duplicated and contradictory images in a dataset.

Imports neither torch nor lightning: the worker processes import this module, and start fast.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fer_exp.data.decode import CHUNK_SIZE, Original, Progress, map_chunks

if TYPE_CHECKING:
    from fer_exp.data.dataset import ImageDataset

SPLITS = ("train", "validation")
THUMBNAIL_SIZE = 48  # pixels
CONSTANT_RANGE = 16  # gray levels between the darkest and the brightest pixel of a constant image
ONE_GRAY_FRACTION = 0.7  # FER2013: faces have at most 0.69 of their pixels at one level, website notices have more
OBLONG_RATIO = 1.5  # of the sides: stretching such an image to a square distorts it
MAX_CANDIDATES = 1_000_000  # pairs with similar hashes: frames of films would fill the memory

Group = tuple[int, ...]  # indices of images, in ascending order


@dataclass(frozen=True)
class NearDuplicates:
    """Images of the same photograph with different pixels.

    Attributes:
        images: their indices, with all exact duplicates of both.
        distance: number of different bits of their hashes.
        correlation: Pearson correlation of their pixels.
    """

    images: Group
    distance: int
    correlation: float


@dataclass(frozen=True)
class Audit:
    """Findings in a dataset with N readable images.

    Attributes:
        names: N image names.
        labels: (N,) indices into ``classes``.
        classes: class names.
        is_validation: (N,) whether an image is in the validation split.
        thumbnails: (N, C, s, s) uint8.
        originals: N times width, height and Pillow mode of the image file.
        unreadable: name, split and reason of each unreadable image.
        constant: indices of images with one gray level, or nearly.
        one_gray: index -> fraction of the pixels with the most frequent gray level, of images dominated by it.
        exact: groups of images with equal pixels, without constant images.
        near: near duplicates, the most similar first.
        near_is_complete: whether the search for near duplicates was finished.
        small: indices of images that are enlarged.
        oblong: indices of images far from square.
    """

    names: Sequence[str]
    labels: NDArray[np.int64]
    classes: Sequence[str]
    is_validation: NDArray[np.bool_]
    thumbnails: NDArray[np.uint8]
    originals: Sequence[Original]
    unreadable: list[tuple[str, str, str]]
    constant: list[int]
    one_gray: dict[int, float]
    exact: list[Group]
    near: list[NearDuplicates]
    near_is_complete: bool
    small: list[int]
    oblong: list[int]

    def class_of(self, i: int) -> str:
        """The class of image ``i``."""
        return self.classes[int(self.labels[i])]

    def split_of(self, i: int) -> str:
        """The split of image ``i``."""
        return SPLITS[int(self.is_validation[i])]

    def across_splits(self, group: Group) -> bool:
        """Whether a group has images of both splits."""
        return len({bool(self.is_validation[i]) for i in group}) > 1

    def contradictory(self, group: Group) -> bool:
        """Whether a group has images of several classes."""
        return len({int(self.labels[i]) for i in group}) > 1


def audit_datasets(
    datasets: Mapping[str, "ImageDataset"],
    near_distance: int,
    near_correlation: float,
    progress: Progress | None = None,
) -> Audit:
    """Find unreadable, constant, duplicated and oddly sized images.

    Args:
        datasets: the images of each of ``SPLITS``, at least one of them.
        near_distance: maximum number of different bits in the hashes of near duplicates, of 64.
        near_correlation: minimum correlation of the pixels of near duplicates.
        progress: called with (images hashed, images in total).
    """
    parts = list(datasets.values())
    labels = np.concatenate([part.labels.numpy() for part in parts])
    originals = list(chain.from_iterable(part.originals or () for part in parts))
    images = chain.from_iterable(map(_iterate, parts))
    chunks = map_chunks(_hash_chunk, images, len(labels), progress)
    thumbnails, hashes = (np.stack(column) for column in zip(*chain.from_iterable(chunks), strict=True))
    constant = is_constant(thumbnails)
    gray = to_gray(thumbnails)
    usable = np.flatnonzero(~constant).tolist()
    fractions = {i: np.bincount(gray[i].ravel()).max() / gray[i].size for i in usable}
    one_gray = {i: float(fraction) for i, fraction in fractions.items() if fraction >= ONE_GRAY_FRACTION}
    digests = [bytes(digest) for part in parts for digest in part.digests]
    groups = [tuple(usable[k] for k in group) for group in group_equal(digests[i] for i in usable)]
    # Near duplicates: one image stands for its exact duplicates. Website notices resemble one another.
    distinct = np.array([group[0] for group in groups if group[0] not in one_gray], np.int64)
    members = {group[0]: group for group in groups}
    pairs, is_complete = near_duplicates(gray[distinct], hashes[distinct], near_distance, near_correlation)
    near = [
        NearDuplicates(tuple(sorted(members[distinct[first]] + members[distinct[second]])), distance, correlation)
        for first, second, distance, correlation in pairs
    ]
    sizes = np.array([original[:2] for original in originals])
    return Audit(
        names=list(chain.from_iterable(part.names for part in parts)),
        labels=labels,
        classes=parts[0].classes,
        is_validation=np.repeat([split == "validation" for split in datasets], list(map(len, parts))),
        thumbnails=thumbnails,
        originals=originals,
        unreadable=[(name, split, why) for split, part in datasets.items() for name, why in part.unreadable.items()],
        constant=np.flatnonzero(constant).tolist(),
        one_gray=one_gray,
        exact=[group for group in groups if len(group) > 1],
        near=sorted(near, key=lambda found: -found.correlation),
        near_is_complete=is_complete,
        small=np.flatnonzero(sizes.min(1) < parts[0].image_shape[1]).tolist(),
        oblong=np.flatnonzero(sizes.max(1) > OBLONG_RATIO * sizes.min(1)).tolist(),
    )


def _iterate(dataset: "ImageDataset") -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(dataset), CHUNK_SIZE):
        yield from dataset.images[start : start + CHUNK_SIZE].numpy()


def _hash_chunk(images: Sequence[NDArray[np.uint8]]) -> list[tuple[NDArray[np.uint8], NDArray[np.bool_]]]:
    """Thumbnail and perceptual hash, (64,), of each image."""
    hashed = []
    for pixels in images:
        shown = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        side = min(shown.width, THUMBNAIL_SIZE)
        reduced = np.asarray(shown.resize((side, side), Image.Resampling.BILINEAR))
        thumbnail = reduced[None] if reduced.ndim == 2 else reduced.transpose(2, 0, 1)
        hashed.append((thumbnail, imagehash.phash(shown).hash.ravel()))
    return hashed


def is_constant(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(N,): whether the pixels of each image (N, C, H, W) span at most ``CONSTANT_RANGE`` levels in every channel."""
    pixels = images.reshape(*images.shape[:2], -1)
    constant = _is_flat(pixels[:, :, : pixels.shape[2] // 48])  # the first row decides for most images
    constant[constant] = _is_flat(pixels[constant])
    return constant


def _is_flat(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    flat: NDArray[np.bool_] = (pixels.max(2) - pixels.min(2) <= CONSTANT_RANGE).all(1)
    return flat


def to_gray(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert (N, C, H, W) to (N, H, W)."""
    if images.shape[1] == 1:
        return images[:, 0]
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    gray: NDArray[np.float32] = np.einsum("nchw,c->nhw", images, weights)
    return gray.round().astype(np.uint8)


def group_equal(digests: Iterable[Any]) -> list[Group]:
    """Group the indices of equal digests; the groups, also those of one index, are ordered by their first index."""
    groups: dict[Any, list[int]] = defaultdict(list)
    for i, digest in enumerate(digests):
        groups[digest].append(i)
    return [tuple(group) for group in groups.values()]


def near_duplicates(
    gray: NDArray[np.uint8], hashes: NDArray[np.bool_], max_distance: int, min_correlation: float
) -> tuple[list[tuple[int, int, int, float]], bool]:
    """Find pairs of images of the same photograph in another size, crop, brightness or compression.

    Hashes propose pairs and pixels decide: frontal faces are so similar that hashes alone confuse many of them.

    Args:
        gray: (N, H, W), all different.
        hashes: (N, 64).
        max_distance: maximum number of different bits.
        min_correlation: minimum Pearson correlation of the pixels.

    Returns:
        Pairs (first, second, distance, correlation), and whether these are all: the search stops after
        ``MAX_CANDIDATES`` pairs.
    """
    found: list[tuple[int, int, int, float]] = []
    candidates = 0
    for first, second, bits in _similar_hashes(hashes, max_distance):
        candidates += len(first)
        if candidates > MAX_CANDIDATES:
            return found, False
        for start in range(0, len(first), 2048):
            a, b = first[start : start + 2048], second[start : start + 2048]
            correlations = _correlations(gray[a], gray[b])
            for k in np.flatnonzero(correlations >= min_correlation):
                found.append((int(a[k]), int(b[k]), int(bits[start + k]), float(correlations[k])))
    return found, True


def _similar_hashes(
    hashes: NDArray[np.bool_], max_distance: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Yield all pairs of hashes within ``max_distance`` as (first, second, distance), block by block.

    A product of signs is the number of equal bits minus the number of different ones: exact, and compares half a
    billion pairs in seconds.
    """
    signs = np.where(hashes, np.float32(1), np.float32(-1))
    for start in range(0, len(signs), 512):
        product = signs[start : start + 512] @ signs[start:].T
        first, second = np.nonzero(product >= signs.shape[1] - 2 * max_distance)
        first, second = first[second > first], second[second > first]
        distance = (signs.shape[1] - product[first, second]).astype(np.int64) // 2
        yield first + start, second + start, distance


def _correlations(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N,): Pearson correlation of the pixels of each pair of images (N, H, W)."""
    x, y = (images.reshape(len(images), -1).astype(np.float32) for images in (a, b))
    x -= x.mean(1, keepdims=True)
    y -= y.mean(1, keepdims=True)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    correlations: NDArray[np.float32] = np.einsum("ij,ij->i", x, y) / np.maximum(norms, np.float32(1e-6))
    return correlations
