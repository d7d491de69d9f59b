import pytest

from benchmarks.measuring import align, child_environment, find_data, in_turn, run_python, spread


def test_a_child_process_tells_its_time_its_memory_and_what_it_printed():
    small = run_python("-c", "print('small')")
    large = run_python("-c", "import time; held = bytearray(300 * 2**20); time.sleep(0.3); print('large')")
    assert (small.output, large.output) == ("small\n", "large\n")
    assert large.seconds > 0.3
    assert small.peak_mib > 0
    assert 290 < large.peak_mib - small.peak_mib < 400 or small.peak_mib > 300  # this process was as large, and counts


def test_a_child_process_that_fails_is_told_with_its_last_words():
    with pytest.raises(RuntimeError, match=r"ended with 3:\nit broke"):
        run_python("-c", "import sys; print('it broke'); sys.exit(3)")


def test_the_environment_of_a_child_process_is_extended():
    assert run_python("-c", "import os; print(os.environ['WORD'], 'PATH' in os.environ)", env={"WORD": "x"}).output == (
        "x True\n"
    )


def test_spread():
    assert spread([3.0, 1.0, 10.0]).show(1) == "3.0 [1.0..10.0]"
    assert spread([0.25]).show(0, 1000) == "250 [250..250]"


def test_each_round_begins_with_another():
    assert [in_turn(["a", "b", "c"], round_) for round_ in range(4)] == [
        ["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"],
    ]  # fmt: skip


def test_tables_are_aligned():
    assert align([("name", "s"), ("a", "1.00"), ("longer", "10.00")]).splitlines() == [
        "name         s",
        "--------------",
        "a         1.00",
        "longer   10.00",
    ]


def test_without_a_folder_the_drawn_faces_are_measured_with(monkeypatch, faces):
    asked = []

    def draw(*arguments):
        asked.append(arguments)
        return type("Finished", (), {"output": f"Drawing ...\n{faces}\n"})

    monkeypatch.setattr("benchmarks.measuring.run_python", draw)
    assert find_data(None).train == faces.resolve() / "train"
    assert len(asked) == 1
    assert find_data(faces).root == faces.resolve()
    assert len(asked) == 1


def test_child_processes_keep_what_they_compile(monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("COLOUR", "red")
    assert "PYTHONDONTWRITEBYTECODE" not in child_environment()
    assert (child_environment()["COLOUR"], child_environment({"COLOUR": "blue"})["COLOUR"]) == ("red", "blue")
