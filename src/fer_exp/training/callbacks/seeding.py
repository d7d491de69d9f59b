"""Random streams that are a function of the seed and the epoch."""

import lightning as L
import torch

from fer_exp.data.seeding import TRAINING, derive_seed


class SeedEachEpoch(L.Callback):
    """Reseeds torch before each epoch: a resumed run draws the dropout masks of one that was never interrupted.

    Args:
        seed: the run's seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Seed the CPU's and the GPUs' generators."""
        torch.manual_seed(derive_seed(self.seed, TRAINING, trainer.current_epoch))
