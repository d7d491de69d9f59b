"""The pictures of a run, as files and in TensorBoard."""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from matplotlib.figure import Figure

from fer_exp.data.datamodule import ImageDataModule
from fer_exp.data.dataset import ImageDataset, normalise
from fer_exp.models.summary import Layer, eval_mode
from fer_exp.plots.images import augmentation_figure, samples_figure
from fer_exp.plots.run import confusion_figure, curves_figure, model_figure
from fer_exp.plots.style import save_plot
from fer_exp.runs.record import Row, best_row
from fer_exp.training.callbacks.history import HistoryCallback
from fer_exp.training.loggers import TensorBoardLogger
from fer_exp.training.module import Classifier

log = logging.getLogger(__name__)

_VERSIONS = 8  # of a face in the picture of augmentation


class PlotCallback(L.Callback):
    """Draws what is known before training, curves at its end, and the confusion matrix of each validation after.

    Args:
        folder: the run's folder.
        recorder: holds the history.
        layers: of the network.
        optimizer: its name, for titles.
    """

    def __init__(self, folder: Path, recorder: HistoryCallback, layers: list[Layer], optimizer: str) -> None:
        self.folder = folder
        self.recorder = recorder
        self.layers = layers
        self.optimizer = optimizer

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw what is known before training."""
        assert isinstance(pl_module, Classifier)
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(datamodule, ImageDataModule)
        faces = datamodule.train_set
        self._keep(trainer, "samples", lambda: samples_figure(faces.images, faces.labels.numpy(), faces.classes))
        name = type(pl_module.network).__name__
        self._keep(trainer, "model", lambda: model_figure(self.layers, tuple(faces.images.shape[1:]), name))
        if pl_module.augmentation is not None or pl_module.mixup is not None:
            self._keep(trainer, "augmentation", lambda: self._augmented(pl_module, faces))
        self._log_graph(trainer, pl_module, faces.images[:1])

    def _augmented(self, classifier: Classifier, faces: ImageDataset) -> Figure:
        """A face of each class, as the network will see it: where faces are mixed, with the others of the picture."""
        first = [int((faces.labels == label).nonzero()[0]) for label in range(len(faces.classes))]
        originals = torch.stack([faces.images[i] for i in first])
        batch = originals.repeat_interleave(_VERSIONS, dim=0).to(classifier.device)
        targets = torch.eye(len(first), device=classifier.device).repeat_interleave(_VERSIONS, dim=0)
        changed, targets = classifier.change(normalise(batch), targets)
        versions = (
            changed.clamp(0, 1).mul(255).round().to(torch.uint8).view(len(first), _VERSIONS, *originals.shape[1:])
        )
        changes = [
            " ".join(str(node).split()) for node in (classifier.augmentation, classifier.mixup) if node is not None
        ]
        return augmentation_figure(originals.numpy(), versions.cpu().numpy(), faces.classes, ", ".join(changes))

    def _log_graph(self, trainer: L.Trainer, classifier: Classifier, faces: torch.Tensor) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                example = torch.zeros(faces.shape, device=classifier.device)
                with warnings.catch_warnings(), eval_mode(classifier.network):
                    # The tracer's warnings are about reusing the trace, which nobody does.
                    warnings.simplefilter("ignore")
                    try:
                        logger.log_graph(classifier.network, example)
                    except Exception as error:  # a network that cannot be traced can still be trained
                        log.warning("TensorBoard shows no graph of this network: %s", error)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the curves."""
        self._draw_curves(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Draw the curves of a training that was broken off."""
        self._draw_curves(trainer)

    def _draw_curves(self, trainer: L.Trainer) -> None:
        rows = self.recorder.rows
        if rows:
            best = _epoch(best_row(rows, self.recorder.record.summary["monitor"]))
            self._keep(trainer, "curves", lambda: curves_figure(rows, self.optimizer, best))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the confusion matrix of a validation that is not part of training."""
        if trainer.state.fn != TrainerFn.VALIDATING:
            return
        assert isinstance(pl_module, Classifier)
        epoch = _epoch(self.recorder.restored_row(trainer)) or len(self.recorder.rows)
        title = f"Validation, weights of epoch {epoch} ({self.optimizer})"
        classes = trainer.datamodule.train_set.classes  # type: ignore[attr-defined]
        confusion = pl_module.val_metrics.confusion.numpy()
        self._keep(trainer, "confusion_matrix", lambda: confusion_figure(confusion, classes, title))

    def _keep(self, trainer: L.Trainer, name: str, draw: Callable[[], Figure]) -> None:
        picture = self.folder / f"{name}.png"
        if not save_plot(picture, draw, "light"):
            return
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.log_picture(name, picture.read_bytes(), len(self.recorder.rows))


def _epoch(row: Row | None) -> int | None:
    return None if row is None else int(row["epoch"])
