"""Hydra takes sweepers from this namespace alone. What the study does stands in ``fer_exp.study``."""

from fer_exp import study


class Study(study.Study):
    """The sweeper that ``conf/hydra/sweeper/study.yaml`` names."""
