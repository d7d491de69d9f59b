"""A split is decoded once; whatever happens to its cache, the images are those of the folder."""

import errno
import json
import logging
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from fer_exp.data import cache, decode
from fer_exp.data.cache import default_cache_dir, load_split
from fer_exp.data.dataset import MemmapImages
from fer_exp.data.decode import ImageFormat
from fer_exp.data.folders import list_split
from fer_exp.errors import UserError

FORMAT = ImageFormat()


@pytest.fixture
def split(tmp_path, make_split):
    return make_split(tmp_path / "train", 2)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def decoded(monkeypatch):
    """The number of images in each decoding."""
    counts = []
    map_chunks = decode.map_chunks

    def counting(function, items, n, progress=None):
        counts.append(n)
        return map_chunks(function, items, n, progress)

    monkeypatch.setattr(decode, "map_chunks", counting)
    return counts


@pytest.fixture(params=[True, False], ids=["in memory", "on disk"])
def in_memory(request):
    return request.param


def load(folder, store, in_memory=True, image_format=FORMAT, **options):
    listing, _ = list_split("train", folder, folder.parent)
    return load_split(listing, image_format, store, in_memory, **options)


def assert_is_the_folder(loaded, folder):
    expected = sorted(folder.rglob("*.png"))
    assert loaded.names == tuple(path.relative_to(folder.parent).as_posix() for path in expected)
    assert [loaded.classes[i] for i in loaded.labels] == [path.parent.name for path in expected]
    assert np.array_equal(
        loaded.images[:].numpy(), np.stack([np.asarray(Image.open(path)) for path in expected])[:, None]
    )


def test_a_split_is_decoded_once(split, store, in_memory, decoded, caplog):
    progress = []
    for _ in range(3):
        loaded = load(split, store, in_memory, progress=lambda *done: progress.append(done))
        assert isinstance(loaded.images, torch.Tensor if in_memory else MemmapImages)
        assert_is_the_folder(loaded, split)
        assert loaded.originals == ((48, 48, "L"),) * 14
    assert (decoded, progress) == ([14], [(14, 14)])
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert len(list(store.iterdir())) == 2
    # Memory and disk use the same files.
    assert_is_the_folder(load(split, store, not in_memory), split)
    assert decoded == [14]


def test_formats_and_splits_are_cached_separately(split, store, decoded, make_split, tmp_path):
    rgb = ImageFormat(32, "rgb", "crop")
    other = make_split(tmp_path / "elsewhere/train", 1)
    for _ in range(2):
        assert load(split, store, image_format=rgb).images.shape == (14, 3, 32, 32)
        assert_is_the_folder(load(split, store), split)
        assert_is_the_folder(load(other, store), other)
    assert decoded == [14, 14, 7]


def swap_two_files(split):
    (split / "sad/000.png").rename(split / "aside")
    (split / "fear/000.png").rename(split / "sad/000.png")
    (split / "aside").rename(split / "fear/000.png")


def change_pixels_in_place(split):
    path = split / "sad/000.png"
    content = path.read_bytes()
    Image.new("L", (48, 48), 99).save(path)
    path.write_bytes(path.read_bytes().ljust(len(content), b"\0"))
    os.utime(path, ns=(0, 10**18))


@pytest.mark.parametrize("change", [swap_two_files, change_pixels_in_place])
def test_a_change_is_noticed_and_the_old_images_are_deleted(split, store, decoded, caplog, change, in_memory):
    for path in split.rglob("*.png"):  # as a reproducible archive unpacks them
        path.write_bytes(path.read_bytes().ljust(3000, b"\0"))
        os.utime(path, ns=(0, 10**18))
    load(split, store, in_memory)
    change(split)
    caplog.set_level("INFO")
    for _ in range(2):
        assert_is_the_folder(load(split, store, in_memory), split)
    assert decoded == [14, 14]
    assert "changed" in caplog.text
    assert len(list(store.iterdir())) == 2


def images_file(store):
    return next(store.glob("*.npy"))


def details_file(store):
    return next(store.glob("*.json"))


def edit_details(**changes):
    def edit(store):
        path = details_file(store)
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


def flip_a_bit(store):
    content = bytearray(images_file(store).read_bytes())
    content[-100] ^= 1
    images_file(store).write_bytes(content)


def other_images(store):
    np.save(images_file(store), np.zeros((14, 1, 48, 48), np.uint8))


@pytest.mark.parametrize(
    "damage",
    [
        lambda store: images_file(store).unlink(),
        lambda store: images_file(store).write_bytes(b""),
        lambda store: images_file(store).write_bytes(images_file(store).read_bytes()[:-1]),
        flip_a_bit,
        other_images,
        lambda store: np.save(images_file(store), np.zeros((13, 1, 48, 48), np.uint8)),
        lambda store: np.save(images_file(store), np.array([{}]), allow_pickle=True),
        lambda store: details_file(store).write_text("{"),
        lambda store: details_file(store).write_bytes(b"\xff\xfe\0"),
        lambda store: details_file(store).write_text("[]"),
        lambda store: details_file(store).write_text("{}"),
        edit_details(names=[]),
        edit_details(labels=None),
        edit_details(shape=[1, 24, 96]),
    ],
    ids=lambda damage: getattr(damage, "__name__", "") if "<" not in str(getattr(damage, "__name__", "<")) else "",
)
def test_a_damaged_cache_is_replaced(split, store, decoded, damage, in_memory):
    load(split, store, in_memory)
    damage(store)
    for _ in range(2):
        assert_is_the_folder(load(split, store, in_memory), split)
    assert decoded == [14, 14]


def test_unreadable_images_are_left_to_the_caller(split, store, decoded, in_memory):
    (split / "fear/001.png").write_text("no image")
    (split / "sad/gone.png").symlink_to("nowhere")
    for _ in range(2):
        loaded = load(split, store, in_memory)
        assert list(loaded.unreadable) == ["train/fear/001.png", "train/sad/gone.png"]
        assert len(loaded.names) == len(loaded.labels) == len(loaded.images) == len(loaded.digests) == 13
    (split / "fear/001.png").unlink()
    (split / "sad/gone.png").unlink()
    shutil.copy(split / "sad/000.png", split / "nowhere.png")
    (split / "sad/gone.png").symlink_to(split / "nowhere.png")
    assert load(split, store, in_memory).unreadable == {}
    assert decoded == [15, 14]


def test_images_that_fit_stay_in_memory(split, store, monkeypatch):
    for limit, in_memory in [(14 * 48 * 48, True), (14 * 48 * 48 - 1, False)] * 2:
        monkeypatch.setattr(cache, "MAX_BYTES_IN_MEMORY", limit)
        assert isinstance(load(split, store, None).images, torch.Tensor) == in_memory


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_cache_that_cannot_be_written(split, store, monkeypatch, caplog):
    store.write_text("a file")
    assert_is_the_folder(load(split, store), split)
    assert "data.cache_dir" in caplog.text
    with pytest.raises(UserError, match=r"data\.cache_dir.*data\.in_memory=true"):
        load(split, store, False)
    store.unlink()
    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", no_space)
    assert_is_the_folder(load(split, store), split)
    assert list(store.iterdir()) == []


def test_too_little_disk_space_is_reported_before_decoding(split, store, monkeypatch, decoded):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(UserError, match="No space left"):
        load(split, store, False)
    assert decoded == []


def test_images_on_disk_stay_those_of_the_opened_file(split, store):
    loaded = load(split, store, False)
    before = loaded.images[:].clone()
    change_pixels_in_place(split)
    load(split, store)
    assert torch.equal(loaded.images[:], before)
    assert torch.equal(loaded.images.select(torch.tensor([3, 1]))[torch.tensor([1, 0])], before[[1, 3]])


def test_the_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("FER_EXP_CACHE", "~/there")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "there"
    monkeypatch.delenv("FER_EXP_CACHE")
    assert default_cache_dir().name == "fer_exp"
