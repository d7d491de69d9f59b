"""CUDA graphs: forward and backward pass of the network, each launched as a whole."""

import gc
from contextlib import AbstractContextManager

import lightning as L
import torch
from torch import nn

from fer_exp.errors import UserError, one_line


class CudaGraphCallback(L.Callback):
    """Captures the network before the first training step.

    Loss, augmentation and the optimizer's step stay outside, so any optimizer and schedule works. A network that waits
    for a value cannot be captured. A network that counts its calls, or draws random numbers outside torch, would do so
    only once: it needs ``cuda_graph=false``.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Capture the network: by now its weights stay in place, and those of a resumed run are loaded.

        Raises:
            UserError: the network cannot be captured.
        """
        network = pl_module.network
        assert isinstance(network, nn.Module)
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        batch = (datamodule.batch_size, *datamodule.train_set.images.shape[1:])
        try:
            capture(network, batch, trainer.precision_plugin.forward_context())
        except (RuntimeError, AssertionError) as error:
            raise UserError(
                f"cuda_graph=true: the network cannot be captured ({one_line(error)}); set cuda_graph=false."
            ) from error


def capture(network: nn.Module, batch: tuple[int, ...], precision: AbstractContextManager[None]) -> None:
    """Make a network replay its passes as two CUDA graphs, in training mode and on batches of one shape.

    The kernels of a small network end before the next one is launched; a graph launches all of them at once. PyTorch's
    ``make_graphed_callables`` captures and replays; each replay draws new random masks from the same generator.
    Gradients lie where those of the last replay lay, so they cannot be accumulated over batches.

    Args:
        network: in training mode.
        batch: shape of the training batches, (N, C, S, S).
        precision: context to train in; autocast must have no cache.

    Raises:
        RuntimeError, AssertionError: the network cannot be captured.
    """
    # Passes before the capture warm up kernels, and change the statistics of batch norm.
    statistics = [(buffer, buffer.clone()) for buffer in network.buffers()]
    images = torch.zeros(batch, device=next(network.parameters()).device)
    gc.collect()  # freeing a graph of an earlier run during a capture breaks it
    gc.disable()
    try:
        with torch.cuda.stream(torch.cuda.current_stream()), precision:  # a failed capture may leave another stream
            torch.cuda.make_graphed_callables(network, (images,))
    finally:
        gc.enable()
    with torch.no_grad():
        for buffer, before in statistics:
            buffer.copy_(before)  # in place: a graph knows its tensors by their addresses
