"""What the machine can do, and the choices that follow from it."""

import platform
from pathlib import Path

import torch


def choose_accelerator(wanted: str) -> tuple[str, str]:
    """Resolve ``trainer.accelerator``.

    Returns:
        The accelerator for Lightning ("cpu", "cuda", "mps") and the reason, in words.
    """
    if wanted != "auto":
        return wanted, "as set"
    if torch.cuda.is_available():
        return "cuda", "a CUDA device was found"
    if torch.backends.mps.is_available():
        return "mps", "an Apple GPU was found"
    return "cpu", "no GPU was found"


def choose_precision(wanted: str, accelerator: str) -> tuple[str, str]:
    """Resolve ``trainer.precision``: bfloat16 autocast where the hardware multiplies bfloat16 natively.

    Without such instructions bfloat16 on a CPU is emulated and slower than float32.

    Returns:
        The precision for Lightning ("bf16-mixed", "32-true", ...) and the reason, in words.
    """
    if wanted != "auto":
        return wanted, "as set"
    if accelerator in ("cuda", "gpu"):
        if torch.cuda.get_device_capability() >= (8, 0):
            return "bf16-mixed", "the GPU has bfloat16 units"
        return "32-true", "the GPU has no bfloat16 units"
    if accelerator == "cpu":
        found = [name for name in ("amx_bf16", "avx512_bf16") if torch.cpu.get_capabilities().get(name)]
        if found:
            return "bf16-mixed", f"the processor has {found[0].upper().replace('_', '-')}"
        return "32-true", "the processor has no bfloat16 instructions"
    return "32-true", f"nothing faster is known for {accelerator}"


def device_name(accelerator: str) -> str:
    """Name of the device that trains, with the number of threads for a CPU."""
    if accelerator in ("cuda", "gpu"):
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
