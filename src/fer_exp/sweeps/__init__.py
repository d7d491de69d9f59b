"""Sweeps: the jobs of a Hydra multirun, and the equal-budget study."""
