"""Small class folders, and a cache for each test."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_exp.data.classes import FER_CLASSES

MakeSplit = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default cache folder."""
    monkeypatch.setenv("FER_EXP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def make_split() -> MakeSplit:
    """Write one split: ``count`` PNGs of noise for each of ``names``. Splits of different names share no image."""

    def make(folder: Path, count: int = 2, names: Sequence[str] = FER_CLASSES) -> Path:
        for j, name in enumerate(names):
            (folder / name).mkdir(parents=True)
            for k in range(count):
                rng = np.random.default_rng([j, k, *folder.name.encode()])
                Image.fromarray(rng.integers(0, 256, (48, 48), dtype=np.uint8)).save(folder / name / f"{k:03}.png")
        return folder

    return make


@pytest.fixture
def data_root(tmp_path: Path, make_split: MakeSplit) -> Path:
    """``train/`` with 3 and ``validation/`` with 2 images per class."""
    make_split(tmp_path / "images" / "train", 3)
    make_split(tmp_path / "images" / "validation", 2)
    return tmp_path / "images"


@pytest.fixture
def unprivileged(tmp_path: Path) -> Callable[[], AbstractContextManager[None]]:
    """``with unprivileged():`` file permissions apply, also if the tests run as root."""
    if not hasattr(os, "geteuid"):
        pytest.skip("file permissions are POSIX's")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == Path.home().owner() and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)

    @contextmanager
    def drop_root() -> Iterator[None]:
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        try:
            yield
        finally:
            if is_root:
                os.seteuid(0)

    return drop_root


@pytest.fixture
def real_root() -> Path:
    """The folder of real images in the environment variable FER_EXP_DATA."""
    if not (folder := os.environ.get("FER_EXP_DATA")):
        pytest.skip("FER_EXP_DATA is not set")
    return Path(folder)
