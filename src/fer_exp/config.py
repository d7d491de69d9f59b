"""The configuration: where it lies, what it may say, and how its parts become objects."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fer_exp.records import DIRECTION

_PACKAGE = Path(__file__).resolve().parent
# In a wheel conf/ lies inside the package; in a checkout, beside src/.
CONFIG_DIR = next(p for p in (_PACKAGE / "conf", _PACKAGE.parents[1] / "conf") if p.is_dir())

OmegaConf.register_new_resolver("direction", lambda name: DIRECTION.get(name, "min"), replace=True)
