"""Measured placements: OpenVINO, the clock, the store and the checks of outputs."""
