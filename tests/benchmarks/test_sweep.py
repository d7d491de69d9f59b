import pytest

from benchmarks import sweep


def test_the_sweeps_take_turns_and_the_first_is_not_kept(monkeypatch, tmp_path):
    seeds, folders = [], []

    def run(*arguments, env):
        seeds.append(next(word for word in arguments if word.startswith("seed=")))
        folders.append((arguments[-1], env["FER_EXP_CACHE"]))
        return type("Finished", (), {"seconds": float(len(seeds))})

    monkeypatch.setattr(sweep, "run_python", run)
    taken = sweep.measure(tmp_path, [1, 3], 16, rounds=2)
    assert seeds == ["seed=0", "seed=0", "seed=0,1,2", "seed=0,1,2", "seed=0"]
    assert taken == {1: [2.0, 5.0], 3: [3.0, 4.0]}
    assert len({folder for folder, _ in folders}) == 5  # no sweep goes on with another
    assert len({cache for _, cache in folders}) == 1


def test_the_table_shows_what_each_job_adds():
    head, _, *rows = sweep.format_table({4: [22.0, 18.0, 20.0], 1: [8.0, 8.0, 8.0]}).splitlines()
    assert "a job more than 1" in head
    assert [row.split() for row in rows] == [
        ["1", "8.00", "[8.00..8.00]", "-"],
        ["4", "20.00", "[18.00..22.00]", "4.00"],
    ]


@pytest.mark.parametrize("options", [["--jobs", "1"], ["--jobs", "a,b"], ["--jobs", "0,1"], ["--rounds", "0"]])
def test_what_compares_nothing_is_refused(options, capsys):
    with pytest.raises(SystemExit):
        sweep.main(options)
    assert "--jobs takes two whole numbers or more" in capsys.readouterr().err


def test_a_sweep_runs_as_it_is_measured(faces):
    taken = sweep.measure(faces, [1], 10, rounds=1)
    assert taken[1][0] > 0
