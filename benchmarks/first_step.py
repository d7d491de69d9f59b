"""A callback that ends the process where its first training step would begin: how long a start takes."""

import os
from typing import Any

import lightning as L


class EndAtFirstStep(L.Callback):
    """Ends the process at once, with status 0, when the first batch is there; nothing is torn down."""

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *batch: Any) -> None:
        """The first step would begin now."""
        os._exit(0)
