import pytest
from omegaconf import OmegaConf

from benchmarks import choices
from benchmarks.contenders.turns import WARMUP_STEPS

EVENTS = []


class Scripted:
    """A contender that records its override and turns; the default takes 1 s, an override 2 s."""

    def __init__(self, module, settings, env):
        self.name = settings["overrides"][0] if settings["overrides"] else "default"

    def __enter__(self):
        EVENTS.append(f"{self.name} starts")
        return self

    def __exit__(self, *error):
        EVENTS.append(f"{self.name} ends")

    def turn(self, steps, validation):
        EVENTS.append(f"{self.name} takes {steps}")
        return {"step_seconds": 100 if steps == WARMUP_STEPS + 1 else 1 if self.name == "default" else 2}


def test_each_turn_is_a_new_process_and_its_warm_up_is_discarded(monkeypatch):
    monkeypatch.setattr(choices, "Contender", Scripted)
    seconds = choices.measure({"batch_size": 10}, ["a=1"], steps=5, rounds=2, threads=None)
    assert seconds == {"default": [1, 1], "a=1": [2, 2]}
    assert choices.ratios(seconds) == {"default": 1, "a=1": 2}
    default, other = (
        [f"{name} starts", f"{name} takes {WARMUP_STEPS + 1}", f"{name} takes {WARMUP_STEPS + 5}", f"{name} ends"]
        for name in ("default", "a=1")
    )
    assert [*default, *other, *other, *default] == EVENTS


@pytest.mark.parametrize("override", choices.OVERRIDES)
def test_each_override_changes_a_default(composed, override):
    key, _ = override.split("=")
    assert OmegaConf.select(composed(), key) != OmegaConf.select(composed(override), key)
