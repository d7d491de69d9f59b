"""Train one network, or sweep over choices: ``python -m fer_exp.train optimizer=sgd``.

Imports at the top are light, so that ``--help`` and a wrong key answer at once; torch is imported by the training.
"""

import errno
import gc
import logging
import signal
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from fer_exp.cli import call, check_output_dir
from fer_exp.config.checks import check_config, config_warnings
from fer_exp.config.instantiate import build, build_loss, build_optimizer_factories
from fer_exp.config.schema import CONFIG_DIR, GROUPS, is_number, named, plain
from fer_exp.data.classes import FER_CLASSES
from fer_exp.errors import UserError, one_line
from fer_exp.files import expand_path, quote_override
from fer_exp.metrics import METRICS
from fer_exp.runs.checkpoint import check_resume
from fer_exp.runs.folder import check_folder, claim, discard, find_resume_state
from fer_exp.runs.record import SUMMARY, RunRecord, mark_failed, read_summary, record_folders
from fer_exp.runs.sweep_record import read_sweep
from fer_exp.sweeps.jobs import SweepCallback, duplicate_job, end_sweep, jobs_at_once, note_refusal, refusals

if TYPE_CHECKING:
    import lightning as L

    from fer_exp.data.datamodule import ImageDataModule
    from fer_exp.training.callbacks.history import HistoryCallback
    from fer_exp.training.module import Classifier

log = logging.getLogger(__name__)

# Settings of the trainer that a run may be gone on with in another way, or whose outcome is told by itself.
_TOLD_ELSEWHERE = ("max_epochs", "accelerator", "precision")
# What a full disk, a folder that may not be written, and their like end in.
_CANNOT_BE_WRITTEN = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


def train(cfg: DictConfig, brief: bool = False) -> float:
    """Run one training as ``cfg`` says, and leave its record in ``cfg.output_dir``.

    Args:
        cfg: the composed configuration.
        brief: leave out of the output what each job of a sweep would repeat.

    Returns:
        The best validation accuracy; NaN if the loss was not finite in any epoch.

    Raises:
        UserError: the configuration or the data are not as they must be, and no record is begun; or the training
            ended early for a reason that its user can mend, and the record says so.
    """
    start = time.perf_counter()
    log.info("Loading torch and lightning ...")  # seconds, and on a cold disk a minute
    check_config(cfg)
    config = plain(cfg)
    folder = Path(cfg.output_dir)
    resume = None if cfg.resume is None else str(expand_path(cfg.resume))
    check_folder(folder, resume, config)

    import lightning as L
    import torch
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.callbacks import GradientAccumulationScheduler

    from fer_exp.models.layers import use_im2col_weight_grad
    from fer_exp.models.summary import count_parameters, format_layers, list_layers, output_shape
    from fer_exp.runs.environment import describe_data, describe_environment
    from fer_exp.training.callbacks.cuda_graph import CudaGraphCallback
    from fer_exp.training.callbacks.history import HistoryCallback
    from fer_exp.training.callbacks.plots import PlotCallback
    from fer_exp.training.callbacks.progress_bar import ProgressBar
    from fer_exp.training.callbacks.second_interrupt import SecondInterrupt
    from fer_exp.training.callbacks.seeding import SeedEachEpoch
    from fer_exp.training.hardware import (
        choose_accelerator,
        choose_cuda_graph,
        choose_patch_gradients,
        choose_precision,
        device_name,
        keep_freed_memory,
    )
    from fer_exp.training.loggers import TensorBoardLogger
    from fer_exp.training.module import Classifier, spans_run

    _quieten_lightning()
    accelerator, why_accelerator = choose_accelerator(cfg.trainer.accelerator)
    precision, why_precision = choose_precision(cfg.trainer.precision, accelerator)
    patches, why_patches = choose_patch_gradients(cfg.im2col_weight_grad, accelerator, precision)
    device = device_name(accelerator)
    if cfg.retain_memory and accelerator == "cpu":
        keep_freed_memory()
    if precision == "16-mixed" and cfg.trainer.get("gradient_clip_val") and cfg.optimizer.get("fused"):
        raise UserError(
            "trainer.gradient_clip_val with trainer.precision=16-mixed: one pass over the weights leaves no moment to "
            "clip; give optimizer.fused=false."
        )

    L.seed_everything(cfg.seed, verbose=False)  # before the network draws its weights
    network = build(cfg, "model")
    make_optimizer, make_scheduler = build_optimizer_factories(cfg)
    build_loss(cfg, [1] * len(FER_CLASSES))  # before the data are read: a wrong setting need not wait for them
    augmentation, mixup = build(cfg, "augmentation"), build(cfg, "mixup")
    # The average first: it is what the others keep and restore.
    callbacks = [average] if (average := build(cfg, "ema")) else []
    callbacks += [build(cfg.callbacks, name) for name, callback in cfg.callbacks.items() if callback]
    accumulates = cfg.trainer.get("accumulate_grad_batches", 1) != 1
    accumulates |= any(isinstance(callback, GradientAccumulationScheduler) for callback in callbacks)
    captured, why_captured = choose_cuda_graph(cfg.cuda_graph, accelerator, accumulates)
    logger = build(cfg, "logger")

    datamodule = build(cfg, "data")
    datamodule.setup()
    _check_limits(cfg, datamodule)
    classes = datamodule.train_set.classes
    data = describe_data(plain(cfg.data), datamodule.train_set, datamodule.val_set, datamodule.skipped)
    loss = build_loss(cfg, datamodule.train_set.counts)

    spans = make_scheduler is not None and spans_run(make_scheduler)
    settings = _checkpoint_settings(cfg, precision, data, classes, spans)
    if resume:
        check_resume(resume, settings, cfg.trainer.max_epochs, folder)

    if cfg.data.batch_size == 1 and any(isinstance(module, torch.nn.BatchNorm1d) for module in network.modules()):
        raise UserError(f"data.batch_size=1: {type(network).__name__} normalises over the batch; expected 2 or more.")
    face = datamodule.train_set.images.shape[1:]
    if (shape := output_shape(network, face)) != (len(classes),):  # another width would be counted as other classes
        raise UserError(
            f"model._target_={cfg.model._target_}: for a face the network gives {shape}; expected ({len(classes)},), a "
            "logit for each class."
        )
    layers = list_layers(network, face)
    trainable, non_trainable = count_parameters(network)
    if not brief:
        log.info("%s", format_layers(layers))
    log.info("Trainable parameters: %s. Non-trainable: %s.", f"{trainable:,}", f"{non_trainable:,}")
    log.info("Optimizer: %s. Seed: %d.", settings["optimizer"]["name"], cfg.seed)
    log.info("Device: %s (%s). Precision: %s (%s).", device, why_accelerator, precision, why_precision)
    if accelerator == "cuda":
        log.info("CUDA graphs: %s (%s).", "yes" if captured else "no", why_captured)
    if patches:
        use_im2col_weight_grad(network)
        log.info("Weight gradients on small maps: as one product (%s).", why_patches)
    for oddity in config_warnings(cfg):
        log.warning("Warning: %s", oddity)

    record = RunRecord(
        folder,
        {
            "config": config,
            "choices": _choices(),
            "seed": cfg.seed,
            "monitor": "val_acc",  # of best.ckpt
            "params": {"trainable": trainable, "non_trainable": non_trainable},
            "data": data,
            "environment": {
                **describe_environment(device, precision, torch.get_num_threads()),
                "cuda_graph": captured,
                "im2col_weight_grad": patches,
            },
        },
    )
    recorder = HistoryCallback(record, start)
    if captured:
        callbacks.append(CudaGraphCallback((cfg.data.batch_size, *datamodule.train_set.images.shape[1:])))
    pictures = PlotCallback(folder, recorder, layers, settings["optimizer"]["name"])
    try:
        trainer = L.Trainer(
            **{**cfg.trainer, "accelerator": accelerator, "precision": precision},
            devices=1,
            logger=logger or False,
            callbacks=[SecondInterrupt(), SeedEachEpoch(cfg.seed), recorder, *callbacks, ProgressBar(), pictures],
            default_root_dir=folder,
            log_every_n_steps=1,  # nothing is logged by step; a larger number draws a warning in short epochs
            num_sanity_val_steps=0,  # its figures would be those of random weights
            enable_model_summary=False,
            enable_progress_bar=False,
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise UserError(f"trainer: {one_line(error)}") from error
    except RuntimeError as error:  # two callbacks whose states a checkpoint could not tell apart
        raise UserError(f"callbacks: {one_line(error)}") from error
    classifier = Classifier(
        network,
        make_optimizer,
        make_scheduler,
        monitor=cfg.monitor,
        num_classes=len(classes),
        loss=loss,
        augmentation=augmentation,
        mixup=mixup,
        decay_norms_and_biases=cfg.decay_norms_and_biases,
        channels_last=cfg.channels_last,
        settings=settings,
    )

    folder.mkdir(parents=True, exist_ok=True)
    _fit(trainer, classifier, datamodule, record, recorder, resume)
    _tell_result(record)
    if not brief:
        _tell_files(folder)
    best = record.summary["best"]
    if isinstance(logger, TensorBoardLogger):
        logger.log_result(_hyper_parameters(cfg, settings), {name: best[name] for name in METRICS} if best else {})
        logger.close()
    return float("nan") if best is None else float(best["val_acc"])


def _check_limits(cfg: DictConfig, datamodule: "ImageDataModule") -> None:
    """See to it that a share of the batches is at least one of them.

    Raises:
        UserError: it is less.
    """
    batches = {
        "limit_train_batches": len(datamodule.train_dataloader()),
        "limit_val_batches": len(datamodule.val_dataloader()),
    }
    for key, n in batches.items():
        limit = cfg.trainer[key]
        if isinstance(limit, float) and limit * n < 1:
            raise UserError(
                f"trainer.{key}={limit}: this is less than one of the {n} batches; expected a larger share, or a "
                "number of batches from 1 up."
            )


def _checkpoint_settings(
    cfg: DictConfig, precision: str, data: Mapping[str, Any], classes: Sequence[str], spans: bool
) -> dict[str, Any]:
    """What tells a checkpoint apart, as plain values: a run that is resumed must have the same.

    Args:
        cfg: the configuration.
        precision: that was chosen.
        data: facts about the images.
        classes: in the order of the logits.
        spans: whether the schedule is laid over the whole run.
    """
    from fer_exp.data.dataset import PREPROCESSING

    groups = ("augmentation", "mixup", "model", "loss", "optimizer", "scheduler", "ema")
    settings = {
        **{group: named(cfg[group]) if cfg.get(group) else None for group in groups},
        "decay_norms_and_biases": cfg.decay_norms_and_biases,
        "balanced_sampling": cfg.data.get("balanced_sampling", False),
        "seed": cfg.seed,
        "data.seed": cfg.data.get("seed", cfg.seed),
        "batch_size": cfg.data.batch_size,
        "precision": precision,
        "classes": list(classes),
        "fingerprint": data["fingerprint"],
        "soft_labels": data["soft_labels"],
        "preprocessing": PREPROCESSING,
        "monitor": cfg.monitor,
        "channels_last": cfg.channels_last,
        "trainer": {key: value for key, value in plain(cfg.trainer).items() if key not in _TOLD_ELSEWHERE},
    }
    if spans:
        settings["scheduler"]["max_epochs"] = cfg.trainer.max_epochs
    return settings


def _fit(
    trainer: "L.Trainer",
    classifier: "Classifier",
    datamodule: "ImageDataModule",
    record: RunRecord,
    recorder: "HistoryCallback",
    resume: str | None,
) -> None:
    """Train, and validate the weights that are put back; however it ends, the record says so.

    Raises:
        UserError: the schedule cannot be laid over the run, or its folder was removed or cannot be written.
        SystemExit: the training was interrupted.
    """
    folder = record.folder
    try:
        trainer.fit(classifier, datamodule=datamodule, ckpt_path=resume, weights_only=True)
        # The weights are now those of the best epoch: what they get right, class by class.
        trainer.validate(classifier, datamodule=datamodule, verbose=False)
        status = "diverged" if recorder.diverged else "completed"
        record.finish(status, recorder.seconds, error=recorder.diverged, **recorder.outcome(trainer))
    except (KeyboardInterrupt, SystemExit) as error:
        with suppress(OSError):  # on a full disk the record stays as it was after the last epoch
            record.finish("interrupted", recorder.seconds, restored=recorder.restored_row(trainer))
        last = folder / "checkpoints/last.ckpt"
        go_on = f" Go on with {quote_override('resume', last)}" if last.exists() else ""
        log.info("Interrupted after %d epochs.%s", len(recorder.rows), go_on)
        # As a shell tells them: 128 and the signal. Lightning exits with 1 after Ctrl-C, with none after SIGTERM.
        raise SystemExit(128 + (signal.SIGINT if error.args == (1,) else signal.SIGTERM)) from error
    except Exception as error:
        if isinstance(error, UserError) and not (folder / SUMMARY).exists():
            raise  # the optimizer's schedule was refused: nothing has begun
        if not folder.is_dir():
            raise UserError(
                f"{folder} was removed while the run trained, and its record with it: run it again."
            ) from error
        with suppress(OSError):
            record.finish("failed", recorder.seconds, error=f"{type(error).__name__}: {error}")
        if _is_about_writing(error):
            raise UserError(
                f"{folder} cannot be written ({getattr(error, 'strerror', None) or error}). What was saved before is "
                f"whole: make room, and go on with the same command, {quote_override('hydra.run.dir', folder)} and "
                "resume=auto"
            ) from error
        raise


def _is_about_writing(error: Exception) -> bool:
    """Whether a file could not be written; torch's writer of checkpoints says so with a RuntimeError."""
    if isinstance(error, OSError):
        return error.errno in _CANNOT_BE_WRITTEN
    return any(word in str(error) for word in ("PytorchStreamWriter", "iostream error"))


def _choices() -> dict[str, str]:
    """What was chosen in each group, by name; empty where the configuration was not composed by the command."""
    if not HydraConfig.initialized():
        return {}
    choices = HydraConfig.get().runtime.choices
    return {group: str(choices[group]) for group in (*GROUPS, "experiment") if choices.get(group)}


def _tell_result(record: RunRecord) -> None:
    summary = record.summary
    log.info("")
    log.info(
        "%s after %d epochs (%s) in %.0f s.",
        summary["status"].capitalize(),
        summary["epochs"],
        summary["stopped_by"].replace("_", " "),
        summary["seconds"]["total"],
    )
    for name, row in (("Best val_acc", summary["best"]), ("Weights restored", summary["restored"])):
        if row:
            log.info(
                "%-17s epoch %d: val_acc %.4f, val_loss %.4f, macro-F1 %.4f",
                name,
                row["epoch"],
                row["val_acc"],
                row["val_loss"],
                row["val_macro_f1"],
            )


def _tell_files(folder: Path) -> None:
    log.info("Written to %s:", folder)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith(("events.", ".")) and ".hydra" not in path.parts:
            log.info("  %s", path.relative_to(folder))
    if (folder / "tensorboard").is_dir():
        log.info("See it with: tensorboard --logdir %s", folder)


def _hyper_parameters(cfg: DictConfig, settings: dict[str, Any]) -> dict[str, Any]:
    """Flat and plain: the columns of TensorBoard's HParams tab."""
    chosen = {
        "optimizer": settings["optimizer"]["name"],
        "model": settings["model"]["name"],
        "seed": cfg.seed,
        "batch_size": cfg.data.batch_size,
        "max_epochs": cfg.trainer.max_epochs,
        "precision": settings["precision"],
    }
    for key in ("balanced_sampling", "decay_norms_and_biases"):
        chosen[key] = settings[key]
    for group in ("augmentation", "mixup", "loss", "optimizer", "scheduler", "ema"):
        for key, value in (settings[group] or {}).items():
            if key not in ("name", "_target_", "_partial_"):
                chosen[f"{group}/{key}"] = value if is_number(value) else str(value)
    return chosen


def _quieten_lightning() -> None:
    """Leave out what is said in our own lines (device, early stopping), or what nobody who trains can act on."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=r".*treespec, LeafSpec.*")  # Lightning's call of torch's old name


def _go_on(cfg: DictConfig, folder: Path) -> bool:
    """Let a run go on from what an earlier try left in its folder; False where that try had finished it.

    Raises:
        UserError: what lies there is another run.
    """
    found, checkpoint = find_resume_state(folder, plain(cfg))
    if found == "finished":
        log.info("This run was finished before.")
        return False
    if checkpoint is not None:
        log.info("Going on from %s.", checkpoint)
        cfg.resume = str(checkpoint)
    elif cfg.resume == "auto":
        log.info("There is nothing to go on from in %s: this is a new run.", folder)
        cfg.resume = None
    return True


def _result(folder: Path) -> float:
    best = read_summary(folder)["best"]
    return float(best["val_acc"]) if best else float("nan")


def train_job(cfg: DictConfig) -> float:
    """Run one job of a sweep, unless an earlier try of the sweep did.

    Whatever happens leaves a record, and the sweep goes on; only Ctrl-C ends it.

    Returns:
        The best validation accuracy; NaN if there is none.
    """
    hydra_cfg = HydraConfig.get()
    folder, sweep = Path(hydra_cfg.runtime.output_dir), Path(hydra_cfg.runtime.cwd, hydra_cfg.sweep.dir)
    try:
        check_output_dir(cfg)
        with claim(folder):
            return _train_or_fail(cfg, folder, sweep) if _go_on(cfg, folder) else _result(folder)
    except UserError as error:  # such as that the folder is another run's
        log.error("Error: %s", error)
        note_refusal(sweep, hydra_cfg.job.num)
        return float("nan")
    except (KeyboardInterrupt, SystemExit) as error:
        log.info("The same command with %s goes on with this sweep.", quote_override("hydra.sweep.dir", sweep))
        raise SystemExit(128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else error.code) from error
    finally:
        gc.collect()  # trainer and network hold each other, and Python does not know how much memory they take


def _train_or_fail(cfg: DictConfig, folder: Path, sweep: Path) -> float:
    """Train; whatever goes wrong is said and recorded, and does not end the sweep."""
    from fer_exp.training.hardware import available_cores, share_cores

    hydra_cfg = HydraConfig.get()
    facts = {"config": plain(cfg), "choices": _choices(), "seed": cfg.seed}
    try:
        twin = duplicate_job(cfg, sweep, hydra_cfg.job.num)
        if twin is not None:
            log.warning("Warning: the settings are those of job %d: what is swept changes nothing.", twin)
        share_cores(jobs_at_once(hydra_cfg.launcher, read_sweep(sweep)["jobs"], available_cores()))
        return train(cfg, brief=True)
    except UserError as error:
        log.error("Error: %s", error)
        reason = str(error)
    except Exception as error:
        log.exception("This job failed.")
        reason = f"{type(error).__name__}: {error}"
    with suppress(OSError, ValueError):  # on a full disk, or damaged, its record stays as it was
        mark_failed(folder, facts, reason)
    return float("nan")


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="train")
def run(cfg: DictConfig) -> float:
    """What Hydra calls with the composed configuration, for a run or a job of a sweep."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return train_job(cfg)
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        check_output_dir(cfg)
        with claim(folder):
            if cfg.resume == "auto" and not _go_on(cfg, folder):
                return _result(folder)
            return train(cfg)
    except UserError as error:
        log.error("Error: %s", error)
        discard(folder)
        sys.exit(1)
    except KeyboardInterrupt:  # before the training began; Lightning answers it during one
        log.info("Interrupted before the training began.")
        discard(folder)
        sys.exit(130)
    except Exception:  # a fault of the software, or of a class that was named: train.log tells where
        log.exception("This run failed.")
        sys.exit(1)


def main() -> None:
    """The command: one run, or with ``-m`` a sweep; exits with a status other than 0 where it did not all succeed."""
    SweepCallback.sweep = None
    status = 0
    try:
        call(run)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    # Also where a launcher gave up, so that what was finished before is told; a person who ended it knows.
    sweep = SweepCallback.sweep
    if sweep is not None and status < 128 and (any(record_folders(sweep)) or refusals(sweep)):
        came_of_it = end_sweep(sweep)
        status = status or came_of_it
    if status:
        sys.exit(status)


if __name__ == "__main__":
    main()
