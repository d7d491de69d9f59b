import pytest

from benchmarks import sweep


def test_sweeps_take_turns_in_new_folders_with_one_cache(monkeypatch, tmp_path):
    seeds, folders = [], []

    def run(*arguments, env):
        seeds.append(next(word for word in arguments if word.startswith("seed=")))
        folders.append((arguments[-1], env["FER_EXP_CACHE"]))
        return type("Finished", (), {"seconds": float(len(seeds))})

    monkeypatch.setattr(sweep, "run_python", run)
    seconds = sweep.measure(tmp_path, [1, 3], 16, rounds=2)
    assert seeds == ["seed=0", "seed=0", "seed=0,1,2", "seed=0,1,2", "seed=0"]
    assert seconds == {1: [2.0, 5.0], 3: [3.0, 4.0]}
    assert len({folder for folder, _ in folders}) == 5
    assert len({cache for _, cache in folders}) == 1


def test_table_shows_the_time_of_an_additional_job():
    *_, one, four = sweep.format_table({4: [22.0, 18.0, 20.0], 1: [8.0, 8.0, 8.0]}).splitlines()
    assert one.split() == ["1", "8.00", "[8.00..8.00]", "-"]
    assert four.split() == ["4", "20.00", "[18.00..22.00]", "4.00"]


@pytest.mark.slow
def test_a_sweep_runs(faces):
    assert sweep.measure(faces, [1], 10, rounds=1)[1][0] > 0
