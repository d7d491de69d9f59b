"""Builds what a run needs: images, LightningModule, record and Lightning Trainer."""

import logging
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import GradientAccumulationScheduler, LambdaCallback
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from fer_exp.config.instantiate import build, build_loss, build_model, build_optimizer_factories
from fer_exp.data.datamodule import ImageDataModule
from fer_exp.data.seeding import TRAINING, derive_seed
from fer_exp.errors import UserError, one_line
from fer_exp.models.summary import Layer, count_parameters, output_shape
from fer_exp.runs.environment import describe_environment
from fer_exp.runs.record import RunRecord
from fer_exp.training.callbacks.cuda_graph import CudaGraphCallback
from fer_exp.training.callbacks.history import HistoryCallback
from fer_exp.training.callbacks.plots import PlotCallback
from fer_exp.training.callbacks.progress_bar import ProgressBar
from fer_exp.training.hardware import Hardware
from fer_exp.training.loggers import RunLogger
from fer_exp.training.module import Classifier


def build_datamodule(cfg: DictConfig, verbose: bool) -> ImageDataModule:
    """Load the images; without ``verbose``, log warnings only.

    Raises:
        UserError: the images cannot be used, or a fraction of the batches is less than one batch.
    """
    logging.getLogger("fer_exp.data").setLevel(logging.INFO if verbose else logging.WARNING)
    datamodule: ImageDataModule = build(cfg, "data")
    datamodule.setup()
    batches = {"train": len(datamodule.train_dataloader()), "val": len(datamodule.val_dataloader())}
    for split, n in batches.items():
        limit = cfg.trainer[f"limit_{split}_batches"]
        if isinstance(limit, float) and limit * n < 1:
            raise UserError(
                f"trainer.limit_{split}_batches={limit}: this is less than one of the {n} batches; expected a larger "
                "fraction, or a number of batches >= 1."
            )
    return datamodule


def build_parts(cfg: DictConfig) -> tuple[dict[str, Any], list[L.Callback]]:
    """What does not depend on the images, so that wrong settings are reported before the images are read.

    Returns:
        Arguments of ``Classifier``, and the callbacks that the config names.

    Raises:
        UserError: a class refuses its settings, or they do not fit together.
    """
    if cfg.head_epochs and cfg.optimizer.get("fused") and cfg.optimizer.get("momentum"):
        raise UserError(
            "head_epochs: torch's fused SGD with momentum needs a gradient of every layer; set optimizer.fused=false."
        )
    optimizer, scheduler = build_optimizer_factories(cfg)
    settings = ("monitor", "weight_decay_exclude_1d", "head_epochs", "backbone_lr_factor", "channels_last")
    arguments = {
        "optimizer": optimizer,
        "scheduler": scheduler,
        "augmentation": build(cfg, "augmentation"),
        "mixup": build(cfg, "mixup"),
        **{name: cfg[name] for name in settings},
    }
    callbacks = [ema] if (ema := build(cfg, "ema")) else []  # first: others save it
    callbacks += [build(cfg, f"callbacks.{name}") for name, callback in cfg.callbacks.items() if callback]
    if cfg.cuda_graph:
        _check_cuda_graph(cfg, callbacks)
        callbacks.append(CudaGraphCallback())
    return arguments, callbacks


def build_classifier(
    cfg: DictConfig,
    arguments: Mapping[str, Any],
    datamodule: ImageDataModule,
    hyper_parameters: Mapping[str, Any],
) -> Classifier:
    """The network with its loss, optimizer and schedule. The seed of the config gives the initial weights.

    Args:
        cfg: the config.
        arguments: of ``build_parts``.
        datamodule: the images.
        hyper_parameters: plain values that describe the run in its checkpoints.

    Raises:
        UserError: network or loss refuse their settings, or the network does not fit the images.
    """
    dataset = datamodule.train_set
    image_shape, classes = tuple(dataset.images.shape[1:]), len(dataset.classes)
    L.seed_everything(cfg.seed, verbose=False)
    network = build_model(cfg.model, classes, image_shape, is_initial=cfg.resume is None)
    name = type(network).__name__
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UserError(f"model: {name} has no trainable parameters; expected one with requires_grad=True.")
    if (shape := output_shape(network, image_shape)) != (classes,):
        raise UserError(
            f"model: {name} returns logits of shape {shape} per image; expected ({classes},), one per class."
        )
    if cfg.data.batch_size == 1 and any(isinstance(module, torch.nn.BatchNorm1d) for module in network.modules()):
        raise UserError(f"data.batch_size=1: {name} normalizes over the batch; expected an integer >= 2.")
    loss = build_loss(cfg, dataset.counts)
    return Classifier(network, num_classes=classes, loss=loss, hyper_parameters=hyper_parameters, **arguments)


def build_record(
    folder: Path,
    classifier: Classifier,
    data: Mapping[str, Any],
    hardware: Hardware,
    choices: Mapping[str, str],
    warnings: list[str],
) -> RunRecord:
    """The record of a run that has not started, with what is known about it."""
    config = classifier.hparams["config"]
    trainable, non_trainable = count_parameters(classifier.network)
    environment = describe_environment(hardware.device, hardware.precision)
    speed = {"cuda_graph": config["cuda_graph"], "im2col_weight_grad": hardware.im2col}
    facts = {
        "run_id": classifier.hparams["run_id"],
        "config": config,
        "choices": choices,
        "seed": config["seed"],
        "monitor": config["monitor"],
        "params": {"trainable": trainable, "non_trainable": non_trainable},
        "data": data,
        "environment": environment | speed,
        "warnings": warnings,
    }
    return RunRecord(folder, facts)


def build_trainer(
    cfg: DictConfig,
    hardware: Hardware,
    history: HistoryCallback,
    callbacks: Sequence[L.Callback],
    layers: Sequence[Layer],
) -> L.Trainer:
    """Build a Trainer for one process and one device, with its callbacks and logger, also within a cluster's job.

    Raises:
        UserError: a class refuses its settings.
    """
    record = history.record
    rank_zero_only.rank = 0  # type: ignore[attr-defined]  # Lightning read it from the environment
    logger = RunLogger(build(cfg, "logger"), lambda name: record.add("missing", name))

    def start_epoch(trainer: L.Trainer, module: L.LightningModule) -> None:
        _seed_epoch(cfg.seed, trainer.current_epoch)
        history.earlier_metrics = dict(trainer.callback_metrics)

    # First: later ones load weights, draw and log.
    first = LambdaCallback(
        on_train_epoch_start=start_epoch,
        on_exception=lambda trainer, module, error: _allow_second_interrupt(error),
    )
    plots = PlotCallback(history, logger, layers, cfg.plots.theme)
    try:
        trainer = L.Trainer(
            **{**cfg.trainer, "accelerator": hardware.accelerator, "precision": hardware.precision},
            devices=1,
            plugins=[LightningEnvironment()],
            logger=logger.logger or False,
            callbacks=[first, history, *callbacks, ProgressBar(), plots],
            default_root_dir=record.folder,
            log_every_n_steps=1,  # nothing is logged per step; a larger number draws a warning in short epochs
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise UserError(f"trainer: {one_line(error)}") from error
    except RuntimeError as error:  # two callbacks whose states have the same key in a checkpoint
        raise UserError(f"callbacks: {one_line(error)}") from error
    logger.connect(trainer)
    return trainer


def _seed_epoch(seed: int, epoch: int) -> None:
    """Seed all generators before each epoch: a resumed run draws the same as one that was not interrupted."""
    value = derive_seed(seed, TRAINING, epoch)
    L.seed_everything(value % 2**32, verbose=False)  # Python's and NumPy's too, for augmentations of one's own
    torch.manual_seed(value)


def _allow_second_interrupt(error: BaseException) -> None:
    """Let a second Ctrl-C end the process at once; Lightning ignores it while it handles the first one."""
    if isinstance(error, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _check_cuda_graph(cfg: DictConfig, callbacks: Sequence[L.Callback]) -> None:
    accumulates = any(isinstance(callback, GradientAccumulationScheduler) for callback in callbacks)
    if accumulates or cfg.trainer.get("accumulate_grad_batches", 1) != 1:
        raise UserError("cuda_graph=true: gradients cannot be accumulated over batches; set cuda_graph=false.")
    if cfg.head_epochs:
        raise UserError("cuda_graph=true: head_epochs changes the trained layers; set cuda_graph=false.")
