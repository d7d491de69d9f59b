"""Hydra takes sweepers from this namespace alone. What the study does stands in ``fer_exp.sweeps.study``."""

from fer_exp.sweeps import study


class Study(study.Study):
    """The sweeper that ``conf/hydra/sweeper/study.yaml`` names."""
