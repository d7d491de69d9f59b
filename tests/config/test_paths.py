"""Keys that hold paths."""

import pytest
from omegaconf import OmegaConf

from fer_exp.config.paths import check_paths, make_paths_absolute


@pytest.mark.parametrize("value", ["1.10", "1e3", "2025_11_26", "[a, 1.10]", "{train: 1.10}"])
def test_a_path_that_yaml_reads_as_a_number_is_refused(value):
    for group, key in (("data", "files"), ("", "images")):
        text = f"{key}: {value}"
        cfg = OmegaConf.create(f"{group}: {{{text}}}" if group else text)
        (problem,) = check_paths(cfg)
        assert problem.startswith(f"{group}.{key}=".lstrip("."))
        assert "quotes" in problem


def test_quoted_paths_are_taken_as_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = OmegaConf.create("data: {root: '1.10', files: ['1e3', a b]}")
    make_paths_absolute(cfg)
    assert cfg.data == {"root": f"{tmp_path}/1.10", "files": [f"{tmp_path}/1e3", f"{tmp_path}/a b"]}


def test_data_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    data = {"root": "a", "file": {"train": "b.csv"}, "files": {"train": ["~/c"]}, "exclude": None, "ignore": ["x"]}
    cfg = OmegaConf.create({"data": {**data, "ferplus": {"file": "d", "labels": "votes"}}})
    make_paths_absolute(cfg)
    assert OmegaConf.to_container(cfg.data) == {
        "root": f"{tmp_path}/a",
        "file": {"train": f"{tmp_path}/b.csv"},
        "files": {"train": ["/home/me/c"]},
        "exclude": None,
        "ignore": ["x"],
        "ferplus": {"file": f"{tmp_path}/d", "labels": "votes"},
    }
