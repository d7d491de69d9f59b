import json

import pytest

from benchmarks import startup
from benchmarks.measuring import run_python


@pytest.mark.slow
def test_a_training_ends_at_its_first_step(faces, tmp_path):
    run_python(
        *("-m", "fer_exp.train", "data=folders", f"data.root={faces}", "data.batch_size=10", startup.FIRST_STEP),
        f"hydra.run.dir={tmp_path / 'run'}",
    )
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["status"], summary["best"]) == ("running", None)


@pytest.mark.slow
def test_loading_prints_only_its_time(faces, tmp_path):
    loaded = run_python("-c", startup.LOAD, str(faces), env={"FER_EXP_CACHE": str(tmp_path)})
    assert float(loaded.output) > 0


def test_processes_take_turns_and_the_first_ones_are_not_measured(monkeypatch, tmp_path):
    calls = []

    def run(*arguments, env=None):
        calls.append((arguments, (env or {}).get("FER_EXP_CACHE")))
        seconds = float(len(calls))
        return type("Finished", (), {"seconds": seconds, "peak_mib": 100 * seconds, "output": json.dumps(seconds)})

    monkeypatch.setattr(startup, "run_python", run)
    measurements = startup.measure(tmp_path, rounds=2)
    assert {len(each.values) for each in measurements.values()} == {2}
    assert measurements["import lightning"].values[0] == 3
    loading = [cache for arguments, cache in calls if "time_loading" in arguments[1]]
    assert loading[1] == loading[2] != loading[3] == loading[4]
    assert loading[0] not in loading[1:]
    assert {cache for arguments, cache in calls if "data=folders" in arguments} == {loading[0]}


def test_table_shows_medians_and_memory_last():
    table = startup.format_table(
        {"a run": startup.Measurement("MiB", [1000, 1200, 1100]), "a start": startup.Measurement("s", [2.0, 1.0, 4.0])}
    )
    *_, start, run = table.splitlines()
    assert start.split() == ["a", "start", "2.00", "[1.00..4.00]", "s"]
    assert run.split() == ["a", "run", "1,100", "[1,000..1,200]", "MiB"]
