"""fer_exp: this project, by the function behind its command. A turn is a run of one epoch with its record."""

import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from benchmarks.contenders.clock import Clock
from benchmarks.contenders.turns import serve
from fer_exp.config.schema import CONFIG_DIR
from fer_exp.train import train
from fer_exp.training.hardware import choose_accelerator, choose_precision

CLOCK = f"+callbacks.clock._target_={Clock.__module__}.{Clock.__name__}"


class Own:
    """A run of ``python -m fer_exp.train data=folders data.root=DIR`` with a shorter epoch.

    Args:
        root: folder with both splits.
        batch_size: images of a batch.
        seed: of the run.
        precision: value of ``trainer.precision``.
        overrides: additional ones of the command.
        others: settings of other contenders.
    """

    def __init__(
        self,
        root: str,
        batch_size: int,
        seed: int = 0,
        precision: str = "auto",
        overrides: Sequence[str] = (),
        **others: Any,
    ) -> None:
        run = ("data=folders", f"data.batch_size={batch_size}", f"seed={seed}", "trainer.max_epochs=1", CLOCK)
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            self.cfg = compose("train", [*run, f"trainer.precision={precision}", *overrides])
        self.cfg.data.root = root
        self.facts = {
            "precision": choose_precision(self.cfg.trainer.precision, choose_accelerator("auto")),
            "threads": torch.get_num_threads(),
            "versions": {},
        }

    def turn(self, steps: int, validation: int) -> dict[str, float]:
        """Train for one epoch."""
        self.cfg.trainer.limit_train_batches, self.cfg.trainer.limit_val_batches = steps, validation
        with tempfile.TemporaryDirectory() as folder:
            self.cfg.output_dir = folder
            train(self.cfg)
            with Path(folder, "history.csv").open(newline="", encoding="utf-8") as file:
                (epoch,) = csv.DictReader(file)
        columns = ("train_seconds", "val_seconds", "train_loss", "val_loss")
        return {"step_seconds": Clock.latest.step_seconds, **{name: float(epoch[name]) for name in columns}}


if __name__ == "__main__":
    serve(Own)
