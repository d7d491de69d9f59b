"""Train one network, or sweep over choices: ``python -m fer_exp.train optimizer=sgd``.

Imports at the top are light, so that ``--help`` and a wrong key answer at once; torch is imported by the training.
"""

import logging
import sys
import time
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from fer_exp.config import CONFIG_DIR
from fer_exp.errors import UserError

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> float:
    """Run one training as ``cfg`` says, and leave its record in ``cfg.output_dir``.

    Returns:
        The best validation accuracy.

    Raises:
        UserError: the configuration or the data are not as they must be.
    """
    import lightning as L
    from hydra.utils import instantiate
    from lightning.pytorch.callbacks import Callback

    from fer_exp.callbacks.recorder import Recorder
    from fer_exp.callbacks.seeding import SeedEachEpoch
    from fer_exp.callbacks.training_bar import TrainingBar
    from fer_exp.classifier import Classifier
    from fer_exp.data.folders import CLASSES
    from fer_exp.hardware import choose_accelerator, choose_precision, device_name
    from fer_exp.records import RunRecord, describe_environment

    start = time.perf_counter()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    accelerator, why_accelerator = choose_accelerator(cfg.trainer.accelerator)
    precision, why_precision = choose_precision(cfg.trainer.precision, accelerator)

    datamodule = instantiate(cfg.data)
    datamodule.setup()

    L.seed_everything(cfg.seed, verbose=False)
    network = instantiate(cfg.model)
    classifier = Classifier(
        network,
        instantiate(cfg.optimizer),
        instantiate(cfg.scheduler) or None,
        cfg.monitor,
        len(CLASSES),
        cfg.channels_last,
        {"model": OmegaConf.to_container(cfg.model, resolve=True), "classes": list(CLASSES)},
    )
    device = device_name(accelerator)
    log.info("Training on %s (%s), precision %s (%s).", device, why_accelerator, precision, why_precision)

    record = RunRecord(
        Path(cfg.output_dir),
        {
            "optimizer": OmegaConf.to_container(cfg.optimizer, resolve=True),
            "model": OmegaConf.to_container(cfg.model, resolve=True),
            "seed": cfg.seed,
            "params": {
                "trainable": sum(p.numel() for p in network.parameters() if p.requires_grad),
                "non_trainable": sum(b.numel() for b in network.buffers() if b.is_floating_point()),
            },
            "data": {
                "train": len(datamodule.train_set),
                "validation": len(datamodule.validation_set),
                "classes": list(CLASSES),
                "fingerprint": {
                    "train": datamodule.train_set.fingerprint,
                    "validation": datamodule.validation_set.fingerprint,
                },
            },
            "environment": describe_environment(device, precision),
        },
    )
    recorder = Recorder(record)
    chosen: list[Callback] = [instantiate(callback) for callback in cfg.callbacks.values() if callback]
    trainer = L.Trainer(
        **{**cfg.trainer, "accelerator": accelerator, "precision": precision},
        devices=1,
        logger=False,
        callbacks=[SeedEachEpoch(cfg.seed), *chosen, TrainingBar(), recorder],
        default_root_dir=cfg.output_dir,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(classifier, datamodule=datamodule, ckpt_path=cfg.resume, weights_only=True)
    seconds = {"total": time.perf_counter() - start}
    record.finish(
        "diverged" if recorder.diverged else "completed",
        seconds=seconds,
        error=recorder.diverged,
        **recorder.outcome(trainer),
    )
    best = record.summary["best"]
    return float("nan") if best is None else float(best["val_acc"])


def main() -> None:
    """The command: one run, or with ``-m`` a sweep; exits with status 1 where a run could not be done."""
    failures: list[str] = []

    @hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="train")
    def run(cfg: DictConfig) -> float:
        try:
            return train(cfg)
        except UserError as error:
            log.error("error: %s", error)
            failures.append(str(error))
            return float("nan")

    run()
    if failures:
        sys.exit(1)


if __name__ == "__main__":
    main()
