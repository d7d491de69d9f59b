"""Keeps variables that a host program passed on (a cluster, a notebook, Lightning) from changing a run."""

import logging
import os
import threading
import warnings

# Lightning and torch read the rank of a process and defaults of the Trainer from these. A run has one process.
_RANKS = {
    "RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_PROCID", "SLURM_LOCALID",
    "JSM_NAMESPACE_RANK", "MASTER_ADDR", "MASTER_PORT",
}  # fmt: skip


def isolate_environment() -> None:
    """Remove variables that would give this process a rank, other Trainer arguments or another plotting backend.

    Call it before Lightning or matplotlib is imported.
    """
    for name in [name for name in os.environ if name in _RANKS or name.startswith("PL_")]:
        del os.environ[name]
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it reports a matplotlibrc that no plot uses
    # matplotlib does not import with the name of a backend that is not installed here. Plots need no backend.
    os.environ["MPLBACKEND"] = "agg"


def silence_libraries() -> None:
    """Hide what Lightning logs beside the run's own lines. Call it after Lightning is imported: that sets the level."""
    for name in ("lightning.pytorch", "lightning.fabric", "timm"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    warnings.filterwarnings("ignore", message=r".*treespec, LeafSpec.*")  # Lightning calls torch by an old name
    warnings.filterwarnings("ignore", message=r".*``compute`` method .* before the ``update`` method.*")
    threading.excepthook = _report_thread


def _report_thread(failed: threading.ExceptHookArgs) -> None:
    """Print the traceback of a thread; not of TensorBoard's, whose errors the next call of the logger raises again."""
    if not type(failed.thread).__module__.startswith("tensorboard."):
        threading.__excepthook__(failed)
