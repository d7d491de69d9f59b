import json
import shutil

from benchmarks import startup
from benchmarks.measuring import quoted, run_python
from benchmarks.startup import LOAD, Figure, format_table, time_loading
from fer_exp.runs.record import read_history, read_summary


def test_a_process_that_is_to_end_at_its_first_step_gets_there_and_no_further(faces, tmp_path):
    run_python(
        *("-m", "fer_exp.train", "data=folders", f"data.root={quoted(faces)}", "data.batch_size=10"),
        "+callbacks.end._target_=benchmarks.first_step.EndAtFirstStep",
        f"hydra.run.dir={quoted(tmp_path)}",
    )
    assert (tmp_path / "model.png").exists()
    assert read_history(tmp_path) == []
    assert read_summary(tmp_path)["status"] == "running"


def test_loading_is_timed_with_both_splits(faces, tmp_path, monkeypatch):
    monkeypatch.setenv("FER_EXP_CACHE", str(tmp_path))
    assert time_loading(str(faces)) > 0
    assert sorted(path.name.split("-")[0] for path in tmp_path.glob("*.npz")) == ["train", "validation"]


def test_what_is_said_of_the_images_does_not_stand_beside_the_figure(faces, tmp_path):
    shutil.copytree(faces, tmp_path / "faces")
    shutil.copy(tmp_path / "faces/train/sad/00000.png", tmp_path / "faces/validation/sad/copy.png")
    loaded = run_python("-c", LOAD, str(tmp_path / "faces"), env={"FER_EXP_CACHE": str(tmp_path / "cache")})
    assert float(loaded.output) > 0


def test_the_processes_take_turns_and_the_first_ones_are_not_measured(monkeypatch, tmp_path):
    caches = []

    def run(*arguments, env=None):
        caches.append((arguments, (env or {}).get("FER_EXP_CACHE")))
        seconds = float(len(caches))
        return type("Finished", (), {"seconds": seconds, "peak_mib": 100 * seconds, "output": json.dumps(seconds)})

    monkeypatch.setattr(startup, "run_python", run)
    figures = startup.measure(tmp_path / "it's here", rounds=2)
    assert {name: len(figure.values) for name, figure in figures.items()} == dict.fromkeys(figures, 2)
    loading = [cache for arguments, cache in caches if "time_loading" in arguments[1]]
    assert len(set(loading)) == 3  # the one that others start from, and an empty one a round
    assert loading[1] == loading[2]
    assert loading[3] == loading[4]
    trained = [(arguments, cache) for arguments, cache in caches if "data=folders" in arguments]
    assert {cache for _, cache in trained} == {loading[0]}
    assert all(arguments[3].endswith("/it\\'s here'") for arguments, _ in trained)
    assert min(figures["idle process that imports lightning"].values) > 2


def test_the_table_holds_the_medians_and_memory_comes_last():
    table = format_table({"a run": Figure("MiB", [1000, 1200, 1100]), "a start": Figure("s", [2.0, 1.0, 4.0])})
    *_, start, run = table.splitlines()
    assert start.split() == ["a", "start", "2.00", "[1.00..4.00]", "s"]
    assert run.split() == ["a", "run", "1,100", "[1,000..1,200]", "MiB"]
