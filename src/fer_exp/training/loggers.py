"""TensorBoard: what a run shows there."""

import io
import math
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor, nn
from torch.utils.tensorboard import FileWriter, SummaryWriter
from torch.utils.tensorboard._pytorch_graph import graph
from torch.utils.tensorboard.summary import hparams

# Graphs that were traced in this process. torch never frees what it traced, some megabytes in each run of a sweep.
_graphs: dict[tuple[str, tuple[int, ...]], Any] = {}


class TensorBoardLogger(Logger):
    """Event files with training and validation as two runs of the same tags, so that one chart shows both.

    ``train_loss`` goes to the tag ``loss`` of ``tensorboard/train``, ``val_loss`` to the same tag of
    ``tensorboard/validation``; all else, the hyper-parameters among it, to ``tensorboard/``. The step is the epoch.

    Args:
        save_dir: the run's folder.
    """

    def __init__(self, save_dir: str | Path) -> None:
        super().__init__()
        self._folder = Path(save_dir) / "tensorboard"
        self._writers: dict[str, SummaryWriter] = {}

    @property
    def name(self) -> str:
        """Lightning's name for the folder of a run; there is none."""
        return ""

    @property
    def version(self) -> str:
        """Lightning's number of a run; there is none."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing at the start: ``log_result`` writes them once, with the final figures."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write the figures of an epoch; those of callbacks that log on their own, at their own step."""
        epoch = int(metrics["epoch"]) + 1 if "epoch" in metrics else step
        for name, value in metrics.items():
            split, _, tag = name.partition("_")
            if split in ("train", "val"):
                self._writer({"train": "train", "val": "validation"}[split]).add_scalar(tag, value, epoch)
            elif name != "epoch":
                self._writer("").add_scalar(name, value, epoch)

    def log_picture(self, tag: str, png: bytes, epoch: int) -> None:
        """Write a PNG file as it is."""
        # torch's writer takes figures and pixels only, and would draw or compress what is drawn and compressed already.
        width, height = Image.open(io.BytesIO(png)).size
        picture = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)  # 4: RGBA
        self._file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=picture)]), epoch)

    @rank_zero_only
    def log_graph(self, model: nn.Module, input_array: Tensor | None = None) -> None:
        """Write the graph at ``input_array`` (N, C, H, W); Lightning's own call, without one, does nothing."""
        if input_array is not None:
            self._file_writer().add_graph(_graph(model, input_array))

    def log_result(self, params: Mapping[str, Any], figures: Mapping[str, float]) -> None:
        """Write a run's hyper-parameters with its final figures: a row of the HParams tab.

        Figures that are not finite are left out: the tab cannot sort by them.
        """
        figures = {f"result/{name}": value for name, value in figures.items() if math.isfinite(value)}
        for summary in hparams(dict(params), figures):
            self._file_writer().add_summary(summary)
        for name, value in figures.items():
            self._writer("").add_scalar(name, value)

    def finalize(self, status: str) -> None:
        """Flush, or close after a failure; after a success ``log_result`` is still to come."""
        if status != "success":
            self.close()
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _writer(self, part: str) -> SummaryWriter:
        if part not in self._writers:
            self._writers[part] = SummaryWriter(str(self._folder / part))
        return self._writers[part]

    def _file_writer(self) -> FileWriter:
        writer = self._writer("").file_writer
        assert writer is not None
        return writer


def _graph(model: nn.Module, example: Tensor) -> Any:
    """The graph of ``model`` as TensorBoard stores it; networks whose layers are equal have the same."""
    key = f"{type(model).__module__}.{model}", tuple(example.shape)
    if key not in _graphs:
        _graphs[key] = graph(model, example)
    return _graphs[key]
