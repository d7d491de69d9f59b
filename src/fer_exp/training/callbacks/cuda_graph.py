"""The network's passes on a GPU, launched as a whole."""

import gc
import logging
from contextlib import AbstractContextManager

import lightning as L
import torch
from torch import nn

from fer_exp.errors import UserError, one_line

log = logging.getLogger(__name__)


class CudaGraphCallback(L.Callback):
    """Captures the network before the first step of a training.

    Loss, changes of the images and the optimizer's step stay outside, so that a rate that a schedule changes, and any
    optimizer, work as without. A network that cannot be captured, because it waits for a value, is told and trains as
    it would have. One that counts its calls, or draws random numbers outside torch, would have that done once, and
    needs ``cuda_graph=false``.

    Args:
        batch: shape of the training batches, (N, 1, 48, 48).
    """

    def __init__(self, batch: tuple[int, ...]) -> None:
        self.batch = batch

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Capture: by now the weights lie where they stay, and those of a resumed run have been read.

        Raises:
            UserError: the capture failed, and torch cannot go on after it.
        """
        network = pl_module.network
        assert isinstance(network, nn.Module)
        try:
            capture(network, self.batch, trainer.precision_plugin.forward_context())
        except (RuntimeError, AssertionError) as error:
            log.warning("The network trains without CUDA graphs: it cannot be captured (%s).", one_line(error))
            try:
                torch.rand(1, device=pl_module.device)  # torch 2.11 may have left its generator in the capture
            except RuntimeError as broken:
                raise UserError(
                    f"cuda_graph: the network cannot be captured ({one_line(error)}), and this version of torch cannot "
                    "go on after the attempt; give cuda_graph=false."
                ) from broken


def capture(network: nn.Module, batch: tuple[int, ...], precision: AbstractContextManager[None]) -> None:
    """Let a network replay its passes as two CUDA graphs, in training mode and on batches of one shape.

    A small network on small images is done with a kernel before the next one is launched; a graph launches all at once,
    kernel for kernel what they were. PyTorch's ``make_graphed_callables`` captures and replays them: random masks are
    drawn anew in each replay, from the same generator. Gradients lie where the last replay's lay, so that none can be
    added up over batches.

    Args:
        network: in training mode, where it is to stay.
        batch: shape of the training batches, (N, 1, 48, 48).
        precision: in which it trains; autocast must be without a cache.

    Raises:
        RuntimeError, AssertionError: it cannot be captured, and is as it was.
    """
    # Passes before the capture warm up kernels, and count in the statistics of batch norm.
    statistics = [(buffer, buffer.clone()) for buffer in network.buffers()]
    faces = torch.zeros(batch, device=next(network.parameters()).device)
    gc.collect()  # a graph of an earlier run that is freed in the middle of a capture breaks it
    gc.disable()
    try:
        with torch.cuda.stream(torch.cuda.current_stream()), precision:  # a failed capture may leave another stream
            torch.cuda.make_graphed_callables(network, (faces,))
    finally:
        gc.enable()
        with torch.no_grad():
            for buffer, before in statistics:
                buffer.copy_(before)  # in place: a graph knows its tensors by their addresses
