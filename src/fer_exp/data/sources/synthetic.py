"""Drawn faces: a labelled expression set that needs no download.

An expression is a handful of facial action units (the "AU" numbers of Ekman and Friesen's Facial Action
Coding System), and `ACTION_UNITS` is the table that says which. `draw_face` gives them to a random person in
a random pose and light, so that no single pixel tells the expression, while a person looking at it can.

Lengths are in face units: 1 is about half the width of a head, the origin is the middle of the head, x points
to the right of the picture and y down. Tones are grey levels, 0 black to 255 white.
"""

import math
import tempfile
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFilter

from fer_exp.data.decode import SIZE

VERSION = 1  # of the drawings: raise it when a change makes other faces of the same seed
_SUPERSAMPLING = 4
_SPLITS = ("train", "validation")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ActionUnits:
    """How far each muscle group is pulled: 0 at rest, 1 in full."""

    inner_brow_raise: float = 0.0  # AU1
    outer_brow_raise: float = 0.0  # AU2
    brow_lower: float = 0.0  # AU4, which also knits the brows
    lid_raise: float = 0.0  # AU5
    cheek_raise: float = 0.0  # AU6
    lid_tighten: float = 0.0  # AU7
    nose_wrinkle: float = 0.0  # AU9
    upper_lip_raise: float = 0.0  # AU10
    corner_up: float = 0.0  # AU12
    corner_down: float = 0.0  # AU15
    lip_round: float = 0.0  # AU18
    lip_stretch: float = 0.0  # AU20
    lip_funnel: float = 0.0  # AU22, which bares the teeth in a box
    lip_press: float = 0.0  # AU23 and AU24
    jaw_drop: float = 0.0  # AU26 and AU27
    teeth: float = 0.0  # AU25 with the teeth in sight: the share of the open mouth that they fill
    lid_droop: float = 0.0  # AU43


# Each expression has one or several ways of being shown; a face takes one of them.
ACTION_UNITS: dict[str, tuple[ActionUnits, ...]] = {
    "angry": (
        ActionUnits(brow_lower=1.0, lid_tighten=0.6, lip_press=1.0, corner_down=0.2),
        ActionUnits(brow_lower=1.0, lid_raise=0.3, lid_tighten=0.4, corner_down=0.4, lip_funnel=1.0,
                    jaw_drop=0.5, teeth=0.8),
    ),
    "disgust": (
        ActionUnits(brow_lower=0.45, lid_tighten=0.8, cheek_raise=0.4, nose_wrinkle=1.0, upper_lip_raise=1.0,
                    corner_down=0.5),
        ActionUnits(brow_lower=0.45, lid_tighten=0.8, cheek_raise=0.4, nose_wrinkle=1.0, upper_lip_raise=1.0,
                    corner_down=0.4, jaw_drop=0.2, teeth=0.6),
    ),
    "fear": (
        ActionUnits(inner_brow_raise=1.0, outer_brow_raise=0.4, brow_lower=0.4, lid_raise=1.0,
                    lip_stretch=1.0, corner_down=0.25, jaw_drop=0.3, teeth=0.4),
        ActionUnits(inner_brow_raise=1.0, outer_brow_raise=0.4, brow_lower=0.4, lid_raise=1.0,
                    lip_stretch=0.8, corner_down=0.3, jaw_drop=0.45),
    ),
    "happy": (
        ActionUnits(cheek_raise=0.6, corner_up=0.9),
        ActionUnits(cheek_raise=0.9, corner_up=1.0, jaw_drop=0.35, teeth=1.0),
        ActionUnits(cheek_raise=1.0, corner_up=1.0, jaw_drop=0.65, teeth=0.4),
    ),
    "neutral": (ActionUnits(),),
    "sad": (
        ActionUnits(inner_brow_raise=1.0, brow_lower=0.2, lid_droop=0.7, corner_down=1.0),
        ActionUnits(inner_brow_raise=0.9, brow_lower=0.3, lid_droop=1.0, corner_down=0.8, lip_press=0.3),
    ),
    "surprise": (
        ActionUnits(inner_brow_raise=1.0, outer_brow_raise=1.0, lid_raise=1.0, lip_round=0.8, jaw_drop=1.0),
        ActionUnits(inner_brow_raise=1.0, outer_brow_raise=1.0, lid_raise=0.8, lip_round=1.0, jaw_drop=0.8),
    ),
}  # fmt: skip

CLASSES = tuple(sorted(ACTION_UNITS))

_HAIR = ("bald", "short", "short", "parted", "curly", "fringe", "long", "long fringe")


@dataclass(frozen=True)
class _Person:
    """What stays the same whatever the face does: lengths in face units, tones in grey levels."""

    width: float  # of half a head, like its height
    height: float
    taper: float  # of the jaw: 0 is a round face, 1 a pointed chin
    eye_x: float
    eye_y: float
    eye_width: float
    eye_height: float
    brow_gap: float  # from the eye up
    brow_thickness: float
    brow_tilt: float
    nose_y: float
    nose_width: float
    mouth_y: float
    mouth_width: float
    lip: float  # thickness of the upper one
    hairline: float
    parting: float  # its x
    hair: str
    glasses: bool
    moustache: bool
    beard: bool
    skin: float
    hair_tone: float
    shirt: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "_Person":
        skin = rng.uniform(95, 225)
        return cls(
            width=rng.uniform(0.86, 1.06),
            height=rng.uniform(1.16, 1.34),
            taper=rng.uniform(0.08, 0.36),
            eye_x=rng.uniform(0.38, 0.47),
            eye_y=rng.uniform(-0.2, -0.06),
            eye_width=rng.uniform(0.2, 0.27),
            eye_height=rng.uniform(0.1, 0.14),
            brow_gap=rng.uniform(0.27, 0.35),
            brow_thickness=rng.uniform(0.05, 0.13),
            brow_tilt=rng.uniform(-0.04, 0.04),
            nose_y=rng.uniform(0.24, 0.36),
            nose_width=rng.uniform(0.13, 0.22),
            mouth_y=rng.uniform(0.62, 0.72),
            mouth_width=rng.uniform(0.32, 0.43),
            lip=rng.uniform(0.05, 0.12),
            hairline=rng.uniform(-0.95, -0.75),
            parting=rng.uniform(-0.5, 0.5),
            hair=_HAIR[rng.integers(len(_HAIR))],
            glasses=rng.random() < 0.18,
            moustache=rng.random() < 0.14,
            beard=rng.random() < 0.12,
            skin=skin,
            hair_tone=rng.uniform(15, 0.6 * skin) if rng.random() < 0.8 else rng.uniform(0.8 * skin, 240),
            shirt=rng.uniform(20, 235),
        )


class _Canvas:
    """A supersampled grey picture that takes shapes in face units and shows them in one pose.

    The head is taken for an ellipsoid: what lies on its surface moves with yaw and pitch the more, the nearer
    it is to the middle of the face, while outlines stay where they are.
    """

    def __init__(self, person: _Person, rng: np.random.Generator) -> None:
        side = SIZE * _SUPERSAMPLING
        self.image = Image.new("L", (side, side), int(rng.uniform(10, 245)))
        self._pen = ImageDraw.Draw(self.image)
        self._radii = np.array([person.width, person.height])
        self._turn = np.clip(rng.normal(0.0, [0.15, 0.05]), -0.3, 0.3)
        self._centre = side / 2 + _SUPERSAMPLING * np.clip(rng.normal(0.0, 1.5, size=2), -3.5, 3.5)
        roll = math.radians(np.clip(rng.normal(0.0, 5.5), -14, 14))
        scale = _SUPERSAMPLING * rng.uniform(15.0, 18.5)
        self._matrix = scale * np.array([[math.cos(roll), math.sin(roll)], [-math.sin(roll), math.cos(roll)]])

    def fill(self, points: ArrayLike, tone: float, depth: float | None = 0.0) -> None:
        """Fill a polygon.

        Args:
            points: (n, 2) corners.
            tone: grey level.
            depth: height above the head's surface, as for a nose; None for what does not turn with the face.
        """
        xy = np.asarray(points, dtype=np.float64)
        if depth is not None:
            inside = 1.0 - ((xy / self._radii) ** 2).sum(axis=1, keepdims=True)
            xy = xy + (np.sqrt(np.maximum(inside, 0.0)) + depth) * self._turn
        self._pen.polygon((xy @ self._matrix + self._centre).ravel().tolist(), fill=int(tone))

    def stroke(self, points: ArrayLike, width: ArrayLike, tone: float, depth: float = 0.0) -> None:
        """Draw a line of `width`, one number or one for each of the (n, 2) points."""
        line = np.asarray(points, dtype=np.float64)
        along = np.empty_like(line)
        along[1:-1] = line[2:] - line[:-2]
        along[0], along[-1] = line[1] - line[0], line[-1] - line[-2]
        along /= np.hypot(along[:, 0], along[:, 1])[:, None] + 1e-9
        half = np.column_stack([-along[:, 1], along[:, 0]]) * np.broadcast_to(width, len(line))[:, None] / 2
        self.fill(np.concatenate([line + half, (line - half)[::-1]]), tone, depth)


# From one end of a feature to the other. Strokes that taper use _TAPER as their width.
_T = np.linspace(-1.0, 1.0, 15)
_S = np.linspace(0.0, 1.0, 7)
_TAPER = np.sqrt(1.02 - (2 * _S - 1) ** 2)
_ANGLES = np.linspace(0.0, 2 * np.pi, 40, endpoint=False)


def _ellipse(x: float, y: float, rx: float, ry: float) -> Floats:
    return np.column_stack([x + rx * np.cos(_ANGLES), y + ry * np.sin(_ANGLES)])


def _arc(start: tuple[float, float], bend: tuple[float, float], end: tuple[float, float]) -> Floats:
    """A quadratic Bezier curve, (7, 2)."""
    s = _S[:, None]
    curve: Floats = (1 - s) ** 2 * np.array(start) + 2 * s * (1 - s) * np.array(bend) + s**2 * np.array(end)
    return curve


def _mix(a: float, b: float, share: float) -> float:
    return a + (b - a) * min(max(share, 0.0), 1.0)


def _mirror(points: Floats, side: int) -> Floats:
    return points * (side, 1)


def draw_face(expression: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one person showing an expression.

    Args:
        expression: one of `CLASSES`.
        rng: decides the person, the pose, the light and how strongly the expression is shown.

    Returns:
        The picture: (48, 48) grey levels.

    Raises:
        ValueError: the expression is none of `CLASSES`.
    """
    if expression not in ACTION_UNITS:
        raise ValueError(f"unknown expression {expression!r}: choose one of {', '.join(CLASSES)}")
    person = _Person.draw(rng)
    pull = _pull(expression, rng)
    canvas = _Canvas(person, rng)
    _draw_background(canvas, rng)
    _draw_head(canvas, person, pull)
    _draw_folds(canvas, person, pull)
    _draw_hair(canvas, person)
    gaze = rng.uniform(-0.25, 0.25)
    for side in (-1, 1):
        _draw_eye(canvas, person, pull, side, gaze)
        _draw_brow(canvas, person, pull, side)
    _draw_mouth(canvas, person, pull)
    _draw_nose(canvas, person, pull)
    if person.glasses:
        _draw_glasses(canvas, person)
    return _photograph(canvas.image, rng)


def _pull(expression: str, rng: np.random.Generator) -> ActionUnits:
    """Take one way of showing the expression, weaker or stronger, with stray pulls: no face is pure."""
    ways = ACTION_UNITS[expression]
    typical = np.array(astuple(ways[rng.integers(len(ways))]))
    strength = rng.uniform(0.6, 1.1) * rng.uniform(0.8, 1.2, size=typical.size)
    stray = np.abs(rng.normal(0.0, 0.05, size=typical.size))
    return ActionUnits(*np.clip(typical * strength + stray, 0.0, 1.2).tolist())


def _draw_background(canvas: _Canvas, rng: np.random.Generator) -> None:
    for _ in range(rng.integers(3)):
        x, y, rx, ry = rng.uniform([-2, -2, 0.3, 0.3], [2, 2, 1.2, 1.2])
        canvas.fill(_ellipse(x, y, rx, ry), rng.uniform(10, 245), depth=None)


def _draw_head(canvas: _Canvas, person: _Person, pull: ActionUnits) -> None:
    """Long hair, shoulders, neck, ears, face and beard, from the back to the front."""
    w, h, skin, hair = person.width, person.height, person.skin, person.hair_tone
    if "long" in person.hair:
        canvas.fill(_ellipse(0, 0.25, 1.28 * w, 1.3 * h), hair, depth=None)
    canvas.fill(_ellipse(0, 2.35, 1.7, 0.85), person.shirt, depth=None)
    canvas.fill([(-0.5, 0.7), (0.5, 0.7), (0.55, 1.65), (0, 1.85), (-0.55, 1.65)], 0.78 * skin, depth=None)

    across, down = np.cos(_ANGLES), np.sin(_ANGLES)
    jaw = np.maximum(down, 0.0)
    outline = np.column_stack(
        [w * across * (1 - person.taper * jaw**2), h * down + 0.16 * min(pull.jaw_drop, 1.0) * jaw**2]
    )
    if "long" not in person.hair:
        for side in (-1, 1):
            canvas.fill(_ellipse(side * w, 0.02, 0.13, 0.25), 0.88 * skin, depth=None)
    canvas.fill(outline, 0.8 * skin, depth=None)
    canvas.fill(outline * 0.93, skin, depth=None)

    if person.beard:
        chin = outline[down > 0.15] * 0.99
        edge = [(-0.66, 0.7), (-0.4, person.mouth_y - 0.16), (0.4, person.mouth_y - 0.16), (0.66, 0.7)]
        canvas.fill(np.concatenate([chin, edge]), _mix(hair, skin, 0.35), depth=None)


def _draw_hair(canvas: _Canvas, person: _Person) -> None:
    """The hair on top: what lies between the outline of the skull and the hairline."""
    if person.hair == "bald":
        return
    w, h = person.width, person.height
    top = np.linspace(np.pi, 2 * np.pi, 25)
    volume = 1.06 + (0.06 * np.sin(9 * top) + 0.06 if person.hair == "curly" else 0.0)
    skull = np.column_stack([w * volume * np.cos(top), h * volume * np.sin(top) * 1.02])
    x = np.linspace(0.97 * w, -0.97 * w, 15)
    side = np.abs(x / w)
    if "fringe" in person.hair:
        y = person.eye_y - person.brow_gap - 0.2 + 0.06 * side**2 + 0.05 * np.sin(11 * x)
    elif person.hair in ("parted", "long"):
        y = person.hairline + 0.55 * np.abs((x - person.parting) / w) ** 1.5
    else:
        y = person.hairline + 0.1 * side**2 + 0.55 * side**6
    canvas.fill(np.concatenate([skull, np.column_stack([x, np.minimum(y, 0.0)])]), person.hair_tone, depth=None)


def _draw_folds(canvas: _Canvas, person: _Person, pull: ActionUnits) -> None:
    """The wrinkles: forehead, between the brows, along the nose, under the eyes and beside the mouth."""
    skin = person.skin
    brow_y = person.eye_y - person.brow_gap

    def tone(depth: float) -> float:
        return _mix(skin, 0.45 * skin, depth)

    if pull.inner_brow_raise > 0.3:
        reach = 0.2 + 0.35 * pull.outer_brow_raise
        for y in (brow_y - 0.24, brow_y - 0.36):
            canvas.stroke(
                _arc((-reach, y), (0, y - 0.05), (reach, y)),
                0.045 * _TAPER,
                tone(0.5 * pull.inner_brow_raise),
            )
    if pull.brow_lower > 0.25:
        for side in (-1, 1):
            crease = _arc((0.07, brow_y - 0.08), (0.05, brow_y + 0.05), (0.09, brow_y + 0.2))
            canvas.stroke(_mirror(crease, side), 0.05 * _TAPER, tone(0.9 * pull.brow_lower))
    if pull.nose_wrinkle > 0.25:
        for y in person.eye_y + np.array([0.0, 0.11, 0.22]):
            canvas.stroke(
                _arc((-0.17, y + 0.04), (0, y - 0.07), (0.17, y + 0.04)),
                0.05 * _TAPER,
                tone(pull.nose_wrinkle),
            )
    cheek = max(pull.cheek_raise, 0.8 * pull.nose_wrinkle)
    fold = max(0.85 * pull.corner_up, pull.upper_lip_raise, 0.9 * pull.nose_wrinkle)
    for side in (-1, 1):
        if cheek > 0.25:
            y = person.eye_y + 0.2
            bag = _arc((person.eye_x - 0.22, y - 0.02), (person.eye_x, y + 0.12), (person.eye_x + 0.26, y - 0.06))
            canvas.stroke(_mirror(bag, side), 0.045 * _TAPER, tone(0.7 * cheek))
        if fold > 0.25:
            start = (person.nose_width + 0.04, person.nose_y - 0.1)
            end = (person.mouth_width + 0.16, person.mouth_y - 0.2 * pull.corner_up + 0.05)
            line = _arc(start, (end[0] - 0.02, start[1] + 0.08), end)
            canvas.stroke(_mirror(line, side), 0.055 * _TAPER, tone(0.8 * fold))


def _draw_eye(canvas: _Canvas, person: _Person, pull: ActionUnits, side: int, gaze: float) -> None:
    skin, width = person.skin, person.eye_width
    squint = 0.5 * pull.lid_tighten + 0.4 * pull.cheek_raise
    upper = person.eye_height * max(1.1 + 0.75 * pull.lid_raise - squint - 0.55 * pull.lid_droop, 0.25)
    lower = person.eye_height * (0.75 + 0.35 * pull.lid_raise - 1.1 * squint)
    lower = max(lower, 0.04 - upper)
    # A drooping lid hangs over the outer corner.
    hang = 0.07 * pull.lid_droop * _T
    top = hang - upper * (1 - _T**2)
    bottom = np.maximum(lower * (1 - _T**2) + 0.6 * hang, top)
    x = person.eye_x + width * _T

    def place(x: Floats, y: Floats) -> Floats:
        return np.column_stack([side * x, person.eye_y + y])

    canvas.stroke(place(x, top - 0.075), 0.04, 0.72 * skin)
    canvas.fill(np.concatenate([place(x, top), place(x, bottom)[::-1]]), _mix(skin, 255, 0.75))
    across, down = _ellipse(person.eye_x + side * gaze * width, 0.0, person.eye_height, person.eye_height).T
    between_lids = np.clip(down, np.interp(across, x, top), np.interp(across, x, bottom))
    canvas.fill(place(across, between_lids), 25)
    canvas.stroke(place(x, top), 0.06, 0.2 * skin)
    canvas.stroke(place(x, bottom), 0.025, 0.55 * skin)


def _draw_brow(canvas: _Canvas, person: _Person, pull: ActionUnits, side: int) -> None:
    s = _S  # 0 at the inner end, 1 at the outer one
    x = person.eye_x + person.eye_width * (-1.05 + 2.35 * s) - 0.07 * pull.brow_lower * (1 - s)
    y = person.eye_y - person.brow_gap + person.brow_tilt * (0.5 - s) - 0.05 * np.sin(np.pi * s)
    y = y + 0.24 * pull.brow_lower * (1 - s) + 0.07 * (pull.brow_lower + pull.nose_wrinkle)
    y = y - 0.26 * pull.inner_brow_raise * (1 - s) ** 1.3 + 0.05 * pull.inner_brow_raise * s
    y = y - 0.24 * pull.outer_brow_raise * s**0.5 - 0.06 * pull.outer_brow_raise * np.sin(np.pi * s)
    width = person.brow_thickness * (1.15 - 0.6 * s)
    tone = min(person.hair_tone, 0.5 * person.skin)
    canvas.stroke(_mirror(np.column_stack([x, y]), side), width, tone)


def _draw_mouth(canvas: _Canvas, person: _Person, pull: ActionUnits) -> None:
    skin = person.skin
    spread = 1 + 0.3 * pull.lip_stretch + 0.25 * pull.corner_up - 0.4 * pull.lip_round - 0.1 * pull.lip_press
    half = person.mouth_width * spread
    corner = 0.2 * pull.corner_down - 0.26 * pull.corner_up
    opening = 0.5 * max(pull.jaw_drop - 0.08, 0.0)
    # Stretched and bared lips make a box, relaxed ones a lens, rounded ones a ring.
    box = 2 + 4 * (pull.lip_stretch + pull.lip_funnel) + 3 * pull.upper_lip_raise
    profile = (1 - np.abs(_T) ** box) ** (1 - 0.5 * pull.lip_round)
    x = half * _T
    line = person.mouth_y + corner * (np.abs(_T) ** 1.7 - 0.4)
    top = line - (0.2 * (1 - pull.corner_up) * opening + 0.12 * pull.upper_lip_raise) * profile
    bottom = line + (0.8 * opening - 0.04 * pull.upper_lip_raise) * profile
    lip = person.lip * max(1 - 0.75 * pull.lip_press - 0.35 * pull.corner_up, 0.1)
    bow = (1 - _T**2) ** 0.6
    outer_top = top - lip * bow * (1 - 0.3 * np.exp(-((_T / 0.2) ** 2)))
    outer_bottom = bottom + 1.2 * lip * bow

    def between(a: Floats, b: Floats) -> Floats:
        """The region between two heights over `x`."""
        return np.column_stack([np.concatenate([x, x[::-1]]), np.concatenate([a, b[::-1]])])

    shadow = outer_bottom[4:11] + 0.09
    canvas.stroke(np.column_stack([x[4:11] * 0.8, shadow]), 0.05 * _TAPER, 0.8 * skin)
    if person.moustache or person.beard:
        canvas.stroke(np.column_stack([x * 1.1, outer_top - 0.06]), 0.16 * (1.1 - 0.7 * np.abs(_T)), person.hair_tone)
    canvas.fill(between(outer_top, outer_bottom), 0.68 * skin)
    canvas.fill(between(top, bottom), 0.18 * skin)
    if opening > 0.03 or pull.upper_lip_raise > 0.5:
        edge = top + min(pull.teeth, 1.0) * (bottom - top)
        canvas.fill(between(top, edge), _mix(skin, 255, 0.8))
    if opening < 0.05:
        canvas.stroke(np.column_stack([x, (top + bottom) / 2]), 0.045 + 0.03 * pull.lip_press, 0.22 * skin)


def _draw_nose(canvas: _Canvas, person: _Person, pull: ActionUnits) -> None:
    skin, width = person.skin, person.nose_width * (1 + 0.2 * pull.nose_wrinkle)
    tip = person.nose_y - 0.07 * pull.nose_wrinkle
    canvas.stroke(_arc((0.1, person.eye_y), (0.05, 0.1), (0.8 * width, tip)), 0.05, 0.82 * skin, depth=0.15)
    canvas.stroke(
        _arc((-width, tip - 0.02), (0, tip + 0.14), (width, tip - 0.02)), 0.05 * _TAPER, 0.6 * skin, depth=0.2
    )
    for side in (-1, 1):
        canvas.fill(_ellipse(side * 0.55 * width, tip + 0.02, 0.05, 0.035), 0.3 * skin, depth=0.2)


def _draw_glasses(canvas: _Canvas, person: _Person) -> None:
    frame = 0.25 * person.skin
    for side in (-1, 1):
        rim = _ellipse(side * person.eye_x, person.eye_y + 0.03, 0.34, 0.27)
        canvas.stroke(np.concatenate([rim, rim[:1]]), 0.045, frame, depth=0.1)
        canvas.stroke([(side * 0.76, person.eye_y), (side * person.width, person.eye_y - 0.03)], 0.045, frame)
    canvas.stroke(_arc((-0.1, person.eye_y), (0, person.eye_y - 0.06), (0.1, person.eye_y)), 0.045, frame, depth=0.1)


_ACROSS = np.linspace(-1.0, 1.0, SIZE)


def _photograph(image: Image.Image, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Reduce the drawing to 48 x 48 and give it light, blur and noise."""
    blurred = image.reduce(_SUPERSAMPLING).filter(ImageFilter.GaussianBlur(rng.uniform(0.0, 0.8)))
    angle = rng.uniform(0, 2 * np.pi)
    slope = rng.uniform(0.0, 0.35)
    light = 1 + slope * (math.cos(angle) * _ACROSS[None, :] + math.sin(angle) * _ACROSS[:, None])
    picture = np.asarray(blurred, dtype=np.float64) * light
    picture = (picture - 128) * rng.uniform(0.7, 1.1) + 128 + rng.uniform(-25, 25)
    picture += rng.normal(0.0, rng.uniform(1.0, 7.0), size=picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def write_faces(
    root: Path,
    train: int = 2800,
    validation: int = 700,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draw a training and a validation set into `root/{train,validation}/<class>/<00000>.png`.

    A face depends on the seed, its split, its class and its number alone: the same arguments give the same
    files, a larger set begins with the faces of a smaller one, and no face is in both splits. The set appears
    under `root` when it is complete and not before. A set that is already there is left as it is.

    Args:
        root: the folder to make.
        train: number of training faces, shared out evenly over the seven classes.
        validation: number of validation faces, likewise.
        seed: non-negative.
        progress: called after each face with the number of faces drawn and of faces in all.

    Raises:
        ValueError: a split has too few faces to show every class.
        FileExistsError: `root` is there and holds something else.
    """
    counts = dict(zip(_SPLITS, (train, validation), strict=True))
    for split, count in counts.items():
        if count < len(CLASSES):
            raise ValueError(f"{split}={count} is too few: give at least {len(CLASSES)}, one face a class")
    if (root / _SPLITS[0]).is_dir():
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(f"{root} holds no drawn faces but something else: choose another folder")

    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as workshop:
        # A folder inside the temporary one, because the latter can be read by its owner only.
        draft = Path(workshop) / root.name
        done, total = 0, sum(counts.values())
        for i, (split, count) in enumerate(counts.items()):
            for j, expression in enumerate(CLASSES):
                folder = draft / split / expression
                folder.mkdir(parents=True)
                for k in range(count // len(CLASSES) + (j < count % len(CLASSES))):
                    face = draw_face(expression, np.random.default_rng([seed, i, j, k]))
                    Image.fromarray(face).save(folder / f"{k:05d}.png")
                    done += 1
                    if progress is not None:
                        progress(done, total)
        try:
            draft.rename(root)
        except OSError:
            # Another process was first with the same set: drop this one.
            if not (root / _SPLITS[0]).is_dir():
                raise
