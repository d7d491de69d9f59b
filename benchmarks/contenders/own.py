"""fer_exp: this project, by the function that its command calls; a turn is a run of one epoch, with its record."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from benchmarks.contenders.clock import Clock
from benchmarks.contenders.turns import serve
from fer_exp.config.schema import CONFIG_DIR
from fer_exp.runs.record import read_history
from fer_exp.train import train
from fer_exp.training.hardware import choose_accelerator, choose_precision


class Own:
    """A run of ``python -m fer_exp.train data=folders data.root=DIR``, all as configured but for the epoch's length.

    Args:
        root: the folder that holds both splits.
        batch_size: images a step.
        seed: of the run.
        precision: as ``trainer.precision``.
        overrides: further ones of the command.
        others: what other contenders need to know.
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
        # The run's own record holds an epoch's seconds; when its first steps were done, only a callback can tell.
        clock = f"+callbacks.clock._target_={Clock.__module__}.{Clock.__name__}"
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            self.cfg = compose(
                "train", ["data=folders", "trainer.max_epochs=1", clock, f"trainer.precision={precision}", *overrides]
            )
        self.cfg.data.root, self.cfg.data.batch_size, self.cfg.seed = root, batch_size, seed
        self.facts = {
            "precision": choose_precision(self.cfg.trainer.precision, choose_accelerator("auto")[0])[0],
            "threads": torch.get_num_threads(),
            "versions": {},
        }

    def turn(self, steps: int, validation: int) -> dict[str, float]:
        """A run of one epoch."""
        self.cfg.trainer.limit_train_batches, self.cfg.trainer.limit_val_batches = steps, validation
        with tempfile.TemporaryDirectory() as folder:
            self.cfg.output_dir = folder
            train(self.cfg)
            (row,) = read_history(Path(folder))
        figures = {name: row[name] for name in ("train_seconds", "val_seconds", "train_loss", "val_loss")}
        return {"step_seconds": Clock.latest.step_seconds, **figures}


if __name__ == "__main__":
    serve(Own)
