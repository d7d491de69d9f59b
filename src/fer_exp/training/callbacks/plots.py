"""The plots of a run, as files and in the loggers that show images."""

from collections.abc import Callable, Sequence

import lightning as L
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from matplotlib.figure import Figure

from fer_exp.data.datamodule import ImageDataModule
from fer_exp.data.dataset import ImageDataset, normalize
from fer_exp.models.summary import Layer
from fer_exp.plots.images import augmentation_figure, samples_figure
from fer_exp.plots.run import confusion_figure, curves_figure, model_figure
from fer_exp.plots.style import save_plot
from fer_exp.training.callbacks.history import HistoryCallback
from fer_exp.training.loggers import RunLogger, hyper_parameters, log_graph, log_image, log_result
from fer_exp.training.module import Classifier

_VERSIONS = 8  # of each image in the plot of the augmentation


class PlotCallback(L.Callback):
    """Draws samples, network and augmentation after the first epoch, curves at the end, and the final confusion matrix.

    A plot that fails logs a warning, and the record lists it as missing.

    Args:
        history: the run's history.
        logger: shows the plots, and after training the result.
        layers: of the network.
        theme: ``light`` or ``dark``.
    """

    def __init__(self, history: HistoryCallback, logger: RunLogger, layers: Sequence[Layer], theme: str) -> None:
        self.history = history
        self.logger = logger
        self.layers = layers
        self.theme = theme
        self.title = history.record.optimizer
        self._is_first_epoch = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw what does not change: after the first epoch, because the first step would have to wait for it."""
        assert isinstance(pl_module, Classifier)
        if not self._is_first_epoch:
            return
        self._is_first_epoch = False
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(datamodule, ImageDataModule)
        dataset = datamodule.train_set
        shape = tuple(dataset.images.shape[1:])
        name = type(pl_module.network).__name__
        self._draw("samples", lambda: samples_figure(dataset.images, dataset.labels.numpy(), dataset.classes))
        self._draw("model", lambda: model_figure(self.layers, shape, name))
        if pl_module.augmentation is not None or pl_module.mixup is not None:
            self._draw("augmentation", lambda: _augmentation_figure(pl_module, dataset))
        self.logger.show(log_graph, pl_module.network, torch.zeros(1, *shape, device=pl_module.device))

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the curves."""
        self._draw_curves()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Draw the curves of a training that was interrupted or failed."""
        self._draw_curves()

    def _draw_curves(self) -> None:
        rows, best = self.history.rows, self.history.best_epoch
        if rows:
            self._draw("curves", lambda: curves_figure(rows, self.title, best))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the confusion matrix of the validation after training, and show the result in the logger."""
        if trainer.state.fn != TrainerFn.VALIDATING:
            return
        assert isinstance(pl_module, Classifier)
        confusion = pl_module.val_metrics.confusion.numpy()
        classes = trainer.datamodule.train_set.classes  # type: ignore[attr-defined]
        best, last = self.history.loaded_epoch, len(self.history.rows)
        weights = f"weights of epoch {best} (best.ckpt)" if best else f"weights of epoch {last}"
        title = f"Validation images, {weights}"
        self._draw("confusion_matrix", lambda: confusion_figure(confusion, classes, title, self.title))
        metrics = {name: value for name, value in (self.history.best or {}).items() if name.startswith("val_")}
        self.logger.show(log_result, hyper_parameters(self.history.record.summary), metrics)

    def _draw(self, name: str, draw: Callable[[], Figure]) -> None:
        path = self.history.record.folder / f"{name}.png"
        if not save_plot(path, draw, self.theme):
            self.history.record.add("missing", path.name)
            return
        self.logger.show(log_image, name, path, len(self.history.rows))


def _augmentation_figure(classifier: Classifier, dataset: ImageDataset) -> Figure:
    """An image of each class as the network sees it; images of different classes are mixed."""
    first = [int(i) for i in np.unique(dataset.labels.numpy(), return_index=True)[1]]
    originals = dataset.images[torch.tensor(first)]
    labels = dataset.labels[first]
    batch = originals.repeat_interleave(_VERSIONS, dim=0).to(classifier.device)
    targets = torch.eye(classifier.num_classes)[labels].repeat_interleave(_VERSIONS, dim=0).to(classifier.device)
    changed, _ = classifier.augment(normalize(batch), targets)
    versions = changed.clamp(0, 1).mul(255).round().to(torch.uint8).view(len(first), _VERSIONS, *originals.shape[1:])
    nodes = [node for node in (classifier.augmentation, classifier.mixup) if node is not None]
    names = [dataset.classes[label] for label in labels]
    return augmentation_figure(
        originals.numpy(), versions.cpu().numpy(), names, ", ".join(" ".join(str(node).split()) for node in nodes)
    )
