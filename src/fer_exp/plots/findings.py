"""Picture sheets of what an audit found: the images themselves, and under each its name, class and split."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fer_exp.data.audit import Audit, one_grey_share
from fer_exp.files import printable
from fer_exp.plots.sheet import shortened

ZOOM = 2  # screen pixels per image pixel; a whole number, so that no face is resampled
WIDTH = 1440  # of a sheet, at most, in pixels
MOST_GROUPS = 60  # on a sheet
MOST_TILES = 6  # of a group
MARGIN = 24
GAP = 8  # between the tiles of a group
GROUP_GAP = 28
LINE = 15  # of a caption
FACE = 48 * ZOOM
TILE = 136  # wide: a caption needs more room than a face
FONT_SIZE = 11
INK, PALE, WARNING, GROUND, PANEL = (235, 235, 235), (150, 150, 150), (255, 190, 90), (24, 24, 24), (44, 44, 44)


@dataclass(frozen=True)
class Tile:
    """One image of a sheet.

    Attributes:
        image: (48, 48) uint8; None where there is none to show.
        name: of the file.
        place: class and split.
        note: what is wrong with this one; may be empty.
    """

    image: NDArray[np.uint8] | None
    name: str
    place: str
    note: str = ""


@dataclass(frozen=True)
class Sheet:
    """What one picture shows.

    Attributes:
        name: of the file, without suffix.
        title: what was found.
        groups: tiles that belong together, the worst first.
        found: number of groups, those included for which there is no room.
    """

    name: str
    title: str
    groups: list[list[Tile]]
    found: int


def finding_sheets(audit: Audit) -> list[Sheet]:
    """The sheets for all that was found; none for what was not."""
    faces, labels = audit.inspection.faces, audit.labels
    unreadable = audit.inspection.unreadable

    def tile(i: int, note: str = "") -> Tile:
        image = None if i in unreadable else faces[i]
        return Tile(image, printable(audit.files[i].rpartition("/")[2]), f"{audit.label(i)}, {audit.split(i)}", note)

    def sheet(name: str, title: str, groups: Sequence[list[int]], notes: dict[int, str] | None = None) -> Sheet:
        shown = [[tile(i, (notes or {}).get(i, "")) for i in group] for group in groups[:MOST_GROUPS]]
        return Sheet(name, title, shown, len(groups))

    def pair_sheet(name: str, title: str, pairs: Iterable[tuple[int, int]]) -> Sheet:
        all_pairs = list(pairs)
        shown = [[tile(i), tile(j, likeness[i, j])] for i, j in all_pairs[:MOST_GROUPS]]
        return Sheet(name, title, shown, len(all_pairs))

    def is_contradicting(group: Sequence[int]) -> bool:
        return len({int(label) for label in labels[list(group)]}) > 1

    def is_across(group: Sequence[int]) -> bool:
        return len({bool(of_validation) for of_validation in audit.validation[list(group)]}) > 1

    grey = sorted(zip(one_grey_share(faces[audit.one_grey]).tolist(), audit.one_grey, strict=True), reverse=True)
    nothing = dict.fromkeys(audit.constant, "all pixels alike") | {i: f"{share:.0%} one grey" for share, i in grey}
    near = [(pair.first, pair.second) for pair in audit.near]
    # Other labels first, because they are the worst; sorting keeps the order otherwise.
    near.sort(key=lambda pair: not is_contradicting(pair))
    likeness = {(pair.first, pair.second): f"correlation {pair.correlation:.2f}" for pair in audit.near}
    odd = {i: f"{w} x {h}" for i in sorted({*audit.small, *audit.oblong}) for w, h in [audit.inspection.sizes[i]]}
    across = [group for group in audit.copies if is_across(group)]
    across.sort(key=lambda group: not is_contradicting(group))
    sheets = [
        sheet("unreadable", "Files that cannot be read", [[i] for i in sorted(unreadable)], unreadable),
        sheet(
            "empty",
            "Images that show nothing, or mostly one grey level",
            [[i] for i in nothing],
            nothing,
        ),
        sheet("contradictions", "Same pixels, different labels", [g for g in audit.copies if is_contradicting(g)]),
        sheet("leaks", "Same pixels in training and in validation", across),
        pair_sheet("near_leaks", "Near duplicates in training and in validation", filter(is_across, near)),
        pair_sheet("near_duplicates", "Near duplicates within a split", itertools.filterfalse(is_across, near)),
        sheet("sizes", "Images that are blown up or squeezed", [[i] for i in odd], odd),
    ]
    return [each for each in sheets if each.groups]


def draw_sheet(sheet: Sheet) -> Image.Image:
    """Draw a sheet: groups on panels, from left to right and down, under the title and the number found."""
    boxes, height = _lay_out([min(len(group), MOST_TILES) for group in sheet.groups])
    width = max(max(left + size for left, _, size in boxes) + MARGIN, 480)
    canvas = Image.new("RGB", (width, height), GROUND)
    draw = ImageDraw.Draw(canvas)
    draw.text((MARGIN, MARGIN), sheet.title, INK, ImageFont.load_default(18))
    shown = f" ({len(sheet.groups)} of them shown)" if sheet.found > len(sheet.groups) else ""
    draw.text((MARGIN, MARGIN + 26), f"{sheet.found:,} found{shown}", PALE, ImageFont.load_default(FONT_SIZE + 1))
    for group, (left, top, size) in zip(sheet.groups, boxes, strict=True):
        draw.rectangle((left - GAP, top - GAP, left + size + GAP, top + _tile_height() + GAP), PANEL)
        for k, tile in enumerate(group[:MOST_TILES]):
            more = len(group) - MOST_TILES if k == MOST_TILES - 1 else 0
            _draw_tile(canvas, draw, tile, left + k * (TILE + GAP), top, more)
    return canvas


def _tile_height() -> int:
    return FACE + 6 + 3 * LINE


def _lay_out(lengths: Sequence[int]) -> tuple[list[tuple[int, int, int]], int]:
    """Left, top and width of each group of so many tiles; and the height of the whole."""
    boxes: list[tuple[int, int, int]] = []
    left, top = MARGIN + GAP, MARGIN + 60 + GAP
    for length in lengths:
        size = length * (TILE + GAP) - GAP
        if boxes and left + size + GAP + MARGIN > WIDTH:
            left, top = MARGIN + GAP, top + _tile_height() + GROUP_GAP
        boxes.append((left, top, size))
        left += size + GROUP_GAP
    return boxes, top + _tile_height() + GAP + MARGIN


def _draw_tile(canvas: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, left: int, top: int, more: int) -> None:
    font = ImageFont.load_default(FONT_SIZE)
    face_left = left + (TILE - FACE) // 2
    if tile.image is None:
        draw.rectangle((face_left, top, face_left + FACE - 1, top + FACE - 1), outline=PALE)
        draw.text((face_left + FACE // 2, top + FACE // 2), "no image", PALE, font, anchor="mm")
    else:
        face = Image.fromarray(tile.image).resize((FACE, FACE), Image.Resampling.NEAREST)
        canvas.paste(face, (face_left, top))
    note = f"and {more} more" if more > 0 else tile.note
    # File names differ at their ends; a reason tells most at its beginning.
    for k, (text, kept_end, ink) in enumerate(((tile.name, 0.5, INK), (tile.place, 0.5, PALE), (note, 0.0, WARNING))):
        y = top + FACE + 6 + k * LINE
        text = shortened(text, lambda short: font.getlength(short) <= TILE, kept_end, "...")
        draw.text((left + TILE // 2, y), text, ink, font, anchor="ma")
