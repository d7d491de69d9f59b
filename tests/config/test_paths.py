import pytest
from omegaconf import OmegaConf

from fer_exp.config.paths import make_paths_absolute
from fer_exp.errors import UserError


@pytest.mark.parametrize("value", ["1.10", "1e3", "2025_11_26", "[a, 1.10]", "{train: 1.10}"])
def test_a_path_that_yaml_reads_as_a_number_is_refused(value):
    cfg = OmegaConf.create(f"data: {{files: {value}}}")
    with pytest.raises(UserError, match=r"data\.files.*quotes"):
        make_paths_absolute(cfg)


def test_quoted_paths_are_taken_as_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = OmegaConf.create("data: {root: '1.10', files: ['1e3', a b]}")
    make_paths_absolute(cfg)
    assert cfg.data == {"root": f"{tmp_path}/1.10", "files": [f"{tmp_path}/1e3", f"{tmp_path}/a b"]}
