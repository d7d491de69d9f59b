"""Color images at 112 pixels with a network of timm, from the training to the exported network."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from fer_exp import evaluate, export, predict
from fer_exp.runs.record import read_history

SIZE = 112
# The same values in another order: a command that swaps channels confuses the classes.
COLORS = {"blue": (30, 60, 210), "green": (60, 210, 30), "red": (210, 30, 60)}


@pytest.fixture
def colored(tmp_path):
    """Class folders of plain images with noise, 12 for training and 6 for validation in each of three colors."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("validation", 6)):
        for name, color in COLORS.items():
            folder = tmp_path / "colored" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = np.array(color) + rng.integers(-10, 11, (SIZE, SIZE, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "colored"


def shows_every_color(plot):
    """Whether at least half an image of each color is visible in its own color."""
    pixels = np.asarray(Image.open(plot).convert("RGB")).astype(int)
    return all(np.all(abs(pixels - color) <= 12, axis=-1).sum() > SIZE**2 / 2 for color in COLORS.values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.load")
def test_every_command_handles_color_images_of_112_pixels(command, run_main, colored, tmp_path):
    status, printed = command(
        "data=folders", f"data.root={colored}", f"data.image_size={SIZE}", "data.color=rgb", "data.batch_size=6",
        "model=timm", "model.name=test_resnet", "augmentation=mild", "mixup=mixup", "scheduler=none",
        "optimizer.lr=3e-3", "trainer.max_epochs=8", "trainer.precision=32-true", "callbacks=fixed_budget",
        "logger=none", "hydra.run.dir=run",
    )  # fmt: skip
    assert status == 0, printed
    assert shows_every_color(tmp_path / "run/samples.png")
    assert shows_every_color(tmp_path / "run/augmentation.png")
    best = min(read_history(tmp_path / "run"), key=lambda row: row["val_loss"])
    assert best["val_acc"] == 1

    status, printed = run_main(evaluate.main, "run=run", "resamples=100", "hydra.run.dir=found")
    assert status == 0, printed
    found = json.loads((tmp_path / "found/metrics.json").read_text())
    assert found["tta"]["none"]["accuracy"]["value"] == 1
    assert shows_every_color(tmp_path / "found/gradcam.png")

    shutil.copy(colored / "validation/red/0.png", tmp_path / "red.png")
    status, printed = run_main(predict.main, "run=run", "images=red.png", "output=out.csv")
    assert status == 0, printed
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as lines:
        row = next(csv.DictReader(lines))
    assert row["predicted"] == "red"

    status, printed = run_main(export.main, "run=run", "format=torchscript", "hydra.run.dir=model")
    assert status == 0, printed
    pixels = torch.from_numpy(np.asarray(Image.open("red.png")).transpose(2, 0, 1).copy())[None]
    probabilities = torch.jit.load("model/model.pt")(pixels)[0]
    np.testing.assert_allclose(probabilities.numpy(), [float(row[name]) for name in COLORS], atol=1e-4)
