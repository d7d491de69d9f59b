import json

import pytest
from omegaconf import OmegaConf

from benchmarks.choices import AS_CONFIGURED, SWITCHED_OFF, format_table, main, measure, ratios
from benchmarks.contenders.turns import UNMEASURED


class Scripted:
    """Takes the seconds that are next, and notes when it was started, asked and ended."""

    def __init__(self, name, events, seconds):
        self.name, self.events, self.seconds = name, events, seconds

    def __enter__(self):
        self.events.append(f"{self.name} starts")
        return self

    def __exit__(self, *error):
        self.events.append(f"{self.name} ends")

    def turn(self, steps, validation):
        self.events.append(f"{self.name} takes {steps}")
        return {"step_seconds": 100 if steps == UNMEASURED + 1 else next(self.seconds)}


def test_each_turn_is_a_process_and_its_warm_up_is_not_kept():
    events, seconds = [], {"plain": iter([1, 2]), "other": iter([3, 4])}
    start = {
        AS_CONFIGURED: lambda: Scripted("plain", events, seconds["plain"]),
        "a=1": lambda: Scripted("other", events, seconds["other"]),
    }
    taken = measure(start, steps=5, rounds=2)
    assert taken == {AS_CONFIGURED: [1, 2], "a=1": [3, 4]}
    plain, other = (
        [f"{name} starts", f"{name} takes {UNMEASURED + 1}", f"{name} takes {UNMEASURED + 5}", f"{name} ends"]
        for name in ("plain", "other")
    )
    assert events == [*plain, *other, *other, *plain]


def test_ratios_are_those_of_turns_of_the_same_round():
    taken = {AS_CONFIGURED: [1, 2, 4], "a=1": [2, 2, 12]}
    assert ratios(taken) == {AS_CONFIGURED: 1, "a=1": 2}  # of 2, 1 and 3: not 2 / 2
    assert format_table(taken).splitlines()[-1].split() == ["a=1", "2,000", "[2,000..12,000]", "2.00"]


@pytest.mark.parametrize("choice", SWITCHED_OFF)
def test_each_choice_is_otherwise_by_default(composed, choice):
    key, _ = choice.split("=")
    assert OmegaConf.select(composed(), key) != OmegaConf.select(composed(choice), key)


def test_the_command_measures_in_processes_and_writes_what_it_printed(faces, tmp_path, capsys):
    written = tmp_path / "choices.json"
    main([
        "--data", str(faces), "--batch-size", "10", "--steps", "1", "--rounds", "1", "--json", str(written),
        "--choices", "channels_last=false", "optimizer.betas=[0.8,0.9]",
    ])  # fmt: skip
    facts = json.loads(written.read_text())
    assert set(facts["step_seconds"]) == {AS_CONFIGURED, "channels_last=false", "optimizer.betas=[0.8,0.9]"}
    assert f"{facts['ratios']['optimizer.betas=[0.8,0.9]']:.2f}" == capsys.readouterr().out.split()[-1]


def test_more_steps_than_there_are_images_are_refused(faces, capsys):
    with pytest.raises(SystemExit):
        main(["--data", str(faces), "--batch-size", "10", "--steps", "100"])
    assert "--steps=100: the 70 training images fill fewer batches" in capsys.readouterr().err
