"""The fingerprint: equal for equal data wherever it lies, and for no other."""

import hashlib
import os
import shutil

import pytest
import torch

from fer_exp.data.cache import load_split
from fer_exp.data.dataset import make_dataset, normalise, val_fraction
from fer_exp.data.sources.class_folders import CLASSES, list_images


def images():
    return torch.randint(0, 256, (5, 1, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def fingerprint(faces=None, labels=(0, 1, 2, 2, 0), classes=("a", "b", "c"), files=tuple("vwxyz")):
    return make_dataset(images() if faces is None else faces, torch.tensor(labels), classes, files).fingerprint


def test_equal_data_have_an_equal_fingerprint():
    assert fingerprint() == fingerprint()
    assert fingerprint() == fingerprint(files=tuple("abcde"))


def test_it_is_a_sha256_of_classes_labels_and_pixels():
    """Written down in run records: a change of the formula makes old records look like other data."""
    digest = hashlib.sha256(b"a\0b\0c")
    for label in (0, 1, 2, 2, 0):
        digest.update(label.to_bytes(8, "little"))
    digest.update(bytes(images().flatten().tolist()))
    assert fingerprint() == digest.hexdigest()


def test_it_does_not_depend_on_how_the_pixels_lie_in_memory():
    turned = images().transpose(2, 3).contiguous().transpose(2, 3)
    assert not turned.is_contiguous()
    assert fingerprint(turned) == fingerprint()


def test_a_pixel_a_label_or_the_order_of_classes_changes_it():
    other_pixel = images()
    other_pixel[4, 0, 47, 47] ^= 1
    prints = [
        fingerprint(),
        fingerprint(other_pixel),
        fingerprint(labels=(0, 1, 2, 2, 1)),
        fingerprint(classes=("a", "c", "b")),
        fingerprint(images().flip(0)),
    ]
    assert len(set(prints)) == len(prints)


def test_it_is_the_same_for_a_copy_elsewhere_with_other_times(tmp_path, make_split):
    first = make_split(tmp_path / "here" / "train")
    copy = tmp_path / "there" / "training"
    shutil.copytree(first, copy)
    for i, path in enumerate(copy.rglob("*.png")):
        os.utime(path, (i, i))
    (copy / "happy").rename(copy / "Happiness")
    here, there = (load_split(list_images(folder), tmp_path / "cache")[0] for folder in (first, copy))
    assert here.fingerprint == there.fingerprint


@pytest.mark.parametrize("swap", [("angry", "fear"), ("sad", "surprise")])
def test_it_changes_when_two_classes_are_exchanged(tmp_path, make_split, swap):
    split = make_split(tmp_path / "train")
    before = load_split(list_images(split), tmp_path / "cache")[0].fingerprint
    one, other = (split / name for name in swap)
    one.rename(split / ".aside")
    other.rename(one)
    (split / ".aside").rename(other)
    assert load_split(list_images(split), tmp_path / "cache")[0].fingerprint != before


def test_counts_have_a_place_for_each_class():
    dataset = make_dataset(images(), torch.tensor([0, 6, 0, 3, 3]), CLASSES, tuple("vwxyz"))
    assert len(dataset) == 5
    assert dataset.counts == [2, 0, 0, 2, 0, 0, 1]


def test_normalise_maps_bytes_to_zero_to_one():
    levels = torch.arange(256, dtype=torch.uint8)
    normal = normalise(levels)
    assert normal.dtype == torch.float32
    assert torch.equal(normal, torch.arange(256, dtype=torch.float32) / 255)
    assert (normal[0], normal[255]) == (0, 1)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalise_leaves_what_it_was_given(dtype):
    given = torch.arange(256).to(dtype)
    assert normalise(given)[255] == 1
    assert given[255] == 255


def labelled(counts):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    faces = torch.arange(len(labels)).reshape(-1, 1, 1, 1).expand(-1, 1, 48, 48).to(torch.uint8).contiguous()
    return make_dataset(faces, labels, tuple("abc")[: len(counts)], [f"{i}.png" for i in range(len(labels))])


def test_a_share_of_each_class_is_held_out_and_every_image_is_in_one_part():
    whole = labelled([100, 40, 12])
    kept, held = val_fraction(whole, 0.25)
    assert held.counts == [25, 10, 3]
    assert kept.counts == [75, 30, 9]
    assert sorted(kept.files + held.files) == sorted(whole.files)
    for part in (kept, held):
        # Pixels, labels and files still belong together: image i is filled with i.
        indices = [int(file.removesuffix(".png")) for file in part.files]
        assert part.images[:, 0, 0, 0].tolist() == indices
        assert part.labels.tolist() == whole.labels[indices].tolist()
        assert indices == sorted(indices)
    assert len({whole.fingerprint, kept.fingerprint, held.fingerprint}) == 3


def test_the_same_images_are_held_out_each_time_and_not_the_first_ones():
    first, second = (val_fraction(labelled([100, 100]), 0.1)[1] for _ in range(2))
    assert first.fingerprint == second.fingerprint
    assert first.files != tuple(f"{i}.png" for i in [*range(10), *range(100, 110)])
