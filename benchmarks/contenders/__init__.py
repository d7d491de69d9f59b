"""Implementations that are measured side by side: each module is a process that trains on request."""
