"""What all tests share: a cache of their own, composed configurations, small folders of synthetic images."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image

from fer_exp.config.schema import CONFIG_DIR
from fer_exp.data.sources.synthetic import write_images
from fer_exp.training.hardware import available_cores

Compose = Callable[..., DictConfig]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked ``gpu`` on a machine without a CUDA device."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache folder of the whole test session, child processes included: never the user's own."""
    folder = tmp_path_factory.mktemp("cache")
    patch = pytest.MonkeyPatch()
    patch.setenv("FER_EXP_CACHE", str(folder))
    # Where the shell forbids it, each child process would compile torch's and lightning's sources again.
    patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    yield folder
    patch.undo()


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with 70 training and 35 validation images."""
    root = tmp_path_factory.mktemp("faces") / "drawn"
    write_images(root, train=70, validation=35, seed=0)
    return root


@pytest.fixture(scope="session", autouse=True)
def _cores() -> None:
    """Where tests run side by side (``pytest -n 2``), each process takes its part of the cores, children included."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if processes > 1:
        threads = max(1, available_cores() // processes)
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)


@pytest.fixture(scope="session")
def pixel(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A PNG file of one pixel."""
    file = tmp_path_factory.mktemp("pixel") / "pixel.png"
    Image.new("L", (1, 1)).save(file)
    return file.read_bytes()


@pytest.fixture
def no_plots(pixel: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a pixel in place of each plot of a run: they take longer than a training of two steps."""
    save = "fer_exp.training.callbacks.plots.save_plot"
    monkeypatch.setattr(save, lambda file, *_: bool(file.write_bytes(pixel)))


@pytest.fixture
def composed(tmp_path: Path) -> Compose:
    """Compose the configuration as the command line does: ``composed("optimizer=sgd")``."""

    def compose_train(*overrides: str, config: str = "train") -> DictConfig:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            return compose(config, [f"output_dir={tmp_path}", *overrides])

    return compose_train


@pytest.fixture
def small(composed: Compose, faces: Path) -> Compose:
    """The configuration of a run of seconds on real folders: 7 steps an epoch, 2 epochs, float32."""

    def compose_small(*overrides: str) -> DictConfig:
        return composed(
            "data=folders",
            f"data.root={faces}",
            "data.batch_size=10",
            "trainer.max_epochs=2",
            "trainer.precision=32-true",
            "trainer.accelerator=cpu",  # to the last bit, on a machine with a GPU as well
            "logger=none",
            *overrides,
        )

    return compose_small
