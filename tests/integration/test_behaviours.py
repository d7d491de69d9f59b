"""Behaviours of the commands: the entries of behaviours.yaml, which explains them."""

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

BEHAVIOURS = yaml.safe_load((Path(__file__).parent / "behaviours.yaml").read_text(encoding="utf-8"))
CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")


def entries(part):
    return pytest.mark.parametrize("steps", BEHAVIOURS[part].values(), ids=BEHAVIOURS[part])


pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# Two classes, because `--dist loadscope` gives all tests of a class to one process.
class TestRuns:
    @entries("runs")
    def test_behaviour(self, steps):
        carry_out(steps)


class TestDataAndSweeps:
    @entries("data_and_sweeps")
    def test_behaviour(self, steps):
        carry_out(steps)


def carry_out(steps):
    for step in steps:
        if "run" in step:
            run(**step)
        else:
            ((name, arguments),) = step.items()
            PREPARATIONS[name](arguments)


def make_faces(wanted):
    pixels = np.random.default_rng(0)
    for split in ("train", "validation"):
        for label in CLASSES:
            folder = Path(wanted["folder"], split, label)
            folder.mkdir(parents=True)
            for number in range(wanted[split]):
                Image.fromarray(pixels.integers(0, 256, (48, 48), dtype=np.uint8)).save(folder / f"{number}.png")


def write(texts):
    for file, text in texts.items():
        Path(file).write_text(text, encoding="utf-8")


def copy(wanted):
    source, target = Path(wanted["from"]), Path(wanted["to"])
    if source.is_file():
        shutil.copy(source, target)
    for file in source.rglob("*"):
        if file.name in wanted.get("only", ()):
            copied = target / file.relative_to(source)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copied)


def install_wheel(folder):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(Path("dist").absolute())]
    subprocess.run(build, cwd=Path(__file__).parents[2], check=True, capture_output=True)
    (wheel,) = Path("dist").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder)  # as an installer does with a wheel of plain Python


def run(run, status=0, python_path=None, kill_once=None, prints=(), unchanged=(), **expected):
    before = state(unchanged)
    _, *arguments = shlex.split(run.format(**BEHAVIOURS["shared"]))
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}  # a GPU does not repeat a run to the last bit
    if python_path:
        environment["PYTHONPATH"] = str(Path(python_path).absolute())
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    while kill_once and process.poll() is None:
        if Path(kill_once).exists():
            process.kill()
            break
        time.sleep(0.01)
    printed = process.communicate()[0]
    assert process.returncode == status, printed
    assert "Traceback" not in printed
    for part in prints:
        assert part in printed
    assert state(unchanged) == before
    for name, value in expected.items():
        CHECKS[name](value)


def state(patterns):
    found = {pattern: sorted(Path().glob(pattern)) for pattern in patterns}
    assert all(found.values()), found
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for files in found.values() for file in files}


def read_json(file):
    return json.loads(Path(file).read_text(encoding="utf-8"))


def read_rows(file):
    with Path(file).open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def histories(runs):
    """The histories of the runs, without the seconds, for the epochs that all of them have."""
    recorded = [
        [{name: value for name, value in row.items() if not name.endswith("seconds")} for row in rows]
        for rows in (read_rows(f"{run}/history.csv") for run in runs)
    ]
    epochs = min(map(len, recorded))
    assert epochs > 0
    return [rows[:epochs] for rows in recorded]


def values_of(key, tree):
    """All numbers below ``key``, at any depth of a JSON tree."""
    if isinstance(tree, dict):
        return [n for k, v in tree.items() for n in (numbers(v) if k == key else values_of(key, v))]
    return [n for v in tree for n in values_of(key, v)] if isinstance(tree, list) else []


def numbers(tree):
    if isinstance(tree, dict | list):
        return [n for v in (tree.values() if isinstance(tree, dict) else tree) for n in numbers(v)]
    return [tree] if isinstance(tree, int | float) else []


def check_files(patterns):
    for pattern in patterns:
        assert list(Path().glob(pattern)), pattern


def check_absent(patterns):
    for pattern in patterns:
        assert not list(Path().glob(pattern)), pattern


def check_contains(parts):
    for file, wanted in parts.items():
        text = Path(file).read_text(encoding="utf-8")
        assert [part for part in wanted if part not in text] == []


def check_json(files):
    for file, wanted in files.items():
        content = read_json(file)
        assert {path: reduce(lambda tree, key: tree[key], path.split("."), content) for path in wanted} == wanted


def check_columns(files):
    for file, columns in files.items():
        assert set(columns) <= set(read_rows(file)[0])


def check_rows(files):
    assert {file: len(read_rows(file)) for file in files} == files


def check_values(files):
    for file, wanted in files.items():
        rows = read_rows(file)
        assert {column: [float(row[column]) for row in rows] for column in wanted} == wanted


def check_same_history(runs):
    first, second = histories(runs)
    assert first == second


def check_other_history(runs):
    first, second = histories(runs)
    assert first != second


def check_tensorboard(run):
    recorded = [float(row["val_acc"]) for row in read_rows(f"{run}/history.csv")]
    curves = []
    for file in Path(run).rglob("*tfevents*"):
        events = EventAccumulator(str(file)).Reload()
        curves += [[point.value for point in events.Scalars(tag)] for tag in events.Tags()["scalars"] if "acc" in tag]
    assert any(curve == pytest.approx(recorded) for curve in curves), (recorded, curves)


def check_evaluation(evaluations):
    for folder, run in evaluations.items():
        predictions = read_rows(f"{folder}/predictions.csv")
        named = [max(CLASSES, key=lambda label, row=row: float(row[label])) for row in predictions]
        right = sum(name == row["label"] for name, row in zip(named, predictions, strict=True)) / len(predictions)
        (metrics,) = Path(folder).glob("*.json")
        assert pytest.approx(right) in values_of("accuracy", read_json(metrics))
        best = min(read_rows(f"{run}/history.csv"), key=lambda row: float(row["val_loss"]))
        assert float(best["val_acc"]) == pytest.approx(right)


PREPARATIONS = {"faces": make_faces, "write": write, "copy": copy, "wheel": install_wheel}
CHECKS = {name.removeprefix("check_"): check for name, check in globals().items() if name.startswith("check_")}
