"""The commands, run as a person does: in this process, or in one of their own."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from fer_exp.train import main


@pytest.fixture
def run_main(tmp_path, monkeypatch, capfd):
    """Run a command's ``main`` in this process, in an empty folder; returns (exit status, what was printed)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # to the last bit, on a machine with a GPU as well

    def run(main: Callable[[], None], *arguments: str) -> tuple[int, str]:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", [main.__module__, *arguments])
        status = 0
        try:
            main()
        except SystemExit as exit_:
            status = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        printed = capfd.readouterr()
        return status, printed.out + printed.err

    return run


@pytest.fixture
def command(run_main):
    """The training command: ``command("optimizer=sgd")``."""
    return partial(run_main, main)


@pytest.fixture(scope="session")
def child():
    """Run Python in a process of its own: ``child("-m", "fer_exp.train", cwd=folder)``."""

    def run(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=cwd,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **env},
            capture_output=True,
            text=True,
        )

    return run
