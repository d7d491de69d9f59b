"""Builds what a run trains with: the LightningModule, its callbacks and the Lightning Trainer."""

from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from fer_exp.config.instantiate import build, build_loss, build_model, build_optimizer_factories
from fer_exp.data.datamodule import ImageDataModule
from fer_exp.errors import UserError, one_line
from fer_exp.models.summary import output_shape
from fer_exp.training.callbacks.cuda_graph import CudaGraphCallback
from fer_exp.training.callbacks.history import HistoryCallback
from fer_exp.training.callbacks.progress_bar import ProgressBar
from fer_exp.training.callbacks.second_interrupt import SecondInterrupt
from fer_exp.training.callbacks.seeding import SeedEachEpoch
from fer_exp.training.hardware import Hardware
from fer_exp.training.module import Classifier


def build_classifier(cfg: DictConfig, datamodule: ImageDataModule, hyper_parameters: Mapping[str, Any]) -> Classifier:
    """The network with its loss, optimizer and schedule. The seed of the config gives the initial weights.

    Raises:
        UserError: a class refuses its settings, or the network does not fit the images.
    """
    dataset = datamodule.train_set
    image_shape, classes = tuple(dataset.images.shape[1:]), len(dataset.classes)
    L.seed_everything(cfg.seed, verbose=False)
    network = build_model(cfg.model, classes, image_shape)
    name = type(network).__name__
    if (shape := output_shape(network, image_shape)) != (classes,):
        raise UserError(
            f"model: {name} returns logits of shape {shape} per image; expected ({classes},), one per class."
        )
    if cfg.data.batch_size == 1 and any(isinstance(module, torch.nn.BatchNorm1d) for module in network.modules()):
        raise UserError(f"data.batch_size=1: {name} normalizes over the batch; expected an integer >= 2.")
    make_optimizer, make_scheduler = build_optimizer_factories(cfg)
    return Classifier(
        network,
        make_optimizer,
        make_scheduler,
        monitor=cfg.monitor,
        num_classes=classes,
        loss=build_loss(cfg, dataset.counts),
        augmentation=build(cfg, "augmentation"),
        mixup=build(cfg, "mixup"),
        weight_decay_exclude_1d=cfg.weight_decay_exclude_1d,
        channels_last=cfg.channels_last,
        hyper_parameters=hyper_parameters,
    )


def build_callbacks(cfg: DictConfig, batch_shape: tuple[int, ...]) -> list[L.Callback]:
    """The callbacks that the config names: the moving average first, because others save it; CUDA graphs last."""
    callbacks = [ema] if (ema := build(cfg, "ema")) else []
    callbacks += [build(cfg.callbacks, name) for name, callback in cfg.callbacks.items() if callback]
    if cfg.cuda_graph:
        accumulates = any(isinstance(callback, GradientAccumulationScheduler) for callback in callbacks)
        if accumulates or cfg.trainer.get("accumulate_grad_batches", 1) != 1:
            raise UserError("cuda_graph=true: gradients cannot be accumulated over batches; set cuda_graph=false.")
        callbacks.append(CudaGraphCallback(batch_shape))
    return callbacks


def build_trainer(
    cfg: DictConfig,
    hardware: Hardware,
    history: HistoryCallback,
    callbacks: Sequence[L.Callback],
    logger: Logger | None,
) -> L.Trainer:
    """The Trainer of one process on one device, regardless of a cluster's variables.

    Raises:
        UserError: Lightning does not accept the settings.
    """
    rank_zero_only.rank = 0  # type: ignore[attr-defined]  # Lightning read from the environment when Lightning was imported
    try:
        return L.Trainer(
            **{**cfg.trainer, "accelerator": hardware.accelerator, "precision": hardware.precision},
            devices=1,
            plugins=[LightningEnvironment()],
            logger=logger or False,
            callbacks=[SecondInterrupt(), SeedEachEpoch(cfg.seed), history, *callbacks, ProgressBar()],
            default_root_dir=history.record.folder,
            log_every_n_steps=1,  # nothing is logged per step; a larger number draws a warning in short epochs
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise UserError(f"trainer: {one_line(error)}") from error
    except RuntimeError as error:  # two callbacks whose states have the same key in a checkpoint
        raise UserError(f"callbacks: {one_line(error)}") from error
