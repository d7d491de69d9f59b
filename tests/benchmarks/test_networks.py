import pytest

from benchmarks.networks import build_network, describe, format_table, measure


def test_arithmetic_of_the_notebook_network():
    # Twice the multiplications: kernels x positions for convolutions, weights for dense layers.
    convolutions = 9 * 64 * 48**2 + 25 * 64 * 128 * 24**2 + 9 * 128 * 512 * 12**2 + 9 * 512 * 512 * 6**2
    dense = 4608 * 256 + 256 * 512 + 512 * 7
    facts = describe(build_network("notebook_cnn"))
    assert facts["parameters"] == 4_474_759
    assert facts["gflop"] == pytest.approx(2 * (convolutions + dense) / 1e9)


def test_networks_take_turns_and_the_first_round_is_discarded():
    networks = {name: build_network(name) for name in ("timm:test_convnext", "timm:test_resnet")}
    seconds = measure(networks, 2, rounds=2)
    assert {name: len(values) for name, values in seconds.items()} == dict.fromkeys(networks, 2)


def test_table_is_relative_to_the_first_network():
    facts = {name: {"parameters": 1000, "gflop": 0.5} for name in "ab"}
    *_, last = format_table(facts, {"a": [1.0, 2.0, 4.0], "b": [0.5, 0.5, 4.0]}).splitlines()
    assert last.split() == ["b", "1,000", "0.50", "500", "[500..4,000]", "0.50"]
