import pytest

from benchmarks.scaling import Epochs, format_table, main, measure


class Proportional:
    """Takes a second a training batch, and a tenth of one a validation batch; slower in each turn that it takes."""

    def __init__(self):
        self.asked = []

    def turn(self, steps, validation):
        self.asked.append(steps)
        return {"train_seconds": steps * len(self.asked), "val_seconds": validation / 10}


def test_sizes_take_turns_and_the_warm_up_is_not_kept():
    contender, sizes = Proportional(), {"1/2": Epochs(1000, 10, 2), "all": Epochs(2000, 20, 4)}
    measure(contender, sizes, rounds=2)
    assert contender.asked[1:] == [10, 20, 20, 10]
    assert sizes["1/2"].train == [20, 50]
    assert sizes["all"].val == [0.4, 0.4]


def test_the_table_shows_the_time_of_an_image():
    size = Epochs(1000, 10, 2, train=[10, 30, 20], val=[1, 1, 2])
    row = format_table({"all": size}).splitlines()[-1]
    assert row.split() == [
        "all",
        "1,000",
        "20.00",
        "[10.00..30.00]",
        "20.000",
        "[10.000..30.000]",
        "22.00",
        "[11.00..31.00]",
    ]


def test_too_few_images_are_refused(faces, capsys):
    with pytest.raises(SystemExit):
        main(["--data", str(faces), "--batch-size", "10"])
    assert "an eighth of 70 images must fill a batch of 10" in capsys.readouterr().err
