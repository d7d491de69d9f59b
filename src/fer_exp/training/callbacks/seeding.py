"""Random numbers as a function of seed and epoch."""

import lightning as L
import torch

from fer_exp.data.seeding import TRAINING, derive_seed


class SeedEachEpoch(L.Callback):
    """Seeds torch before each epoch, so a resumed run draws the same dropout masks as an uninterrupted one.

    Args:
        seed: the run's seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Seed the generators of the CPU and the GPUs."""
        torch.manual_seed(derive_seed(self.seed, TRAINING, trainer.current_epoch))
