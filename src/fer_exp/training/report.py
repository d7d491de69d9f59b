"""What a run logs about itself before and after training, and the warnings it collects."""

import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from fer_exp.files import quote_override
from fer_exp.metrics import METRICS, describe, format_value
from fer_exp.models.summary import Layer, format_layers
from fer_exp.runs.record import RunRecord

log = logging.getLogger(__name__)


@contextmanager
def collect_warnings() -> Iterator[list[str]]:
    """Collect the text of each warning that is logged, once."""
    texts: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage().removeprefix("Warning: ")
            if text not in texts:
                texts.append(text)

    handler = Collector(logging.WARNING)
    logger = logging.getLogger("fer_exp")
    logger.addHandler(handler)
    try:
        yield texts
    finally:
        logger.removeHandler(handler)


def log_start(record: RunRecord, network: nn.Module, layers: Sequence[Layer], device: str) -> None:
    """Log the network, the optimizer and the device; the layers in a table if there are any."""
    summary = record.summary
    params = summary["params"]
    log.info(
        "Model: %s, %s trainable and %s non-trainable parameters.",
        type(network).__name__,
        f"{params['trainable']:,}",
        f"{params['non_trainable']:,}",
    )
    if layers:
        log.info("%s", format_layers(layers))
    log.info("Optimizer: %s. Seed: %d.", optimizer_name(summary["config"]), summary["seed"])
    log.info("%s", device)


def log_result(record: RunRecord) -> None:
    """Log how the training ended, and the metrics of the best epoch."""
    summary = record.summary
    epochs, reason = summary["epochs"], summary["stopped_by"].replace("_", " ")
    log.info("")
    log.info(
        "%s after %d epoch%s (%s) in %.0f s.",
        summary["status"].capitalize(),
        epochs,
        "" if epochs == 1 else "s",
        reason,
        summary["seconds"]["total"],
    )
    if best := summary["best"]:
        metrics = [f"{name} {format_value(name, best[name])}" for name in METRICS if name.startswith("val_")]
        if summary["monitor"] not in METRICS:
            metrics.append(f"{summary['monitor']} {format_value(summary['monitor'], best[summary['monitor']])}")
        better = "lowest" if describe(summary["monitor"]).direction == "min" else "highest"
        log.info("Best epoch (%s %s): %d: %s", better, summary["monitor"], best["epoch"], ", ".join(metrics))
    if summary["missing"]:
        log.info("Not written because of errors: %s. See the warnings above.", ", ".join(summary["missing"]))


def log_next_steps(record: RunRecord) -> None:
    """Log where the results are and which commands may follow."""
    folder, source = record.folder, record.summary["data"]["source"]
    log.info("Results: %s", folder)
    commands = {
        "Train on your own images": "python -m fer_exp.train data=folders data.root=DIR",
        "Compare optimizers": "python -m fer_exp.train -m optimizer=adam,sgd,rmsprop",
        "Evaluate this run": f"python -m fer_exp.evaluate {quote_override('run', folder)}",
        "See the curves": f"tensorboard --logdir {shlex.quote(str(folder))}",
    }
    shown = {
        "Train on your own images": "Synthetic" in str(source),
        "See the curves": (folder / "tensorboard").is_dir(),
    }
    for purpose, command in commands.items():
        if shown.get(purpose, True):
            log.info("  %-25s %s", purpose, command)


def optimizer_name(config: Mapping[str, Any]) -> str:
    """The class of the optimizer: ``Adam``."""
    return str(config["optimizer"]["_target_"]).rpartition(".")[2]
