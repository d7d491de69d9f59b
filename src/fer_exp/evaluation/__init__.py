"""Evaluate a trained network: metrics with intervals, calibration, protocol, report, export."""
