"""The archive of ``benchmarks.gpu --pack``: checkout, wheels and images for a machine without network access."""

import importlib.util
import lzma
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

from benchmarks.measuring import ROOT

LIMIT = 60 * 2**20  # bytes of the archive
FOLDER = "fer_exp_gpu"  # what the archive unpacks to
# Wheels that the archive carries. All are pure Python, so that one archive fits every Python version.
WHEELS = ("hydra-core", "omegaconf", "antlr4-python3-runtime", "captum", "imagehash", "platformdirs")
# Packages that the other machine must have. pytest and hypothesis run the GPU tests.
PRESENT = (
    "filelock", "jinja2", "lightning", "matplotlib", "numpy", "pillow", "pyyaml", "rich", "scikit-learn", "scipy",
    "tensorboard", "torch", "torchmetrics", "torchvision", "timm", "pytest", "pytest-xdist", "hypothesis",
)  # fmt: skip
NOT_PACKED = ("docs/",)
COMMANDS = f"""\
    tar xf {{archive}} && cd {FOLDER}
    python3 -m pip install --no-index --no-deps --target site wheels/*.whl
    PYTHONPATH=$PWD/site python3 -m benchmarks.gpu --data images --output OUT --minutes 10"""


def pack(data: Path, archive: Path) -> int:
    """Write the archive and print how to use it.

    Args:
        data: folder with ``train/`` and ``validation/``.
        archive: the file to write.

    Returns:
        The exit status: 1 if the archive is larger than ``LIMIT``.
    """
    with tempfile.TemporaryDirectory() as folder:
        build_wheels(Path(folder))
        write_archive(data, Path(folder), archive)
    size = archive.stat().st_size
    print(f"{archive}: {size / 2**20:.1f} MiB\n\nOn the other machine:\n\n{COMMANDS.format(archive=archive.name)}")
    if size > LIMIT:
        print(f"\nError: the archive is larger than {LIMIT // 2**20} MiB; give a folder with fewer images.")
        return 1
    return 0


def build_wheels(folder: Path) -> None:
    """Build this project's wheel and those of ``WHEELS``, in the versions that are installed here."""
    pip = [sys.executable, "-m", "pip"] if importlib.util.find_spec("pip") else ["uvx", "pip"]
    requirements = [f"{name}=={version(name)}" for name in WHEELS]
    subprocess.run(
        [*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT), *requirements], check=True
    )


def tracked_files() -> list[str]:
    """The checkout's files that git does not ignore, without the documentation."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [name for name in listed.split("\0") if name and not name.startswith(NOT_PACKED) and (ROOT / name).is_file()]


def write_archive(data: Path, wheels: Path, archive: Path) -> None:
    """Write checkout, wheels and images, xz-compressed: images of one kind share their headers."""
    members = [(ROOT / name, name) for name in tracked_files()]
    members += [(wheel, f"wheels/{wheel.name}") for wheel in sorted(wheels.glob("*.whl"))]
    members += [
        (image, f"images/{image.relative_to(data).as_posix()}")
        for split in ("train", "validation")
        for image in sorted((data / split).rglob("*"))
        if image.is_file()
    ]
    with lzma.open(archive, "wb", preset=2) as stream, tarfile.open(fileobj=stream, mode="w") as tar:
        for path, name in members:
            tar.add(path.resolve(), f"{FOLDER}/{name}")
