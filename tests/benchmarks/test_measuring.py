import pytest

from benchmarks.measuring import (
    align,
    child_environment,
    find_images,
    in_turn,
    make_parser,
    median_ratio,
    run_python,
    spread,
)


def test_a_child_process_reports_its_memory_and_output():
    small = run_python("-c", "print('small')")
    large = run_python("-c", "import os; held = bytearray(300 * 2**20); print(os.environ['WORD'])", env={"WORD": "x"})
    assert (small.output, large.output) == ("small\n", "x\n")
    assert small.seconds > 0
    assert (
        290 < large.peak_mib - small.peak_mib < 400 or small.peak_mib > 300
    )  # this process counts, and may be as large


def test_a_failed_child_process_is_reported_with_its_output():
    with pytest.raises(RuntimeError, match=r"ended with 3:\nit broke"):
        run_python("-c", "import sys; print('it broke'); sys.exit(3)")


def test_child_processes_cache_bytecode(monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert "PYTHONDONTWRITEBYTECODE" not in child_environment()


def test_statistics_over_rounds():
    assert spread([3.0, 1.0, 10.0]).show(1) == "3.0 [1.0..10.0]"
    assert spread([0.25]).show(0, 1000) == "250 [250..250]"
    assert median_ratio([2, 2, 12], [1, 2, 4]) == 2  # of 2, 1 and 3: not 2 / 2


def test_each_round_begins_with_another_name():
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


def test_a_folder_without_splits_is_refused(faces, tmp_path, capsys):
    parser = make_parser("training", "Description", rounds=1)
    assert find_images(parser, faces) == (faces.resolve(), (70, 35))
    with pytest.raises(SystemExit):
        find_images(parser, tmp_path)
    assert f"--data={tmp_path}" in capsys.readouterr().err
