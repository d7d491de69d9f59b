import pytest
from rich.cells import cell_len

from fer_exp.plots.reports import markdown_table, text_table

ROWS = [["conv1", "(N, 64, 48, 48)", "640"], ["[bold]name", "x", "1,234"], ["愤怒", "😀", "7"]]


def test_columns_are_aligned():
    lines = text_table(["layer", "shape", "parameters"], ROWS, "llr", width=80).split("\n")
    assert [line.split()[0] for line in lines] == ["layer", "conv1", "[bold]name", "愤怒"]
    assert len({cell_len(line) for line in lines}) == 1
    assert all(line.endswith(cell) for line, cell in zip(lines, ["parameters", "640", "1,234", "7"], strict=True))


@pytest.mark.parametrize("width", [30, 60])
def test_table_is_never_wider_than_the_terminal_and_loses_nothing(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    long_name = "".join(chr(ord("a") + i % 26) for i in range(100))
    table = text_table(["name", "value"], [[long_name, "1.5"]], "lr")
    assert max(map(cell_len, table.split("\n"))) <= width
    assert "".join(line.split()[0] for line in table.split("\n")[1:]) == long_name


def test_markdown_cells_are_escaped():
    lines = markdown_table(["a", "b|c"], [["_x_", "10"]], "lr").split("\n")
    assert lines == ["| a | b\\|c |", "| --- | --: |", "| \\_x\\_ | 10 |"]
