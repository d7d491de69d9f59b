"""A split is decoded once; whatever happens to its cache, the images that come back are those in the folder."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fer_exp.data import cache
from fer_exp.data.cache import cache_file, default_cache_dir
from fer_exp.data.folders import CLASSES, list_images


@pytest.fixture
def split(tmp_path, make_split):
    return make_split(tmp_path / "train", 2)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def decoded(monkeypatch):
    """The lengths of the lists of files that were decoded."""
    lengths = []
    decode_files = cache.decode_files

    def counting(paths, progress=None):
        lengths.append(len(paths))
        return decode_files(paths, progress)

    monkeypatch.setattr(cache, "decode_files", counting)
    return lengths


def assert_is_what_the_folder_holds(image_set, split):
    listing = list_images(split)
    assert image_set.files == listing.files
    assert tuple(image_set.labels.tolist()) == listing.labels
    assert image_set.images.dtype == torch.uint8
    expected = np.stack([np.asarray(Image.open(split / file)) for file in listing.files])
    assert np.array_equal(image_set.images.numpy(), expected[:, None])


def load_split(listing, store, progress=None):
    """The images of a split all of whose files can be read."""
    image_set, unreadable = cache.load_split(listing, store, progress)
    assert unreadable == {}
    return image_set


def paint(path: Path, level: int) -> None:
    Image.fromarray(np.full((48, 48), level, np.uint8)).save(path)


def test_a_split_is_decoded_once(split, store, decoded, caplog):
    first = load_split(list_images(split), store)
    again = load_split(list_images(split), store)
    assert decoded == [14]
    assert_is_what_the_folder_holds(first, split)
    assert_is_what_the_folder_holds(again, split)
    assert again.fingerprint == first.fingerprint
    assert caplog.messages == []


def test_progress_is_told_while_decoding_and_not_when_cached(split, store):
    told = []
    for _ in range(2):
        load_split(list_images(split), store, lambda *done: told.append(done))
    assert told == [(14, 14)]


def change_pixels(split):
    paint(split / "sad" / "000.png", 0)


def change_pixels_in_place_of_equal_size(split):
    path = split / "sad" / "000.png"
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))


def add_a_file(split):
    paint(split / "sad" / "zzz.png", 0)


def remove_a_file(split):
    (split / "sad" / "000.png").unlink()


def rename_a_file(split):
    (split / "sad" / "000.png").rename(split / "sad" / "0.png")


def move_a_file_to_another_class(split):
    (split / "sad" / "000.png").rename(split / "surprise" / "!.png")


@pytest.mark.parametrize(
    "change",
    [
        change_pixels,
        change_pixels_in_place_of_equal_size,
        add_a_file,
        remove_a_file,
        rename_a_file,
        move_a_file_to_another_class,
    ],
)
def test_a_change_is_noticed_and_replaces_what_was_kept(split, store, decoded, caplog, change):
    load_split(list_images(split), store)
    change(split)
    listing = list_images(split)
    assert_is_what_the_folder_holds(load_split(listing, store), split)
    assert len(decoded) == 2
    assert [str(split) in line and "anew" in line for line in caplog.messages] == [True]
    load_split(listing, store)
    assert len(decoded) == 2
    assert len(list(store.iterdir())) == 1


def test_splits_do_not_share_a_file(tmp_path, make_split, store, decoded):
    splits = [make_split(tmp_path / place / "train", count) for place, count in (("a", 1), ("b", 2))]
    for _ in range(2):
        for split in splits:
            assert_is_what_the_folder_holds(load_split(list_images(split), store), split)
    assert decoded == [7, 14]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-5000])


def empty(path):
    path.write_bytes(b"")


def overwrite_with_text(path):
    path.write_text("no cache")


def flip_one_bit_of_a_pixel(path):
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)


def rewrite(path, **changes):
    with np.load(path) as arrays:
        contents = dict(arrays) | changes
    np.savez(path, **{name: value for name, value in contents.items() if value is not None})


def other_pixels(path):
    rewrite(path, images=np.zeros((14, 1, 48, 48), np.uint8))


def too_few_pixels(path):
    rewrite(path, images=np.zeros((3, 1, 48, 48), np.uint8))


def no_fingerprint(path):
    rewrite(path, fingerprint=None)


def other_fingerprint(path):
    rewrite(path, fingerprint="0" * 64)


def a_pickle(path):
    rewrite(path, images=np.array([{}], dtype=object))


def other_key(path):
    rewrite(path, key="0" * 64)


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        empty,
        overwrite_with_text,
        flip_one_bit_of_a_pixel,
        other_pixels,
        too_few_pixels,
        no_fingerprint,
        other_fingerprint,
        a_pickle,
        other_key,
    ],
)
def test_a_damaged_cache_is_said_and_made_anew(split, store, decoded, caplog, damage):
    listing = list_images(split)
    good = load_split(listing, store)
    damage(cache_file(listing, store))
    repaired = load_split(listing, store)
    assert_is_what_the_folder_holds(repaired, split)
    assert repaired.fingerprint == good.fingerprint
    assert [(record.levelname, "anew" in record.message) for record in caplog.records] == [("WARNING", True)]
    load_split(listing, store)
    assert decoded == [14, 14]


def test_the_cache_of_another_version_is_said_and_made_anew(split, store, decoded, caplog, monkeypatch):
    listing = list_images(split)
    load_split(listing, store)
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    load_split(listing, store)
    load_split(listing, store)
    assert decoded == [14, 14]
    assert ["another version" in line for line in caplog.messages] == [True]
    assert len(list(store.iterdir())) == 1


@pytest.mark.parametrize("inside", [".", "deeper/still"])
def test_a_cache_that_cannot_be_written_is_done_without(split, tmp_path, caplog, inside):
    (tmp_path / "taken").write_text("a file")
    for _ in range(2):
        assert_is_what_the_folder_holds(load_split(list_images(split), tmp_path / "taken" / inside), split)
    assert ["data.cache_dir" in line and str(tmp_path / "taken") in line for line in caplog.messages] == [True, True]
    assert (tmp_path / "taken").read_text() == "a file"


def test_a_full_disk_leaves_nothing_behind(split, store, monkeypatch, caplog):
    def half(file, **arrays):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", half)
    assert_is_what_the_folder_holds(load_split(list_images(split), store), split)
    assert ["No space left" in line for line in caplog.messages] == [True]
    assert list(store.iterdir()) == []


def test_another_process_never_sees_half_a_file(split, store, monkeypatch, decoded, caplog):
    """A second process starts while the first is writing, and ends before it: both get the images."""
    listing = list_images(split)
    savez = np.savez
    of_second = []

    def interrupted(file, **arrays):
        file.write(b"half")
        file.flush()
        monkeypatch.setattr(np, "savez", savez)
        of_second.append(load_split(listing, store))
        file.seek(0)
        savez(file, **arrays)

    monkeypatch.setattr(np, "savez", interrupted)
    of_first = load_split(listing, store)
    assert_is_what_the_folder_holds(of_first, split)
    assert_is_what_the_folder_holds(of_second[0], split)
    assert_is_what_the_folder_holds(load_split(listing, store), split)
    assert decoded == [14, 14]
    assert caplog.messages == []
    assert [path.suffix for path in store.iterdir()] == [".npz"]


def test_the_data_folder_is_only_read(split, store):
    def state():
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in [split, *split.rglob("*")]}

    before = state()
    load_split(list_images(split), store)
    assert state() == before


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_a_shared_cache_can_be_read_by_others(split, store):
    old = os.umask(0o022)
    try:
        load_split(list_images(split), store)
    finally:
        os.umask(old)
    assert cache_file(list_images(split), store).stat().st_mode & 0o777 == 0o644


def test_unreadable_images_are_returned_beside_the_others(split, store, decoded, caplog):
    (split / "fear" / "000.png").write_text("no image")
    (split / "sad" / "001.png").write_bytes((split / "sad" / "001.png").read_bytes()[:200])
    (split / "sad" / "link.png").symlink_to("gone.png")
    listing = list_images(split)
    for _ in range(2):
        image_set, unreadable = cache.load_split(listing, store)
        assert list(unreadable) == ["fear/000.png", "sad/001.png", "sad/link.png"]
        assert (unreadable["fear/000.png"], unreadable["sad/link.png"]) == ("not an image", "No such file or directory")
        assert image_set.files == tuple(file for file in listing.files if file not in unreadable)
        for file, label, image in zip(image_set.files, image_set.labels, image_set.images, strict=True):
            assert file.startswith(CLASSES[label])
            assert np.array_equal(image[0].numpy(), np.asarray(Image.open(split / file)))
    assert decoded == [15, 3]  # the others came from the cache
    assert caplog.messages == []


def test_repaired_images_are_read(split, store):
    (split / "fear" / "000.png").write_text("no image")
    assert list(cache.load_split(list_images(split), store)[1]) == ["fear/000.png"]
    paint(split / "fear" / "000.png", 9)
    assert_is_what_the_folder_holds(load_split(list_images(split), store), split)


def test_images_that_were_away_are_read_though_their_stamps_are_the_same(split, store, decoded, monkeypatch):
    """As on a network drive, or where another program had locked a file."""
    listing = list_images(split)
    nothing = np.zeros((14, 48, 48), np.uint8)
    with monkeypatch.context() as locked:
        locked.setattr(cache, "decode_files", lambda paths, progress=None: (nothing, [(paths[3], "locked")]))
        assert cache.load_split(listing, store)[1] == {listing.files[3]: "locked"}
    assert_is_what_the_folder_holds(load_split(listing, store), split)
    assert decoded == [1, 14]
    load_split(listing, store)
    assert decoded == [1, 14]


def test_a_folder_without_a_readable_image(split, store):
    for path in split.glob("*/*.png"):
        path.write_text("no image")
    for _ in range(2):
        image_set, unreadable = cache.load_split(list_images(split), store)
        assert (len(image_set), len(unreadable)) == (0, 14)


def test_the_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("FER_EXP_CACHE", "~/faces")
    assert default_cache_dir() == tmp_path / "faces"
    monkeypatch.delenv("FER_EXP_CACHE")
    assert default_cache_dir().name == "fer_exp"
