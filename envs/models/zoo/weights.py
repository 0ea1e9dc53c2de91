"""Seeded weights: slices of one standard-normal block, so that large models build quickly."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.arrays import Float64

LENGTH: Final = 262_147
"""Values in the block; a prime, so that no two rows of a tiled matrix start at the same value."""
STRIDE: Final = 162_017
"""Distance between the starts of successive tensors: about LENGTH / golden ratio."""
SMALLEST: Final = 6.2e-5
"""Least magnitude of a weight: just above 6.104e-5, where fp16 turns denormal."""

Half = NDArray[np.float16]


def standard_normal(seed: int, size: int) -> Float64:
    """Return standard-normal values, equal on every machine and NumPy version.

    NumPy promises a stable stream for `PCG64` itself, not for the distributions of `Generator`;
    hence Box-Muller on the raw bits.

    Returns:
        An array of shape (size,).
    """
    raw = np.random.PCG64(seed).random_raw(2 * size).reshape(2, size)
    uniform = (raw >> np.uint64(11)) * 2.0**-53
    radius = np.sqrt(-2 * np.log1p(-uniform[0]))
    values: Float64 = radius * np.cos(2 * np.pi * uniform[1])
    return values


class Weights:
    """Source of fp16 tensors: each `normal` is the next slice of one seeded block, tiled.

    >>> Weights(seed=0).normal((2, 2), std=1.0).dtype
    dtype('float16')
    """

    def __init__(self, seed: int) -> None:
        self._block = np.tile(standard_normal(seed, LENGTH), 2).astype(np.float32)
        self._count = 0

    def normal(self, shape: tuple[int, ...], *, std: float, mean: float = 0.0) -> Half:
        """Return the next tensor of the given mean and standard deviation, without fp16 denormals.

        Tensors of more than `LENGTH` values repeat the block.
        """
        start = self._count * STRIDE % LENGTH
        self._count += 1
        values = self._block[start : start + min(math.prod(shape), LENGTH)] * std + mean
        safe = np.where(np.abs(values) < SMALLEST, np.copysign(SMALLEST, values), values)
        return np.resize(safe.astype(np.float16), shape)
