"""What the machine can do, and the choices that follow from it."""

import ctypes
import os
import platform
import sys
from pathlib import Path

import torch

from fer_exp.errors import UserError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
# Below which size memory is kept: more than any tensor of a step on a CPU. Older glibcs take at most 32 MiB.
_KEPT = (2**30, 2**25)
_NEVER = 2**31 - 1  # bytes that must be free before any are given back


def choose_accelerator(wanted: str) -> tuple[str, str]:
    """Resolve ``trainer.accelerator``.

    Returns:
        The accelerator for Lightning ("cpu", "cuda", "mps") and the reason, in words.

    Raises:
        UserError: what is wanted is not there.
    """
    found = [name for name, backend in (("cuda", torch.cuda), ("mps", torch.backends.mps)) if backend.is_available()]
    if wanted in ("auto", "gpu") and found:
        return found[0], f"{'a CUDA device' if found[0] == 'cuda' else 'an Apple GPU'} was found"
    if wanted == "auto":
        return "cpu", "no GPU was found"
    if wanted == "cpu" or wanted in found:
        return wanted, "as set"
    raise UserError(
        f"trainer.accelerator={wanted}: torch finds no such device here "
        f"({'only ' + found[0] if found else 'no GPU'}). trainer.accelerator=auto takes what there is."
    )


def choose_precision(wanted: str, accelerator: str) -> tuple[str, str]:
    """Resolve ``trainer.precision``: bfloat16 autocast where the hardware multiplies bfloat16 natively.

    Without such instructions bfloat16 on a CPU is emulated and slower than float32.

    Returns:
        The precision for Lightning ("bf16-mixed", "32-true", ...) and the reason, in words.

    Raises:
        UserError: the accelerator does not have what is wanted.
    """
    if wanted == "16-mixed" and accelerator == "cpu":
        raise UserError("trainer.precision=16-mixed: needs a GPU; on a CPU, expected auto, 32-true or bf16-mixed.")
    if wanted != "auto":
        return wanted, "as set"
    if accelerator == "cuda":
        if torch.cuda.get_device_capability() >= (8, 0):
            return "bf16-mixed", "the GPU has bfloat16 units"
        return "32-true", "the GPU has no bfloat16 units"
    if accelerator == "cpu":
        found = [name for name in ("amx_bf16", "avx512_bf16") if torch.cpu.get_capabilities().get(name)]
        if found:
            return "bf16-mixed", f"the processor has {found[0].upper().replace('_', '-')}"
        return "32-true", "the processor has no bfloat16 instructions"
    return "32-true", f"nothing faster is known for {accelerator}"


def choose_cuda_graph(wanted: bool | str, accelerator: str, accumulates: bool) -> tuple[bool, str]:
    """Resolve ``cuda_graph``: capture the network's passes where they run on a CUDA device.

    Args:
        wanted: True, False or "auto".
        accelerator: what was chosen.
        accumulates: whether gradients are added up over batches, which captured ones cannot be.

    Returns:
        Whether to, and the reason, in words.

    Raises:
        UserError: it is wanted and cannot be.
    """
    if not wanted:
        return False, "as set"
    hindrance = None
    if accelerator != "cuda":
        hindrance = "it needs a CUDA device"
    elif accumulates:
        hindrance = "gradients are accumulated over batches"
    if hindrance is None:
        return True, "as set" if wanted is True else "launches all kernels of a pass at once"
    if wanted is True:
        raise UserError(f"cuda_graph=true: {hindrance}. cuda_graph=auto captures where it can be done.")
    return False, hindrance


def choose_patch_gradients(wanted: bool | str, accelerator: str, precision: str) -> tuple[bool, str]:
    """Resolve ``im2col_weight_grad``: weight gradients on small maps as one product, where the processor has AMX.

    Args:
        wanted: True, False or "auto".
        accelerator: what was chosen.
        precision: what was chosen.

    Returns:
        Whether to, and the reason, in words.

    Raises:
        UserError: it is wanted and cannot be.
    """
    if not wanted:
        return False, "as set"
    possible = accelerator == "cpu" and precision == "bf16-mixed"
    if wanted is True:
        if not possible:
            raise UserError(
                f"im2col_weight_grad=true: it is of bfloat16 on a CPU, and this is {precision} on {accelerator}. "
                "im2col_weight_grad=auto takes it where it is faster."
            )
        return True, "as set"
    if possible and torch.cpu.get_capabilities().get("amx_bf16"):
        return True, "the processor has AMX"
    return False, "it is faster in bfloat16 on AMX alone"


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees for what it asks next, where the C library is glibc.

    By default glibc gives tensors of a few megabytes back to the system at once, and each step of a training, or batch
    of an evaluation, waits for the same pages to be found and zeroed anew.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    # musl has no mallopt. Where both sizes are refused all stays as it is: the second setting alone would be worse.
    if hasattr(libc, "mallopt") and any(libc.mallopt(_M_MMAP_THRESHOLD, size) for size in _KEPT):
        libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)


def available_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_cores(processes: int) -> None:
    """Take this process's part of the cores where several train at once; each with all of them slows all down."""
    if processes > 1:
        torch.set_num_threads(max(1, available_cores() // processes))


def device_name(accelerator: str) -> str:
    """Name of the device that trains, with the number of threads for a CPU."""
    if accelerator == "cuda":
        return torch.cuda.get_device_name()
    if accelerator == "cpu":
        return f"{_cpu_name()}, {torch.get_num_threads()} threads"
    return accelerator


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
