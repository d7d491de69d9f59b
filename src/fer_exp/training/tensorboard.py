"""The TensorBoard logger."""

import io
import warnings
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard._pytorch_graph import graph
from torch.utils.tensorboard.summary import hparams

from fer_exp.models.summary import eval_mode
from fer_exp.training.loggers import log_graph, log_image, log_result

# Graphs traced in this process. torch never frees what it traced: some megabytes in each run of a sweep.
_graphs: dict[tuple[str, tuple[int, ...]], Any] = {}


class TensorBoardLogger(Logger):
    """Event files with training and validation as two runs with the same tags, so one chart shows both.

    ``train_loss`` goes to the tag ``loss`` of ``tensorboard/RUN/train``, ``val_loss`` to the same tag of
    ``tensorboard/RUN/validation``. All else goes to ``tensorboard/RUN``. The step is the epoch.

    Args:
        save_dir: the run's folder.
        run_name: the name that TensorBoard shows, ``RUN`` above; modules before a class name are cut off.
    """

    name = version = ""  # Lightning's name for a group of runs, and number of a run

    def __init__(self, save_dir: str | Path, run_name: str) -> None:
        super().__init__()
        self._folder = Path(save_dir) / "tensorboard" / run_name.rpartition(".")[2]
        self._writers: dict[str, SummaryWriter] = {}

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: ``log_result`` writes hyper-parameters once, with the final metrics."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write the metrics of an epoch, or those that a callback logs at its own step."""
        epoch = int(metrics["epoch"]) + 1 if "epoch" in metrics else step
        for name, value in metrics.items():
            split, _, tag = name.partition("_")
            if split in ("train", "val"):
                self.writer({"train": "train", "val": "validation"}[split]).add_scalar(tag, value, epoch)
            elif name != "epoch":
                self.writer().add_scalar(name, value, epoch)

    def writer(self, split: str = "") -> SummaryWriter:
        """The writer of ``tensorboard/RUN/<split>``."""
        if split not in self._writers:
            self._writers[split] = SummaryWriter(str(self._folder / split))
        return self._writers[split]

    def finalize(self, status: str) -> None:
        """Flush the files, or close them after a failure; after success ``log_result`` follows."""
        for writer in self._writers.values():
            writer.flush()
        if status != "success":
            self.close()

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


@log_image.register
def _(logger: TensorBoardLogger, name: str, path: Path, epoch: int) -> None:
    png = path.read_bytes()
    width, height = Image.open(io.BytesIO(png)).size
    # torch's writer takes pixels only and would compress them again. 4: RGBA.
    image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)
    logger.writer()._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), epoch)


@log_graph.register
def _(logger: TensorBoardLogger, network: nn.Module, example: Tensor) -> None:
    key = f"{type(network).__module__}.{network}", tuple(example.shape)
    if key not in _graphs:
        with warnings.catch_warnings(), eval_mode(network):
            warnings.simplefilter("ignore")  # the tracer's warnings are about using the trace again
            _graphs[key] = graph(network, example)
    logger.writer()._get_file_writer().add_graph(_graphs[key])


@log_result.register
def _(logger: TensorBoardLogger, params: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    # The HParams tab takes its metrics from the scalars of the epochs. Without the experiment summary, which comes
    # first, it builds the union of all runs' keys and begins with those that differ.
    _, *session = hparams(dict(params), {})
    for summary in session:
        logger.writer()._get_file_writer().add_summary(summary)
    logger.close()
