"""The images of an evaluation, by the names of their splits."""

import shutil

import pytest
from PIL import Image

from fer_exp.data.classes import FER_CLASSES as CLASSES
from fer_exp.data.datamodule import FolderDataModule, SyntheticDataModule
from fer_exp.errors import UserError
from fer_exp.evaluation.images import FOLDERS, build_data, count_copies, load_images

SETTINGS = {"_target_": FOLDERS, "batch_size": 10, "seed": 0}


@pytest.fixture
def data(faces):
    """The data of a run, with settings in place of its own: ``data(val_fraction=0.2)``."""

    def make(**given):
        return build_data({**SETTINGS, "root": str(faces)}, given)

    return make


def test_each_split_is_what_the_run_saw_under_that_name(data, faces):
    assert len({load_images(data(), name).evaluated.fingerprint for name in ("validation", "selection")}) == 1
    held_out = {name: load_images(data(val_fraction=0.2), name) for name in ("train", "selection", "validation")}
    assert {name: len(images.evaluated) for name, images in held_out.items()} == {
        "train": 56,
        "selection": 14,
        "validation": 35,
    }
    assert held_out["selection"].folder == held_out["train"].folder == faces / "train"
    validation = held_out["validation"]
    assert validation.evaluated.fingerprint == load_images(data(), "validation").evaluated.fingerprint
    assert validation.selection.fingerprint == held_out["selection"].evaluated.fingerprint
    assert {*validation.train.names}.isdisjoint(validation.selection.names)


def test_a_folder_goes_by_the_name_that_it_has(data, faces):
    assert load_images(data(), str(faces / "validation")).split == "validation"
    assert load_images(data(), str(faces / "train") + "/").split == "train"


def test_a_test_folder_beside_the_others_is_found_and_taken_whole(faces, tmp_path):
    root = tmp_path / "faces"
    shutil.copytree(faces, root)
    shutil.copytree(root / "validation", root / "Test")
    (tmp_path / "exclude.txt").write_text("Test/happy/00000.png\nvalidation/happy/00000.png\n")
    given = {"root": str(root), "exclude": str(tmp_path / "exclude.txt")}
    by_name = load_images(build_data({}, given), "test")
    assert (by_name.folder, len(by_name.evaluated), len(by_name.selection)) == (root / "Test", 35, 34)
    assert load_images(build_data({}, given), str(root / "Test")).split == "test"


def test_a_test_folder_in_place_of_validation_is_reported_on_by_its_name_alone(faces, tmp_path):
    root = tmp_path / "kaggle"
    shutil.copytree(faces, root)
    (root / "validation").rename(root / "test")
    held_out = build_data({**SETTINGS, "root": str(root)}, {"val_fraction": 0.2})
    for name in ("test", str(root / "test")):
        assert load_images(held_out, name).split == "test"
    with pytest.raises(UserError, match=r"split=validation.*split=selection"):
        load_images(held_out, "validation")
    # Without images held out it is what the run was selected on, also where a list leaves some of them out.
    (tmp_path / "exclude.txt").write_text("test/happy/00000.png\n")
    for given in ({}, {"exclude": str(tmp_path / "exclude.txt")}):
        selected = build_data({**SETTINGS, "root": str(root)}, given)
        assert load_images(selected, "validation").split == "validation"
        for name in ("test", str(root / "test")):
            with pytest.raises(UserError, match="split=test: the run was validated on"):
                load_images(selected, name)


def test_soft_labels_that_have_gone_are_not_missed(faces):
    settings = {**SETTINGS, "root": str(faces), "soft_labels": "gone.csv", "balanced_sampling": True}
    assert len(load_images(build_data(settings, {}), "validation").evaluated) == 35


def test_a_folder_alone_is_enough_and_nothing_else_is_known(faces):
    images = load_images(build_data({}, {}), str(faces / "validation"))
    assert (len(images.evaluated), images.train, images.selection) == (35, None, None)


def test_a_run_s_own_data_need_not_be_there_for_others(faces, tmp_path, caplog):
    caplog.set_level("INFO")
    gone = build_data({**SETTINGS, "root": str(tmp_path / "gone")}, {})
    assert len(load_images(gone, str(faces / "validation")).evaluated) == 35
    assert str(tmp_path / "gone") in caplog.text
    with pytest.raises(UserError, match=r"data\.root=DIR"):
        load_images(gone, "validation")
    with pytest.raises(UserError, match="gone"):  # one that a person gave is another matter
        load_images(build_data(SETTINGS, {"root": str(tmp_path / "gone")}), str(faces / "validation"))


def test_the_batches_of_the_training_do_not_matter(faces):
    data = build_data({**SETTINGS, "batch_size": 4096, "root": str(faces)}, {})
    assert len(load_images(data, "validation").evaluated) == 35


@pytest.mark.parametrize(
    ("split", "known", "message"),
    [
        ("validation", False, "data.root=DIR"),
        ("test", True, "split=test"),
        ("nowhere", True, "split=nowhere"),
        ("nowhere", False, "split=nowhere"),
    ],
)
def test_a_split_that_is_not_there_is_refused(data, split, known, message):
    with pytest.raises(UserError, match=message):
        load_images(data() if known else build_data({}, {}), split)


def test_settings_that_are_given_take_the_place_of_the_runs(faces):
    drawn = {"_target_": f"{SyntheticDataModule.__module__}.SyntheticDataModule", "train": 70, "validation": 35}
    drawn |= {"generator_seed": 0, "batch_size": 10, "seed": 0}
    assert isinstance(build_data(drawn, {"on_unreadable": "skip"}), SyntheticDataModule)
    elsewhere = build_data(drawn, {"root": str(faces)})
    assert (type(elsewhere), elsewhere.root) == (FolderDataModule, str(faces))
    with pytest.raises(UserError, match=r"data\._target_=os\.system"):
        build_data({"_target_": "os.system"}, {})


def test_exact_copies_are_counted_and_blank_images_are_none(data, faces, tmp_path):
    root = tmp_path / "faces"
    shutil.copytree(faces, root)
    shutil.copy(root / "train/sad/00001.png", root / "validation/fear/copy.png")
    for split in ("train", "validation"):
        Image.new("L", (48, 48), 7).save(root / split / CLASSES[0] / "blank.png")
    images = load_images(data(root=str(root)), "validation")
    assert count_copies(images.evaluated, images.train) == 1
    assert count_copies(images.evaluated, images.evaluated) == len(images.evaluated) - 1
