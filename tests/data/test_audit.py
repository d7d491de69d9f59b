"""Planted faults are found, and nothing else is."""

import json
import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from fer_exp.data import decode
from fer_exp.data.annotations import read_exclusions, write_exclusions
from fer_exp.data.audit import (
    CONSTANT_RANGE,
    Audit,
    Inspection,
    Pair,
    _close_hashes,
    alike,
    audit,
    copied,
    describe,
    imbalance,
    inspect,
    is_constant,
    near_duplicates,
    one_grey_share,
    propose_exclusions,
    same_pixels,
    table,
)
from fer_exp.data.classes import FER_CLASSES as CLASSES
from fer_exp.data.decode import ImageFormat
from fer_exp.data.sources.synthetic import draw_images
from fer_exp.plots.findings import draw_sheet, finding_sheets


def face(seed: int, expression: str = "happy") -> Image.Image:
    return Image.fromarray(draw_images(np.array([CLASSES.index(expression)]), [[seed]])[0])


@pytest.fixture
def groups_of_copies():
    """An audit of made-up groups with the same pixels, two of them near duplicates of one another."""
    rng = np.random.default_rng(0)
    n = 120
    order = rng.permutation(n).tolist()
    cuts = sorted(rng.choice(np.arange(2, 100), 12, replace=False).tolist())
    groups = [sorted(order[a:b]) for a, b in pairwise(cuts) if b - a > 1]
    labels, validation = rng.integers(0, 3, n), rng.random(n) < 0.3
    pairs = [(groups[0][0], groups[1][-1]), (groups[2][0], order[110])]
    return Audit(
        files=tuple(map(str, range(n))),
        labels=labels,
        classes=CLASSES,
        validation=validation,
        inspection=Inspection(
            np.zeros((n, 48, 48), np.uint8),
            np.zeros((n, 64), bool),
            np.full((n, 2), 48),
            ("L",) * n,
            (b"",) * n,
            np.zeros((n, 32), np.uint8),
            {},
        ),
        constant=[],
        one_grey=[],
        copies=sorted(groups),
        near=[Pair(min(pair), max(pair), 1, 0.95) for pair in pairs],
        near_is_complete=True,
        small=[],
        oblong=[],
    )


def test_what_is_said_of_a_group_is_what_its_pairs_say(groups_of_copies):
    audit = groups_of_copies
    of = {i: group for group in audit.copies for i in group}
    near = [(of.get(a, [a]), of.get(b, [b])) for p in audit.near for a, b in ((p.first, p.second), (p.second, p.first))]
    for found, pairs in ((copied(audit), [(g, g) for g in audit.copies]), (alike(audit), near)):
        both = [(i, j) for images, others in pairs for i in images for j in others]
        apart = {(i, j) for i, j in both if audit.validation[i] != audit.validation[j]}
        assert found.across.keys() == {i for i, _ in apart}
        assert set(found.across.items()) <= apart
        assert found.contradicting == sorted({i for i, j in both if audit.labels[i] != audit.labels[j]})
        assert found.further == sorted({i for i, j in both if j < i and (i, j) not in apart})
    assert found.further
    assert found.across


def look(root, distance=8, correlation=0.9):
    """Audit all files under ``root/{train,validation}/CLASS/``."""
    paths = [p for split in ("train", "validation") for p in sorted((root / split).glob("*/*"))]
    return audit(
        files=[path.relative_to(root).as_posix() for path in paths],
        labels=[CLASSES.index(path.parent.name) for path in paths],
        validation=["validation" in path.relative_to(root).parts for path in paths],
        classes=CLASSES,
        inspection=inspect(map(str, paths), len(paths), ImageFormat()),
        near_distance=distance,
        near_correlation=correlation,
    )


@pytest.fixture
def put(tmp_path):
    """``put("train/sad/1.png", image)`` saves an image, or bytes, below the data folder."""

    def save(name, content, **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content) if isinstance(content, bytes) else content.save(path, **options)

    return save


@pytest.fixture
def sound(put, tmp_path):
    """Ten different people, which make no finding."""
    for k in range(5):
        put(f"train/happy/{k}.png", face(k))
        put(f"validation/sad/{k}.png", face(100 + k, "sad"))
    return tmp_path


def names(found, indices):
    return [found.files[i] for i in indices]


def test_sound_faces_make_no_finding(sound):
    found = look(sound)
    assert {row: cells for row, cells in table(found).items() if any(cells)} == {}
    assert [line for line in propose_exclusions(found) if not line.startswith("#")] == []
    assert found.counts().tolist() == [[0, 0, 0, 5, 0, 0, 0], [0, 0, 0, 0, 0, 5, 0]]


def test_files_that_cannot_be_read_are_named_with_the_reason(sound, put):
    put("train/sad/whole.jpg", face(7))
    whole = (sound / "train/sad/whole.jpg").read_bytes()
    put("train/sad/cut.jpg", whole[: len(whole) * 2 // 3])
    put("train/sad/text.jpg", b"no image")
    put("validation/sad/none.jpg", b"")
    (sound / "train/sad/link.jpg").symlink_to("gone.jpg")
    found = look(sound)
    reasons = {found.files[i]: reason for i, reason in found.inspection.unreadable.items()}
    assert "truncated" in reasons.pop("train/sad/cut.jpg")
    assert reasons == {
        "train/sad/link.jpg": "No such file or directory",
        "train/sad/text.jpg": "not a JPEG, PNG, BMP, GIF, TIFF, WEBP or PPM image, or damaged",
        "validation/sad/none.jpg": "empty file",
    }
    assert table(found)["cannot be read"] == (3, 1)
    # Their places are black, which makes them neither constant nor copies of one another.
    assert (found.constant, found.copies, found.near) == ([], [], [])


@pytest.mark.parametrize(("span", "is_found"), [(0, True), (CONSTANT_RANGE, True), (CONSTANT_RANGE + 1, False)])
def test_images_that_are_constant_or_nearly_so(span, is_found):
    faces = np.full((1, 48, 48), 200, np.uint8)
    faces[0, 10:40, 7] = 200 + span
    assert is_constant(faces).tolist() == [is_found]


def test_constant_images_are_no_copies_of_one_another(sound, put):
    for k in range(3):
        put(f"train/sad/black{k}.png", Image.new("L", (48, 48)))
    put("validation/sad/grey.jpg", Image.new("L", (48, 48), 90))
    found = look(sound)
    assert names(found, found.constant) == [*(f"train/sad/black{k}.png" for k in range(3)), "validation/sad/grey.jpg"]
    assert (found.copies, found.near, found.one_grey) == ([], [], [])


@pytest.mark.parametrize(("rows", "is_found"), [(34, True), (33, False)])
def test_images_mostly_of_one_grey(sound, put, rows, is_found):
    picture = np.random.default_rng(0).integers(0, 200, (48, 48), dtype=np.uint8)
    picture[:rows] = 255
    put("train/sad/notice.png", Image.fromarray(picture))
    found = look(sound)
    assert names(found, found.one_grey) == ["train/sad/notice.png"] * is_found
    assert one_grey_share(picture[None]) == pytest.approx(rows / 48)


def test_same_pixels_are_found_within_and_across_splits_and_classes(sound, put):
    put("train/happy/again.bmp", face(0))  # other bytes, the same pixels
    put("train/sad/other_label.png", face(1))
    put("validation/happy/leak.png", face(2))
    put("validation/sad/again.png", face(100, "sad"))
    found = look(sound)
    same = copied(found)
    assert {found.files[i]: found.files[j] for i, j in same.across.items()} == {
        "train/happy/2.png": "validation/happy/leak.png",
        "validation/happy/leak.png": "train/happy/2.png",
    }
    assert names(found, same.contradicting) == ["train/happy/1.png", "train/sad/other_label.png"]
    assert names(found, same.further) == [
        "train/happy/again.bmp",
        "train/sad/other_label.png",
        "validation/sad/again.png",
    ]
    groups = {entry["images"][0]["file"]: entry for entry in describe(found)["same_pixels"]}
    assert [groups[f"train/happy/{k}.png"]["same_bytes"] for k in range(3)] == [False, True, True]
    assert [groups[f"train/happy/{k}.png"]["contradicting"] for k in range(3)] == [False, True, False]
    assert [groups[f"train/happy/{k}.png"]["across_splits"] for k in range(3)] == [False, False, True]
    assert found.near == []


def recompressed(image, put):
    put("validation/happy/near.jpg", image, quality=40)


def brighter(image, put):
    put("validation/happy/near.png", ImageEnhance.Brightness(image).enhance(1.2))


def enlarged(image, put):
    put("validation/happy/near.png", image.resize((200, 200), Image.Resampling.BICUBIC))


def cropped(image, put):
    put("validation/happy/near.png", image.crop((1, 1, 48, 48)))


@pytest.mark.parametrize("change", [recompressed, brighter, enlarged, cropped])
@pytest.mark.parametrize("seed", [0, 3, 4])
def test_the_same_photograph_is_known_after_a_change(sound, put, change, seed):
    change(face(seed), put)
    found = look(sound)
    (pair,) = found.near
    assert found.files[pair.first] == f"train/happy/{seed}.png"
    assert found.files[pair.second].startswith("validation/happy/near.")
    assert 0.9 <= pair.correlation < 1
    assert found.copies == []
    assert table(found)["near duplicate in the other split"] == (1, 1)


def test_the_limits_of_near_duplicates_are_settings(sound, put):
    put("validation/happy/near.jpg", face(0), quality=20)
    (pair,) = look(sound).near
    assert look(sound, correlation=pair.correlation - 1e-4).near == [pair]
    assert look(sound, correlation=pair.correlation + 1e-4).near == []
    hashes = np.zeros((2, 64), np.bool_)
    hashes[1, :6] = True
    faces = np.stack([np.asarray(face(0)), np.asarray(ImageEnhance.Brightness(face(0)).enhance(0.9))])
    assert near_duplicates(faces, hashes, 5, 0.9) == ([], True)
    ((first, second, bits),) = [(p.first, p.second, p.distance) for p in near_duplicates(faces, hashes, 6, 0.9)[0]]
    assert (first, second, bits) == (0, 1, 6)


def test_a_near_duplicate_of_copies_is_counted_for_each_of_them(sound, put):
    put("train/sad/copy.png", face(0))
    put("train/fear/near.jpg", face(0), quality=40)
    put("validation/happy/near.jpg", face(0), quality=30)
    found = look(sound)
    near = alike(found)
    in_training = ["train/fear/near.jpg", "train/happy/0.png", "train/sad/copy.png"]
    assert names(found, near.across) == [*in_training, "validation/happy/near.jpg"]
    assert len(found.near) == 3  # not 5: the copies stand for one another
    # The copy that stands for all is one that contradicts.
    (within,) = [pair for pair in found.near if not found.validation[pair.second]]
    assert found.labels[within.first] != found.labels[within.second]


def test_all_close_hashes_are_found_and_no_others():
    rng = np.random.default_rng(0)
    centres = rng.random((40, 64)) < 0.5
    hashes = centres[rng.integers(40, size=1100)] ^ (rng.random((1100, 64)) < 0.06)
    found = {}
    for first, second, bits in _close_hashes(hashes, 7):
        found |= {(i, j): d for i, j, d in zip(first.tolist(), second.tolist(), bits.tolist(), strict=True)}
    distances = (hashes[:, None] != hashes[None]).sum(2)
    expected = {(i, j): distances[i, j] for i, j in np.argwhere(distances <= 7).tolist() if i < j}
    assert found == expected
    assert len(expected) > 1000


def test_a_search_that_would_not_end_is_ended_and_says_so(monkeypatch):
    monkeypatch.setattr("fer_exp.data.audit.MOST_PAIRS", 10)
    faces = np.random.default_rng(0).integers(0, 256, (5, 48, 48), dtype=np.uint8)
    assert near_duplicates(faces, np.zeros((5, 64), np.bool_), 0, 0.9) == ([], True)
    faces, hashes = np.concatenate([faces, faces]), np.zeros((10, 64), np.bool_)
    assert near_duplicates(faces, hashes, 0, 0.9)[1] is False


def test_pairs_beyond_the_first_rows_are_compared_with_their_own_pixels():
    faces = np.random.default_rng(0).integers(0, 250, (1200, 48, 48), dtype=np.uint8)
    faces[1190] = faces[700] + 5
    hashes = np.random.default_rng(1).random((1200, 64)) < 0.5
    hashes[1190] = hashes[700]
    assert near_duplicates(faces, hashes, 4, 0.99)[0] == [Pair(700, 1190, 0, pytest.approx(1, abs=1e-5))]


def test_odd_sizes_and_modes_are_counted(sound, put):
    put("train/sad/tiny.png", face(50).resize((20, 20)))
    put("train/sad/long.png", face(51).resize((300, 190)))
    put("train/sad/square_enough.png", face(52).resize((300, 200)))
    put("validation/sad/colour.png", face(53).convert("RGB"))
    found = look(sound)
    assert (names(found, found.small), names(found, found.oblong)) == (["train/sad/tiny.png"], ["train/sad/long.png"])
    findings = describe(found)
    assert findings["modes"] == {"L": 13, "RGB": 1}
    assert findings["sizes"] == {"48x48": 11, "20x20": 1, "300x190": 1, "300x200": 1}
    assert table(found)["another colour mode than most"] == (0, 1)


def test_imbalance():
    assert imbalance(np.array([10, 5, 4])) == 2.5
    assert imbalance(np.array([10, 0, 4])) is None


def test_what_is_proposed_for_exclusion_and_why(sound, put, tmp_path):
    put("train/angry/bad.jpg", b"no image")
    put("validation/angry/black.png", Image.new("L", (48, 48)))
    put("train/angry/leak.png", face(100, "sad"))  # of validation, and another label
    put("train/angry/near_leak.jpg", face(101, "sad"), quality=40)
    put("train/fear/0.png", face(0))  # contradicts train/happy/0.png
    put("train/happy/1_again.png", face(1))
    put("train/happy/2_near.jpg", face(2), quality=40)  # stays
    put("validation/sad/again.png", face(102, "sad"))  # stays
    notice = np.full((48, 48), 255, np.uint8)
    notice[:8] = np.random.default_rng(0).integers(0, 255, (8, 48))
    put("train/happy/notice.png", Image.fromarray(notice))  # stays, until someone has looked at it
    lines = propose_exclusions(look(sound))
    assert lines[0] == "# For data.exclude: 6 training and 1 validation files to leave out, and why."
    assert [line for line in lines if not line.startswith("#")] == [
        "train/angry/bad.jpg  # cannot be read: not a JPEG, PNG, BMP, GIF, TIFF, WEBP or PPM image, or damaged",
        "train/angry/leak.png  # same pixels as validation/sad/0.png",
        "train/angry/near_leak.jpg  # same photograph as validation/sad/1.png",
        "train/fear/0.png  # same pixels as train/happy/0.png, another label",
        "train/happy/0.png  # same pixels as train/fear/0.png, another label",
        "train/happy/1_again.png  # same pixels as train/happy/1.png",
        "validation/angry/black.png  # all pixels alike",
    ]
    assert lines[-1] == "#train/happy/notice.png"
    write_exclusions(tmp_path / "list.txt", lines)
    excluded = read_exclusions(tmp_path / "list.txt")
    assert len(excluded) == 7
    for file in excluded:
        (sound / file).unlink()
    left = {row: cells for row, cells in table(look(sound)).items() if any(cells)}
    assert left == {
        "mostly of one grey": (1, 0),
        "same pixels as an earlier image of the split": (0, 1),
        "near duplicate of an earlier image of the split": (1, 0),
    }


def test_of_copies_in_both_splits_all_training_ones_are_proposed(sound, put):
    put("train/sad/a.png", face(103, "sad"))
    put("train/sad/b.png", face(103, "sad"))
    lines = [line for line in propose_exclusions(look(sound)) if not line.startswith("#")]
    assert lines == [f"train/sad/{name}.png  # same pixels as validation/sad/3.png" for name in "ab"]


def test_many_processes_find_what_one_finds(sound, put, monkeypatch):
    put("train/sad/text.jpg", b"no image")
    put("train/sad/copy.png", face(0))
    put("train/sad/near.jpg", face(1), quality=40)
    one = describe(look(sound))
    monkeypatch.setattr(decode, "_PARALLEL_FROM", 4)
    monkeypatch.setattr(decode, "CHUNK_SIZE", 3)
    assert describe(look(sound)) == one


@pytest.mark.skipif(sys.platform != "linux", reason="other systems forbid such names, or change them")
def test_files_of_odd_names_are_found_described_and_proposed(sound, put):
    odd = ["two\nlines.png", "a # b.png", " 'c' \"d\".png", "😀.png", os.fsdecode(b"\xff\xfe.png")]
    for k, name in enumerate(odd):
        put(f"train/sad/{name}", b"no image")
        put(f"train/happy/{name}", face(k))
        put(f"validation/happy/{name}", face(k))
    found = look(sound)
    described = json.loads(json.dumps(describe(found)).encode())
    assert sorted(entry["file"] for entry in described["unreadable"]) == sorted(f"train/sad/{name}" for name in odd)
    lines = propose_exclusions(found)
    assert all(len(line.splitlines()) == 1 for line in lines)
    write_exclusions(sound / "list", lines)
    copies = {f"train/happy/{k}.png" for k in range(5)}  # of which there are others in validation
    odd_ones = {f"train/{label}/{name}" for label in ("happy", "sad") for name in odd}
    assert read_exclusions(sound / "list") == odd_ones | copies
    for sheet in finding_sheets(found):
        draw_sheet(sheet)


def test_groups_of_same_pixels_are_those_of_a_comparison_of_each_with_each():
    draw = np.random.default_rng(1)
    digests = draw.integers(0, 256, (30, 32), dtype=np.uint8)[draw.integers(0, 30, 60)]
    digests[::7, 31] ^= 1
    equal = [[j for j in range(60) if (digests[i] == digests[j]).all()] for i in range(60)]
    expected = [group for i, group in enumerate(equal) if len(group) > 1 and group[0] == i]
    assert len(expected) > 5
    assert same_pixels(digests) == expected
    assert same_pixels(digests[:0]) == []


def test_worker_processes_start_without_torch():
    program = "import sys, fer_exp.data.audit; print(sorted({'torch', 'lightning', 'torchvision'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
