"""What a person who gives a folder sees: what was found, or what to change; and what the training then gets."""

import logging
import os
import shutil
import sys
import time

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

from fer_exp.data import cache, datamodule
from fer_exp.data.cache import load_split
from fer_exp.data.datamodule import ImageDataModule, SyntheticDataModule
from fer_exp.data.dataset import MemmapImages
from fer_exp.data.decode import SIZE
from fer_exp.data.exclusions import as_line, write_exclusions
from fer_exp.data.sources.class_folders import CLASSES
from fer_exp.errors import UserError


@pytest.fixture(autouse=True)
def log_all(caplog):
    caplog.set_level(logging.INFO)


@pytest.fixture
def no_decoding(monkeypatch):
    def refuse(*args):
        raise AssertionError("images were decoded before the mistake was found")

    monkeypatch.setattr(datamodule, "load_split", refuse)


def test_what_was_found_is_said(data_root, caplog):
    (data_root / "train" / "sad" / "001.png").unlink()
    ImageDataModule(data_root, 4, 0).setup()
    train, validation, *table = caplog.messages
    assert "Found 20 images belonging to 7 classes." in train
    assert str(data_root / "train") in train
    assert "Found 14 images belonging to 7 classes." in validation
    assert str(data_root / "validation") in validation
    assert [line.split() for line in table] == [
        ["class", "train", "validation"],
        ["angry", "3", "2"],
        ["disgust", "3", "2"],
        ["fear", "3", "2"],
        ["happy", "3", "2"],
        ["neutral", "3", "2"],
        ["sad", "2", "2"],
        ["surprise", "3", "2"],
    ]
    assert len({len(line) for line in table}) == 1


def test_mapped_and_merged_folders_are_said(data_root, make_split, caplog):
    (data_root / "train" / "happy").rename(data_root / "train" / "Happiness")
    make_split(data_root / "validation", 1, ["Sadness"])
    faces = ImageDataModule(data_root, 4, 0)
    faces.setup()
    assert "train/Happiness/ is taken for the class happy." in caplog.messages
    assert "validation/Sadness/ is taken for the class sad." in caplog.messages
    assert "validation/Sadness/ and validation/sad/ are one class, sad: their images are put together." in (
        caplog.messages
    )
    assert faces.val_set.counts == [2, 2, 2, 2, 2, 3, 2]


def test_images_and_labels_are_those_of_the_folders(data_root):
    faces = ImageDataModule(data_root, 4, 0)
    faces.setup()
    for split, count, dataset in (("train", 3, faces.train_set), ("validation", 2, faces.val_set)):
        assert dataset.labels.tolist() == [label for label in range(7) for _ in range(count)]
        assert dataset.classes == CLASSES
        for file, label, image in zip(dataset.files, dataset.labels, dataset.images, strict=True):
            assert file.startswith(CLASSES[label])
            with Image.open(data_root / split / file) as reference:
                assert np.array_equal(image[0].numpy(), np.asarray(reference))


def test_a_second_setup_does_nothing(data_root, caplog):
    faces = ImageDataModule(data_root, 4, 0)
    faces.setup()
    train_set, said = faces.train_set, len(caplog.messages)
    shutil.rmtree(data_root)
    faces.setup("fit")
    assert faces.train_set is train_set
    assert len(caplog.messages) == said


def test_decoded_images_go_where_they_are_told(data_root, tmp_path, own_cache):
    ImageDataModule(data_root, 4, 0, cache_dir=str(tmp_path / "elsewhere")).setup()
    assert len(list((tmp_path / "elsewhere").iterdir())) == 2
    assert not own_cache.exists()
    ImageDataModule(data_root, 4, 0).setup()
    assert len(list(own_cache.iterdir())) == 2


@pytest.mark.parametrize("ignore", [["contempt", "8"], ["contempt", 8]])
def test_folders_are_ignored_also_where_the_name_is_a_number(data_root, make_split, ignore):
    make_split(data_root / "train", 1, ["contempt", "8"])
    faces = ImageDataModule(data_root, 4, 0, ignore=ignore)
    faces.setup()
    assert len(faces.train_set) == 21


@pytest.mark.parametrize("ignore", ["angry/blurred", "angry/blurred/", "./angry/blurred", "angry\\blurred"])
def test_a_folder_below_a_class_is_ignored_however_it_is_spelt(data_root, make_split, caplog, ignore):
    make_split(data_root / "train/angry", 2, ["blurred"])
    faces = ImageDataModule(data_root, 4, 0, ignore=ignore)
    faces.setup()
    assert len(faces.train_set) == 21
    assert "data.ignore" not in caplog.text


def test_what_was_to_be_ignored_and_is_not_there_is_told(data_root, make_split, caplog):
    make_split(data_root / "validation", 1, ["contempt"])
    ImageDataModule(data_root, 4, 0, ignore=["contempt", "train/angry/blurred", "blured"]).setup()
    (warning,) = [record.message for record in caplog.records if "data.ignore" in record.message]
    assert warning.startswith("Warning: data.ignore: there is no folder 'blured', 'train/angry/blurred' in ")


def test_one_ignored_folder_needs_no_list(data_root, make_split):
    make_split(data_root / "train", 1, ["contempt"])
    faces = ImageDataModule(data_root, 4, 0, ignore="contempt")
    faces.setup()
    assert len(faces.train_set) == 21


@pytest.mark.parametrize("batch_size", [22, 128, 0, -1])
@pytest.mark.usefixtures("no_decoding")
def test_a_batch_size_that_fills_no_batch(data_root, batch_size):
    with pytest.raises(UserError, match=rf"data\.batch_size={batch_size} .*21 training images.*from 1 to 21"):
        ImageDataModule(data_root, batch_size, 0).setup()


def test_the_largest_batch(data_root):
    faces = ImageDataModule(data_root, 21, 0)
    faces.setup()
    assert len(faces.train_dataloader()) == 1


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.usefixtures("no_decoding")
def test_a_mistake_in_either_split_is_found_before_decoding(data_root, split):
    (data_root / split / "fear").rename(data_root / split / "contempt")
    with pytest.raises(UserError, match=rf"{split}: 'contempt' .*data\.ignore=\[contempt\]"):
        ImageDataModule(data_root, 4, 0).setup()


def test_batches_without_a_trainer(data_root):
    faces = ImageDataModule(data_root, 4, seed=5)
    faces.setup()
    train, validation = faces.train_dataloader(), faces.val_dataloader()
    assert [len(labels) for _, labels in train] == [4] * 5
    assert [len(labels) for _, labels in validation] == [4, 4, 4, 2]
    other = ImageDataModule(data_root, 4, seed=6)
    other.setup()
    assert not torch.equal(train.sampler.indices(), other.train_dataloader().sampler.indices())


class Collector(L.LightningModule):
    """Writes down the batches that Lightning hands to the steps."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.batches = {"train": [], "validation": []}

    def training_step(self, batch, index):
        self.batches["train"].append(batch)
        return self.weight * 1.0

    def validation_step(self, batch, index):
        self.batches["validation"].append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore")  # Lightning's advice about workers and devices
def test_lightning_trains_on_all_batches_as_bytes(data_root, tmp_path):
    collector = Collector()
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        precision="bf16-true",  # would turn floating-point batches into bfloat16
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )
    trainer.fit(collector, datamodule=ImageDataModule(data_root, 4, 0))
    assert [len(labels) for _, labels in collector.batches["train"]] == [4] * 5
    assert [len(labels) for _, labels in collector.batches["validation"]] == [4, 4, 4, 2]
    for images, labels in collector.batches["train"] + collector.batches["validation"]:
        assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)


def synthetic(**changes) -> SyntheticDataModule:
    return SyntheticDataModule(
        **{"train": 14, "validation": 7, "generator_seed": 0, "batch_size": 4, "seed": 0, **changes}
    )


def test_synthetic_faces_are_drawn_once(own_cache):
    first = synthetic()
    first.setup()
    drawn = {path: path.stat().st_mtime_ns for path in own_cache.rglob("*.png")}
    assert len(drawn) == 21
    again = synthetic(seed=1)
    again.setup()
    assert {path: path.stat().st_mtime_ns for path in own_cache.rglob("*.png")} == drawn
    assert again.train_set.fingerprint == first.train_set.fingerprint
    assert (first.train_set.counts, first.val_set.counts) == ([2] * 7, [1] * 7)


def test_other_synthetic_faces_are_other_data(tmp_path):
    prints = []
    for changes in ({}, {"generator_seed": 1}, {"train": 15}):
        faces = synthetic(cache_dir=tmp_path / "own", **changes)
        faces.setup()
        prints.append(faces.train_set.fingerprint)
    assert len(set(prints)) == 3


@pytest.mark.parametrize("changes", [{"train": 6}, {"validation": 0}, {"generator_seed": -1}])
def test_synthetic_faces_that_cannot_be_drawn(changes):
    ((name, value),) = changes.items()
    with pytest.raises(UserError, match=rf"data\.{name}={value}\b.*no such faces can be drawn"):
        synthetic(**changes).setup()


def test_synthetic_faces_that_cannot_be_kept(tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(UserError, match=r"cannot be written to .*taken.*data\.cache_dir or FER_EXP_CACHE"):
        synthetic(cache_dir=tmp_path / "taken").setup()


def test_what_is_held_out_takes_the_place_of_the_validation_images(data_root, caplog):
    caplog.set_level("INFO")
    shutil.rmtree(data_root / "validation" / "angry")  # not looked at, and not missed
    data = ImageDataModule(data_root, batch_size=4, seed=0, val_fraction=1 / 3)
    data.setup()
    assert data.train_set.counts == [2] * 7
    assert data.val_set.counts == [1] * 7
    assert set(data.train_set.files) | set(data.val_set.files) == {
        f"{name}/{k:03}.png" for name in CLASSES for k in range(3)
    }
    assert "7 of them are held out of training" in caplog.text


@pytest.mark.usefixtures("said_anew")
def test_copies_among_what_is_held_out_are_not_said_to_be_in_validation(data_root, caplog):
    for name in CLASSES:
        for k in (1, 2):
            copy_image(data_root, f"train/{name}/000.png", f"train/{name}/{k:03}.png")
    ImageDataModule(data_root, batch_size=4, seed=0, val_fraction=1 / 3).setup()
    assert "Warning: 14 training images are also in those held out, 0 of them with another label" in caplog.text


@pytest.mark.parametrize(
    ("val_fraction", "batch_size", "said"),
    [
        (0.1, 4, r"data\.val_fraction=0\.1 leaves angry, .*surprise without .*data\.val_fraction=0\."),
        (0.4, 15, "14 training"),
    ],
)
def test_too_little_or_too_much_held_out_is_said(data_root, val_fraction, batch_size, said):
    with pytest.raises(UserError, match=said):
        ImageDataModule(data_root, batch_size=batch_size, seed=0, val_fraction=val_fraction).setup()


def test_a_split_is_loaded_once_in_a_process_until_a_file_changes(data_root, monkeypatch):
    loaded = []

    def count(listing, *rest):
        loaded.append(listing.folder.name)
        return load_split(listing, *rest)

    monkeypatch.setattr("fer_exp.data.datamodule.load_split", count)
    for _ in range(2):
        ImageDataModule(data_root, batch_size=4, seed=0).setup()
    assert loaded == ["train", "validation"]
    (data_root / "train/angry/000.png").unlink()
    data = ImageDataModule(data_root, batch_size=4, seed=0)
    data.setup()
    assert loaded == ["train", "validation", "train"]
    assert data.train_set.counts[0] == 2


@pytest.mark.parametrize(
    ("in_memory", "most", "ahead", "loaded"),
    [
        ("auto", 10**6, 2, torch.Tensor),
        (True, 10**6, 2, torch.Tensor),
        (True, 1, 0, torch.Tensor),
        ("auto", 1, 0, MemmapImages),
        (False, 10**6, 0, MemmapImages),
    ],
)
def test_what_is_kept_is_asked_for_before_the_files_are_listed(data_root, monkeypatch, in_memory, most, ahead, loaded):
    ImageDataModule(data_root, 4, 0).setup()
    monkeypatch.setattr(datamodule, "_loaded", {})
    monkeypatch.setattr(datamodule, "MAX_IN_MEMORY", most)
    steps = []
    for name in ("read_ahead", "list_images", "load_split"):
        step = getattr(datamodule, name)
        monkeypatch.setattr(datamodule, name, lambda *args, step=step, name=name: steps.append(name) or step(*args))
    faces = ImageDataModule(data_root, 4, 0, in_memory=in_memory)
    faces.setup()
    assert steps == [*["read_ahead"] * ahead, *["list_images"] * 2, *["load_split"] * 2]
    assert isinstance(faces.train_set.images, loaded)
    steps.clear()
    ImageDataModule(data_root, 4, 0, in_memory=in_memory).setup()  # in the same process: it is there
    assert steps == ["list_images"] * 2


def test_images_that_are_to_stay_on_disk_do_though_what_is_kept_of_them_is_small(data_root, monkeypatch):
    """Files that cannot be read count among the images, and are not kept."""
    for k in range(100):
        (data_root / f"train/sad/bad{k}.png").write_text("no image")
    ImageDataModule(data_root, 4, 0, on_unreadable="skip").setup()
    monkeypatch.setattr(datamodule, "_loaded", {})
    monkeypatch.setattr(datamodule, "MAX_IN_MEMORY", 100 * SIZE * SIZE)
    faces = ImageDataModule(data_root, 4, 0, on_unreadable="skip")
    faces.setup()
    assert isinstance(faces.train_set.images, MemmapImages)


def copy_image(data_root, source, target):
    shutil.copy(data_root / source, data_root / target)


@pytest.fixture
def said_anew(monkeypatch):
    """What is wrong is said once for each data set and process; here, once for each test."""
    monkeypatch.setattr(datamodule, "_glanced", set())


@pytest.mark.usefixtures("said_anew")
def test_what_is_clearly_wrong_with_the_images_is_said_once(data_root, caplog):
    copy_image(data_root, "validation/sad/000.png", "train/sad/copy.png")
    copy_image(data_root, "validation/sad/001.png", "train/fear/copy.png")
    copy_image(data_root, "train/happy/000.png", "train/neutral/copy.png")
    Image.new("L", (48, 48), 7).save(data_root / "train/angry/blank.png")
    Image.new("L", (48, 48), 7).save(data_root / "validation/angry/blank.png")  # no copy of the other
    for _ in range(2):
        ImageDataModule(data_root, 4, 0).setup()
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning == (
        "Warning: 2 training images are also in validation, 1 of them with another label; 2 training images have the "
        "same pixels as others of training with another label; 2 images show nothing (all pixels alike). This tells "
        f"which, and makes a list for data.exclude: python -m fer_exp.audit data.root={data_root}"
    )


@pytest.mark.usefixtures("said_anew")
def test_of_sound_images_nothing_is_said(data_root, caplog):
    copy_image(data_root, "train/sad/000.png", "train/sad/copy.png")  # a copy with the same label does no harm
    ImageDataModule(data_root, 4, 0).setup()
    synthetic(train=280, validation=70).setup()
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []


@pytest.mark.usefixtures("said_anew")
def test_a_glance_at_a_large_set_takes_a_moment(data_root):
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (8000, 48, 48), dtype=np.uint8)
    labels = np.zeros(8000, np.int64)
    start = time.process_time()
    assert datamodule.glance(faces[:7000], labels[:7000], faces[7000:], labels[7000:]) == ""
    assert time.process_time() - start < 0.5  # about 0.05; room for a slow machine


def write_list(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_files_of_an_exclusion_list_are_left_out(data_root, tmp_path, caplog):
    exclude = write_list(
        tmp_path / "mine.txt",
        "# why",
        "",
        "train/sad/001.png  # blurred",
        "validation/fear/000.png",
        "train/sad/001.png",
    )
    whole, faces = ImageDataModule(data_root, 4, 0), ImageDataModule(data_root, 4, 0, exclude=exclude)
    whole.setup()
    caplog.clear()
    faces.setup()
    assert (faces.train_set.counts, faces.val_set.counts) == ([3, 3, 3, 3, 3, 2, 3], [2, 2, 1, 2, 2, 2, 2])
    for split, dataset in (("train", faces.train_set), ("validation", faces.val_set)):
        for file, image in zip(dataset.files, dataset.images, strict=True):
            with Image.open(data_root / split / file) as reference:
                assert np.array_equal(image[0].numpy(), np.asarray(reference))
    assert "sad/001.png" not in faces.train_set.files
    assert faces.train_set.fingerprint != whole.train_set.fingerprint
    assert caplog.messages[:2] == [
        f"{exclude} leaves out 1 files of {data_root / 'train'}.",
        f"Found 20 images belonging to 7 classes. ({data_root / 'train'})",
    ]
    assert faces.left_out == {s: {"excluded": 1, "unreadable": 0} for s in ("train", "validation")}
    assert whole.left_out == {s: {"excluded": 0, "unreadable": 0} for s in ("train", "validation")}


def test_a_set_without_the_excluded_files_is_that_of_a_folder_without_them(data_root, tmp_path):
    faces = ImageDataModule(data_root, 4, 0, exclude=write_list(tmp_path / "list", "train/sad/001.png"))
    faces.setup()
    (data_root / "train/sad/001.png").unlink()
    without = ImageDataModule(data_root, 4, 0)
    without.setup()
    assert faces.train_set.fingerprint == without.train_set.fingerprint


def test_lists_and_policies_that_take_turns_decode_nothing_anew(data_root, tmp_path, monkeypatch, caplog):
    (data_root / "train/sad/bad.png").write_text("no image")
    decoded = []
    decode_files = cache.decode_files
    monkeypatch.setattr(cache, "decode_files", lambda *args: decoded.append(len(args[0])) or decode_files(*args))
    lists = [None, write_list(tmp_path / "a", "train/sad/001.png"), write_list(tmp_path / "b", "train/sad/bad.png")]
    for _ in range(2):
        for exclude in lists:
            monkeypatch.setattr(datamodule, "_loaded", {})
            ImageDataModule(data_root, 4, 0, exclude=exclude, on_unreadable="skip").setup()
    assert decoded == [22, 14, *[1] * 5]  # only what could not be read is tried again
    assert "anew" not in caplog.text


def test_a_list_may_name_a_file_of_a_nested_folder_with_odd_characters(tmp_path, make_split):
    for split in ("train", "val"):
        make_split(tmp_path / "images" / split, 2)
    (tmp_path / "images/train/sad/000.png").rename(tmp_path / "images/train/sad/#1 # ä.png")
    exclude = write_list(tmp_path / "list", "images/train/sad/#1 # ä.png  # odd # name", "images\\val\\sad\\000.png")
    faces = ImageDataModule(tmp_path, 4, 0, exclude=exclude)
    faces.setup()
    assert (faces.train_set.counts[5], faces.val_set.counts[5]) == (1, 1)


@pytest.mark.usefixtures("no_decoding")
def test_a_list_of_another_folder_is_refused(data_root, tmp_path):
    exclude = write_list(tmp_path / "list", "train/sad/001.png", *(f"train/sad/{k}.jpg" for k in range(23)))
    with pytest.raises(UserError) as error:
        ImageDataModule(data_root, 4, 0, exclude=exclude).setup()
    first, *named, last = str(error.value).splitlines()
    assert first == f"data.exclude={exclude}: 23 of its 24 lines name no file in data.root={data_root}:"
    assert named == [f"  train/sad/{k}.jpg" for k in range(20)] + ["  and 3 more"]
    assert "another folder" in last


def test_a_list_that_is_not_there(data_root, tmp_path):
    with pytest.raises(UserError, match=r"data\.exclude=.*nowhere: the list cannot be read \(No such file"):
        ImageDataModule(data_root, 4, 0, exclude=tmp_path / "nowhere").setup()


def test_a_list_that_leaves_nothing_of_a_class(data_root, tmp_path):
    exclude = write_list(tmp_path / "list", *(f"train/fear/{k:03}.png" for k in range(3)))
    with pytest.raises(UserError, match=r"no image of fear is left.*data\.exclude=.*list"):
        ImageDataModule(data_root, 4, 0, exclude=exclude).setup()


def test_a_list_holds_for_what_is_held_out_too(data_root, tmp_path):
    exclude = write_list(tmp_path / "list", *(f"train/{name}/000.png" for name in CLASSES), "validation/sad/000.png")
    data = ImageDataModule(data_root, batch_size=4, seed=0, exclude=exclude, val_fraction=0.5)
    data.setup()
    assert set(data.train_set.files) | set(data.val_set.files) == {
        f"{name}/{k:03}.png" for name in CLASSES for k in (1, 2)
    }
    assert data.left_out == {"train": {"excluded": 7, "unreadable": 0}}


def test_lines_that_name_no_image_of_the_splits_are_told(data_root, tmp_path, caplog):
    (data_root / "votes.csv").touch()
    exclude = write_list(tmp_path / "list", "votes.csv", "train/sad/000.png", "validation/sad/000.png")
    ImageDataModule(data_root, 4, 0, exclude=exclude).setup()
    (warning,) = [record.message for record in caplog.records if "leave nothing out" in record.message]
    assert warning.startswith(f"Warning: data.exclude={exclude}: 1 of its 3 files are no images of ")
    assert warning.endswith(", and leave nothing out: votes.csv.")
    caplog.clear()
    exclude = write_list(tmp_path / "list", "train/sad/000.png", "validation/sad/000.png")
    ImageDataModule(data_root, 4, 0, exclude=exclude, val_fraction=0.5).setup()
    assert "leave nothing out" not in caplog.text


def spoil(data_root, count):
    (data_root / "train/sad/002.png").write_bytes((data_root / "train/sad/002.png").read_bytes()[:300])
    for k in range(count - 1):
        (data_root / f"train/angry/bad{k:02}.png").touch()


@pytest.mark.parametrize(("bad", "more"), [(20, []), (23, ["  and 3 more"])])
def test_unreadable_images_are_refused_and_named_together(data_root, bad, more):
    spoil(data_root, bad)
    with pytest.raises(UserError) as error:
        ImageDataModule(data_root, 4, 0).setup()
    first, *named, last = str(error.value).splitlines()
    train = data_root / "train"
    assert first == f"{train}: {bad} of {20 + bad} files cannot be read as images:"
    expected = [f"  {train}/angry/bad{k:02}.png: an empty file" for k in range(bad - 1)]
    assert named[:19] == expected[:19]
    assert named[19].startswith(f"  {train}/sad/002.png: " if bad == 20 else f"  {train}/angry/bad19.png: ")
    assert named[20:] == more
    assert "data.root" in last
    assert "data.on_unreadable=skip" in last


def test_unreadable_images_are_left_out_where_that_is_wanted(data_root, caplog):
    spoil(data_root, 3)
    faces = ImageDataModule(data_root, 4, 0, on_unreadable="skip")
    faces.setup()
    assert faces.train_set.counts == [3, 3, 3, 3, 3, 2, 3]
    assert faces.left_out["train"] == {"excluded": 0, "unreadable": 3}
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    first, *named = warning.splitlines()
    assert first == f"Warning: {data_root / 'train'}: 3 of 23 files cannot be read as images and are left out:"
    assert [line.split(":")[0].rpartition("/")[2] for line in named] == ["bad00.png", "bad01.png", "002.png"]


def test_unreadable_images_that_a_list_names_are_no_error(data_root, tmp_path):
    (data_root / "train/angry/bad.png").touch()
    faces = ImageDataModule(data_root, 4, 0, exclude=write_list(tmp_path / "list", "train/angry/bad.png"))
    faces.setup()
    assert faces.left_out["train"] == {"excluded": 1, "unreadable": 0}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems forbid such names, or change them")
def test_names_of_unreadable_images_are_told_in_a_line_each_and_can_be_excluded(tmp_path, make_split, caplog):
    root = tmp_path / os.fsdecode(b"my \xff\nfaces")
    for split in ("train", "validation"):
        make_split(root / split, 1)
    odd = ["two\nlines.png", "a # b.png", "😀.png", os.fsdecode(b"\xff\xfe.png")]
    for name in odd:
        (root / "train/sad" / name).write_text("no image")
    with pytest.raises(UserError) as error:
        ImageDataModule(root, 4, 0).setup()
    told = ["a # b.png", "two\\nlines.png", "😀.png", "\\xff\\xfe.png"]
    folder = f"{tmp_path}/my \\xff\\nfaces/train"
    assert str(error.value).splitlines()[0] == f"{folder}: 4 of 11 files cannot be read as images:"
    assert sorted(str(error.value).splitlines()[1:5]) == sorted(
        f"  {folder}/sad/{name}: text, not an image" for name in told
    )
    write_exclusions(tmp_path / "list", [as_line(f"train/sad/{name}") for name in odd])
    faces = ImageDataModule(root, 4, 0, exclude=tmp_path / "list")
    faces.setup()
    assert faces.left_out["train"] == {"excluded": 4, "unreadable": 0}
    "".join(caplog.messages).encode()


def test_images_that_may_not_be_read_are_named_with_the_reason(public_path, make_split, unprivileged):
    for split in ("train", "validation"):
        make_split(public_path / "faces" / split, 1)
    (public_path / "faces/train/sad/000.png").chmod(0)
    data = ImageDataModule(public_path / "faces", 4, 0, cache_dir=public_path / "cache")
    with unprivileged(), pytest.raises(UserError, match=r"sad/000\.png: Permission denied\n.*data\.on_unreadable=skip"):
        data.setup()


def test_one_image_in_each_class_is_enough(tmp_path, make_split):
    for split in ("train", "validation"):
        make_split(tmp_path / split, 1)
    faces = ImageDataModule(tmp_path, 7, 0)
    faces.setup()
    assert faces.train_set.counts == faces.val_set.counts == [1] * 7
    assert [sorted(labels.tolist()) for _, labels in faces.train_dataloader()] == [list(range(7))]
    with pytest.raises(
        UserError, match=r"data\.val_fraction=0\.5 leaves angry, .*surprise without an image to train or to"
    ):
        ImageDataModule(tmp_path, 7, 0, val_fraction=0.5).setup()


def test_images_in_folders_below_the_class_folders_are_trained_on(data_root):
    (data_root / "train/sad/person 1/2013").mkdir(parents=True)
    (data_root / "train/sad/001.png").rename(data_root / "train/sad/person 1/2013/001.png")
    faces = ImageDataModule(data_root, 4, 0)
    faces.setup()
    assert faces.train_set.counts == [3] * 7
    i = faces.train_set.files.index("sad/person 1/2013/001.png")
    assert faces.train_set.labels[i] == CLASSES.index("sad")
    with Image.open(data_root / "train/sad/person 1/2013/001.png") as reference:
        assert np.array_equal(faces.train_set.images[i, 0].numpy(), np.asarray(reference))


def test_files_of_the_same_name_in_folders_that_differ_by_case_are_all_trained_on(data_root, caplog):
    if (data_root / "train/ANGRY").exists():
        pytest.skip("this file system does not tell upper from lower case")
    (data_root / "train/Angry").mkdir()
    for k in range(3):
        Image.new("L", (48, 48), k).save(data_root / f"train/Angry/{k:03}.png")
    faces = ImageDataModule(data_root, 4, 0)
    faces.setup()
    assert faces.train_set.counts == [6, 3, 3, 3, 3, 3, 3]
    assert faces.train_set.files[2:4] == ("Angry/002.png", "angry/000.png")
    for file, image in list(zip(faces.train_set.files, faces.train_set.images, strict=True))[:6]:
        with Image.open(data_root / "train" / file) as reference:
            assert np.array_equal(image[0].numpy(), np.asarray(reference))
    assert "train/Angry/ and train/angry/ are one class, angry: their images are put together." in caplog.messages


def test_a_policy_that_there_is_not(data_root):
    for faces in (lambda **policy: ImageDataModule(data_root, 4, 0, **policy), synthetic):
        with pytest.raises(ValueError, match=r"data\.on_unreadable=ignore: expected error or skip"):
            faces(on_unreadable="ignore")


@pytest.mark.parametrize(("most", "in_memory", "stays"), [(35 * 48 * 48, "auto", False), (34 * 48 * 48, "auto", True),
                                                          (0, True, False), (10**9, False, True)])  # fmt: skip
def test_sets_that_are_too_large_stay_on_disk(data_root, monkeypatch, caplog, most, in_memory, stays):
    monkeypatch.setattr(datamodule, "MAX_IN_MEMORY", most)
    data = ImageDataModule(data_root, 4, 0, in_memory=in_memory)
    with caplog.at_level(logging.INFO, logger="fer_exp"):
        data.setup()
    assert isinstance(data.train_set.images, MemmapImages) == stays
    assert ("are read from disk batch by batch (data.in_memory)" in caplog.text) == stays


@pytest.mark.parametrize("val_fraction", [0, 0.34])
def test_batches_from_disk_are_those_from_memory(data_root, tmp_path, val_fraction):
    exclude = write_list(tmp_path / "list", "train/sad/001.png")
    here, there = (
        ImageDataModule(data_root, 4, 5, exclude=exclude, val_fraction=val_fraction, in_memory=in_memory)
        for in_memory in (True, False)
    )
    for data in (here, there):
        data.setup()
    for epoch in (0, 1):
        for loader in (ImageDataModule.train_dataloader, ImageDataModule.val_dataloader):
            from_memory, from_disk = loader(here), loader(there)
            if loader == ImageDataModule.train_dataloader:
                from_memory.sampler.set_epoch(epoch)
                from_disk.sampler.set_epoch(epoch)
            assert len(from_memory) == len(from_disk)
            for one, other in zip(from_memory, from_disk, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_place_that_there_is_not(data_root):
    with pytest.raises(ValueError, match=r"data\.in_memory=sometimes: expected auto, true or false"):
        ImageDataModule(data_root, 4, 0, in_memory="sometimes")
