import pytest

from fer_exp.runs.sweep_record import read_sweep, write_sweep


def test_keys_are_replaced_one_by_one(tmp_path):
    write_sweep(tmp_path / "new", overrides=["optimizer=adam,sgd"], jobs=2, sweeper={}, swept=["optimizer"])
    write_sweep(tmp_path / "new", jobs=3)
    sweep = read_sweep(tmp_path / "new")
    assert (sweep.overrides, sweep.jobs, sweep.arms) == (["optimizer=adam,sgd"], 3, {})


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "[" * 100_000, '{"jobs": "three"}', '{"jobs": true}', '{"swept": {"seed": 1}}',
        '{"overrides": [1]}', '{"winners": ["adam"]}', '{"arms": {"adam": 1}}',
    ],
)  # fmt: skip
def test_damaged_sweep_record_is_refused_and_not_overwritten(tmp_path, text):
    (tmp_path / "sweep.json").write_text(text)
    for refused in (lambda: read_sweep(tmp_path), lambda: write_sweep(tmp_path, jobs=3)):
        with pytest.raises(ValueError):  # noqa: PT011
            refused()
    assert (tmp_path / "sweep.json").read_text() == text
