"""The paths of a config."""

from omegaconf import OmegaConf

from fer_exp.config.paths import make_paths_absolute


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
