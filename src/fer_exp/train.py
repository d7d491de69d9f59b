"""Train one network, or sweep over choices: ``python -m fer_exp.train optimizer=sgd``.

Imports at the top are light, so ``--help`` and config errors answer at once; ``train`` imports torch.
"""

import logging
import sys
import time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from fer_exp.cli import call
from fer_exp.config.checks import check_config, config_warnings
from fer_exp.config.paths import make_paths_absolute
from fer_exp.config.schema import CONFIG_DIR, plain
from fer_exp.errors import UserError
from fer_exp.runs.folder import (
    check_output_dir,
    check_run_dir,
    find_run_id,
    lock_run_dir,
    read_result,
    remove_empty_run_dir,
)
from fer_exp.runs.record import read_summary
from fer_exp.runs.resume import prepare_resume
from fer_exp.sweeps.jobs import EXIT_DIVERGED, EXIT_FAILED, choices, close_sweep, run_job
from fer_exp.training.environment import isolate_environment, silence_libraries

log = logging.getLogger("fer_exp.train")  # __name__ is __main__ in the command, whose warnings are recorded too


def train(cfg: DictConfig, verbose: bool = True) -> float:
    """Train as ``cfg`` says and write the run's record to ``cfg.output_dir``.

    Args:
        cfg: the composed config.
        verbose: also log what all jobs of a sweep have in common.

    Returns:
        The validation accuracy of the best epoch (by ``cfg.monitor``); NaN if the run diverged before it had one.

    Raises:
        UserError: the config or the data are wrong and no record is written, or the training failed for a reason that
            the user can fix and the record says so.
    """
    start = time.perf_counter()
    isolate_environment()
    check_config(cfg)
    make_paths_absolute(cfg)
    config, folder, resume = plain(cfg), Path(cfg.output_dir), cfg.resume
    check_run_dir(folder, resume, config)

    from fer_exp.models.layers import use_im2col_weight_grad
    from fer_exp.models.summary import list_layers
    from fer_exp.runs.environment import describe_data
    from fer_exp.training.build import build_classifier, build_datamodule, build_parts, build_record, build_trainer
    from fer_exp.training.callbacks.history import HistoryCallback
    from fer_exp.training.fit import collect_warnings, fit, log_next_steps, log_result, log_start
    from fer_exp.training.hardware import choose_hardware
    from fer_exp.training.resume import check_resume, describe_run

    silence_libraries()
    with collect_warnings() as warnings:
        # Build.
        hardware = choose_hardware(cfg)
        arguments, callbacks = build_parts(cfg)
        datamodule = build_datamodule(cfg, verbose)
        data = describe_data(config["data"], datamodule)
        image_shape = tuple(datamodule.train_set.images.shape[1:])
        description = describe_run(config, find_run_id(folder), data, image_shape, hardware.precision)
        if resume:
            check_resume(resume, description, folder)
        classifier = build_classifier(cfg, arguments, datamodule, description)
        layers = list_layers(classifier.network, image_shape)
        if hardware.im2col:
            use_im2col_weight_grad(classifier.network)
        record = build_record(folder, classifier, data, hardware, choices(), warnings)
        history = HistoryCallback(record, start)
        trainer = build_trainer(cfg, hardware, history, callbacks, layers)

        # Fit.
        log_start(record, classifier.network, layers if verbose else [])
        for warning in config_warnings(cfg):
            log.warning("Warning: %s", warning)
        folder.mkdir(parents=True, exist_ok=True)
        fit(trainer, classifier, datamodule, history, resume)

    # Finish.
    log_result(record)
    if verbose:
        log_next_steps(record)
    return read_result(folder)


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="train")
def run(cfg: DictConfig) -> float:
    """Train one run or one job of a sweep with the composed config, as Hydra calls it."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return run_job(cfg, train)
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        check_output_dir(cfg)
        with lock_run_dir(folder):
            value = train(cfg) if prepare_resume(cfg, folder) else read_result(folder)
    except UserError as error:
        log.error("Error: %s", error)
        remove_empty_run_dir(folder)
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:  # before the training started; Lightning handles it during the training
        log.info("Interrupted before the training started.")
        remove_empty_run_dir(folder)
        sys.exit(130)
    except Exception:  # a bug here or in a class that the config names
        log.exception("This run failed.")
        sys.exit(EXIT_FAILED)
    if read_summary(folder)["status"] == "diverged":
        sys.exit(EXIT_DIVERGED)
    return value


def main() -> None:
    """Run the command; exit with status 0 only if everything succeeded."""
    status = 0
    try:
        call(run, "train")
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    if status := close_sweep(status):
        sys.exit(status)


if __name__ == "__main__":
    main()
