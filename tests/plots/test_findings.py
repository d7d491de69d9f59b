import dataclasses
import hashlib

import numpy as np
import pytest

from fer_exp.data.audit import Inspection, audit
from fer_exp.data.classes import FER_CLASSES as CLASSES
from fer_exp.plots import findings
from fer_exp.plots.findings import FACE, MOST_TILES, TILE, WIDTH, Sheet, Tile, draw_sheet, finding_sheets


@pytest.fixture
def found():
    """An audit of fourteen noise images with every kind of finding."""
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 250, (14, 48, 48), dtype=np.uint8)
    hashes = rng.random((14, 64)) < 0.5
    sizes = np.full((14, 2), 48)
    faces[1] = faces[0]  # contradicts
    faces[8] = faces[2]  # leaks
    faces[9], hashes[9] = faces[3] + 5, hashes[3]  # leaks nearly
    faces[5], hashes[5] = faces[4] + 5, hashes[4]  # twice in training
    faces[6] = 3
    faces[7, :40] = 255
    faces[10] = 0
    sizes[10] = 0
    sizes[11] = 20, 30
    labels = [0, 3, 3, 4, 4, 4, 4, 4, 3, 5, 6, 6, 6, 6]
    digests = np.stack([np.frombuffer(hashlib.sha256(face).digest(), np.uint8) for face in faces])
    return audit(
        files=[f"train/x/{k}.png" if k < 8 else f"validation/x/{k}.png" for k in range(14)],
        labels=labels,
        classes=CLASSES,
        validation=[k >= 8 for k in range(14)],
        inspection=Inspection(faces, hashes, sizes, ("L",) * 14, (b"",) * 14, digests, {10: "image file is truncated"}),
        near_distance=8,
        near_correlation=0.9,
    )


def captions(sheet):
    return [[(tile.name, tile.place, tile.note) for tile in group] for group in sheet.groups]


def test_each_finding_is_on_its_sheet_with_what_is_wrong(found):
    sheets = {sheet.name: captions(sheet) for sheet in finding_sheets(found)}
    assert sheets == {
        "unreadable": [[("10.png", "surprise, validation", "image file is truncated")]],
        "empty": [
            [("6.png", "neutral, train", "all pixels alike")],
            [("7.png", "neutral, train", "83% one grey")],
        ],
        "contradictions": [[("0.png", "angry, train", ""), ("1.png", "happy, train", "")]],
        "leaks": [[("2.png", "happy, train", ""), ("8.png", "happy, validation", "")]],
        "near_leaks": [[("3.png", "neutral, train", ""), ("9.png", "sad, validation", "correlation 1.00")]],
        "near_duplicates": [[("4.png", "neutral, train", ""), ("5.png", "neutral, train", "correlation 1.00")]],
        "sizes": [[("11.png", "surprise, validation", "20 x 30")]],
    }


def test_a_name_of_two_lines_and_no_text_is_drawn_in_one(found):
    files = (*found.files[:10], "validation/x/two\nlines \udcff\u2028.png", *found.files[11:])
    sheet = finding_sheets(dataclasses.replace(found, files=files))[0]
    assert captions(sheet)[0][0][0] == "two\\nlines \\xff\\u2028.png"
    draw_sheet(sheet)


def test_an_unreadable_file_has_no_picture_and_the_others_have_theirs(found):
    for sheet in finding_sheets(found):
        for tile in (tile for group in sheet.groups for tile in group):
            index = int(tile.name.removesuffix(".png"))
            if index == 10:
                assert tile.image is None
            else:
                assert np.array_equal(tile.image, found.inspection.faces[index])


def test_contradicting_pairs_come_first():
    faces = np.random.default_rng(0).integers(0, 240, (6, 48, 48), dtype=np.uint8)
    faces[3:] = faces[:3] + np.array([1, 5, 9], np.uint8)[:, None, None]
    hashes = np.random.default_rng(1).random((3, 64))[[0, 1, 2, 0, 1, 2]] < 0.5
    found = audit(
        [f"train/x/{k}.png" for k in range(6)], [0, 0, 0, 0, 5, 0], CLASSES, [False] * 6,
        Inspection(faces, hashes, np.full((6, 2), 48), ("L",) * 6, (b"",) * 6, np.eye(6, 32, dtype=np.uint8), {}),
        8, 0.9,
    )  # fmt: skip
    (sheet,) = finding_sheets(found)
    assert captions(sheet)[0][1][:2] == ("4.png", "sad, train")


def test_of_many_findings_the_first_are_shown_and_all_are_counted(monkeypatch, found):
    monkeypatch.setattr(findings, "MOST_GROUPS", 1)
    empty = next(sheet for sheet in finding_sheets(found) if sheet.name == "empty")
    assert (len(empty.groups), empty.found) == (1, 2)


def find(canvas, face):
    """Where a face lies on the canvas, as (left, top) of every match."""
    screen = np.asarray(canvas.convert("L"))
    doubled = face.repeat(2, 0).repeat(2, 1)
    tops, lefts = np.nonzero(
        (screen[: -FACE + 1, : -FACE + 1] == doubled[0, 0]) & (screen[FACE - 1 :, FACE - 1 :] == doubled[-1, -1])
    )
    places = zip(lefts.tolist(), tops.tolist(), strict=True)
    return [(x, y) for x, y in places if np.array_equal(screen[y : y + FACE, x : x + FACE], doubled)]


def tiles(count, seed=0):
    faces = np.random.default_rng(seed).integers(0, 256, (count, 48, 48), dtype=np.uint8)
    return [Tile(face, f"{k}.png", "sad, train", "note") for k, face in enumerate(faces)]


def test_faces_are_drawn_pixel_for_pixel_side_by_side_and_within_the_sheet():
    groups = [tiles(2, seed) for seed in range(7)] + [tiles(5, 99)]
    canvas = draw_sheet(Sheet("s", "Title", groups, 8))
    assert canvas.width <= WIDTH
    tops = []
    for group in groups:
        places = [find(canvas, tile.image) for tile in group]
        assert [len(place) for place in places] == [1] * len(group)
        lefts, heights = zip(*(place[0] for place in places), strict=True)
        assert len(set(heights)) == 1
        assert np.all(np.diff(lefts) >= TILE)
        tops.append(heights[0])
    assert tops == sorted(tops)
    assert len(set(tops)) > 1


def test_a_large_group_shows_its_first_images():
    group = tiles(MOST_TILES + 3)
    canvas = draw_sheet(Sheet("s", "Title", [group], 1))
    assert [len(find(canvas, tile.image)) for tile in group] == [1] * MOST_TILES + [0] * 3


def test_captions_stay_within_their_tiles():
    long = Tile(np.zeros((48, 48), np.uint8), "a very long name indeed " * 5, "surprise, validation", "n" * 300)
    with_long = np.asarray(draw_sheet(Sheet("s", "T", [[long, *tiles(1)]], 1)))
    without = np.asarray(draw_sheet(Sheet("s", "T", [[Tile(long.image, "", "", ""), *tiles(1)]], 1)))
    columns = np.flatnonzero((with_long != without).any((0, 2)))
    start = findings.MARGIN + findings.GAP
    assert columns.size
    assert start - 1 <= columns.min()
    assert columns.max() <= start + TILE


def test_a_file_without_picture_is_drawn_as_words():
    canvas, empty = (
        np.asarray(draw_sheet(Sheet("s", "T", [[Tile(None, name, place, note)]], 1)))
        for name, place, note in (("a.png", "sad, train", "not an image"), ("", "", ""))
    )
    assert (canvas != empty).any()  # the caption
    top = findings.MARGIN + 60 + findings.GAP
    frame = empty[top : top + FACE]
    assert (frame == findings.PALE).all(2).sum() > 4 * FACE - 8  # the frame, and words in it
