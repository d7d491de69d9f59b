"""Fingerprints, selections and the validation fraction of a dataset."""

import hashlib

import numpy as np
import pytest
import torch

from fer_exp.data.dataset import ImageDataset, MemmapImages, hash_images, normalize, split_dataset
from fer_exp.data.report import describe_duplicates
from fer_exp.data.seeding import derive_seed


def make_dataset(images, labels, classes, names):
    return ImageDataset(images, labels, tuple(classes), tuple(names), hash_images(images))


def pixels():
    return torch.randint(0, 256, (5, 1, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def fingerprint(images=None, labels=(0, 1, 2, 2, 0), classes=("a", "b", "c"), names=tuple("vwxyz")):
    return make_dataset(pixels() if images is None else images, torch.tensor(labels), classes, names).fingerprint


def test_the_fingerprint_is_that_of_classes_labels_and_pixels():
    images = sorted(
        label.to_bytes(2, "big") + hashlib.sha256(bytes(image.flatten().tolist())).digest()
        for label, image in zip((0, 1, 2, 2, 0), pixels(), strict=True)
    )
    assert fingerprint() == hashlib.sha256(b"a\0b\0c\0(1, 48, 48)" + b"".join(images)).hexdigest()


def test_equal_images_have_an_equal_fingerprint_in_any_order():
    assert fingerprint() == fingerprint(names=tuple("abcde"))
    assert fingerprint() == fingerprint(pixels().flip(0), (0, 2, 2, 1, 0))
    assert fingerprint() == fingerprint(pixels().transpose(2, 3).contiguous().transpose(2, 3))


def test_a_pixel_a_label_or_the_classes_change_the_fingerprint():
    other_pixel = pixels()
    other_pixel[4, 0, 47, 47] ^= 1
    fingerprints = [
        fingerprint(),
        fingerprint(other_pixel),
        fingerprint(labels=(0, 1, 2, 2, 1)),
        fingerprint(classes=("a", "c", "b")),
        fingerprint(pixels().reshape(5, 1, 24, 96)),
    ]
    assert len({*fingerprints}) == len(fingerprints)


def numbered(counts):
    """Images filled with their number, ``counts[c]`` of class ``c``."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    images = torch.arange(len(labels)).reshape(-1, 1, 1, 1).expand(-1, 3, 8, 8).to(torch.uint8).contiguous()
    return make_dataset(images, labels, tuple("abc")[: len(counts)], [f"{i}.png" for i in range(len(labels))])


def test_the_validation_fraction_is_stratified_and_the_same_each_time():
    whole = numbered([100, 40, 12])
    train, validation = split_dataset(whole, 0.25)
    assert (train.counts, validation.counts) == ([75, 30, 9], [25, 10, 3])
    assert sorted(train.names + validation.names) == sorted(whole.names)
    for part in (train, validation):
        numbers = [int(name.removesuffix(".png")) for name in part.names]
        assert part.images[:, 0, 0, 0].tolist() == numbers == sorted(numbers)
        assert part.labels.tolist() == whole.labels[numbers].tolist()
        assert part.fingerprint == make_dataset(part.images, part.labels, part.classes, part.names).fingerprint
    assert split_dataset(whole, 0.25)[1].names == validation.names
    assert validation.names[:25] != tuple(f"{i}.png" for i in range(25))


@pytest.mark.parametrize(
    "index", [3, slice(1, 4), torch.tensor([4, 0, 4]), torch.tensor([True, False, False, True, True])], ids=str
)
def test_images_on_disk_are_indexed_like_a_tensor(tmp_path, index):
    images = torch.cat([pixels(), pixels().flip(0)])
    np.save(tmp_path / "images.npy", images.numpy())
    rows = torch.tensor([1, 9, 2, 5, 0])
    assert torch.equal(MemmapImages(tmp_path / "images.npy").select(rows)[index], images[rows][index])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalize_maps_bytes_to_0_to_1_in_a_copy(dtype):
    levels = torch.arange(256).to(dtype)
    assert torch.equal(normalize(levels), torch.arange(256) / 255)
    assert levels[255] == 255


def test_each_stream_has_a_seed_of_its_own():
    seeds = {derive_seed(seed, *stream) for seed in (0, 1) for stream in [(0, 1), (0, 2), (1, 1), (1, 2), (2,)]}
    assert len(seeds) == 10
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(3, 1, 4) == derive_seed(3, 1, 4)


def test_duplicates_are_those_of_a_comparison_of_all_pairs():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 1, 48, 48), np.uint8)[(kinds := rng.integers(0, 60, 120))]
    labels, n_train = rng.integers(0, 3, 120), 80
    pairs = [(i, j) for i in range(120) for j in range(120) if i != j and kinds[i] == kinds[j]]
    leaked = {i for i, j in pairs if i < n_train <= j}
    mislabeled = {i for i, j in pairs if i < n_train <= j and labels[i] != labels[j]}
    contradictory = {i for i, j in pairs if max(i, j) < n_train and labels[i] != labels[j]}

    def part(indices):
        return make_dataset(torch.from_numpy(images[indices]), torch.from_numpy(labels[indices]), "abc", "")

    text = describe_duplicates(part(slice(n_train)), part(slice(n_train, None)), "test")
    assert text.split()[0] == str(len(leaked))
    assert f"in test, {len(mislabeled)} of" in text
    assert f"; {len(contradictory)} training" in text
    assert describe_duplicates(part(slice(1)), part(slice(1, 2)), "test") == ""
