"""What a run gets from a folder of images, and what its log and its errors report."""

import logging
import shutil

import lightning as L
import pytest
import torch
from PIL import Image

from fer_exp.data import cache
from fer_exp.data.annotations import format_exclusion, write_exclusions
from fer_exp.data.classes import FER_CLASSES
from fer_exp.data.dataset import MemmapImages
from fer_exp.data.sources.class_folders import FolderDataModule
from fer_exp.data.sources.synthetic import SyntheticDataModule
from fer_exp.errors import UserError


@pytest.fixture(autouse=True)
def log_all(caplog):
    caplog.set_level(logging.INFO)


@pytest.fixture
def load(data_root):
    """Set up a data module: ``load(val_fraction=0.2)``."""

    def setup(**settings):
        data = FolderDataModule(**{"root": data_root, "batch_size": 4, "seed": 0, **settings})
        data.setup()
        return data

    return setup


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_images_labels_and_counts_are_those_of_the_folders(load, data_root, caplog):
    (data_root / "train/sad/001.png").unlink()
    data = load()
    assert data.train_set.counts == [3, 3, 3, 3, 3, 2, 3]
    assert data.val_set.counts == [2] * 7
    assert data.val_set.names[2:4] == ("validation/disgust/000.png", "validation/disgust/001.png")
    for dataset in (data.train_set, data.val_set):
        assert (dataset.classes, dataset.image_shape) == (FER_CLASSES, (1, 48, 48))
        for image, label, name in zip(dataset.images, dataset.labels, dataset.names, strict=True):
            assert FER_CLASSES[label] == name.split("/")[1]
            assert bytes(image.numpy()) == Image.open(data_root / name).tobytes()
    assert caplog.messages[0] == "34 images of 48x48 gray."
    table = [line.split() for line in caplog.messages[3:]]
    assert table[0] == ["class", "train", "validation"]
    assert table[6] == ["sad", "2", "2"]
    assert warnings(caplog) == []
    data.setup()
    assert len(caplog.messages) == 11


def test_names_of_the_seven_classes_do_not_matter(load, data_root):
    before = load()
    (data_root / "train/happy").rename(data_root / "train/Happiness")
    (data_root / "train/sad").rename(data_root / "train/SAD")
    (data_root / "train/Sadness").mkdir()
    (data_root / "train/SAD/001.png").rename(data_root / "train/Sadness/001.png")
    assert load().train_set.fingerprint == before.train_set.fingerprint


def test_other_classes_sizes_and_colors(tmp_path, make_split, caplog):
    for split in ("train", "validation"):
        make_split(tmp_path / "set" / split, 3, ("1", "2", "10"))
    settings = {"root": tmp_path / "set", "batch_size": 2, "seed": 0, "image_size": 32, "color": "rgb"}
    data = FolderDataModule(**settings)
    data.setup()
    assert data.train_set.classes == ("1", "2", "10")
    assert data.train_set.image_shape == (3, 32, 32)
    assert next(iter(data.train_dataloader()))[0].shape == (2, 3, 32, 32)
    assert "18 images of 48x48 gray become 32x32 RGB (stretch)." in caplog.messages
    assert warnings(caplog) == []
    FolderDataModule(**settings | {"image_size": 64}).setup()
    assert "18 of 18 images are smaller" in warnings(caplog)[0]
    named = FolderDataModule(**settings, class_names={"1": "fear", "2": "joy", "10": "awe"}, merge={"awe": "fear"})
    named.setup()
    assert (named.train_set.classes, named.val_set.counts) == (("fear", "joy"), [6, 3])
    ordered = FolderDataModule(**settings, classes=["10", "2", "1"])
    ordered.setup()
    assert (ordered.val_set.classes, ordered.val_set.counts) == (("10", "2", "1"), [3, 3, 3])
    with pytest.raises(UserError, match="none of the classes 1, 2: '10'"):
        FolderDataModule(**settings, classes=["1", "2"]).setup()
    skipping = FolderDataModule(**settings, classes=["1", "2"], ignore=["10"])
    skipping.setup()
    assert skipping.train_set.counts == [3, 3]


def test_a_class_without_images_in_one_split_is_refused(load, data_root, tmp_path, make_split):
    make_split(data_root / "train/new", 1, ("contempt",))
    shutil.move(data_root / "train/new/contempt", data_root / "train/contempt")
    shutil.rmtree(data_root / "train/new")
    with pytest.raises(UserError, match="validation: no images of contempt"):
        load()
    assert load(ignore="contempt").train_set.classes == FER_CLASSES
    write_exclusions(tmp_path / "list", [f"train/fear/{k:03}.png" for k in range(3)])
    with pytest.raises(UserError, match="train: no images of fear"):
        load(ignore=["contempt"], exclude=tmp_path / "list")


@pytest.mark.parametrize("batch_size", [0, -1, 22])
def test_a_batch_size_that_fills_no_batch_is_refused(load, batch_size):
    with pytest.raises(UserError, match=rf"data\.batch_size={batch_size}: expected 1 to 21"):
        load(batch_size=batch_size)
    assert len(load(batch_size=21).train_dataloader()) == 1


class Collector(L.LightningModule):
    """Records the batches that Lightning passes to the steps."""

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


def fit(data, **settings):
    collector = Collector()
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, **settings,
    )  # fmt: skip
    trainer.fit(collector, datamodule=data)
    return collector.batches


@pytest.mark.filterwarnings("ignore")  # Lightning's tips about workers and devices
def test_lightning_trains_on_all_batches_as_bytes(data_root):
    data = FolderDataModule(root=data_root, batch_size=4, seed=0)
    batches = fit(data, precision="bf16-true")  # would convert floating-point batches
    assert [len(labels) for _, labels in batches["train"]] == [4] * 5
    assert torch.equal(torch.cat([images for images, _ in batches["validation"]]), data.val_set.images)
    assert {images.dtype for images, _ in batches["train"] + batches["validation"]} == {torch.uint8}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("limit", [0.5, 2])
def test_a_limited_validation_has_the_class_proportions(data_root, limit):
    first, second = (
        fit(FolderDataModule(root=data_root, batch_size=3, seed=seed), limit_val_batches=limit)["validation"]
        for seed in (0, 1)
    )
    assert len({*torch.cat([labels for _, labels in first]).tolist()}) == 6  # 6 of 14 images, of 7 classes
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, second, strict=True))


def test_the_validation_fraction_replaces_the_validation_split(load, data_root):
    whole = load()
    data = load(val_fraction=0.3333)
    assert (data.train_set.counts, data.val_set.counts) == ([2] * 7, [1] * 7)
    assert {*data.train_set.names, *data.val_set.names} == {*whole.train_set.names}
    assert data.skipped.keys() == {"train"}
    # A fresh seed does not change it, and neither folder has to exist.
    shutil.move(data_root / "train", data_root.parent / "alone")
    shutil.rmtree(data_root)
    alone = load(root=data_root.parent / "alone", val_fraction=0.3333, seed=9)
    assert alone.val_set.fingerprint == data.val_set.fingerprint


@pytest.mark.parametrize(("val_fraction", "count"), [(0.05, 3), (0.95, 3), (0.5, 1)])
def test_a_validation_fraction_without_an_image_of_each_class_is_refused(tmp_path, make_split, val_fraction, count):
    make_split(tmp_path / "set/train", count)
    data = FolderDataModule(root=tmp_path / "set", batch_size=1, seed=0, val_fraction=val_fraction)
    with pytest.raises(UserError, match=rf"data\.val_fraction={val_fraction}: expected"):
        data.setup()


def test_other_splits_and_folders_have_the_same_classes(load, data_root, tmp_path, make_split):
    make_split(data_root / "test", 1)
    make_split(tmp_path / "other", 1, ("Happiness", *FER_CLASSES[:3], *FER_CLASSES[4:]))
    write_exclusions(tmp_path / "list", ["train/fear/001.png", "test/fear/000.png"])
    data = load(exclude=tmp_path / "list")
    assert data.load_split("test").counts == [1] * 7  # no test image is excluded
    assert data.load_split("validation").fingerprint == data.val_set.fingerprint
    other = data.load_folder("other", tmp_path / "other")
    assert (other.classes, other.counts) == (FER_CLASSES, [1] * 7)
    assert other.names[0] == f"{tmp_path}/other/angry/000.png"
    alone = FolderDataModule(root="", batch_size=1, seed=0).load_folder("other", tmp_path / "other")
    assert alone.fingerprint == other.fingerprint
    shutil.rmtree(data_root / "test")
    assert load().load_split("test") is None


def test_excluded_images_are_skipped_in_both_splits(load, data_root, tmp_path, caplog):
    names = ["train/sad/001.png", "validation/fear/000.png"]
    write_exclusions(tmp_path / "list", [*names, "validation/sad/gone.png"])
    data = load(exclude=tmp_path / "list")
    assert (data.train_set.counts[5], data.val_set.counts[2]) == (2, 1)
    assert data.skipped == {split: {"excluded": 1, "unreadable": 0} for split in ("train", "validation")}
    (warning,) = warnings(caplog)
    assert "1 of 3 lines" in warning
    assert "gone.png" in warning
    for name in names:
        (data_root / name).unlink()
    without = load()
    assert without.train_set.fingerprint == data.train_set.fingerprint
    assert without.val_set.fingerprint == data.val_set.fingerprint
    assert load(val_fraction=0.34, exclude=None).skipped["train"] == {"excluded": 0, "unreadable": 0}


def test_unreadable_images_are_refused_or_skipped_together(load, data_root, tmp_path, caplog):
    bad = ["train/fear/two\nlines.png", "train/sad/000.png", "train/sad/broken link.png"]
    for name in bad[:2]:
        (data_root / name).write_text("no image")
    (data_root / bad[2]).symlink_to("nowhere")
    with pytest.raises(UserError, match=r"(?s)3 images cannot be read:.*data\.on_unreadable=skip") as error:
        load()
    assert len(str(error.value).splitlines()) == 5
    assert r"two\nlines.png: not a JPEG" in str(error.value)
    data = load(on_unreadable="skip")
    assert data.skipped["train"] == {"excluded": 0, "unreadable": 3}
    assert len(data.train_set) == 20
    assert "No such file" in warnings(caplog)[0]
    write_exclusions(tmp_path / "list", map(format_exclusion, bad))
    excluded = load(exclude=tmp_path / "list")
    assert excluded.skipped["train"] == {"excluded": 3, "unreadable": 0}
    assert excluded.train_set.fingerprint == data.train_set.fingerprint


def test_soft_labels_replace_the_training_targets(load, tmp_path):
    lines = [f"file,{','.join(FER_CLASSES)}", "train/sad/000.png,1,0,0,0,0,3,0"]
    (tmp_path / "votes.csv").write_text("\n".join(lines))
    data = load(soft_labels=tmp_path / "votes.csv", batch_size=21)
    ((_, targets),) = data.train_dataloader()
    assert sorted(targets.max(dim=1).values.tolist()) == [0.75] + [1.0] * 20
    assert all(labels.dtype == torch.int64 for _, labels in data.val_dataloader())


def test_each_run_warns_of_duplicates_and_blank_images(load, data_root, caplog):
    load()
    shutil.copy(data_root / "train/sad/000.png", data_root / "train/sad/copy.png")  # harmless: same class
    load()
    assert warnings(caplog) == []
    shutil.copy(data_root / "validation/sad/000.png", data_root / "train/sad/leak.png")
    shutil.copy(data_root / "validation/sad/001.png", data_root / "train/fear/leak.png")
    shutil.copy(data_root / "train/happy/000.png", data_root / "train/neutral/copy.png")
    Image.new("L", (48, 48), 7).save(data_root / "train/angry/blank.png")
    for _ in range(2):
        load()
    warning, again = warnings(caplog)
    assert again == warning  # the record of each job of a sweep has it
    for part in (
        "2 training images are also in validation, 1 of",
        "2 training images have the same pixels as another one with another label",
        "1 image is",
        "fer_exp.audit",
    ):
        assert part in warning


@pytest.mark.parametrize(("limit", "in_memory", "on_disk"), [(10**9, "auto", False), (0, "auto", True),
                                                             (0, True, False), (10**9, False, True)])  # fmt: skip
@pytest.mark.parametrize("val_fraction", [0.0, 0.34])
def test_batches_from_disk_are_those_from_memory(load, tmp_path, monkeypatch, limit, in_memory, on_disk, val_fraction):
    monkeypatch.setattr(cache, "MAX_BYTES_IN_MEMORY", limit)
    write_exclusions(tmp_path / "list", ["train/sad/001.png"])
    settings = {"exclude": tmp_path / "list", "val_fraction": val_fraction, "seed": 5}
    data, expected = load(in_memory=in_memory, **settings), load(in_memory=True, **settings)
    assert isinstance(data.train_set.images, MemmapImages) == on_disk
    assert data.val_set.fingerprint == expected.val_set.fingerprint
    for epoch in (0, 1):
        for loader in ("train_dataloader", "val_dataloader"):
            batches, others = getattr(data, loader)(), getattr(expected, loader)()
            if loader == "train_dataloader":
                batches.sampler.set_epoch(epoch)
                others.sampler.set_epoch(epoch)
            assert len(batches) == len(others)
            for batch, other in zip(batches, others, strict=True):
                assert all(torch.equal(*pair) for pair in zip(batch, other, strict=True))


def synthetic(**changes):
    settings = {"train": 14, "validation": 7, "generator_seed": 0, "batch_size": 4, "seed": 0, **changes}
    data = SyntheticDataModule(**settings)
    data.setup()
    return data


def test_synthetic_images_are_written_once(cache_dir, caplog):
    first = synthetic()
    written = {path: path.stat().st_mtime_ns for path in cache_dir.rglob("*.png")}
    assert len(written) == 21
    assert synthetic().train_set.fingerprint == first.train_set.fingerprint
    assert {path: path.stat().st_mtime_ns for path in cache_dir.rglob("*.png")} == written
    others = [synthetic(generator_seed=1), synthetic(train=15)]
    assert len({data.train_set.fingerprint for data in (first, *others)}) == 3


@pytest.mark.parametrize("changes", [{"train": 6}, {"validation": 0}])
def test_too_few_synthetic_images_are_refused(changes):
    with pytest.raises(UserError, match=r"data\.train=.* data\.validation="):
        synthetic(**changes)


def test_synthetic_images_without_a_cache_are_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"data\.cache_dir"):
        synthetic(cache_dir=tmp_path / "file")


def test_an_audit_of_data_whose_images_are_all_excluded_is_refused(data_root, tmp_path):
    write_exclusions(tmp_path / "list", [path.relative_to(data_root).as_posix() for path in data_root.rglob("*.png")])
    data = FolderDataModule(root=data_root, batch_size=1, seed=0, exclude=tmp_path / "list")
    with pytest.raises(UserError, match=r"no image is left.*data\.exclude"):
        data.load_for_audit()
