"""Keys that hold paths."""

import shlex

import pytest
from omegaconf import OmegaConf

from fer_exp.cli import quote_paths
from fer_exp.config.paths import as_typed_in_a_shell, check_paths, make_paths_absolute


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


@pytest.mark.parametrize("value", ["/data/my images", "it's", "a;b=[c]"])
def test_a_path_is_shown_as_it_was_typed(value):
    typed = f"data.root={value}"
    (received,) = quote_paths([typed])
    assert received != typed
    assert shlex.split(as_typed_in_a_shell(received)) == [typed]


def test_other_overrides_keep_their_quotes():
    assert shlex.split(as_typed_in_a_shell("model.name='1.10'")) == ["model.name='1.10'"]


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
