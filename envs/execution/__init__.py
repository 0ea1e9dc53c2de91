"""Turning placements into evaluations: measured by OpenVINO, or simulated."""
