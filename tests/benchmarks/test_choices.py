import json

import pytest

from benchmarks.choices import AS_CONFIGURED, SWITCHED_OFF, format_table, main, measure, ratios
from benchmarks.contenders.turns import UNMEASURED


class Counted:
    """Takes as many seconds as it has taken turns, times ``slowness``."""

    def __init__(self, slowness, asked):
        self.slowness, self.asked, self.turns = slowness, asked, 0

    def turn(self, steps, validation):
        self.asked.append((self.slowness, steps))
        self.turns += 1
        return {"step_seconds": self.slowness * self.turns}


def test_all_take_turns_and_the_warm_up_is_not_kept():
    asked = []
    taken = measure({AS_CONFIGURED: Counted(1, asked), "a=1": Counted(3, asked)}, steps=5, rounds=2)
    steps = UNMEASURED + 5
    assert asked == [(1, UNMEASURED + 1), (3, UNMEASURED + 1), (1, steps), (3, steps), (3, steps), (1, steps)]
    assert taken == {AS_CONFIGURED: [2, 3], "a=1": [6, 9]}


def test_ratios_are_those_of_turns_of_the_same_round():
    taken = {AS_CONFIGURED: [1, 2, 4], "a=1": [2, 2, 12]}
    assert ratios(taken) == {AS_CONFIGURED: 1, "a=1": 2}  # of 2, 1 and 3: not 2 / 2
    assert format_table(taken).splitlines()[-1].split() == ["a=1", "2,000", "[2,000..12,000]", "2.00"]


@pytest.mark.parametrize("choice", SWITCHED_OFF)
def test_each_choice_is_a_key_of_the_command(composed, choice):
    key, value = choice.split("=")
    cfg = composed(choice)
    *path, last = key.split(".")
    node = cfg
    for part in path:
        node = node[part]
    assert str(node[last]).lower() == value


def test_the_command_measures_in_processes_and_writes_what_it_printed(faces, tmp_path, capsys):
    written = tmp_path / "choices.json"
    main([
        "--data", str(faces), "--batch-size", "10", "--steps", "1", "--rounds", "1", "--json", str(written),
        "--choices", "channels_last=false",
    ])  # fmt: skip
    facts = json.loads(written.read_text())
    assert set(facts["step_seconds"]) == {AS_CONFIGURED, "channels_last=false"}
    assert f"{facts['ratios']['channels_last=false']:.2f}" == capsys.readouterr().out.split()[-1]


def test_more_steps_than_there_are_images_are_refused(faces, capsys):
    with pytest.raises(SystemExit):
        main(["--data", str(faces), "--batch-size", "10", "--steps", "100"])
    assert "--steps=100: the 70 training images fill fewer batches" in capsys.readouterr().err
