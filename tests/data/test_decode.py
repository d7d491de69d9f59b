"""Any image becomes (C, S, S) uint8, on one core and on several; an unreadable one gets a reason."""

import io
import os
import struct
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from fer_exp.data import decode
from fer_exp.data.decode import ImageFormat, PixelText, decode_images, failure_reason
from fer_exp.data.folders import walk_images


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    """Gray values that differ under every flip and rotation, and survive JPEG."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return (40 + 120 * x + 60 * y + 30 * x * y).astype(np.uint8)


def luma(rgb: np.ndarray) -> np.ndarray:
    """ITU-R 601."""
    return rgb[..., :3].astype(float) @ (0.299, 0.587, 0.114)


def encode(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def decoded(source, **image_format) -> np.ndarray:
    result = decode_images([source], 1, ImageFormat(**image_format))
    assert result.unreadable == {}
    return result.images[0]


def reason(source) -> str:
    result = decode_images([source], 1, ImageFormat())
    assert not result.images.any()
    return result.unreadable[0]


def assert_gray(source, expected, tolerance=0):
    pixels = decoded(source)
    assert (pixels.shape, pixels.dtype) == ((1, 48, 48), np.uint8)
    assert np.abs(pixels[0].astype(float) - expected).max() <= tolerance


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF", "GIF"])
def test_gray_pixels_are_unchanged(kind):
    assert_gray(encode(noise(48, 48), kind), noise(48, 48))


def test_a_gray_jpeg_is_what_pillow_decodes():
    content = encode(noise(48, 48), "JPEG")
    assert_gray(content, np.asarray(Image.open(io.BytesIO(content))))


def palette(transparency=None):
    image = Image.fromarray(noise(48, 48)).convert("P")
    image.putpalette(noise(256, 3).tobytes())
    return encode(image, **({} if transparency is None else {"transparency": transparency}))


LAB = ImageCms.applyTransform(
    Image.new("RGB", (48, 48), (200, 100, 50)),
    ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"),
)
RGB, RGBA, GRAY = noise(48, 48, 3), noise(48, 48, 4), noise(48, 48)
OPACITY = RGBA[..., 3] / 255
TAN = luma(np.array([200, 100, 50]))


@pytest.mark.parametrize(
    ("content", "expected", "tolerance"),
    [
        pytest.param(encode(RGB), luma(RGB), 1, id="RGB"),
        pytest.param(encode(RGBA), OPACITY * luma(RGBA) + (1 - OPACITY) * 255, 2, id="RGBA on white"),
        pytest.param(encode(GRAY, transparency=int(GRAY[0, 0])), np.where(GRAY[0, 0] == GRAY, 255, GRAY), 0, id="tRNS"),
        pytest.param(encode(Image.new("CMYK", (48, 48), (55, 155, 205, 0)), "JPEG"), TAN, 3, id="CMYK"),
        pytest.param(encode(LAB, "TIFF"), TAN, 3, id="LAB"),
        pytest.param(encode(GRAY > 127), (GRAY > 127) * 255, 0, id="1 bit"),
        pytest.param(encode(GRAY.astype(np.uint16) * 256 + 99), GRAY, 0, id="16 bit"),
        pytest.param(b"P5 48 48 65535\n" + (GRAY.astype(">u2") * 257).tobytes(), GRAY, 0, id="16 bit PGM"),
    ],
)
def test_modes_become_gray(content, expected, tolerance):
    assert_gray(content, expected, tolerance)


@pytest.mark.parametrize("transparency", [None, 7])
def test_a_palette_becomes_gray(transparency):
    image = Image.open(io.BytesIO(palette(transparency))).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    assert_gray(palette(transparency), luma(np.asarray(image)), 1)


@pytest.mark.parametrize("full_scale", [1, 255, 65535, 2**31 - 1])
@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_values_are_scaled(dtype, full_scale):
    levels = np.rint(noise(48, 48) / 255 * full_scale).astype(dtype)
    levels[0, :2] = 0, full_scale
    assert_gray(encode(levels, "TIFF"), levels / full_scale * 255, 0.5)


def test_32_bit_values_out_of_range_are_clipped():
    levels = np.full((48, 48), 0.5, np.float32)
    levels[0, :3] = np.nan, -1, 1
    assert decoded(encode(levels, "TIFF"))[0, 0, :4].tolist() == [0, 0, 255, 128]
    assert not decoded(encode(np.zeros((48, 48), np.float32), "TIFF")).any()


ROTATIONS = [lambda a: a, np.fliplr, lambda a: np.rot90(a, 2), np.flipud, np.transpose, lambda a: np.rot90(a, -1),
             lambda a: np.rot90(a, 2).T, np.rot90]  # fmt: skip


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "size"), [("JPEG", 48), ("JPEG", 400), ("PNG", 48), ("TIFF", 48)])
def test_the_exif_orientation_is_applied(orientation, kind, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert_gray(encode(smooth(size, size), kind, exif=exif), ROTATIONS[orientation - 1](smooth(48, 48)), 4)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_malformed_exif_tags_do_not_matter(kind):
    orientation = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    text_as_rational = struct.pack("<HHI4s", 0x011A, 2, 3, b"no")
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + orientation + text_as_rational + bytes(4)
    assert_gray(encode(smooth(48, 48), kind, exif=exif), np.rot90(smooth(48, 48), -1), 8)


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_the_first_frame_of_an_animation(kind, options):
    frames = [Image.new("L", (48, 48), level) for level in (50, 200)]
    assert_gray(encode(frames[0], kind, save_all=True, append_images=frames[1:], **options), 50)


@pytest.mark.parametrize("size", [(1, 1), (20, 30), (49, 47), (640, 480)])
def test_resizing_stretches_with_antialiasing(size):
    expected = np.asarray(Image.fromarray(smooth(*size)).resize((48, 48), Image.Resampling.BILINEAR))
    assert_gray(encode(smooth(*size)), expected)
    assert_gray(encode(smooth(*size), "JPEG", quality=95), expected, 4)
    checkerboard = (np.indices((480, 480)).sum(0) % 2 * 255).astype(np.uint8)
    assert_gray(encode(checkerboard), 127.5, 4)


def test_color_size_and_aspect_ratio():
    wide = np.zeros((60, 120, 3), np.uint8)
    wide[:, 30:90] = (10, 200, 30)
    assert decoded(encode(wide), size=64, color="rgb").shape == (3, 64, 64)
    cropped = decoded(encode(wide), size=30, color="rgb", resize="crop")
    assert np.abs(cropped[:, :, 1:-1] - np.array([10.0, 200, 30]).reshape(3, 1, 1)).max() <= 2
    padded = decoded(encode(np.full((60, 120), 200, np.uint8)), size=40, resize="pad")
    assert (padded[0, 15:25] == 200).all()
    assert not padded[0, :8].any()
    large = encode(np.full((900, 1200, 3), (10, 200, 30), np.uint8), "JPEG")
    assert np.abs(decoded(large, size=112, color="rgb", resize="crop")[:, 50, 50] - [10.0, 200, 30]).max() < 4


def test_table_cells_are_images():
    assert_gray(PixelText(" ".join(map(str, GRAY.ravel().tolist()))), GRAY)
    for text, said in [("1 2 3", "3 pixel values"), ("", "0 pixel values"), ("0 0 0 256", "256"), ("0 0 -1 0", "-1"),
                       ("0 0 x 0", "integers"), ("0 0 1.5 0", "integers"), ("9" * 30, "0..255")]:  # fmt: skip
        assert said in reason(PixelText(text))


JPEG, PNG = encode(GRAY, "JPEG"), encode(GRAY)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"404: Not Found\n", "not a JPEG"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n%%EOF\n", "not a JPEG"),
        (JPEG[:100], "damaged"),
        (JPEG[:-500], "truncated"),
        (PNG[:-500], "truncated"),
        (encode(GRAY, "TIFF")[:-500], "damaged"),
        (encode(GRAY, "WEBP")[:-50], "damaged"),
    ],
)
def test_unreadable_images_get_a_reason(content, said, tmp_path):
    assert said in reason(content)
    (tmp_path / "image.jpg").write_bytes(content)
    assert said in reason(str(tmp_path / "image.jpg"))


def test_a_reason_is_one_line_without_the_file_name():
    assert failure_reason(PermissionError(13, "Permission denied", "image.jpg")) == "Permission denied"
    assert failure_reason(ValueError("two\n lines")) == "damaged (two lines)"


def test_a_small_file_that_declares_a_huge_image_is_not_decoded():
    assert "too large" in reason(b"P5 60000 60000 255\n")


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.one_of(
        st.binary(max_size=300), st.tuples(st.sampled_from([JPEG, PNG]), st.integers(0, 2000), st.integers(0, 255))
    )
)
def test_any_bytes_are_decoded_or_get_a_reason(content):
    if isinstance(content, tuple):
        content, place, byte = content
        content = content[:place] + bytes([byte]) + content[place + 1 :]
    result = decode_images([content], 1, ImageFormat())
    assert result.images.shape == (1, 1, 48, 48)
    for text in result.unreadable.values():
        assert text.strip()
        assert text.isprintable()
        assert not result.images.any()


@pytest.fixture
def mixed_files(tmp_path: Path) -> tuple[list[str], np.ndarray, dict[int, str]]:
    """16 paths, the pixels of the 11 readable images, and a part of the reason for the others."""
    pixels = noise(16, 1, 48, 48)
    paths = [tmp_path / f"{i:02}.png" for i in range(16)]
    for path, image in zip(paths, pixels, strict=True):
        path.write_bytes(encode(image[0]))
    paths[1].write_text("no image")
    paths[4].write_bytes(b"")
    paths[7].write_bytes(paths[7].read_bytes()[:1000])
    paths[10].unlink()
    paths[13].unlink()
    paths[13].mkdir()
    pixels[1::3] = 0
    said = {1: "not a JPEG", 4: "empty", 7: "truncated", 10: "No such file", 13: "Is a directory"}
    return list(map(str, paths)), pixels, said


def assert_decoded(result, mixed_files):
    paths, expected, said = mixed_files
    assert np.array_equal(result.images, expected)
    assert list(result.unreadable) == list(said)
    assert all(said[i] in text and str(Path(paths[i]).parent) not in text for i, text in result.unreadable.items())
    assert Counter(result.originals) == {(48, 48, "L"): 11, (0, 0, ""): len(said)}


def test_images_come_in_order_and_unreadable_ones_together(mixed_files):
    assert_decoded(decode_images(mixed_files[0], 16, ImageFormat()), mixed_files)


def test_several_processes_give_the_same_result(mixed_files, monkeypatch):
    monkeypatch.setattr(decode, "_PARALLEL_FROM", 16)
    monkeypatch.setattr(decode, "CHUNK_SIZE", 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    seen = []
    assert_decoded(decode_images(iter(mixed_files[0]), 16, ImageFormat(), lambda *done: seen.append(done)), mixed_files)
    assert seen == [(3, 16), (6, 16), (9, 16), (12, 16), (15, 16), (16, 16)]


def test_a_script_without_a_main_guard_decodes_in_its_own_process(mixed_files, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import os, sys
            from fer_exp.data import decode
            decode._PARALLEL_FROM, decode.CHUNK_SIZE = 1, 3
            os.sched_getaffinity = lambda pid: {0, 1}
            result = decode.decode_images(sys.argv[1:], len(sys.argv) - 1, decode.ImageFormat())
            print(result.images.sum(), len(result.unreadable))
            print({"torch", "lightning"} & set(sys.modules))
        """)
    )
    paths, pixels, said = mixed_files
    done = subprocess.run([sys.executable, script, *paths], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == [f"{pixels.sum()} {len(said)}", "set()"]


def test_real_images_are_what_pillow_decodes(real_root):
    paths = [
        str(real_root / "validation" / name) for name in sorted(walk_images(real_root / "validation").images)[::50]
    ]
    result = decode_images(paths, len(paths), ImageFormat())
    assert result.unreadable == {}
    for path, image in zip(paths, result.images, strict=True):
        assert np.array_equal(image[0], np.asarray(Image.open(path)))
