"""Figures: each a function from data to a matplotlib Figure."""
