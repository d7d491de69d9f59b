"""Figures, text tables and terminal output."""
