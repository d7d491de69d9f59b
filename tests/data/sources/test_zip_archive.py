"""A zip archive of class folders is read like the folders."""

import shutil
import zipfile

import pytest

from fer_exp.data.sources import class_folders
from fer_exp.data.sources.class_folders import FolderDataModule
from fer_exp.errors import UserError


def load(root, **settings):
    data = FolderDataModule(**{"root": root, "batch_size": 1, "seed": 0, **settings})
    data.setup()
    return data


@pytest.mark.parametrize("base", ["", "faces", "archive/images"])
def test_an_archive_has_the_images_of_its_folders(data_root, tmp_path, base):
    (data_root / "train/sad/notes.txt").touch()
    (data_root / "train/__MACOSX").mkdir()
    shutil.copy(data_root / "train/sad/000.png", data_root / "train/__MACOSX/000.png")
    (tmp_path / "wrapped").mkdir()
    shutil.copytree(data_root, tmp_path / "wrapped" / base, dirs_exist_ok=True)
    archive = shutil.make_archive(tmp_path / "archive", "zip", tmp_path / "wrapped")
    folders, zipped = load(data_root), load(archive)
    for name in ("train_set", "val_set"):
        assert getattr(zipped, name).fingerprint == getattr(folders, name).fingerprint
    assert [name.rpartition("images/")[2] for name in zipped.train_set.names] == [*folders.train_set.names]
    assert load(archive).train_set.fingerprint == zipped.train_set.fingerprint


def write(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_a_changed_archive_is_read_again_and_folders_can_be_ignored(data_root, tmp_path):
    members = {f"train/{path.parent.name}/{path.name}": path.read_bytes() for path in data_root.glob("train/*/*")}
    archive = write(tmp_path / "set.zip", members)
    before = load(archive, val_fraction=0.34)
    sad, fear = "train/sad/000.png", "train/fear/000.png"
    write(archive, {**members, sad: members[fear], fear: members[sad]})
    after = load(archive, val_fraction=0.34)
    assert before.train_set.names == after.train_set.names
    assert [before.train_set.fingerprint, before.val_set.fingerprint] != [
        after.train_set.fingerprint,
        after.val_set.fingerprint,
    ]
    assert "sad" not in load(archive, val_fraction=0.34, ignore=["sad"]).train_set.classes


def test_unreadable_members_are_listed(data_root, tmp_path, monkeypatch):
    members = {f"train/{path.parent.name}/{path.name}": path.read_bytes() for path in data_root.glob("train/*/*")}
    archive = write(
        tmp_path / "set.zip", {**members, "train/sad/bomb.png": bytes(10**6)}, compression=zipfile.ZIP_STORED
    )
    content = archive.read_bytes()
    damaged = members["train/fear/001.png"]
    archive.write_bytes(content.replace(damaged, damaged[:100] + b"?" + damaged[101:]))
    monkeypatch.setattr(class_folders, "MAX_IMAGE_BYTES", 10**5)
    with pytest.raises(UserError, match=r"(?s)2 images cannot be read.*fear/001\.png.*CRC.*bomb\.png: too large"):
        load(archive, val_fraction=0.34)
    assert load(archive, val_fraction=0.34, on_unreadable="skip").skipped["train"]["unreadable"] == 2


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"../train/sad/1.png": b""}, "unsafe path"),
        ({"/train/sad/1.png": b""}, "unsafe path"),
        ({"notes.txt": b""}, "no train/ and validation/"),
        ({"train/sad/1.png": b"", "train/fear/1.png": b""}, r"data\.val_fraction"),
    ],
)
def test_other_archives_are_refused(tmp_path, members, said):
    with pytest.raises(UserError, match=rf"data\.root=.*{said}"):
        load(write(tmp_path / "set.zip", members))


def test_a_truncated_archive_is_refused(data_root, tmp_path):
    archive = tmp_path / "set.zip"
    write(archive, {"train/sad/1.png": bytes(1000)})
    archive.write_bytes(archive.read_bytes()[:500])
    with pytest.raises(UserError, match=r"data\.root=.*this is a file"):
        load(archive)
