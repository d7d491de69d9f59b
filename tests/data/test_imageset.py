"""The fingerprint: equal for equal data wherever it lies, and for no other."""

import hashlib
import os
import shutil

import pytest
import torch

from fer_exp.data.cache import load_split
from fer_exp.data.folders import CLASSES, list_images
from fer_exp.data.imageset import make_image_set, normalise


def images():
    return torch.randint(0, 256, (5, 1, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def fingerprint(faces=None, labels=(0, 1, 2, 2, 0), classes=("a", "b", "c"), files=tuple("vwxyz")):
    return make_image_set(images() if faces is None else faces, torch.tensor(labels), classes, files).fingerprint


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
    here, there = (load_split(list_images(folder), tmp_path / "cache") for folder in (first, copy))
    assert here.fingerprint == there.fingerprint


@pytest.mark.parametrize("swap", [("angry", "fear"), ("sad", "surprise")])
def test_it_changes_when_two_classes_are_exchanged(tmp_path, make_split, swap):
    split = make_split(tmp_path / "train")
    before = load_split(list_images(split), tmp_path / "cache").fingerprint
    one, other = (split / name for name in swap)
    one.rename(split / ".aside")
    other.rename(one)
    (split / ".aside").rename(other)
    assert load_split(list_images(split), tmp_path / "cache").fingerprint != before


def test_counts_have_a_place_for_each_class():
    image_set = make_image_set(images(), torch.tensor([0, 6, 0, 3, 3]), CLASSES, tuple("vwxyz"))
    assert len(image_set) == 5
    assert image_set.counts == [2, 0, 0, 2, 0, 0, 1]


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
