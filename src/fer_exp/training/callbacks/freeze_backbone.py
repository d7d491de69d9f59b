"""Training of the last layer alone, before that of the whole network."""

import lightning as L

from fer_exp.training.module import Classifier, backbone_parameters, find_head


class FreezeBackbone(L.Callback):
    """Freezes all layers but the last one in the first epochs.

    Frozen layers are in evaluation mode: their weights and the statistics of batch norm do not change. (Lightning's
    BackboneFinetuning adds the layers to the optimizer later; schedules that span the run do not know such groups.)

    Args:
        epochs: number of epochs.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find the last layer and the parameters to train."""
        assert isinstance(pl_module, Classifier)
        self._head = find_head(pl_module.network, pl_module.num_classes)
        self._backbone = backbone_parameters(pl_module.network, self._head)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Freeze or unfreeze by the number of the epoch, so that a resumed run does the same."""
        assert isinstance(pl_module, Classifier)
        is_frozen = trainer.current_epoch < self.epochs
        pl_module.network.train(not is_frozen)
        self._head.train()
        for parameter in self._backbone:
            parameter.requires_grad_(not is_frozen)
