"""A Hydra app that does nothing, over the project's ``conf/``: the lower bound for ``fer_exp.train --help``."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

CONFIG_DIR = str(Path(__file__).resolve().parents[1] / "conf")


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="train")
def main(cfg: DictConfig) -> None:
    """Do nothing."""


if __name__ == "__main__":
    main()
