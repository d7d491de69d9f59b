"""One composed config per set of overrides; tests get copies, because composing takes long."""

import copy
from functools import cache

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from fer_exp.config.schema import CONFIG_DIR


@cache
def composed_once(*overrides: str, command: str = "train") -> DictConfig:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose(command, ["output_dir=out", *overrides] if command != "predict" else [*overrides])


@pytest.fixture
def config():
    """Compose the config of ``train``, and set values as a YAML file could: ``config("optimizer=sgd", seed=-1)``."""

    def get(*overrides: str, values: dict | None = None, command: str = "train") -> DictConfig:
        cfg = copy.deepcopy(composed_once(*overrides, command=command))
        OmegaConf.set_struct(cfg, False)
        for key, value in (values or {}).items():
            OmegaConf.update(cfg, key, value, merge=False)
        return cfg

    return get
