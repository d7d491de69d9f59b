"""Loggers: what a run shows in them beside the scalars of ``self.log``.

Any logger of Lightning works. Images, the network's graph and the final hyper-parameters go through one function each,
with a version per kind of logger. A logger without a version says so once.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial, singledispatch
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger, MLFlowLogger, WandbLogger
from torch import Tensor, nn

from fer_exp.errors import one_line

log = logging.getLogger(__name__)

_CALLED_BY_LIGHTNING = ("log_metrics", "log_hyperparams", "log_graph", "save", "finalize", "after_save_checkpoint")
_LOGGED_KEYS = ("seed", "monitor", "weight_decay_exclude_1d", "head_epochs", "backbone_lr_factor")
_unsupported: set[str] = set()  # messages logged in this process


@singledispatch
def log_image(logger: Logger, name: str, path: Path, epoch: int) -> None:
    """Show a PNG file."""
    _report_unsupported(logger, "images")


@singledispatch
def log_graph(logger: Logger, network: nn.Module, example: Tensor) -> None:
    """Show the graph of ``network`` for the images ``example`` (N, C, H, W)."""
    _report_unsupported(logger, "the graph of a network")


@singledispatch
def log_result(logger: Logger, params: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """Show a run's hyper-parameters and final metrics."""
    logger.log_hyperparams(dict(params))  # type: ignore[call-arg]
    logger.log_metrics({f"result/{name}": value for name, value in metrics.items()})


@log_image.register
def _(logger: WandbLogger, name: str, path: Path, epoch: int) -> None:
    logger.log_image(name, [str(path)])


@log_image.register
def _(logger: MLFlowLogger, name: str, path: Path, epoch: int) -> None:
    logger.experiment.log_artifact(logger.run_id, str(path))


def _report_unsupported(logger: Logger, what: str) -> None:
    message = f"{type(logger).__name__} cannot show {what}."
    if message not in _unsupported:
        _unsupported.add(message)
        log.info(message)


class RunLogger:
    """A logger whose errors do not end the run: after the first one it logs a warning and is switched off.

    Args:
        logger: any logger; None for none. Its methods that Lightning calls are replaced.
        on_failure: called after the first error, with the class of the logger.
    """

    def __init__(self, logger: Logger | None, on_failure: Callable[[str], None]) -> None:
        self.logger = logger
        self.on_failure = on_failure
        if logger is not None:
            for name in _CALLED_BY_LIGHTNING:
                setattr(logger, name, partial(self._call, getattr(logger, name)))

    def connect(self, trainer: L.Trainer) -> None:
        """Open the logger's files or connection; if that fails, the trainer has no logger."""
        self.show(getattr, "experiment", None)  # Lightning would do it outside of our control
        if self.logger is None:
            trainer.loggers = []

    def show(self, function: Callable[..., Any], *args: Any) -> None:
        """Call ``log_image``, ``log_graph`` or ``log_result`` with the logger."""
        self._call(function, self.logger, *args)

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.logger is None:
            return None
        try:
            return function(*args, **kwargs)
        except Exception as error:
            name, self.logger = type(self.logger).__name__, None
            log.warning("Warning: %s failed and is switched off: %s", name, one_line(error))
            self.on_failure(name)


def hyper_parameters(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a run's summary as flat hyper-parameters: ``{"optimizer": "adam", "optimizer/lr": 0.001, ...}``."""
    config, choices = summary["config"], summary["choices"]
    params: dict[str, Any] = {key: config[key] for key in _LOGGED_KEYS}
    params["precision"] = summary["environment"]["precision"]
    params |= {"batch_size": config["data"]["batch_size"], "max_epochs": config["trainer"]["max_epochs"]}
    for group in ("model", "optimizer", "scheduler", "loss", "augmentation", "mixup", "ema"):
        values = config.get(group) or {}
        params[group] = choices.get(group) or str(values.get("_target_")).rpartition(".")[2]
        for key, value in values.items():
            if key not in ("_target_", "_partial_"):
                params[f"{group}/{key}"] = value if isinstance(value, int | float) else str(value)
    return params
