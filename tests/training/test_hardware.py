import logging
import os
import platform
import subprocess
import sys

import pytest
import torch

from fer_exp.errors import UserError
from fer_exp.training.hardware import (
    available_cores,
    choose_accelerator,
    choose_hardware,
    choose_im2col,
    choose_precision,
    device_name,
    retain_memory,
    share_cores,
)


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, "bf16-mixed"),
        ({"avx512_bf16": True}, "bf16-mixed"),
        ({"avx512_f": True, "avx512_bf16": False}, "32-true"),
        ({}, "32-true"),
    ],
)
def test_a_cpu_gets_bfloat16_where_it_multiplies_it(monkeypatch, capabilities, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_precision("auto", "cpu") == precision


@pytest.mark.parametrize(
    ("capability", "precision"), [((9, 0), "bf16-mixed"), ((8, 0), "bf16-mixed"), ((7, 5), "32-true")]
)
def test_a_gpu_gets_bfloat16_from_ampere_on(monkeypatch, capability, precision):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert choose_precision("auto", "cuda") == precision


def test_a_precision_that_is_set_is_taken_where_it_exists():
    assert choose_precision("32-true", "cuda") == "32-true"
    assert choose_precision("16-mixed", "cuda") == "16-mixed"
    with pytest.raises(UserError, match="16-mixed: needs a GPU"):
        choose_precision("16-mixed", "cpu")


@pytest.mark.parametrize(
    ("wanted", "cuda", "mps", "taken"),
    [
        ("auto", True, False, "cuda"),
        ("auto", False, True, "mps"),
        ("auto", False, False, "cpu"),
        ("gpu", True, False, "cuda"),
        ("gpu", False, True, "mps"),
        ("gpu", False, False, None),
        ("cuda", False, True, None),
        ("mps", True, False, None),
        ("mps", False, True, "mps"),
        ("cpu", True, False, "cpu"),
    ],
)
def test_the_accelerator_is_one_that_is_there(monkeypatch, wanted, cuda, mps, taken):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    if taken:
        assert choose_accelerator(wanted) == taken
    else:
        with pytest.raises(UserError, match=f"trainer.accelerator={wanted}: torch finds no such device"):
            choose_accelerator(wanted)


@pytest.mark.parametrize("accelerator", ["auto", "cpu"])
def test_the_log_says_that_no_gpu_was_found(composed, monkeypatch, caplog, accelerator):
    caplog.set_level(logging.INFO, logger="fer_exp")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    choose_hardware(composed(f"trainer.accelerator={accelerator}", "retain_memory=false"))
    assert ("no GPU" in caplog.text) == (accelerator == "auto")


def test_a_cpu_is_named_with_its_threads():
    assert f", {torch.get_num_threads()} thread" in device_name("cpu")


def test_processes_that_share_the_cores_take_their_part_of_them(monkeypatch):
    taken = []
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    monkeypatch.setattr("fer_exp.training.hardware.available_cores", lambda: 8)
    for processes in (1, 2, 3, 20):
        share_cores(processes)
    assert taken == [4, 2, 1]  # alone: what torch chose by itself


def test_the_cores_are_those_that_this_process_may_use():
    assert 1 <= available_cores() <= os.cpu_count()


@pytest.mark.parametrize(
    ("wanted", "accelerator", "precision", "amx", "taken"),
    [
        ("auto", "cpu", "bf16-mixed", True, True),
        ("auto", "cpu", "bf16-mixed", False, False),
        ("auto", "cpu", "32-true", True, False),
        ("auto", "cuda", "bf16-mixed", True, False),
        (False, "cpu", "bf16-mixed", True, False),
        (True, "cpu", "bf16-mixed", False, True),
        (True, "cpu", "32-true", True, "32-true on cpu"),
        (True, "cuda", "bf16-mixed", True, "bf16-mixed on cuda"),
    ],
)
def test_im2col_is_used_where_it_is_faster(monkeypatch, wanted, accelerator, precision, amx, taken):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx})
    if isinstance(taken, bool):
        assert choose_im2col(wanted, accelerator, precision) is taken
    else:
        with pytest.raises(UserError, match=f"im2col_weight_grad=true: .*{taken}"):
            choose_im2col(wanted, accelerator, precision)


MEASURE_FAULTS = """
import ctypes, resource
from fer_exp.training.hardware import retain_memory
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
def fill():
    place = libc.malloc(ctypes.c_size_t(2**26))
    ctypes.memset(place, 1, 2**26)
    libc.free(ctypes.c_void_p(place))
def faults():
    fill()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    fill()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
returned = faults()
retain_memory()
print(returned, faults())
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or "LD_PRELOAD" in os.environ, reason="it is a setting of glibc's own malloc"
)
def test_retained_memory_is_not_mapped_again():
    measured = subprocess.run([sys.executable, "-c", MEASURE_FAULTS], capture_output=True, check=True).stdout
    returned, retained = map(int, measured.split())
    assert retained < returned / 10


@pytest.mark.parametrize(
    ("largest", "calls"),
    [
        (2**40, [(-3, 2**30), (-1, 2**31 - 1)]),
        (2**25, [(-3, 2**30), (-3, 2**25), (-1, 2**31 - 1)]),
        (0, [(-3, 2**30), (-3, 2**25)]),
    ],
)
def test_retain_memory_sets_both_thresholds_or_none(monkeypatch, largest, calls):
    # Older glibcs refuse a threshold above 32 MiB. The second setting alone would freeze the first at 128 KiB.
    class Glibc:
        def mallopt(self, parameter, value):
            asked.append((parameter, value))
            return int(parameter != -3 or value <= largest)

    asked = []
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", lambda name: Glibc())
    retain_memory()
    assert asked == calls


def test_c_library_without_mallopt(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    retain_memory()
