"""What an audit finds in datasets with known faults."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image, ImageEnhance

from fer_exp.data import audit as audit_module
from fer_exp.data import decode
from fer_exp.data.annotations import read_exclusions
from fer_exp.data.audit import (
    CONSTANT_RANGE,
    audit_datasets,
    is_constant,
    near_duplicates,
)
from fer_exp.data.audit_report import (
    MAX_TILES,
    describe_audit,
    exclusion_list,
    finding_sheets,
    findings_table,
    format_audit,
    imbalance,
)
from fer_exp.data.sources.class_folders import FolderDataModule
from fer_exp.data.sources.synthetic import CLASSES, draw_images
from fer_exp.plots.style import render, use_theme


def draw(seed: int, expression: str = "happy") -> Image.Image:
    return Image.fromarray(draw_images(np.array([CLASSES.index(expression)]), [[seed]])[0])


def audit(root, distance=8, correlation=0.9, size=48, **settings):
    """Audit the class folders in ``root``."""
    data = FolderDataModule(root=root, batch_size=1, seed=0, image_size=size, **settings)
    return audit_datasets(data.load_for_audit(), distance, correlation)


@pytest.fixture
def put(tmp_path):
    """``put("train/sad/1.png", image)`` saves an image, or bytes, in the dataset."""

    def save(name, content, **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content) if isinstance(content, bytes) else content.save(path, **options)

    return save


@pytest.fixture
def root(put, tmp_path):
    """Five different images per split, without a finding."""
    for k in range(5):
        put(f"train/happy/{k}.png", draw(k))
        put(f"validation/sad/{k}.png", draw(100 + k, "sad"))
    return tmp_path


def names(found, images):
    return [found.names[i] for i in sorted(images)]


def findings(found):
    return {row: cells for row, cells in findings_table(found).items() if any(cells)}


def proposed(found):
    return [line for line in exclusion_list(found) if not line.startswith("#")]


FORMATS = [{}, {"size": 32, "color": "rgb"}, {"size": 100, "color": "rgb", "resize": "pad"}]


@pytest.mark.parametrize("image_format", FORMATS, ids=str)
def test_different_images_have_no_findings(root, image_format):
    found = audit(root, **image_format)
    enlarged = {"smaller than data.image_size": (5, 5)} if image_format.get("size") == 100 else {}
    assert findings(found) == enlarged
    assert proposed(found) == []


def test_unreadable_images_are_listed_with_the_reason(root, put):
    put("train/sad/whole.jpg", draw(7))
    content = (root / "train/sad/whole.jpg").read_bytes()
    put("train/sad/cut.jpg", content[: len(content) * 2 // 3])
    put("train/sad/text.jpg", b"no image")
    put("validation/sad/none.jpg", b"")
    (root / "train/sad/link.jpg").symlink_to("gone.jpg")
    found = audit(root)
    reasons = {name: reason for name, _, reason in found.unreadable}
    assert reasons.keys() == {
        "train/sad/cut.jpg",
        "train/sad/link.jpg",
        "train/sad/text.jpg",
        "validation/sad/none.jpg",
    }
    assert "truncated" in reasons["train/sad/cut.jpg"]
    assert findings(found) == {"unreadable": (3, 1)}


@pytest.mark.parametrize("shape", [(1, 1, 48, 48), (1, 3, 20, 20)])
@pytest.mark.parametrize(("span", "expected"), [(0, True), (CONSTANT_RANGE, True), (CONSTANT_RANGE + 1, False)])
def test_constant_images(shape, span, expected):
    images = np.full(shape, 200, np.uint8)
    images[:, :, 15, 7] += span
    images[:, 1:] -= 100  # the channels of a constant image may differ
    assert is_constant(images).tolist() == [expected]


def test_constant_images_are_not_duplicates(root, put):
    put("train/sad/black0.png", Image.new("L", (48, 48)))
    put("train/sad/black1.png", Image.new("L", (48, 48)))
    put("validation/sad/gray.jpg", Image.new("L", (48, 48), 90))
    assert findings(audit(root)) == {"constant": (2, 1)}


@pytest.mark.parametrize(("rows", "expected"), [(34, (1, 0)), (33, None)])
def test_images_of_mostly_one_gray_level(root, put, rows, expected):
    pixels = np.random.default_rng(0).integers(0, 200, (48, 48), dtype=np.uint8)
    pixels[:rows] = 255
    put("train/sad/notice.png", Image.fromarray(pixels))
    assert findings(audit(root)).get("mostly one gray level") == expected


def test_exact_duplicates_within_and_across_splits_and_classes(root, put):
    put("train/happy/again.bmp", draw(0))  # another file format
    put("train/sad/other_label.png", draw(1))
    put("validation/happy/leak.png", draw(2))
    put("validation/sad/again.png", draw(100, "sad"))
    found = audit(root)
    rows = {
        "duplicate in the other split": (1, 1),
        "duplicate with another label": (2, 0),
        "duplicate of an earlier image of the split": (2, 1),
    }
    assert findings(found) == {f"{kind} {row}": n for kind in ("exact", "exact or near") for row, n in rows.items()}
    described = {
        group["images"][0]["file"]: (group["across_splits"], group["contradictory"])
        for group in describe_audit(found)["exact_duplicates"]
    }
    assert [described[f"train/happy/{k}.png"] for k in range(3)] == [(False, False), (False, True), (True, False)]
    assert found.near == []


CHANGES = {
    "recompressed": lambda image, put: put("validation/happy/near.jpg", image, quality=40),
    "brighter": lambda image, put: put("validation/happy/near.png", ImageEnhance.Brightness(image).enhance(1.2)),
    "enlarged": lambda image, put: put("validation/happy/near.png", image.resize((200, 200), Image.Resampling.BICUBIC)),
    "cropped": lambda image, put: put("validation/happy/near.png", image.crop((1, 1, 48, 48))),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("image_format", [{}, {"size": 64, "color": "rgb"}], ids=str)
def test_the_same_photograph_is_found_after_a_change(root, put, change, image_format):
    CHANGES[change](draw(3), put)
    found = audit(root, **image_format)
    (near,) = found.near
    assert found.names[near.images[0]] == "train/happy/3.png"
    assert found.names[near.images[1]].startswith("validation/happy/near.")
    assert 0.9 <= near.correlation < 1
    assert findings_table(found)["exact or near duplicate in the other split"] == (1, 1)
    assert found.exact == []


def test_thresholds_of_near_duplicates_are_settings(root, put):
    put("validation/happy/near.jpg", draw(0), quality=20)
    (near,) = audit(root).near
    assert audit(root, correlation=near.correlation - 1e-4).near == [near]
    assert audit(root, correlation=near.correlation + 1e-4).near == []
    hashes = np.zeros((2, 64), np.bool_)
    hashes[1, :6] = True
    images = np.stack([np.asarray(draw(0)), np.asarray(ImageEnhance.Brightness(draw(0)).enhance(0.9))])
    assert near_duplicates(images, hashes, 5, 0.9) == ([], True)
    assert [pair[:3] for pair in near_duplicates(images, hashes, 6, 0.9)[0]] == [(0, 1, 6)]


def test_near_duplicates_include_the_exact_duplicates_of_both(root, put):
    put("train/sad/copy.png", draw(0))
    put("train/fear/near.jpg", draw(0), quality=40)
    put("validation/happy/near.jpg", draw(0), quality=30)
    found = audit(root)
    train = ["train/fear/near.jpg", "train/happy/0.png", "train/sad/copy.png"]
    assert findings_table(found)["exact or near duplicate in the other split"] == (3, 1)
    assert {tuple(names(found, near.images)) for near in found.near} == {
        (*train,),
        (*train[1:], "validation/happy/near.jpg"),
        (train[0], "validation/happy/near.jpg"),
    }


def test_pairs_are_those_of_a_comparison_of_all_hashes():
    rng = np.random.default_rng(0)
    centers = rng.random((40, 64)) < 0.5
    hashes = centers[rng.integers(40, size=1100)] ^ (rng.random((1100, 64)) < 0.06)
    pattern = rng.integers(0, 256, (4, 4), dtype=np.uint8)
    pairs, is_complete = near_duplicates(np.broadcast_to(pattern, (1100, 4, 4)), hashes, 7, 0.9)
    distances = (hashes[:, None] != hashes[None]).sum(2)
    expected = {(i, j): distances[i, j] for i, j in np.argwhere(distances <= 7).tolist() if i < j}
    assert is_complete
    assert {(first, second): distance for first, second, distance, _ in pairs} == expected
    assert len(expected) > 1000


def test_pixels_of_the_right_images_are_compared():
    images = np.random.default_rng(0).integers(0, 250, (1200, 8, 8), dtype=np.uint8)
    images[1190] = images[700] + 5
    pairs, _ = near_duplicates(images, np.zeros((1200, 64), np.bool_), 0, 0.99)
    assert pairs == [(700, 1190, 0, pytest.approx(1, abs=1e-5))]


def test_search_for_near_duplicates_stops(monkeypatch):
    monkeypatch.setattr(audit_module, "MAX_CANDIDATES", 10)
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8), dtype=np.uint8)
    assert near_duplicates(images[:5], np.zeros((5, 64), np.bool_), 0, 0.9) == ([], True)
    assert near_duplicates(images, np.zeros((10, 64), np.bool_), 0, 0.9)[1] is False


def test_sizes_modes_and_class_counts(root, put):
    put("train/sad/tiny.png", draw(50).resize((20, 20)))
    put("train/sad/long.png", draw(51).resize((300, 190)))
    put("train/sad/square_enough.png", draw(52).resize((300, 200)))
    put("validation/sad/color.png", draw(53).convert("RGB"))
    found = audit(root)
    described = describe_audit(found)
    assert (names(found, found.small), names(found, found.oblong)) == (["train/sad/tiny.png"], ["train/sad/long.png"])
    assert described["modes"] == {"L": 13, "RGB": 1}
    assert described["sizes"] == {"48x48": 11, "20x20": 1, "300x190": 1, "300x200": 1}
    assert findings_table(found)["unusual color mode"] == (0, 1)
    assert described["counts"]["sad"] == {"train": 3, "validation": 6}
    assert (imbalance(np.array([10, 5, 4])), imbalance(np.array([10, 0, 4]))) == (2.5, None)
    assert "20" not in format_audit(found)


def test_proposed_exclusions(root, put, tmp_path):
    put("train/angry/bad.jpg", b"no image")
    put("validation/angry/black.png", Image.new("L", (48, 48)))
    put("train/angry/leak.png", draw(100, "sad"))  # of validation, and another label
    put("train/sad/leak.png", draw(100, "sad"))
    put("train/angry/near_leak.jpg", draw(101, "sad"), quality=40)
    put("train/fear/0.png", draw(0))  # contradicts train/happy/0.png
    put("train/happy/1_again.png", draw(1))
    put("train/happy/2_near.jpg", draw(2), quality=40)  # stays
    put("validation/sad/again.png", draw(102, "sad"))  # stays
    notice = np.full((48, 48), 255, np.uint8)
    notice[:8] = np.random.default_rng(0).integers(0, 255, (8, 48))
    put("train/happy/notice.png", Image.fromarray(notice))  # stays, until someone has looked at it
    lines = exclusion_list(audit(root))
    reasons = dict(line.split("  # ") for line in lines if not line.startswith("#"))
    assert reasons.pop("train/angry/bad.jpg").startswith("unreadable: ")
    assert reasons == {
        "train/angry/leak.png": "exact duplicate of validation/sad/0.png",
        "train/angry/near_leak.jpg": "near duplicate of validation/sad/1.png",
        "train/fear/0.png": "exact duplicate of train/happy/0.png, which has another label",
        "train/happy/0.png": "exact duplicate of train/fear/0.png, which has another label",
        "train/happy/1_again.png": "exact duplicate of train/happy/1.png",
        "train/sad/leak.png": "exact duplicate of validation/sad/0.png",
        "validation/angry/black.png": "constant",
    }
    assert lines[-1] == "#train/happy/notice.png"
    (tmp_path / "list.txt").write_text("\n".join(lines))
    for name in read_exclusions(tmp_path / "list.txt"):
        (root / name).unlink()
        if not any((root / name).parent.iterdir()):
            (root / name).parent.rmdir()
    assert findings(audit(root)) == {
        "mostly one gray level": (1, 0),
        "exact duplicate of an earlier image of the split": (0, 1),
        "exact or near duplicate of an earlier image of the split": (1, 1),
    }


def test_worker_processes_find_the_same(root, put, monkeypatch):
    put("train/sad/text.jpg", b"no image")
    put("train/sad/copy.png", draw(0))
    put("train/sad/near.jpg", draw(1), quality=40)
    expected = describe_audit(audit(root))
    monkeypatch.setattr(decode, "_PARALLEL_FROM", 4)
    monkeypatch.setattr(decode, "CHUNK_SIZE", 3)
    assert describe_audit(audit(root)) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse or change such names")
def test_any_file_name_is_found_listed_and_drawn(root, put):
    odd = ["two\nlines.png", "a # b.png", " 'c' \"d\".png", "😀.png", os.fsdecode(b"\xff\xfe.png")]
    for k, name in enumerate(odd):
        put(f"train/sad/{name}", b"no image")
        put(f"train/happy/{name}", draw(k))
        put(f"validation/happy/{name}", draw(k))
    found = audit(root)
    described = json.loads(json.dumps(describe_audit(found)))
    assert sorted(entry["file"] for entry in described["unreadable"]) == sorted(f"train/sad/{name}" for name in odd)
    lines = exclusion_list(found)
    assert all(len(line.splitlines()) == 1 for line in lines)
    (root / "list").write_text("\n".join(lines), encoding="utf-8")
    expected = {f"train/{label}/{name}" for label in ("happy", "sad") for name in odd}
    assert read_exclusions(root / "list") == expected | {f"train/happy/{k}.png" for k in range(5)}
    drawn = {name: render(figure, "light") for name, figure in finding_sheets(found)}
    assert drawn.keys() == {"leaks"}


def test_sheet_of_a_large_group_shows_both_splits(root, put):
    for k in range(9):
        put(f"train/sad/copy{k}.png", draw(100, "sad"))
    ((name, figure),) = [sheet for sheet in finding_sheets(audit(root)) if sheet[0] == "leaks"]
    with use_theme("light"):
        texts = [text.get_text() for text in figure().findobj(Text)]
    assert name == "leaks"
    assert texts.count("sad, train") == MAX_TILES - 1
    assert texts.count("sad, validation") == 1
    assert any("4 more" in text for text in texts)


def test_module_of_worker_processes_does_not_import_torch():
    program = "import sys, fer_exp.data.audit; print(sorted({'torch', 'lightning', 'torchvision'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
