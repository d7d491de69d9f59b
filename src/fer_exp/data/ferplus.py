"""FER+: labels for the images of FER2013 from the votes of ten annotators (Barsoum et al. 2016, arXiv:1608.01041).

The rules are those of the published code (github.com/microsoft/FERPlus). An emotion with a single vote is ignored.
``majority``: an emotion with more than half of the votes is the label. ``votes``: the most frequent emotions, up to
three, that together have at least three quarters of the votes, and more than half of them in any case, are the
training target; the first one is the label. Other images, and those whose most frequent vote is "unknown" or "not a
face", are excluded.
"""

import hashlib
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fer_exp.data.annotations import read_csv
from fer_exp.data.dataset import ImageDataset
from fer_exp.data.decode import parse_pixels
from fer_exp.data.sources.base import file_stamp, hash_facts
from fer_exp.errors import UserError
from fer_exp.files import expand_path, printable, replacing

log = logging.getLogger(__name__)

EMOTIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
COLUMNS = (*EMOTIONS, "unknown", "NF")
CLASSES = ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt")
SPLITS = {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}
SIZE = 48  # pixels of FER2013's images
MIN_CORRELATION = 0.98  # of an image with its row in fer2013.csv; JPEG files have 0.99 and more


class FerPlus:
    """Replaces the labels of FER2013 images with those of FER+.

    An image belongs to a row of FER+ by its file name (``fer0000012.png``, as the FER+ code writes the images), by its
    line in ``fer2013.csv``, or by its pixels.

    Args:
        file: ``fer2013new.csv``.
        labels: ``majority`` or ``votes``.
        contempt: whether images of contempt are used; false leaves the seven classes of FER2013.
        fer2013: ``fer2013.csv``, to match images by their pixels: for class folders and other copies of FER2013.
        cache_dir: folder that keeps which rows were found by pixels; finding them takes seconds.

    Raises:
        UserError: the file cannot be read, or is another one.
    """

    def __init__(
        self,
        file: str | Path,
        labels: Literal["majority", "votes"] = "majority",
        contempt: bool = True,
        fer2013: str | Path | None = None,
        *,
        cache_dir: Path,
    ) -> None:
        if labels not in ("majority", "votes"):
            raise UserError(f"data.ferplus.labels={labels}: expected majority or votes")
        self.file, self.labels, self.contempt, self.cache_dir = expand_path(file), labels, contempt, cache_dir
        self.fer2013 = None if fer2013 is None else expand_path(fer2013)
        columns = ("Usage", "Image name", *COLUMNS)
        rows = [row for _, row in read_csv(self.file, f"data.ferplus.file={printable(file)}", columns)]
        try:
            votes = np.array([[int(row[column] or "none") for column in COLUMNS] for row in rows])
            if votes.min() < 0:
                raise ValueError("a negative number of votes")
            self.splits = [SPLITS[row["Usage"]] for row in rows]
        except (KeyError, ValueError) as error:
            raise UserError(f"data.ferplus.file={printable(file)}: expected FER+'s fer2013new.csv ({error})") from error
        self.by_name = {row["Image name"]: i for i, row in enumerate(rows) if row["Image name"]}
        targets = majority(votes) if labels == "majority" else distributions(votes)
        if not contempt:
            contemptuous = targets.argmax(1) == EMOTIONS.index("contempt")
            targets[:, EMOTIONS.index("contempt")] = 0
            targets[contemptuous] = 0
        self.targets = targets / np.maximum(targets.sum(1, keepdims=True), 1e-12)

    def relabel(self, decoded: ImageDataset, split: str) -> ImageDataset:
        """Return the images of ``decoded`` that have a FER+ label, with that label.

        Raises:
            UserError: the images do not belong to the rows.
        """
        rows = self._match_names(decoded, split) if self.fer2013 is None else self._cached_rows(decoded, self.fer2013)
        usable = np.flatnonzero((rows >= 0) & (self.targets[rows].sum(1) > 0))
        log.info(
            "FER+: %d of %d %s images have a label (data.ferplus.labels=%s); %d are not in %s.",
            len(usable), len(rows), split, self.labels, (rows < 0).sum(), printable(self.file.name),
        )  # fmt: skip
        targets = self.targets[rows[usable]].astype(np.float32)
        used = np.flatnonzero(targets.any(axis=0))
        targets = targets[:, used]
        return replace(
            decoded.select(torch.from_numpy(usable)),
            labels=torch.from_numpy(targets.argmax(1) if len(usable) else np.zeros(0, np.int64)),
            classes=tuple(CLASSES[i] for i in used.tolist()),
            soft_labels=torch.from_numpy(targets) if self.labels == "votes" else None,
        )

    def _match_names(self, decoded: ImageDataset, split: str) -> NDArray[np.int64]:
        """(N,): the row of each image by its file name or line, -1 if there is none."""
        rows = [self.by_name.get(name.rpartition("/")[2], -1) for name in decoded.names]
        lines = [re.fullmatch(r".+:(\d+)", name) for name in decoded.names]
        if all(lines):
            rows = [int(line[1]) - 2 for line in lines if line]
            if max(rows) >= len(self.splits) or any(self.splits[row] != split for row in rows):
                raise UserError(
                    f"data.ferplus.file={printable(self.file)}: the lines of the {split} images do not match its "
                    "Usage column. Expected images from the complete, unsorted fer2013.csv."
                )
        if not any(row >= 0 for row in rows):
            raise UserError(
                f"data.ferplus: the {split} images have neither names like fer0000012.png nor lines of fer2013.csv: "
                f"{printable(decoded.names[0])}. Give data.ferplus.fer2013=fer2013.csv to match them by their pixels."
            )
        return np.array(rows)

    def _cached_rows(self, decoded: ImageDataset, fer2013: Path) -> NDArray[np.int64]:
        """(N,): the row of each image by its pixels, from the cache if these images were matched before."""
        images = hashlib.sha256(decoded.digests.tobytes()).hexdigest()
        key = hash_facts(MIN_CORRELATION, len(self.splits), file_stamp(fer2013), images)
        file = self.cache_dir / f"ferplus-{key[:16]}.npy"
        with suppress(OSError, ValueError, EOFError):  # absent or damaged
            rows: NDArray[np.int64] = np.load(file)
            return rows
        rows = self._match_pixels(decoded)
        with suppress(OSError), replacing(file) as draft, draft.open("xb") as content:
            np.save(content, rows)
        return rows

    @cached_property
    def _pixels(self) -> NDArray[np.uint8]:
        """(R, 48, 48): the images of ``fer2013.csv``."""
        assert self.fer2013 is not None
        rows = read_csv(self.fer2013, f"data.ferplus.fer2013={printable(self.fer2013)}", ("pixels",))
        if len(rows) != len(self.splits):
            raise UserError(
                f"data.ferplus.fer2013={printable(self.fer2013)}: {len(rows)} rows; FER+ has {len(self.splits)} rows. "
                "Expected the complete fer2013.csv."
            )
        return np.stack([parse_pixels(row["pixels"]) for _, row in rows])

    def _match_pixels(self, decoded: ImageDataset) -> NDArray[np.int64]:
        """(N,): the row of each image by its pixels, -1 if no row is similar enough."""
        stored = self._pixels
        matched = np.full(len(decoded.names), -1)
        coarse = _standardized(stored[:, None], 8)
        for start in range(0, len(matched), 1024):
            images = _to_fer2013(decoded.images[start : start + 1024].numpy())
            best = (_standardized(images, 8) @ coarse.T).argmax(1)
            correlations = (_standardized(images, SIZE) * _standardized(stored[best][:, None], SIZE)).sum(1)
            matched[start : start + len(images)] = np.where(correlations >= MIN_CORRELATION, best, -1)
        if not (matched >= 0).any():
            raise UserError(
                f"data.ferplus.fer2013={printable(self.fer2013)}: none of the images has the pixels of a row"
            )
        return matched


def open_ferplus(settings: Mapping[str, Any] | None, cache_dir: Path) -> FerPlus | None:
    """Return the ``FerPlus`` of the config ``data.ferplus``; None if it has no ``file``.

    Raises:
        UserError: the file cannot be read, or other keys are set without it.
    """
    if settings and settings.get("file") is not None:
        return FerPlus(**settings, cache_dir=cache_dir)
    defaults = {"file": None, "labels": "majority", "contempt": True, "fer2013": None}
    for name, value in (settings or {}).items():
        if value != defaults[name]:
            raise UserError(f"data.ferplus.{name}={printable(value)} needs data.ferplus.file=fer2013new.csv")
    return None


def majority(votes: NDArray[np.integer]) -> NDArray[np.float64]:
    """(R, 8): one-hot labels of rows (R, 10) of votes; zeros where no emotion has the majority."""
    counts = np.where(votes > 1, votes, 0)
    top = counts.argmax(1)
    has_label = (counts.max(1) > 0.5 * counts.sum(1)) & (top < len(EMOTIONS))
    labels: NDArray[np.float64] = np.eye(len(COLUMNS))[top][:, : len(EMOTIONS)] * has_label[:, None]
    return labels


def distributions(votes: NDArray[np.integer]) -> NDArray[np.float64]:
    """(R, 8): votes of the most frequent emotions of rows (R, 10) of votes; zeros where annotators disagree."""
    counts = np.where(votes > 1, votes, 0)
    return np.array([_distribution(row) for row in counts.tolist()], np.float64).reshape(-1, len(EMOTIONS))


def _distribution(counts: list[int]) -> list[int]:
    chosen: list[int] = []
    total = sum(counts)
    while sum(counts[i] for i in chosen) < 0.75 * total and len(chosen) < 3:
        rest = [i for i in range(len(COLUMNS)) if i not in chosen]
        tied = [i for i in rest if counts[i] == max(counts[k] for k in rest)]
        chosen += [i for i in tied if i < len(EMOTIONS)]
        if tied[-1] >= len(EMOTIONS):  # unknown, or not a face: less frequent emotions do not count
            break
    if len(chosen) > 3 or sum(counts[i] for i in chosen) <= 0.5 * total:
        return [0] * len(EMOTIONS)
    return [count if i in chosen else 0 for i, count in enumerate(counts[: len(EMOTIONS)])]


def _to_fer2013(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert (N, C, S, S) to (N, 1, 48, 48)."""
    if images.shape[1:] == (1, SIZE, SIZE):
        return images
    converted = np.empty((len(images), 1, SIZE, SIZE), np.uint8)
    for i, pixels in enumerate(images):
        image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        converted[i, 0] = np.asarray(image.convert("L").resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    return converted


def _standardized(images: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
    """(N, size * size): block means of (N, 1, 48, 48) with mean 0 and norm 1, so that products are correlations."""
    n, block = len(images), SIZE // size
    means = images.reshape(n, size, block, size, block).mean((2, 4), dtype=np.float32).reshape(n, -1)
    means -= means.mean(1, keepdims=True)
    normalized: NDArray[np.float32] = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), np.float32(1e-6))
    return normalized
