"""Difference between the outputs of a placed model and the reference's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.arrays import Float64

Outputs = Sequence[NDArray[Any]]
ERROR_FLOOR = 1e-4  # relative error of f32 kernels that sum in another order


def output_difference(outputs: Outputs, expected: Outputs) -> tuple[float, float]:
    """Return relative L2 error and cosine of a model's outputs; the worst over its outputs.

    Args:
        outputs: one array per output.
        expected: the reference's.

    Returns:
        The largest ``|a - b| / |b|`` and the smallest ``a . b / (|a| |b|)``. Equal infinities
        and NaN in the same place count as equal. The error is infinite if only one of two
        numbers is finite, if a text differs, if the output should be all zeros and is not, or
        if the shapes differ, as those that depend on the data can.

    >>> output_difference([np.array([3.0, -np.inf])], [np.array([3.0, -np.inf])])
    (0.0, 1.0)
    >>> output_difference([np.zeros((2, 4))], [np.zeros((3, 4))])
    (inf, -1.0)
    >>> output_difference([np.array(["cat"])], [np.array(["dog"])])
    (inf, -1.0)
    """
    differences = [_difference(one, other) for one, other in zip(outputs, expected, strict=True)]
    errors, cosines = [error for error, _ in differences], [cosine for _, cosine in differences]
    return float(np.max(errors, initial=0.0)), float(np.min(cosines, initial=1.0))


def _difference(output: NDArray[Any], expected: NDArray[Any]) -> tuple[float, float]:
    """Return the relative error and the cosine of one output."""
    if output.shape != expected.shape:
        return math.inf, -1.0
    if not np.issubdtype(output.dtype, np.number) and output.dtype != np.bool_:
        return (0.0, 1.0) if np.array_equal(output, expected) else (math.inf, -1.0)
    one, other = (np.asarray(values, np.float64).ravel() for values in (output, expected))
    alike = (one == other) | (np.isnan(one) & np.isnan(other))
    usable = np.isfinite(one) & np.isfinite(other)
    if not (alike | usable).all():
        return math.inf, -1.0
    one, other = np.where(usable, one, 0.0), np.where(usable, other, 0.0)
    error = _relative(float(np.linalg.norm(one - other)), float(np.linalg.norm(other)))
    return error, _cosine(one, other)


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
