"""Any image becomes 48x48 grey, the same on one core and on many; what is no image is named."""

import io
import os
import struct
import subprocess
import sys
import tempfile
import textwrap
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_exp.data import decode
from fer_exp.data.decode import MOST_PIXELS, decode_file, decode_files, failure_reason
from fer_exp.data.sources.class_folders import find_splits, list_images


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    """Grey levels that differ under every flip and rotation, and outlive JPEG."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return (40 + 120 * x + 60 * y + 30 * x * y).astype(np.uint8)


def luma(rgb: np.ndarray) -> np.ndarray:
    """ITU-R 601."""
    return rgb[..., :3].astype(float) @ (0.299, 0.587, 0.114)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def assert_face(face: np.ndarray, expected: np.ndarray | float, tolerance: float = 0) -> None:
    assert face.shape == (48, 48)
    assert face.dtype == np.uint8
    assert np.abs(face.astype(float) - expected).max() <= tolerance


def test_a_plain_jpeg_is_what_pil_decodes(tmp_path):
    path = saved(Image.fromarray(noise(48, 48)), tmp_path / "face.jpg")
    with Image.open(path) as image:
        assert_face(decode_file(path), np.asarray(image))


@pytest.mark.parametrize("suffix", ["png", "bmp", "pgm", "tif", "gif"])
def test_plain_grey_survives_exactly(tmp_path, suffix):
    face = noise(48, 48)
    assert_face(decode_file(saved(Image.fromarray(face), tmp_path / f"face.{suffix}")), face)


def test_colour(tmp_path):
    rgb = noise(48, 48, 3)
    assert_face(decode_file(saved(Image.fromarray(rgb), tmp_path / "face.png")), luma(rgb), 1)


def test_colour_jpeg(tmp_path):
    path = saved(Image.fromarray(np.stack([smooth(48, 48)] * 3, -1)), tmp_path / "face.jpg", quality=95)
    assert_face(decode_file(path), smooth(48, 48), 4)


def test_transparent_colour_is_laid_on_white(tmp_path):
    rgba = noise(48, 48, 4)
    opacity = rgba[..., 3] / 255
    expected = opacity * luma(rgba) + (1 - opacity) * 255
    assert_face(decode_file(saved(Image.fromarray(rgba), tmp_path / "face.png")), expected, 2)


def test_transparent_grey_is_laid_on_white(tmp_path):
    grey, opacity = noise(2, 48, 48)
    image = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(opacity)])
    expected = opacity / 255 * grey + (1 - opacity / 255) * 255
    assert_face(decode_file(saved(image, tmp_path / "face.png")), expected, 2)


def test_a_grey_png_with_one_transparent_level(tmp_path):
    face = noise(48, 48)
    path = saved(Image.fromarray(face), tmp_path / "face.png", transparency=int(face[0, 0]))
    assert_face(decode_file(path), np.where(face == face[0, 0], 255, face))


@pytest.mark.parametrize("transparent", [None, 7])
def test_palette(tmp_path, transparent):
    colours = noise(256, 3)
    places = noise(48, 48)
    places[0, 0] = 7
    image = Image.fromarray(places).convert("P")
    image.putpalette(colours.tobytes())
    image.putdata(places.ravel().tolist())
    options = {} if transparent is None else {"transparency": transparent}
    expected = luma(colours[places])
    if transparent is not None:
        expected[places == transparent] = 255
    assert_face(decode_file(saved(image, tmp_path / "face.png", **options)), expected, 1)


def test_palette_with_degrees_of_transparency(tmp_path):
    places = noise(48, 48)
    image = Image.new("P", (48, 48))
    image.putpalette(np.repeat(np.arange(256, dtype=np.uint8), 3).tobytes())
    image.putdata(places.ravel().tolist())
    opacity = np.arange(256)[::-1]
    path = saved(image, tmp_path / "face.png", transparency=bytes(opacity.tolist()))
    share = opacity[places] / 255
    assert_face(decode_file(path), share * places + (1 - share) * 255, 2)


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk(tmp_path, suffix):
    image = Image.fromarray(np.full((48, 48, 3), (200, 100, 50), np.uint8)).convert("CMYK")
    assert_face(decode_file(saved(image, tmp_path / f"face.{suffix}")), luma(np.array([200, 100, 50])), 3)


def test_black_and_white(tmp_path):
    bits = noise(48, 48) > 127
    assert_face(decode_file(saved(Image.fromarray(bits), tmp_path / "face.png")), bits * 255)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_keep_their_upper_byte(tmp_path, suffix):
    levels = noise(48, 48).astype(np.uint16) * 256 + noise(2, 48, 48)[1]
    image = Image.fromarray(levels)
    assert image.mode == "I;16"
    assert_face(decode_file(saved(image, tmp_path / f"face.{suffix}")), levels // 256)


def test_sixteen_bit_pgm(tmp_path):
    levels = noise(48, 48).astype(np.uint16) * 257
    (tmp_path / "face.pgm").write_bytes(b"P5 48 48 65535\n" + levels.astype(">u2").tobytes())
    assert_face(decode_file(tmp_path / "face.pgm"), levels // 257)


@pytest.mark.parametrize("full_scale", [1, 255, 65535, 2**31 - 1])
def test_thirty_two_bit_integers(tmp_path, full_scale):
    levels = np.rint(noise(48, 48) / 255 * full_scale).astype(np.int32)
    levels[0, :2] = 0, full_scale
    image = Image.fromarray(levels)
    assert image.mode == "I"
    assert_face(decode_file(saved(image, tmp_path / "face.tif")), levels / full_scale * 255, 0.5)


@pytest.mark.parametrize("full_scale", [1, 255, 65535])
def test_floats(tmp_path, full_scale):
    levels = (noise(48, 48) / 255 * full_scale).astype(np.float32)
    levels[0, :2] = 0, full_scale
    image = Image.fromarray(levels)
    assert image.mode == "F"
    assert_face(decode_file(saved(image, tmp_path / "face.tif")), np.rint(levels / full_scale * 255))


def test_floats_that_are_no_brightness(tmp_path):
    levels = np.full((48, 48), 0.5, np.float32)
    levels[0, :3] = np.nan, -1, 1
    face = decode_file(saved(Image.fromarray(levels), tmp_path / "face.tif"))
    assert face[0, :4].tolist() == [0, 0, 255, 128]


def test_thirty_two_bits_of_black(tmp_path):
    for dtype in (np.int32, np.float32):
        path = saved(Image.fromarray(np.zeros((48, 48), dtype)), tmp_path / f"{dtype.__name__}.tif")
        assert_face(decode_file(path), 0)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (4, np.flipud),
        (5, np.transpose),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).T),
        (8, np.rot90),
    ],
)
@pytest.mark.parametrize(("suffix", "size"), [("jpg", 48), ("jpg", 400), ("png", 48), ("tif", 48)])
def test_exif_rotation(tmp_path, orientation, upright, suffix, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(Image.fromarray(smooth(size, size)), tmp_path / f"face.{suffix}", exif=exif)
    assert_face(decode_file(path), upright(smooth(48, 48)), 4)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_photograph_is_turned_whatever_else_the_camera_noted(tmp_path, suffix):
    turned, resolution = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0), struct.pack("<HHI4s", 0x011A, 2, 3, b"no")  # a text
    note = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + turned + resolution + bytes(4)
    path = saved(Image.fromarray(smooth(48, 48)), tmp_path / f"face.{suffix}", exif=note)
    assert_face(decode_file(path), np.rot90(smooth(48, 48), -1), 8)


@pytest.mark.parametrize(("suffix", "options"), [("gif", {}), ("png", {}), ("webp", {"lossless": True}), ("tif", {})])
def test_the_first_frame_of_several(tmp_path, suffix, options):
    first, second = (Image.fromarray(np.full((48, 48), level, np.uint8)) for level in (50, 200))
    path = saved(first, tmp_path / f"face.{suffix}", save_all=True, append_images=[second], **options)
    with Image.open(path) as image:
        assert image.n_frames == 2
    assert_face(decode_file(path), 50)


@pytest.mark.parametrize("size", [(1, 1), (20, 30), (49, 47), (96, 96), (640, 480), (3000, 2000)])
def test_other_sizes_are_squeezed_to_the_square(tmp_path, size):
    height, width = size
    levels = smooth(height, width)
    expected = np.asarray(Image.fromarray(levels).resize((48, 48), Image.Resampling.BILINEAR))
    assert_face(decode_file(saved(Image.fromarray(levels), tmp_path / "face.png")), expected)
    assert_face(decode_file(saved(Image.fromarray(levels), tmp_path / "face.jpg", quality=95)), expected, 4)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_reducing_averages_instead_of_picking_pixels(tmp_path, suffix):
    board = (np.indices((480, 480)).sum(0) % 2 * 255).astype(np.uint8)
    assert_face(decode_file(saved(Image.fromarray(board), tmp_path / f"face.{suffix}", quality=95)), 127.5, 4)


def test_a_very_large_picture_is_no_attack(tmp_path, monkeypatch, recwarn):
    path = saved(Image.fromarray(smooth(100, 100)), tmp_path / "face.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6_000)  # Pillow warns from here, and refuses from twice this
    assert decode_file(path).shape == (48, 48)
    assert not recwarn.list


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, pixels: bytes = b"", *more: tuple[bytes, bytes]) -> bytes:
    """A grey PNG whose parts need not fit together."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), *more, (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in parts
    )


def why(tmp_path: Path, content: bytes) -> str:
    """The reason why a file of this content is not decoded."""
    (tmp_path / "face.jpg").write_bytes(content)
    ((_, reason),) = decode_files([str(tmp_path / "face.jpg")])[1]
    return reason


JPEG = encoded(Image.fromarray(noise(48, 48)), "JPEG")
PNG = encoded(Image.fromarray(noise(48, 48)), "PNG")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (bytes(5000), "nothing but zeros, not an image"),
        (b"404: Not Found\n", "text, not an image"),
        ("表情".encode() * 171, "text, not an image"),  # its 1,024th byte is in the middle of a sign
        (b"\xef\xbb\xbf<!DOCTYPE html>\n<html><body>login</body></html>", "a web page, not an image"),
        (b"<?xml version='1.0'?>\n<!-- made by hand -->\n<svg width='48'/>", "an SVG drawing, not an image of pixels"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a pointer of Git LFS, not the image"),
        (b"%PDF-1.7\n", "a PDF document, not an image"),
        (b"PK\3\4" + bytes(50), "an archive or an office document, not an image"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC or AVIF image, which is not read here: save it as JPEG"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "a film"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n%%EOF\n", "of the format EPS"),
        (b"\x01\x02\x03\x04", "not an image"),
        (b"\xff\xfe\xfd", "not an image"),
        (JPEG[:3], "damaged or cut off"),
        (JPEG[:100], "damaged or cut off"),
        (JPEG[:-500], "damaged or cut off (image file is truncated"),
        (PNG[:30], "damaged or cut off"),
        (PNG[:-500], "damaged or cut off (image file is truncated"),
        (encoded(Image.fromarray(noise(48, 48)), "TIFF")[:-500], "damaged or cut off ("),
        (encoded(Image.fromarray(noise(48, 48)), "WEBP")[:-50], "damaged or cut off ("),
        (encoded(Image.fromarray(noise(48, 48)), "BMP")[:-50], "damaged or cut off ("),
    ],
)
def test_what_is_no_image_is_told_in_words(tmp_path, content, said):
    assert why(tmp_path, content).startswith(said)


def test_other_failures_are_told_in_words_too():
    assert failure_reason(MemoryError()) == "more memory is needed to decode it than there is"
    assert failure_reason(PermissionError(13, "Permission denied", "face.jpg")) == "Permission denied"
    assert failure_reason(ValueError("two\n lines")) == "damaged or cut off (two lines)"
    assert failure_reason(Image.DecompressionBombError("99")) == "too large (99)"  # of a part within a file


@pytest.mark.parametrize(
    "bomb",
    [
        png(60_000, 60_000),
        encoded(Image.new("L", (1, 1)), "GIF").replace(b"\1\0\1\0", struct.pack("<HH", 60_000, 60_000)),
        b"P5 60000 60000 255\n" + bytes(100),
        JPEG.replace(b"\xff\xc0\0\x0b\x08\0\x30\0\x30", b"\xff\xc0\0\x0b\x08" + struct.pack(">HH", 60_000, 60_000)),
    ],
    ids=["png", "gif", "pgm", "jpeg"],
)
def test_a_small_file_that_declares_a_huge_image_is_refused_before_it_is_decoded(tmp_path, monkeypatch, bomb):
    monkeypatch.setattr(Image.Image, "load", None)
    assert why(tmp_path, bomb).startswith("too large: 60,000 x 60,000 pixels, and ")


def test_no_more_is_unpacked_than_declared(tmp_path):
    (tmp_path / "face.png").write_bytes(png(48, 48, bytes(100_000_000)))
    assert_face(decode_file(tmp_path / "face.png"), 0)
    text = (b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000)))
    assert "too large" in why(tmp_path, png(48, 48, bytes(48 * 49), text))


@pytest.mark.parametrize(
    ("side", "kind", "options", "is_read"),
    [
        (100, "PNG", {}, True),
        (101, "PNG", {}, False),
        (282, "JPEG", {}, True),  # which takes the memory of 36 x 36
        (283, "JPEG", {}, False),
        (100, "JPEG", {"progressive": True}, True),
        (101, "JPEG", {"progressive": True}, False),
    ],
)
def test_the_largest_image_that_is_decoded(tmp_path, monkeypatch, side, kind, options, is_read):
    assert decode.MOST_REDUCED_PIXELS == 8 * MOST_PIXELS
    monkeypatch.setattr(decode, "MOST_PIXELS", 10_000)
    monkeypatch.setattr(decode, "MOST_REDUCED_PIXELS", 80_000)
    content = encoded(Image.fromarray(smooth(side, side)), kind, **options)
    if is_read:
        assert_face(decode_file(io.BytesIO(content)), smooth(48, 48), 4)
    else:
        assert why(tmp_path, content).startswith(f"too large: {side} x {side} pixels")


def test_a_photograph_beyond_pillows_limit_is_read_and_that_limit_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for content, expected in ((encoded(Image.fromarray(smooth(300, 300)), "JPEG"), 0), (b"no image", 1)):
        (tmp_path / "face.jpg").write_bytes(content)
        assert len(decode_files([str(tmp_path / "face.jpg")])[1]) == expected
        assert Image.MAX_IMAGE_PIXELS == 1000


def test_a_damaged_note_of_the_camera_spoils_no_image_and_is_not_warned_of(recwarn):
    note = b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1"
    content = JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(note) + 2) + note + JPEG[2:]
    with Image.open(io.BytesIO(JPEG)) as image:
        assert_face(decode_file(io.BytesIO(content)), np.asarray(image))
    assert not recwarn.list


@cache
def samples() -> list[bytes]:
    face = Image.fromarray(smooth(40, 30))
    colour = Image.merge("RGBA", [face] * 4)
    kinds: list[tuple[Image.Image, str, dict[str, object]]] = [
        *((face, kind, {}) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "WEBP")),
        (face, "JPEG", {"progressive": True}),
        (face, "TIFF", {"compression": "tiff_lzw"}),
        (colour, "PNG", {}),
        (colour.convert("P"), "PNG", {"transparency": 3}),
        (colour.convert("CMYK"), "JPEG", {}),
        (Image.fromarray(smooth(40, 30).astype(np.uint16) * 257), "PNG", {}),
        (face, "GIF", {"save_all": True, "append_images": [colour]}),
    ]
    return [encoded(image, kind, **options) for image, kind, options in kinds]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A sound image in which some bytes are others, are missing, or are there twice."""
    content = bytearray(draw(st.sampled_from(samples())))
    for _ in range(draw(st.integers(0, 4))):
        # Mostly at the beginning, where sizes and kinds stand.
        place = draw(st.integers(0, min(60, len(content))) | st.integers(0, len(content)))
        until = place + draw(st.integers(0, 8))
        content[place:until] = draw(st.binary(max_size=8) | st.just(bytes(content[place:until]) * 2))
    return bytes(content[: draw(st.integers(0, len(content)) | st.just(len(content)))])


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.binary(max_size=200) | mutated())
def test_any_bytes_are_a_face_or_have_a_reason(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "face.jpg")
        path.write_bytes(content)
        faces, failures = decode_files([str(path)])
    assert (faces.shape, faces.dtype) == ((1, 48, 48), np.uint8)
    if failures:
        ((failed, reason),) = failures
        assert failed == str(path)
        assert reason.strip()
        assert reason.isprintable()
        assert not faces.any()


@pytest.fixture
def mixed_files(tmp_path: Path) -> tuple[list[str], np.ndarray, dict[str, str]]:
    """Eleven good and five bad files, the good ones' pixels, and what should be said about the bad ones."""
    faces = noise(16, 48, 48)
    paths = [str(saved(Image.fromarray(face), tmp_path / f"{i:02}.png")) for i, face in enumerate(faces)]
    said = ["text, not an image", "an empty file", "cut off", "No such file", "Is a directory"]
    bad = dict(zip(paths[1::3], said, strict=True))
    text, empty, cut, missing, folder = map(Path, bad)
    text.write_text("no image")
    empty.write_bytes(b"")
    cut.write_bytes(cut.read_bytes()[:1000])
    missing.unlink()
    folder.unlink()
    folder.mkdir()
    faces[1::3] = 0
    return paths, faces, bad


def assert_decoded(result, mixed_files):
    paths, expected, bad = mixed_files
    faces, failures = result
    assert faces.dtype == np.uint8
    assert np.array_equal(faces, expected)
    assert [path for path, _ in failures] == list(bad)
    for (_, reason), part in zip(failures, bad.values(), strict=True):
        assert reason
        assert part in reason
        assert str(Path(paths[0]).parent) not in reason  # the path stands beside it already


def test_files_come_back_in_order_and_the_bad_ones_are_named(mixed_files):
    assert_decoded(decode_files(mixed_files[0]), mixed_files)


def test_many_processes_give_what_one_gives(mixed_files, monkeypatch):
    monkeypatch.setattr(decode, "_PARALLEL_FROM", 16)
    monkeypatch.setattr(decode, "_CHUNK", 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    used = []
    parallel = decode._work_in_parallel
    monkeypatch.setattr(decode, "_work_in_parallel", lambda *args: used.append(args) or parallel(*args))
    seen = []
    assert_decoded(decode_files(mixed_files[0], lambda *done: seen.append(done)), mixed_files)
    assert len(used) == 1
    assert seen == [(3, 16), (6, 16), (9, 16), (12, 16), (15, 16), (16, 16)]


def test_one_odd_file_does_not_hide_the_others(tmp_path, monkeypatch):
    class OddError(Exception):
        pass

    def odd(path):
        raise OddError

    monkeypatch.setattr(decode, "decode_file", odd)
    assert decode_files(["a", "b"])[1] == [(name, "damaged or cut off (OddError)") for name in "ab"]


def test_no_files():
    faces, failures = decode_files([])
    assert faces.shape == (0, 48, 48)
    assert failures == []


def test_a_script_without_a_main_guard_decodes_all_the_same(mixed_files, tmp_path):
    """Each worker would run such a script again, which Python refuses: the pool breaks, and one process does it."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import os, sys
            from fer_exp.data import decode
            decode._PARALLEL_FROM = 1
            os.sched_getaffinity = lambda pid: {0, 1}
            faces, failures = decode.decode_files(sys.argv[1:])
            print(faces.sum(), len(failures))
        """)
    )
    paths, faces, bad = mixed_files
    done = subprocess.run([sys.executable, script, *paths], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(faces.sum()), str(len(bad))]
    assert "decoded by one process" in done.stderr


def test_worker_processes_start_without_torch():
    program = "import sys, fer_exp.data.decode; print(sorted({'torch', 'lightning', 'torchvision'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_real_images_are_what_pil_decodes(real_root):
    layout = find_splits(real_root)
    listing = list_images(layout.validation)
    paths = [str(listing.folder / file) for file in listing.files[::50]]
    faces, failures = decode_files(paths)
    assert failures == []
    for path, face in zip(paths, faces, strict=True):
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("L", (48, 48))
            assert np.array_equal(face, np.asarray(image))
