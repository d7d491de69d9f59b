"""Callbacks for the benchmarks: ``+callbacks.NAME._target_=benchmarks.callbacks.CLASS``."""

import json
import os
import resource
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch

from benchmarks.measuring import START

PROBE = "probe.json"
WATCHED = range(5, 15)  # steps of the first epoch in which host synchronizations are counted


class EndAtFirstStep(L.Callback):
    """Ends the process with status 0 when the first batch is ready; nothing is torn down."""

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *batch: Any) -> None:
        """Exit before the first step."""
        os._exit(0)


class Probe(L.Callback):
    """Measures one run and writes ``probe.json`` into its folder.

    The file holds ``first_step_seconds`` (from ``START`` to the first step), ``syncs_per_step`` (host synchronizations,
    null without a CUDA device) and ``peak_mib`` (of the CUDA device, else of the process).
    """

    def __init__(self) -> None:
        self.first_step_seconds: float | None = None
        self.syncs_per_step: float | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reset the peak of an earlier run in this process."""
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note the first step; begin to count synchronizations."""
        if self.first_step_seconds is None:
            self.first_step_seconds = time.time() - float(os.environ.get(START, "nan"))
        if torch.cuda.is_available() and trainer.current_epoch == 0 and batch_idx == WATCHED.start:
            self._catch = warnings.catch_warnings(record=True)
            self._caught = self._catch.__enter__()
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop counting."""
        if torch.cuda.is_available() and trainer.current_epoch == 0 and batch_idx == WATCHED.stop - 1:
            torch.cuda.set_sync_debug_mode("default")
            self._catch.__exit__(None, None, None)
            syncs = sum("synchronizing CUDA operation" in str(warning.message) for warning in self._caught)
            self.syncs_per_step = syncs / len(WATCHED)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the file."""
        if torch.cuda.is_available():
            peak = torch.cuda.max_memory_allocated() / 2**20
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        values = {
            "first_step_seconds": self.first_step_seconds,
            "syncs_per_step": self.syncs_per_step,
            "peak_mib": peak,
        }
        Path(trainer.default_root_dir, PROBE).write_text(json.dumps(values) + "\n", encoding="utf-8")
