"""Callbacks: what happens around the steps of a training."""
