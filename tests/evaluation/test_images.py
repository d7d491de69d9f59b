"""The images of an evaluation: splits by name or folder, in the format of the network."""

import shutil
from pathlib import Path

import pytest
from PIL import Image
from torch import nn

from fer_exp.data.classes import FER_CLASSES as CLASSES
from fer_exp.data.sources.class_folders import FolderDataModule
from fer_exp.data.sources.synthetic import SyntheticDataModule
from fer_exp.data.sources.table import CsvDataModule
from fer_exp.errors import UserError
from fer_exp.evaluation.images import FOLDERS, build_data, count_copies, load_images
from fer_exp.runs.checkpoint import LoadedModel

OWN = {"_target_": FOLDERS, "batch_size": 4096, "seed": 0}


def model(classes=CLASSES, image_shape=(1, 48, 48), **own):
    settings = {"config": {"data": {**OWN, **own}}, "classes": classes, "image_shape": image_shape}
    return LoadedModel(Path("best.ckpt"), nn.Identity(), 1, settings)


@pytest.fixture
def data(faces):
    """The data of a run with other keys: ``data(val_fraction=0.2)``."""

    def make(**given):
        return build_data(model(root=str(faces)), given)

    return make


def test_splits_are_those_of_the_run(data, faces):
    held_out = {name: load_images(data(val_fraction=0.2), name) for name in ("train", "selection", "validation")}
    counts = {name: len(images.evaluated) for name, images in held_out.items()}
    assert counts == {"train": 56, "selection": 14, "validation": 35}
    assert held_out["selection"].split.location == held_out["train"].split.location == "train"
    validation = held_out["validation"]
    assert validation.split == load_images(data(), "validation").split
    assert load_images(data(), "selection").split == load_images(data(), "validation").split
    assert validation.selection.fingerprint == held_out["selection"].split.fingerprint
    assert {*validation.train.names}.isdisjoint(validation.selection.names)


def test_the_folder_of_all_splits_is_no_split(data, faces):
    with pytest.raises(UserError, match="it holds train, validation"):
        load_images(data(), str(faces))


def test_the_folder_of_a_split_is_that_split(data, faces):
    assert load_images(data(), str(faces / "validation")).split.name == "validation"
    assert load_images(data(), str(faces / "train") + "/").split.name == "train"


def test_no_image_of_a_test_set_is_excluded(faces, tmp_path):
    root = tmp_path / "faces"
    shutil.copytree(faces, root)
    shutil.copytree(root / "validation", root / "Test")
    (tmp_path / "exclude.txt").write_text("Test/happy/00000.png\nvalidation/happy/00000.png\n")
    given = {"root": str(root), "exclude": str(tmp_path / "exclude.txt")}
    images = load_images(build_data(model(root=""), given), "test")
    assert (images.split.location, len(images.evaluated), len(images.selection)) == ("Test", 35, 34)
    assert load_images(build_data(model(root=""), given), str(root / "Test")).split.name == "test"


def test_a_test_folder_in_place_of_validation_is_no_test_set(faces, tmp_path):
    root = tmp_path / "kaggle"
    shutil.copytree(faces, root)
    (root / "validation").rename(root / "test")
    held_out = build_data(model(root=str(root)), {"val_fraction": 0.2})
    for name in ("test", str(root / "test")):
        assert load_images(held_out, name).split.name == "test"
    assert load_images(held_out, "validation").split.name == "selection"  # of the training images
    (tmp_path / "exclude.txt").write_text("test/happy/00000.png\n")
    for given in ({}, {"exclude": str(tmp_path / "exclude.txt")}):
        validated = build_data(model(root=str(root)), given)
        assert load_images(validated, "validation").split.name == "validation"
        for name in ("test", str(root / "test")):
            with pytest.raises(UserError, match="split=test"):
                load_images(validated, name)


def test_soft_labels_are_not_needed(faces):
    own = model(root=str(faces), soft_labels="gone.csv", balanced_sampling=True)
    assert len(load_images(build_data(own, {}), "validation").evaluated) == 35


def test_a_folder_needs_neither_a_run_nor_all_classes(faces, tmp_path):
    shutil.copytree(faces / "validation/happy", tmp_path / "happy")
    images = load_images(build_data(model(root="gone"), {}), str(tmp_path))
    assert (images.evaluated.counts, images.train, images.selection) == ([0, 0, 0, 5, 0, 0, 0], None, None)
    for image in (tmp_path / "happy").iterdir():
        image.write_text("no image")
    with pytest.raises(UserError, match="no images of"):
        load_images(build_data(model(root="gone"), {"on_unreadable": "skip"}), str(tmp_path))


@pytest.mark.parametrize("place", ["root", "file", "file.train", "files"])
def test_the_data_of_a_run_may_be_gone(faces, tmp_path, place):
    key, _, split = place.partition(".")
    gone = str(tmp_path / "gone")
    target = FOLDERS if key == "root" else "fer_exp.data.sources.table.CsvDataModule"
    own = model(_target_=target, resize="pad", **{key: {split: gone} if split else gone})
    data = build_data(own, {})
    assert len(load_images(data, str(faces / "validation")).evaluated) == 35
    assert data.resize == "pad"  # images are decoded as in training
    assert len(load_images(build_data(own, {"root": str(faces)}), "validation").evaluated) == 35
    with pytest.raises(UserError, match=r"data\.root=DIR"):
        load_images(build_data(own, {}), "validation")
    with pytest.raises(UserError, match="gone"):  # a given folder must exist
        load_images(build_data(own, {"root": str(tmp_path / "gone")}), str(faces / "validation"))


def test_a_split_that_does_not_exist_is_refused(data):
    with pytest.raises(UserError, match="split=test"):
        load_images(data(), "test")


def test_a_table_may_have_moved_and_have_no_validation_rows(tmp_path):
    rows = [f"{label},{16 * i + label} 0 0 9,Training" for i in range(10) for label in range(7)]
    file = tmp_path / "moved.csv"
    file.write_text("\n".join(["emotion,pixels,Usage", *rows]))
    own = {"_target_": f"{CsvDataModule.__module__}.CsvDataModule", "file": str(tmp_path / "gone.csv")}
    trained = model(**own, val_fraction=0.2)
    images = load_images(build_data(trained, {"file": str(file)}), "validation")
    assert images.split.name == "selection"
    assert (len(images.evaluated), len(images.train)) == (14, 56)
    with pytest.raises(UserError, match=r"data\.file=FILE"):
        load_images(build_data(trained, {}), "validation")


def test_a_given_key_replaces_no_other_key_of_its_group(faces):
    own = model(root=str(faces), ferplus={"file": "gone.csv", "labels": "votes"})
    assert build_data(own, {"ferplus": {"file": "moved.csv"}}).ferplus == {"file": "moved.csv", "labels": "votes"}


def test_a_given_root_replaces_synthetic_images(faces):
    target = f"{SyntheticDataModule.__module__}.SyntheticDataModule"
    own = model(_target_=target, train=70, validation=35, generator_seed=0)
    assert isinstance(build_data(own, {"on_unreadable": "skip"}), SyntheticDataModule)
    given = build_data(own, {"root": str(faces)})
    assert (type(given), given.root) == (FolderDataModule, str(faces))
    with pytest.raises(UserError, match=r"data\._target_=os\.system"):
        build_data(model(_target_="os.system"), {})


def test_classes_size_and_color_are_those_of_the_network(faces):
    classes = CLASSES[::-1]
    own = model(classes, (3, 20, 20), root=str(faces))
    images = load_images(build_data(own, {}), "validation").evaluated
    assert (images.classes, images.image_shape) == (classes, (3, 20, 20))


def test_data_with_other_classes_is_refused(faces):
    own = model((*CLASSES[:6], "contempt"), root=str(faces))
    with pytest.raises(UserError, match="contempt"):
        load_images(build_data(own, {}), "validation")


def test_copies_of_images_are_counted_but_not_of_blank_ones(data, faces, tmp_path):
    root = tmp_path / "faces"
    shutil.copytree(faces, root)
    shutil.copy(root / "train/sad/00001.png", root / "validation/fear/copy.png")
    for split in ("train", "validation"):
        Image.new("L", (48, 48), 7).save(root / split / CLASSES[0] / "blank.png")
    images = load_images(data(root=str(root)), "validation")
    assert count_copies(images.evaluated, images.train) == 1
    assert count_copies(images.evaluated, images.evaluated) == len(images.evaluated) - 1
