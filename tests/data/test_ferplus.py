"""FER+ labels: the rules of the published code, and the rows that images belong to."""

import csv
import io
import os

import numpy as np
import pytest
import torch
from PIL import Image

from fer_exp.data import ferplus as module
from fer_exp.data.classes import FER_CLASSES, fer_class
from fer_exp.data.dataset import ImageDataset, hash_images
from fer_exp.data.decode import parse_pixels
from fer_exp.data.ferplus import COLUMNS, EMOTIONS, FerPlus, open_ferplus
from fer_exp.data.sources.class_folders import FolderDataModule
from fer_exp.data.sources.synthetic import draw_images
from fer_exp.data.sources.table import CsvDataModule
from fer_exp.errors import UserError

# Rows of fer2013new.csv, and what the published code makes of them: the label (majority), and votes / all votes that
# count (crossentropy); None where the image is excluded.
ROWS = [
    ("Training", "fer0000000.png", (4, 0, 0, 1, 3, 2, 0, 0, 0, 0), None, {"neutral": 4, "angry": 3, "disgust": 2}),
    ("Training", "fer0000003.png", (4, 0, 0, 4, 1, 0, 0, 0, 1, 0), None, {"neutral": 4, "sad": 4}),
    ("Training", "fer0000004.png", (9, 0, 0, 1, 0, 0, 0, 0, 0, 0), "neutral", {"neutral": 9}),
    ("Training", "", (0, 0, 0, 0, 0, 0, 0, 0, 0, 10), None, None),  # not a face
    ("Training", "fer0000009.png", (0, 0, 6, 0, 0, 0, 4, 0, 0, 0), "surprise", {"surprise": 6, "fear": 4}),
    ("PublicTest", "fer0028710.png", (1, 1, 1, 1, 1, 1, 1, 1, 1, 1), None, None),  # single votes are ignored
    ("PublicTest", "fer0028711.png", (2, 0, 0, 1, 0, 0, 0, 7, 0, 0), "contempt", {"contempt": 7}),
    ("PublicTest", "fer0028712.png", (0, 0, 2, 0, 0, 0, 0, 0, 8, 0), None, None),  # unknown
    ("PublicTest", "fer0028713.png", (6, 0, 0, 0, 0, 0, 0, 0, 4, 0), "neutral", {"neutral": 6}),
    ("PrivateTest", "fer0032299.png", (2, 2, 2, 2, 0, 0, 2, 0, 0, 0), None, None),  # more than three emotions
    ("PrivateTest", "fer0032300.png", (5, 0, 0, 0, 0, 0, 0, 5, 0, 0), None, {"neutral": 5, "contempt": 5}),
    ("PrivateTest", "fer0032301.png", (3, 0, 0, 0, 0, 0, 0, 5, 0, 0), "contempt", {"neutral": 3, "contempt": 5}),
]
IMAGES = draw_images(np.arange(len(ROWS)) % 7, [[9, k] for k in range(len(ROWS))])


@pytest.fixture
def file(tmp_path):
    """Path of a small ``fer2013new.csv``."""
    with (tmp_path / "fer2013new.csv").open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["Usage", "Image name", *COLUMNS])
        writer.writerows([usage, name, *votes] for usage, name, votes, _, _ in ROWS)
    return tmp_path / "fer2013new.csv"


@pytest.fixture
def fer2013(tmp_path):
    """Path of the ``fer2013.csv`` with the same rows."""
    with (tmp_path / "fer2013.csv").open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["emotion", " pixels", " Usage"])
        for image, row in zip(IMAGES, ROWS, strict=True):
            writer.writerow([0, " ".join(map(str, image.ravel())), row[0]])
    return tmp_path / "fer2013.csv"


def decoded(names, images=IMAGES[:, None]):
    images = torch.from_numpy(np.ascontiguousarray(images))
    names = tuple(names)
    labels = torch.zeros(len(names), dtype=torch.int64)
    return ImageDataset(images, labels, ("angry",), names, hash_images(images))


def ferplus(file, *settings, **more):
    return FerPlus(file, *settings, **more, cache_dir=file.parent)


def by_line(*usages):
    """The splits of a CSV source that have these rows."""
    rows = [i for i, row in enumerate(ROWS) if row[0] in usages]
    return decoded([f"fer2013.csv:{i + 2}" for i in rows], IMAGES[rows][:, None])


@pytest.mark.parametrize("source", ["names", "pixels"])
def test_majority_labels(file, fer2013, source):
    if source == "names":
        labels, images = ferplus(file), decoded([f"FER2013Train/{row[1] or 'none.png'}" for row in ROWS])
    else:
        labels, images = ferplus(file, fer2013=fer2013), decoded([f"angry/{i}.jpg" for i in range(len(ROWS))])
    found = labels.relabel(images, "train")
    expected = {i: row[3] for i, row in enumerate(ROWS) if row[3]}
    assert [found.classes[label] for label in found.labels] == list(expected.values())
    assert found.names == tuple(images.names[i] for i in expected)
    assert (found.images.numpy()[:, 0] == IMAGES[list(expected)]).all()
    assert (found.digests == hash_images(found.images)).all()
    assert found.soft_labels is None


@pytest.mark.parametrize("contempt", [True, False])
def test_votes(file, contempt):
    found = ferplus(file, "votes", contempt).relabel(by_line("PrivateTest"), "test")
    names = ("neutral", "contempt") if contempt else ("neutral",)
    assert found.classes == names
    rows = [row[4] for row in ROWS if row[0] == "PrivateTest" and row[4]]
    if not contempt:
        rows = [{"neutral": 5}]  # contempt comes first in the other row
    expected = np.array([[row.get(name, 0) / sum(row.values()) for name in names] for row in rows])
    assert found.soft_labels == pytest.approx(expected)
    assert (found.labels == expected.argmax(1)).all()


def test_rows_are_matched_by_their_lines(file):
    for usage, split in (("Training", "train"), ("PublicTest", "validation"), ("PrivateTest", "test")):
        found = ferplus(file).relabel(by_line(usage), split)
        assert [found.classes[i] for i in found.labels] == [row[3] for row in ROWS if row[0] == usage and row[3]]


@pytest.mark.parametrize("change", ["jpeg", "large", "color"])
def test_pixels_are_matched_after_compression_and_resizing(file, fer2013, change):
    order = np.random.default_rng(0).permutation(len(ROWS))
    images = []
    for pixels in IMAGES[order]:
        image = Image.fromarray(pixels)
        if change == "jpeg":
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=85)
            image = Image.open(buffer)
        elif change == "large":
            image = image.resize((112, 112), Image.Resampling.BILINEAR)
        image = image.convert("RGB" if change == "color" else "L")
        images.append(np.atleast_3d(image).transpose(2, 0, 1))
    found = ferplus(file, fer2013=fer2013).relabel(decoded([f"{i}" for i in order], np.stack(images)), "train")
    assert [(int(name), found.classes[i]) for name, i in zip(found.names, found.labels, strict=True)] == [
        (i, ROWS[i][3]) for i in order if ROWS[i][3]
    ]


def test_pixels_are_matched_once(file, fer2013, monkeypatch):
    images = decoded(map(str, range(len(ROWS))))
    expected = ferplus(file, fer2013=fer2013).relabel(images, "train")
    read = []
    monkeypatch.setattr(module, "parse_pixels", lambda text: read.append(text) or parse_pixels(text))
    again = ferplus(file, fer2013=fer2013).relabel(images, "train")
    assert (again.names, again.classes, read) == (expected.names, expected.classes, [])
    assert (again.labels == expected.labels).all()
    # Other images, a changed table and a damaged cache are matched again.
    some = decoded(map(str, range(8)), IMAGES[:8, None])
    assert len(ferplus(file, fer2013=fer2013).relabel(some, "train").names) == sum(bool(row[3]) for row in ROWS[:8])
    os.utime(fer2013, ns=(0, 0))
    assert ferplus(file, fer2013=fer2013).relabel(images, "train").names == expected.names
    for cached in file.parent.glob("ferplus-*.npy"):
        cached.write_bytes(cached.read_bytes()[:40])
    assert ferplus(file, fer2013=fer2013).relabel(images, "train").names == expected.names
    assert len(read) == 3 * len(ROWS)


def test_other_images_are_excluded(file, fer2013):
    others = draw_images(np.arange(5), [[8, k] for k in range(5)])
    images = decoded(map(str, range(len(ROWS) + 5)), np.concatenate([others, IMAGES])[:, None])
    found = ferplus(file, fer2013=fer2013).relabel(images, "train")
    assert set(found.names) == {str(i + 5) for i, row in enumerate(ROWS) if row[3]}
    with pytest.raises(UserError, match=r"fer2013\.csv"):
        ferplus(file, fer2013=fer2013).relabel(decoded("01234", others[:, None]), "train")


@pytest.mark.parametrize("names", [["1.jpg", "2.jpg"], ["fer2013.csv:12", "fer2013.csv:13"], ["fer2013.csv:900"]])
def test_images_of_other_rows_are_refused(file, names):
    with pytest.raises(UserError, match=r"data\.ferplus"):
        ferplus(file).relabel(decoded(names, IMAGES[: len(names), None]), "train")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("", "Usage"),
        ("Usage,Image name,neutral\nTraining,a.png,1\n", "happiness"),
        (",".join(["Usage", "Image name", *COLUMNS]) + "\n", "no rows"),
        (",".join(["Usage", "Image name", *COLUMNS]) + "\nTraining,a.png" + ",many" * 10 + "\n", "fer2013new.csv"),
        (",".join(["Usage", "Image name", *COLUMNS]) + "\nTraining,a.png" + ",-1" * 10 + "\n", "negative"),
        (",".join(["Usage", "Image name", *COLUMNS]) + "\nTraining,a.png,1,2\n", "fer2013new.csv"),
        (",".join(["Usage", "Image name", *COLUMNS]) + "\nOther,a.png" + ",1" * 10 + "\n", "Other"),
    ],
    ids=["absent", "empty", "columns", "no rows", "text", "negative", "short row", "usage"],
)
def test_other_files_are_refused(tmp_path, content, said):
    if content is not None:
        (tmp_path / "votes.csv").write_text(content)
    with pytest.raises(UserError, match=said):
        ferplus(tmp_path / "votes.csv")


def test_fer2013_with_other_rows_is_refused(file, fer2013):
    fer2013.write_text("".join(fer2013.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match=f"{len(ROWS) - 1} rows"):
        ferplus(file, fer2013=fer2013).relabel(decoded(map(str, range(len(ROWS)))), "train")


@pytest.fixture
def fer_folders(tmp_path):
    """Class folders of 112 training and 56 test images with FER+'s file names, and their ``fer2013new.csv``.

    Image k has the votes 6 for emotion k % 8 and 4 for the next one.
    """
    rows = []
    for usage, split, start, n in (("Training", "train", 0, 112), ("PrivateTest", "test", 112, 56)):
        for k in range(start, start + n):
            votes = np.zeros(10, int)
            votes[k % 8], votes[(k + 1) % 8] = 6, 4
            rows.append([usage, f"fer{k:07d}.png", *votes])
        images = draw_images(np.arange(n) % 7, [[start, k] for k in range(n)])
        for k, image in enumerate(images, start):
            folder = tmp_path / "fer" / split / FER_CLASSES[k % 7]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"fer{k:07d}.png")
    with (tmp_path / "votes.csv").open("w", newline="") as lines:
        csv.writer(lines).writerows([["Usage", "Image name", *COLUMNS], *rows])
    return tmp_path


def make_module(folder, **settings):
    return FolderDataModule(
        root=folder / "fer",
        batch_size=8,
        seed=0,
        val_fraction=0.25,
        cache_dir=folder / "cache",
        ferplus={"file": str(folder / "votes.csv"), **settings},
        merge={"contempt": "disgust"} if settings.get("contempt", True) else None,
    )


def setup(folder, **settings):
    data = make_module(folder, **settings)
    data.setup()
    return data


def test_data_module_serves_ferplus_labels(fer_folders):
    data = setup(fer_folders, labels="votes")
    assert data.train_set.classes == FER_CLASSES  # contempt is merged
    assert len(data.train_set) + len(data.val_set) == 112
    for dataset in (data.train_set, data.val_set, data.load_split("test")):
        emotions = [fer_class(name) or "disgust" for name in EMOTIONS]
        for name, label, target in zip(dataset.names, dataset.labels, dataset.soft_labels, strict=True):
            k = int(name[-11:-4])
            expected = np.zeros(7)
            for vote, emotion in ((0.6, emotions[k % 8]), (0.4, emotions[(k + 1) % 8])):
                expected[FER_CLASSES.index(emotion)] += vote
            assert target.numpy() == pytest.approx(expected)
            assert FER_CLASSES[label] == emotions[k % 8]


def test_data_module_without_contempt(fer_folders):
    data = setup(fer_folders, contempt=False)
    assert data.train_set.classes == FER_CLASSES
    assert data.train_set.soft_labels is None
    assert len(data.train_set) + len(data.val_set) == 98


def test_csv_table_with_ferplus(file, fer2013, tmp_path):
    data = CsvDataModule(
        file=str(fer2013), batch_size=1, seed=0, cache_dir=tmp_path / "cache", ferplus={"file": str(file)},
        merge={"contempt": "surprise"}, classes=["neutral", "surprise"],
    )  # fmt: skip
    data.setup()
    assert [
        (name, data.train_set.classes[i]) for name, i in zip(data.train_set.names, data.train_set.labels, strict=True)
    ] == [
        ("fer2013.csv:4", "neutral"),
        ("fer2013.csv:6", "surprise"),
    ]
    assert data.val_set.names == ("fer2013.csv:8", "fer2013.csv:10")
    assert data.val_set.labels.tolist() == [1, 0]


def labeled(dataset):
    return [(name, dataset.classes[i]) for name, i in zip(dataset.names, dataset.labels, strict=True)]


def test_an_audit_has_the_images_and_labels_of_a_training(fer_folders):
    data = setup(fer_folders, contempt=False)
    audited = make_module(fer_folders, contempt=False).load_for_audit()
    trained = {name: label for part in (data.train_set, data.val_set) for name, label in labeled(part)}
    assert dict(labeled(audited["train"])) == trained


@pytest.mark.parametrize("settings", [{"labels": "votes"}, {"fer2013": "fer2013.csv"}, {"contempt": False}])
def test_keys_without_a_file_are_refused(tmp_path, settings):
    defaults = {"file": None, "labels": "majority", "contempt": True, "fer2013": None}
    with pytest.raises(UserError, match=next(iter(settings))):
        open_ferplus({**defaults, **settings}, tmp_path)
    assert open_ferplus(defaults, tmp_path) is None
