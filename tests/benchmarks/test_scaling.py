import pytest

from benchmarks.scaling import Epochs, format_table, main, measure


class Proportional:
    """A contender that takes a second for each training batch, and longer in each turn."""

    def __init__(self):
        self.steps = []

    def turn(self, steps, validation):
        self.steps.append(steps)
        return {"train_seconds": steps * len(self.steps), "val_seconds": validation / 10}


def test_sizes_take_turns_and_the_warm_up_is_discarded():
    contender, sizes = Proportional(), {"1/2": Epochs(1000, 10, 2), "all": Epochs(2000, 20, 4)}
    measure(contender, sizes, rounds=2)
    assert contender.steps[1:] == [10, 20, 20, 10]
    assert sizes["1/2"].train == [20, 50]
    assert sizes["all"].val == [0.4, 0.4]


def test_table_shows_the_time_per_image():
    size = Epochs(1000, 10, 2, train=[10, 30, 20], val=[1, 1, 2])
    row = format_table({"all": size}).splitlines()[-1]
    assert row.split()[2::2] == ["20.00", "20.000", "22.00"]


def test_too_few_images_are_refused(faces, capsys):
    with pytest.raises(SystemExit):
        main(["--data", str(faces), "--batch-size", "10"])
    assert "an eighth of 70 images" in capsys.readouterr().err
