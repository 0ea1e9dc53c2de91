"""Measured placements: OpenVINO, timing, isolation, the store, and the checks of outputs."""
