"""The machine: its devices, and the precision and speed options that follow from them."""

import ctypes
import logging
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig

from fer_exp.errors import UserError, plural

log = logging.getLogger(__name__)

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
# Memory blocks below this size are retained: more than any tensor of a step on a CPU. Older glibcs take at most 32 MiB.
_MMAP_THRESHOLDS = (2**30, 2**25)
_NEVER = 2**31 - 1  # bytes that must be free before any are returned


@dataclass(frozen=True)
class Hardware:
    """What a run uses.

    Attributes:
        accelerator: ``cpu``, ``cuda`` or ``mps``.
        precision: for Lightning: ``bf16-mixed``, ``32-true``, ...
        im2col: whether weight gradients on small maps use im2col.
        device: name of the device.
    """

    accelerator: str
    precision: str
    im2col: bool
    device: str


def choose_hardware(cfg: DictConfig) -> Hardware:
    """Choose and log device, precision and speed options by the config and the machine; set up this process for them.

    Raises:
        UserError: the machine does not have what is set.
    """
    accelerator = choose_accelerator(cfg.trainer.accelerator)
    precision = choose_precision(cfg.trainer.precision, accelerator)
    im2col = choose_im2col(cfg.im2col_weight_grad, accelerator, precision)
    if precision == "16-mixed" and cfg.trainer.get("gradient_clip_val") and cfg.optimizer.get("fused"):
        raise UserError(
            "trainer.gradient_clip_val with trainer.precision=16-mixed: a fused optimizer cannot clip scaled "
            "gradients; set optimizer.fused=false."
        )
    if cfg.cuda_graph and accelerator != "cuda":
        raise UserError(f"cuda_graph=true: expected a CUDA device, got {accelerator}; set cuda_graph=false.")
    if cfg.retain_memory and accelerator == "cpu":
        retain_memory()
    if accelerator == "cpu" and (threads := os.environ.get("OMP_NUM_THREADS")):
        log.info("OMP_NUM_THREADS=%s: another number of threads gives slightly different results.", threads)
    device = device_name(accelerator)
    reason = " (torch finds no GPU)" if (cfg.trainer.accelerator, accelerator) == ("auto", "cpu") else ""
    log.info("Device: %s%s. Precision: %s.", device, reason, precision)
    return Hardware(accelerator, precision, im2col, device)


def choose_accelerator(wanted: str) -> str:
    """Resolve ``trainer.accelerator`` to "cpu", "cuda" or "mps".

    Raises:
        UserError: there is no such device.
    """
    found = [name for name, backend in (("cuda", torch.cuda), ("mps", torch.backends.mps)) if backend.is_available()]
    if wanted in ("auto", "gpu") and found:
        return found[0]
    if wanted in ("auto", "cpu"):
        return "cpu"
    if wanted in found:
        return wanted
    raise UserError(
        f"trainer.accelerator={wanted}: torch finds no such device here "
        f"({'only ' + found[0] if found else 'no GPU'}). trainer.accelerator=auto uses what is available."
    )


def choose_precision(wanted: str, accelerator: str) -> str:
    """Resolve ``trainer.precision``: ``auto`` is bfloat16 autocast on hardware with bfloat16 instructions.

    Without them bfloat16 on a CPU is emulated and slower than float32.

    Returns:
        The precision for Lightning: "bf16-mixed", "32-true", ...

    Raises:
        UserError: the accelerator does not support the precision.
    """
    if wanted == "16-mixed" and accelerator == "cpu":
        raise UserError("trainer.precision=16-mixed: needs a GPU; on a CPU, use auto, 32-true or bf16-mixed.")
    if wanted != "auto":
        return wanted
    if accelerator == "cuda":
        has_bfloat16 = torch.cuda.get_device_capability() >= (8, 0)
    else:
        capabilities = torch.cpu.get_capabilities() if accelerator == "cpu" else {}
        has_bfloat16 = bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    return "bf16-mixed" if has_bfloat16 else "32-true"


def choose_im2col(wanted: bool | str, accelerator: str, precision: str) -> bool:
    """Resolve ``im2col_weight_grad``: faster in bfloat16 on a CPU with AMX.

    Raises:
        UserError: it is set to true and not possible here.
    """
    possible = accelerator == "cpu" and precision == "bf16-mixed"
    if wanted is True and not possible:
        raise UserError(
            f"im2col_weight_grad=true: expected precision bf16-mixed on a CPU, got {precision} on {accelerator}; "
            "im2col_weight_grad=auto uses it where it is faster."
        )
    if isinstance(wanted, bool):
        return wanted
    return possible and bool(torch.cpu.get_capabilities().get("amx_bf16"))


def retain_memory() -> None:
    """Make glibc retain freed memory for the next allocation. No effect with other C libraries.

    By default glibc returns tensors of a few megabytes to the system at once, and each training step waits for the same
    pages to be mapped and zeroed again.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    # musl has no mallopt. If both sizes are refused nothing changes: the second setting alone would be worse.
    if hasattr(libc, "mallopt") and any(libc.mallopt(_M_MMAP_THRESHOLD, size) for size in _MMAP_THRESHOLDS):
        libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)


def available_cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_cores(processes: int) -> None:
    """Limit the threads of this process to its fraction of the cores if several processes train at once."""
    if processes > 1:
        torch.set_num_threads(max(1, available_cores() // processes))


def device_name(accelerator: str) -> str:
    """Name of the device, with the number of threads for a CPU."""
    if accelerator == "cuda":
        return torch.cuda.get_device_name()
    if accelerator == "cpu":
        return f"{_cpu_name()}, {plural(torch.get_num_threads(), 'thread')}"
    return accelerator


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
