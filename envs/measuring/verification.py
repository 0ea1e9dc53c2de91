"""Difference between the outputs of a placed model and the reference's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.arrays import Float64

Outputs = Sequence[NDArray[Any]]


def output_difference(outputs: Outputs, expected: Outputs) -> tuple[float, float]:
    """Relative L2 error and cosine of a model's outputs; the worst over its outputs.

    Args:
        outputs: one array an output.
        expected: the reference's, of the same shapes.

    Returns:
        The largest ``|a - b| / |b|`` and the smallest ``a . b / (|a| |b|)``. Where an output
        holds what is no number the error is infinite, as against an output of zeros that
        is not equalled.

    >>> output_difference([np.array([3.0, 4.0])], [np.array([3.0, 4.0])])
    (0.0, 1.0)
    """
    pairs = [
        (np.asarray(one, np.float64).ravel(), np.asarray(other, np.float64).ravel())
        for one, other in zip(outputs, expected, strict=True)
    ]
    errors = [_relative(float(np.linalg.norm(a - b)), float(np.linalg.norm(b))) for a, b in pairs]
    cosines = [_cosine(a, b) for a, b in pairs]
    return float(np.max(errors, initial=0.0)), float(np.min(cosines, initial=1.0))


def _relative(difference: float, norm: float) -> float:
    if difference == 0:
        return 0.0
    return difference / norm if norm > 0 and math.isfinite(difference) else math.inf


def _cosine(one: Float64, other: Float64) -> float:
    norms = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    if not math.isfinite(norms):
        return -1.0
    if norms == 0:
        return float(np.array_equal(one, other))
    return min(1.0, max(-1.0, float(one @ other) / norms))
