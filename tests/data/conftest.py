"""Class folders small enough to make in each test, and a cache that is never the user's."""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_exp.data.sources.class_folders import CLASSES

MakeSplit = Callable[..., Path]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for the user's cache folder."""
    monkeypatch.setenv("FER_EXP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def make_split() -> MakeSplit:
    """A function that writes one split: ``count`` PNGs of noise for each of ``names``, the same ones every time.

    Splits of different names have no image in common.
    """

    def make(folder: Path, count: int = 2, names: Sequence[str] = CLASSES) -> Path:
        for j, name in enumerate(names):
            (folder / name).mkdir(parents=True)
            for k in range(count):
                face = np.random.default_rng([j, k, *folder.name.encode()]).integers(0, 256, (48, 48), dtype=np.uint8)
                Image.fromarray(face).save(folder / name / f"{k:03}.png")
        return folder

    return make


@pytest.fixture
def data_root(tmp_path: Path, make_split: MakeSplit) -> Path:
    """``train/`` with 3 and ``validation/`` with 2 images a class."""
    make_split(tmp_path / "faces" / "train", 3)
    make_split(tmp_path / "faces" / "validation", 2)
    return tmp_path / "faces"


@pytest.fixture
def public_path() -> Iterator[Path]:
    """As ``tmp_path``, in which only its owner may look, but for all users."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def unprivileged() -> Callable[[], AbstractContextManager[None]]:
    """``with unprivileged():`` file modes count, for root too."""
    if not hasattr(os, "geteuid"):
        pytest.skip("file modes are POSIX's")

    @contextmanager
    def become_nobody() -> Iterator[None]:
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        try:
            yield
        finally:
            if is_root:
                os.seteuid(0)

    return become_nobody


@pytest.fixture
def real_root() -> Path:
    """The folder of real images that the environment variable FER_EXP_DATA names."""
    named = os.environ.get("FER_EXP_DATA")
    if not named:
        pytest.skip("FER_EXP_DATA names no folder of real images")
    return Path(named)
