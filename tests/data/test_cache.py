"""A split is decoded once; whatever happens to its cache, the images that come back are those in the folder."""

import errno
import io
import json
import logging
import os
import sys
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_exp.data import cache
from fer_exp.data.cache import cache_file, default_cache_dir, read_ahead
from fer_exp.data.dataset import MemmapImages, make_dataset, select
from fer_exp.data.sources.class_folders import CLASSES, list_images
from fer_exp.errors import UserError


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

    def counting(paths, *rest):
        lengths.append(len(paths))
        return decode_files(paths, *rest)

    monkeypatch.setattr(cache, "decode_files", counting)
    return lengths


def assert_is_what_the_folder_holds(dataset, split):
    listing = list_images(split)
    assert dataset.files == listing.files
    assert tuple(dataset.labels.tolist()) == listing.labels
    assert dataset.images.dtype == torch.uint8
    expected = np.stack([np.asarray(Image.open(split / file)) for file in listing.files])
    assert np.array_equal(dataset.images.numpy(), expected[:, None])


def load_split(listing, store, progress=None):
    """The images of a split all of whose files can be read."""
    dataset, unreadable = cache.load_split(listing, store, progress)
    assert unreadable == {}
    return dataset


def load_split_read_ahead(listing, store):
    """The same, of a cache that a thread reads meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        dataset, unreadable = cache.load_split(listing, store, kept=read_ahead(listing.folder, store, pool))
    assert unreadable == {}
    return dataset


def paint(path: Path, level: int) -> None:
    Image.fromarray(np.full((48, 48), level, np.uint8)).save(path)


def test_a_split_is_decoded_once(split, store, decoded, caplog):
    first = load_split(list_images(split), store)
    again = load_split(list_images(split), store)
    assert decoded == [14]
    assert_is_what_the_folder_holds(first, split)
    assert_is_what_the_folder_holds(again, split)
    assert again.fingerprint == first.fingerprint
    assert make_dataset(again.images, again.labels, CLASSES, again.files).fingerprint == again.fingerprint
    assert caplog.messages == []


def test_a_cache_that_is_read_ahead_holds_what_the_folder_holds(split, store, decoded, caplog):
    first = load_split_read_ahead(list_images(split), store)
    again = load_split_read_ahead(list_images(split), store)
    assert decoded == [14]
    assert_is_what_the_folder_holds(again, split)
    assert again.fingerprint == first.fingerprint
    paint(split / "sad" / "000.png", 0)
    assert_is_what_the_folder_holds(load_split_read_ahead(list_images(split), store), split)
    assert decoded == [14, 14]
    assert ["has changed since" in line for line in caplog.messages] == [True]


@pytest.mark.parametrize("state", ["absent", "stale", "damaged"])
def test_what_another_process_kept_in_the_meantime_is_not_decoded_again(split, store, decoded, caplog, state):
    if state != "absent":
        load_split(list_images(split), store)
        paint(split / "sad" / "000.png", 0)
    if state == "damaged":
        truncate(cache_file(split, store))
    with ThreadPoolExecutor(1) as pool:
        kept = read_ahead(split, store, pool)
    assert caplog.messages == []
    load_split(list_images(split), store)  # the other process
    decoded.clear()
    caplog.clear()
    dataset, _ = cache.load_split(list_images(split), store, kept=kept)
    assert_is_what_the_folder_holds(dataset, split)
    assert decoded == []
    assert caplog.messages == []


def test_a_cache_of_an_earlier_version_is_told_as_such(split, store, decoded, caplog):
    load_split(list_images(split), store)
    no_labels(cache_file(split, store))
    load_split(list_images(split), store)
    assert decoded == [14, 14]
    assert ["cannot be read (another version wrote it)" in line for line in caplog.messages] == [True]


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


def date_back(split):
    os.utime(split / "sad" / "000.png", ns=(0, -1))


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
        date_back,
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


def huge(path, compression=zipfile.ZIP_STORED):
    """Declares a million gigabytes, which no reader may ask the system for."""
    with np.load(path) as arrays:
        contents = dict(arrays)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, value in contents.items():
            file = io.BytesIO()
            np.lib.format.write_array(file, value)
            content = file.getvalue()
            if name == "images":
                content = content.replace(b"(14, 1, 48, 48), }" + b" " * 12, b"(999999999999, 1, 48, 48), }" + b" " * 2)
            archive.writestr(f"{name}.npy", content)


def huge_and_compressed(path):
    """A bomb: zeros of which a thousand take a byte."""
    with np.load(path) as arrays:
        contents = dict(arrays)
    np.savez_compressed(path, **{**contents, "images": np.zeros((14, 1, 48, 48_000), np.uint8)})


def pixels_in_another_order(path):
    with np.load(path) as arrays:
        rewrite(path, images=np.asfortranarray(arrays["images"]))


def pixels_of_another_kind(path):
    with np.load(path) as arrays:
        rewrite(path, images=arrays["images"].view(np.int8))


def pixels_in_another_shape(path):
    with np.load(path) as arrays:
        rewrite(path, images=arrays["images"].reshape(14, 48, 48))


def one_image_too_many_in_the_folder(path):
    rewrite(path, unreadable=json.dumps({"angry/000.png": "away"}))


def names_of_other_files(path):
    with np.load(path) as arrays:
        rewrite(path, images=arrays["images"][1:], unreadable=json.dumps({"angry/gone.png": "away"}))


def names_that_are_no_names(path):
    rewrite(path, unreadable="[]")


def no_json(path):
    rewrite(path, unreadable="{")


def no_labels(path):
    rewrite(path, labels=None)


def other_labels(path):
    """With the fingerprint of these: as if another program had sorted the images."""
    with np.load(path) as arrays:
        images, labels = (torch.from_numpy(arrays[name]) for name in ("images", "labels"))
    sorted_anew = make_dataset(images, labels.flip(0), CLASSES, [""] * len(labels))
    rewrite(path, labels=sorted_anew.labels.numpy(), fingerprint=sorted_anew.fingerprint)


def labels_of_another_kind(path):
    with np.load(path) as arrays:
        rewrite(path, labels=arrays["labels"].view(np.float64))


def too_many_labels(path):
    with np.load(path) as arrays:
        rewrite(path, labels=arrays["labels"].repeat(2))


def a_key_of_objects(path):
    rewrite(path, key=np.array([{}], dtype=object))


def another_kind_of_archive(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", "no array")
        archive.writestr("key.npy", "no array")


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
        huge,
        huge_and_compressed,
        pixels_in_another_order,
        pixels_of_another_kind,
        pixels_in_another_shape,
        one_image_too_many_in_the_folder,
        names_of_other_files,
        names_that_are_no_names,
        no_json,
        a_key_of_objects,
        another_kind_of_archive,
        no_labels,
        other_labels,
        labels_of_another_kind,
        too_many_labels,
    ],
)
@pytest.mark.parametrize("is_read_ahead", [False, True])
def test_a_damaged_cache_is_said_and_made_anew(split, store, decoded, caplog, damage, is_read_ahead):
    listing = list_images(split)
    good = load_split(listing, store)
    damage(cache_file(split, store))
    repaired = load_split_read_ahead(listing, store) if is_read_ahead else load_split(listing, store)
    assert_is_what_the_folder_holds(repaired, split)
    assert repaired.fingerprint == good.fingerprint
    assert [(record.levelname, "anew" in record.message) for record in caplog.records] == [("WARNING", True)]
    load_split(listing, store)
    assert decoded == [14, 14]


class Slow(io.FileIO):
    """A file of which little comes at a time, or an error where it ``fails``."""

    fails = False

    def readinto(self, buffer) -> int:
        if self.fails:
            raise OSError(errno.EIO, "Input/output error")
        return super().readinto(buffer[:1000])


@pytest.mark.parametrize("is_read_ahead", [False, True])
def test_images_are_read_to_their_end_however_little_comes_at_a_time(split, store, decoded, monkeypatch, is_read_ahead):
    listing = list_images(split)
    load_split(listing, store)
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda p, *a, **k: Slow(p) if "buffering" in k else opened(p, *a, **k))
    again = load_split_read_ahead(listing, store) if is_read_ahead else load_split(listing, store)
    assert_is_what_the_folder_holds(again, split)
    assert decoded == [14]
    monkeypatch.setattr(Slow, "fails", True)
    again = load_split_read_ahead(listing, store) if is_read_ahead else load_split(listing, store)
    assert_is_what_the_folder_holds(again, split)
    assert decoded == [14, 14]


def test_no_memory_is_asked_for_that_the_file_cannot_fill(split, store, monkeypatch, caplog):
    listing = list_images(split)
    load_split(listing, store)
    monkeypatch.setattr(np.lib.format, "read_array", read_small_arrays(np.lib.format.read_array))
    for damage in (huge, huge_and_compressed):
        damage(cache_file(split, store))
        caplog.clear()
        assert_is_what_the_folder_holds(load_split(listing, store), split)
        assert ["more than it can hold" in line for line in caplog.messages] == [True]


def read_small_arrays(read: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    def check(file, **options):
        array = read(file, **options)
        assert array.nbytes < 100_000
        return array

    return check


def test_a_folder_in_the_place_of_the_cache_file_is_done_without(split, store, caplog):
    listing = list_images(split)
    cache_file(split, store).mkdir(parents=True)
    assert_is_what_the_folder_holds(load_split(listing, store), split)
    assert ["Is a directory" in line for line in caplog.messages] == [True, True]  # not read, and not written
    assert [path.name for path in store.iterdir()] == [cache_file(split, store).name]


def test_a_cache_file_that_may_not_be_read_is_made_anew(public_path, make_split, unprivileged, decoded, caplog):
    split, store = make_split(public_path / "train", 2), public_path / "store"
    listing = list_images(split)
    load_split(listing, store)
    store.chmod(0o777)
    cache_file(split, store).chmod(0)
    with unprivileged():
        assert_is_what_the_folder_holds(load_split(listing, store), split)
        assert_is_what_the_folder_holds(load_split(listing, store), split)
    assert decoded == [14, 14]
    assert ["cannot be read (Permission denied): decoding the images anew" in m for m in caplog.messages] == [True]


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (48, 48), dtype=np.uint8)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A split, the place of its cache file, and that file's content; one of its files cannot be read."""
    split, store = tmp_path_factory.mktemp("kept") / "train", tmp_path_factory.mktemp("store")
    for k, name in enumerate(CLASSES):
        (split / name).mkdir(parents=True)
        Image.fromarray(noise(k)).save(split / name / "0.png")
    (split / "sad/bad.png").write_text("no image")
    listing = list_images(split)
    cache.load_split(listing, store)
    path = cache_file(split, store)
    return split, path, path.read_bytes()


@settings(derandomize=True, deadline=None, max_examples=150)
@given(data=st.data())
def test_whatever_happens_to_the_bytes_of_a_cache_the_images_are_the_same(kept, data):
    split, path, whole = kept
    damaged = bytearray(whole)
    # The pixels take most of the file; names, sizes and checksums stand at its ends and around its arrays.
    places = st.integers(0, len(whole) - 1) | st.integers(0, 200) | st.integers(len(whole) - 1700, len(whole) - 1)
    for place in data.draw(st.lists(places, max_size=4)):
        damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(damaged[: data.draw(st.just(len(whole)) | places)])
    logging.disable()
    try:
        dataset, unreadable = cache.load_split(list_images(split), path.parent)
    finally:
        logging.disable(logging.NOTSET)
    assert unreadable == {"sad/bad.png": "text, not an image"}
    assert dataset.files == tuple(f"{name}/0.png" for name in CLASSES)
    assert dataset.labels.tolist() == list(range(7))
    for k, image in enumerate(dataset.images):
        assert np.array_equal(image[0].numpy(), noise(k))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems forbid such names, or change them")
def test_files_of_odd_names_are_decoded_kept_and_named(tmp_path, make_split, store, decoded, caplog):
    split = make_split(tmp_path / os.fsdecode(b"\xff\n faces") / "train", 1)
    odd = ["two\nlines.png", " 'a' \"b\".png", "😀.png", os.fsdecode(b"\xff\xfe.png")]
    for k, name in enumerate(odd):
        paint(split / "sad" / name, k)
        (split / "fear" / name).write_text("no image")
    listing = list_images(split)
    for _ in range(2):
        dataset, unreadable = cache.load_split(listing, store)
        assert sorted(unreadable) == sorted(f"fear/{name}" for name in odd)
        levels = {file: int(image.max()) for file, image in zip(dataset.files, dataset.images, strict=True)}
        assert [levels[f"sad/{name}"] for name in odd] == [0, 1, 2, 3]
    assert decoded == [15, 4]
    truncate(cache_file(split, store))
    (split / "sad" / odd[0]).unlink()
    cache.load_split(list_images(split), store)
    cache.load_split(listing, store)
    assert len(caplog.messages) == 2
    for message in caplog.messages:
        assert message.encode()
        assert len(message.splitlines()) == 1


@pytest.mark.slow
def test_two_hundred_thousand_images_are_kept_and_read_in_seconds(tmp_path, store, monkeypatch):
    """Their decoding, which takes longest, is left out."""
    resource = pytest.importorskip("resource")
    split = tmp_path / "train"
    for name in CLASSES:
        (split / name).mkdir(parents=True)
    for k in range(200_000):
        os.close(os.open(split / CLASSES[k % 7] / f"{k:06}.jpg", os.O_CREAT | os.O_WRONLY))
    listing = list_images(split)
    faces = np.random.default_rng(0).integers(0, 256, (200_000, 48, 48), dtype=np.uint8)
    monkeypatch.setattr(cache, "decode_files", lambda paths, *_: (faces, []))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    first = load_split(listing, store)
    monkeypatch.setattr(cache, "decode_files", None)
    assert load_split(listing, store).fingerprint == first.fingerprint
    assert time.process_time() - start < 30  # about 3; room for a slow machine
    if sys.platform == "linux":
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 1.5 * faces.nbytes


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
    assert cache_file(split, store).stat().st_mode & 0o777 == 0o644


def test_unreadable_images_are_returned_beside_the_others(split, store, decoded, caplog):
    (split / "fear" / "000.png").write_text("no image")
    (split / "sad" / "001.png").write_bytes((split / "sad" / "001.png").read_bytes()[:200])
    (split / "sad" / "link.png").symlink_to("gone.png")
    listing = list_images(split)
    for _ in range(2):
        dataset, unreadable = cache.load_split(listing, store)
        assert list(unreadable) == ["fear/000.png", "sad/001.png", "sad/link.png"]
        assert (unreadable["fear/000.png"], unreadable["sad/link.png"]) == (
            "text, not an image",
            "No such file or directory",
        )
        assert dataset.files == tuple(file for file in listing.files if file not in unreadable)
        for file, label, image in zip(dataset.files, dataset.labels, dataset.images, strict=True):
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
        locked.setattr(cache, "decode_files", lambda paths, *_: (nothing, [(paths[3], "locked")]))
        assert cache.load_split(listing, store)[1] == {listing.files[3]: "locked"}
    assert_is_what_the_folder_holds(load_split(listing, store), split)
    assert decoded == [1, 14]
    load_split(listing, store)
    assert decoded == [1, 14]


def test_a_folder_without_a_readable_image(split, store):
    for path in split.glob("*/*.png"):
        path.write_text("no image")
    for _ in range(2):
        dataset, unreadable = cache.load_split(list_images(split), store)
        assert (len(dataset), len(unreadable)) == (0, 14)


def test_the_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("FER_EXP_CACHE", "~/faces")
    assert default_cache_dir() == tmp_path / "faces"
    monkeypatch.delenv("FER_EXP_CACHE")
    assert default_cache_dir().name == "fer_exp"


def on_disk(split, store):
    dataset, unreadable = cache.load_split(list_images(split), store, None, False)
    assert isinstance(dataset.images, MemmapImages)
    return dataset, unreadable


def test_images_that_stay_on_disk_are_the_same(split, store, decoded):
    stored, _ = on_disk(split, store)
    in_memory = load_split(list_images(split), store)
    again, _ = on_disk(split, store)
    assert decoded == [len(in_memory)]
    for dataset in (stored, again):
        assert dataset.fingerprint == in_memory.fingerprint
        assert dataset.files == in_memory.files
        assert dataset.images.shape == in_memory.images.shape
        assert torch.equal(dataset.images[torch.tensor([3, 0, 3])], in_memory.images[[3, 0, 3]])
        assert torch.equal(dataset.images[2:5], in_memory.images[2:5])
        assert torch.equal(dataset.images[4], in_memory.images[4])
    chosen = torch.tensor([5, 1, 2])
    assert select(stored, chosen).fingerprint == select(in_memory, chosen).fingerprint
    assert torch.equal(select(stored, chosen).images[1:], in_memory.images[[1, 2]])
    assert [path.suffix for path in store.iterdir()] == [".npz"]


def test_what_cannot_be_read_takes_no_place_on_disk(split, store, monkeypatch):
    monkeypatch.setattr(cache, "CHUNK_SIZE", 3)
    for name in ("angry/000.png", "happy/001.png"):
        (split / name).write_bytes(b"")
    stored, unreadable = on_disk(split, store)
    assert list(unreadable) == ["angry/000.png", "happy/001.png"]
    in_memory, _ = cache.load_split(list_images(split), store)
    assert stored.fingerprint == in_memory.fingerprint
    for name in unreadable:
        (split / name).unlink()
    assert_is_what_the_folder_holds(in_memory, split)


def test_images_on_disk_stay_those_of_the_file_that_was_opened(split, store):
    stored, _ = on_disk(split, store)
    first = stored.images[0].clone()
    paint(split / "angry/000.png", 7)
    load_split(list_images(split), store)  # another file takes its name
    assert torch.equal(stored.images[0], first)
    assert torch.equal(select(stored, torch.tensor([0])).images[0], first)


def test_a_damaged_cache_of_images_that_stay_on_disk_is_made_anew(split, store, decoded):
    stored, _ = on_disk(split, store)
    (file,) = store.iterdir()
    content = bytearray(file.read_bytes())
    content[content.index(stored.images[0].numpy().tobytes()) + 100] ^= 255
    file.write_bytes(content)
    again, _ = on_disk(split, store)
    assert len(decoded) == 2
    assert again.fingerprint == stored.fingerprint
    assert torch.equal(again.images[0], load_split(list_images(split), store).images[0])


def test_a_disk_that_does_not_keep_what_is_written_is_said(split, store, monkeypatch):
    write = cache._write

    def write_and_lose(path, *content):
        write(path, *content)
        flip_one_bit_of_a_pixel(path)

    monkeypatch.setattr(cache, "_write", write_and_lose)
    with pytest.raises(UserError, match=r"what is read there is not what was written.*give data\.in_memory=true"):
        on_disk(split, store)


def test_a_disk_without_room_for_the_images_is_said_before_they_are_decoded(split, store, decoded, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(UserError, match=r"No space left on device.*and has room, or give data\.in_memory=true"):
        on_disk(split, store)
    assert decoded == []
    assert list(store.iterdir()) == []


def test_images_can_only_stay_where_a_cache_can(split, tmp_path):
    (tmp_path / "full").write_text("")
    with pytest.raises(UserError, match=r"cannot be kept in .*full.* not to be kept in memory.*data.in_memory=true"):
        on_disk(split, tmp_path / "full")
