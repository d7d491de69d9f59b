"""The network's passes on a GPU, launched as a whole."""

import logging

import lightning as L
import torch
from torch import Tensor, nn

from fer_exp.errors import in_line

log = logging.getLogger(__name__)


class CudaGraph(L.Callback):
    """Replays the network's forward and backward pass as two CUDA graphs, kernel for kernel what they were.

    A small network on small images is done with a kernel before the next one is launched; a graph launches all at once.
    PyTorch's ``make_graphed_callables`` captures and replays them: random masks are drawn anew in each replay, from the
    same generator. Loss, changes of the images and the optimizer's step stay outside, so that a rate that a schedule
    changes, and any optimizer, work as without. Validation, in evaluation mode, is not captured.

    Where the network cannot be captured, because it waits for a value or takes another way from batch to batch, that is
    told, and it trains as it would have.

    Args:
        batch: shape of the training batches, (N, 1, 48, 48).
    """

    def __init__(self, batch: tuple[int, ...]) -> None:
        self.batch = batch

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Capture: by now the weights lie where they stay, and those of a resumed run have been read."""
        network = pl_module.network
        assert isinstance(network, nn.Module)
        # Passes before the capture warm up kernels and count in the statistics of batch norm; random numbers that they
        # use up are of no account, as each epoch is seeded.
        statistics = [(buffer, buffer.clone()) for buffer in network.buffers()]
        faces = torch.zeros(self.batch, device=pl_module.device)
        try:
            with trainer.precision_plugin.forward_context():
                torch.cuda.make_graphed_callables(network, (faces,))
        except (RuntimeError, AssertionError) as error:
            log.warning("The network trains without CUDA graphs: it cannot be captured (%s).", in_line(error))
        finally:
            _put_back(statistics)


@torch.no_grad()
def _put_back(values: list[tuple[Tensor, Tensor]]) -> None:
    for buffer, before in values:
        buffer.copy_(before)  # in place: a graph knows its tensors by their addresses
