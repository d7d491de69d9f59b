import importlib.metadata
import json
import os
import re
import runpy
import sys
import tarfile
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu, gpu_pack, gpu_parts
from benchmarks.callbacks import Probe
from benchmarks.gpu import run_parts
from benchmarks.gpu_parts import PARTS, row
from benchmarks.gpu_session import OutOfTimeError, Session

MACHINE = {"device": "a GPU", "cores": 2, "instructions": [], "versions": {"torch": "2"}, "load_before": None}


@pytest.fixture
def session(tmp_path):
    header = {"miniature": False, "machine": MACHINE, "images": [70, 35], "minutes": 1}
    return Session(tmp_path / "data", tmp_path, time.monotonic() + 60, False, header)


def measured(session):
    """Measure something."""
    return {"rows": [row("epoch", 0.25, "s", "0.5")]}


def failing(session):
    """Fail."""
    raise ValueError("no such kernel")


def late(session):
    """Need more time."""
    raise OutOfTimeError("no time is left")


def test_each_part_is_written_when_it_ends_and_a_failure_does_not_stop_the_others(session, tmp_path):
    seen = []

    def watching(session):
        """Look at the results so far."""
        seen.append(
            {name: part["status"] for name, part in json.loads((tmp_path / "gpu.json").read_text())["parts"].items()}
        )
        return {}

    assert not run_parts(session, {"fails": failing, "late": late, "measured": measured, "watching": watching})
    assert seen == [{"fails": "failed", "late": "skipped", "measured": "finished"}]
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert 'raise ValueError("no such kernel")' in parts["fails"]["error"]
    report = (tmp_path / "gpu.md").read_text()
    assert "ValueError: no such kernel" in report
    assert "| epoch | 0.25 | s | 0.5 |" in report


def test_a_second_command_runs_only_unfinished_parts(session):
    runs = []

    def counted(session):
        """Count its runs."""
        runs.append(len(runs))
        if len(runs) < 2:
            raise ValueError("first attempt")
        return {}

    parts = {"measured": measured, "counted": counted}
    assert not run_parts(session, parts)
    session.parts["measured"]["rows"] = []
    assert run_parts(session, parts)
    assert run_parts(session, parts)
    assert len(runs) == 2
    assert session.parts["measured"]["rows"] == []


def test_a_child_process_ends_with_the_time(session):
    session.deadline = time.monotonic() + 0.5
    with pytest.raises(OutOfTimeError, match="time"):
        session.python("-c", "import time; time.sleep(60)")
    with pytest.raises(OutOfTimeError):
        session.python("-c", "")


def test_the_output_of_a_failed_child_process_is_recorded(session):
    def capture(session):
        """Run a process that fails."""
        return {"rows": [row("exit status", session.python("-c", "raise SystemExit('no capture')", check=False)[0])]}

    assert run_parts(session, {"capture": capture})
    assert session.parts["capture"]["failures"] == ["exit status 1:\nno capture"]
    assert "no capture" in (session.output / "gpu.md").read_text()


def test_the_probe_counts_host_synchronizations(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**20)
    modes = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    trainer = SimpleNamespace(current_epoch=0, default_root_dir=tmp_path)
    probe = Probe()
    probe.on_fit_start(trainer, None)
    for step in range(20):
        probe.on_train_batch_start(trainer, None, None, step)
        for _ in range(2 if modes[-1:] == ["warn"] else 0):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        probe.on_train_batch_end(trainer, None, None, None, step)
    probe.on_train_end(trainer, None)
    assert modes == ["warn", "default"]
    values = json.loads((tmp_path / "probe.json").read_text())
    assert (values["syncs_per_step"], values["peak_mib"]) == (2, 3)


def test_the_command_skips_a_part_that_has_too_little_time(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_parts, "PARTS", {"late": late})
    monkeypatch.setattr(sys, "argv", ["gpu", "--data", str(faces), "--output", str(tmp_path), "--miniature"])
    monkeypatch.delitem(sys.modules, "benchmarks.gpu")
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("benchmarks.gpu", run_name="__main__")
    assert ended.value.code == 0
    assert json.loads((tmp_path / "gpu.json").read_text())["parts"]["late"]["status"] == "skipped"


def test_results_of_another_device_are_not_continued(faces, tmp_path, capsys):
    (tmp_path / "gpu.json").write_text(json.dumps({"miniature": False, "parts": {}}))
    with pytest.raises(SystemExit):
        gpu.main(["--data", str(faces), "--output", str(tmp_path), "--miniature"])
    assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.slow
def test_all_parts_run_in_miniature(faces, tmp_path):
    data = Path(os.environ.get("FER_EXP_DATA", faces))
    assert gpu.main(["--data", str(data), "--output", str(tmp_path), "--miniature", "--minutes", "30"]) == 0
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert {name: part["status"] for name, part in results["parts"].items()} == dict.fromkeys(PARTS, "finished")
    texts = [
        each["value"] for part in results["parts"].values() for each in part["rows"] if isinstance(each["value"], str)
    ]
    assert texts == []  # a run that failed is a row with a text
    assert results["miniature"] is True
    assert "miniature" in (tmp_path / "gpu.md").read_text().splitlines()[0]
    assert {path.name for path in tmp_path.glob("strong_*")} == {
        f"strong_{model}_{file}" for model in ("notebook_cnn", "vgg") for file in ("history.csv", "summary.json")
    }


def test_the_archive_holds_checkout_wheels_and_images(faces, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_pack, "build_wheels", lambda folder: (folder / "omegaconf-2.whl").write_bytes(b"wheel"))
    archive = tmp_path / "gpu.tar.xz"
    assert gpu.main(["--data", str(faces), "--pack", str(archive)]) == 0
    with tarfile.open(archive) as tar:
        names = {name.removeprefix("fer_exp_gpu/") for name in tar.getnames()}
    assert {"benchmarks/gpu.py", "conf/train.yaml", "pyproject.toml", "wheels/omegaconf-2.whl"} <= names
    images = {path.relative_to(faces).as_posix() for path in faces.rglob("*.png")}
    assert {name.removeprefix("images/") for name in names if name.startswith("images/")} == images
    assert "--data images --output OUT" in capsys.readouterr().out
    monkeypatch.setattr(gpu_pack, "LIMIT", 1000)
    assert gpu.main(["--data", str(faces), "--pack", str(archive)]) == 1


def test_every_requirement_is_packed_or_expected_on_the_other_machine():
    required = [
        re.split(r"[^\w-]", line)[0].lower()
        for line in importlib.metadata.requires("fer_exp")
        if "extra ==" not in line
    ]
    assert set(required) <= {*gpu_pack.WHEELS, *gpu_pack.PRESENT}
