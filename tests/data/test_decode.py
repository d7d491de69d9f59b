"""Any image becomes 48x48 grey, the same on one core and on many; what is no image is named."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_exp.data import decode
from fer_exp.data.decode import decode_file, decode_files
from fer_exp.data.folders import find_splits, list_images


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


@pytest.fixture
def mixed_files(tmp_path: Path) -> tuple[list[str], np.ndarray, dict[str, str]]:
    """Eleven good and five bad files, the good ones' pixels, and what should be said about the bad ones."""
    faces = noise(16, 48, 48)
    paths = [str(saved(Image.fromarray(face), tmp_path / f"{i:02}.png")) for i, face in enumerate(faces)]
    bad = dict(zip(paths[1::3], ["not an image", "not an image", "", "No such file", "Is a directory"], strict=True))
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
    assert decode_files(["a", "b"])[1] == [("a", "OddError"), ("b", "OddError")]


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
