"""Random numbers that are the same on every machine and under every release of NumPy.

They are made of uniform ones by sums, products, quotients, square roots and shifts of exponents,
which IEEE 754 rounds in one way. The rest of NumPy's generator may change between releases, and
processors round `exp` and `log` differently.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from device_placement.envs.arrays import Float64

T = TypeVar("T")
TAIL = 2.0**6  # the largest number of a heavy tail


def exp2(exponents: Float64) -> Float64:
    """Return powers of two, linear between whole exponents.

    >>> exp2(np.array([-1.0, 0.0, 1.5])).tolist()
    [0.5, 1.0, 3.0]
    """
    whole = np.floor(exponents)
    return np.asarray(np.ldexp(1.0 + (exponents - whole), whole.astype(np.int32)))


def log2(number: float) -> float:
    """Return the inverse of `exp2`.

    >>> log2(3.0)
    1.5
    """
    mantissa, exponent = math.frexp(number)
    return exponent + 2.0 * mantissa - 2.0


def mean(numbers: Float64) -> float:
    """Return the mean of numbers, whose sum is rounded once."""
    return math.fsum(numbers.tolist()) / numbers.size


class Draws:
    """Stream of random numbers.

    Args:
        key: whole numbers that identify the stream.

    >>> Draws(7, 1).whole(1, 6) == Draws(7, 1).whole(1, 6)
    True
    """

    def __init__(self, *key: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(key))

    def uniforms(self, *shape: int) -> Float64:
        """Draw numbers from 0 to below 1."""
        return self._generator.random(shape)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Draw a number from `low` to `high`."""
        return low + self._generator.random() * (high - low)

    def chance(self, probability: float) -> bool:
        """Return True with a probability."""
        return self.uniform() < probability

    def whole(self, low: int, high: int) -> int:
        """Draw a whole number, both ends included."""
        return low + int(self.uniform() * (high - low + 1))

    def scale(self, low: float, high: float) -> float:
        """Draw a number whose logarithm is uniform, both ends above 0."""
        return float(self.scales(low, high, 1)[0])

    def scales(self, low: float, high: float, *shape: int) -> Float64:
        """Draw numbers whose logarithm is uniform, both ends above 0."""
        least, most = log2(low), log2(high)
        return np.asarray(np.clip(exp2(least + self.uniforms(*shape) * (most - least)), low, high))

    def whole_scale(self, low: int, high: int) -> int:
        """Draw a whole number whose logarithm is about uniform, both ends included."""
        return min(high, int(self.scale(low, high + 1)))

    def bells(self, *shape: int) -> Float64:
        """Draw about normal numbers of mean 0 and variance 1, between -3.5 and 3.5."""
        one, two, three, four = (self.uniforms(*shape) for _ in range(4))
        return np.asarray((one + two + three + four - 2.0) * math.sqrt(3.0))

    def spread(self, deviation: float, *shape: int) -> Float64:
        """Draw factors whose logarithm to base 2 has a mean of 0 and this deviation."""
        return exp2(deviation * self.bells(*shape))

    def tails(self, *shape: int) -> Float64:
        """Draw heavy-tailed numbers from 1 to `TAIL`: x or more with probability x ** (-4 / 3)."""
        root = np.sqrt(1.0 - self.uniforms(*shape))
        return np.asarray(np.minimum(1.0 / (root * np.sqrt(root)), TAIL))

    def pick(self, weights: Mapping[T, float]) -> T:
        """Return a key, with a probability in proportion to its weight."""
        left = self.uniform(0.0, math.fsum(weights.values()))
        for key, weight in weights.items():
            left -= weight
            if left < 0:
                return key
        return key

    def one(self, items: Sequence[T]) -> T:
        """Return one of some items."""
        return items[self.whole(0, len(items) - 1)]

    def some(self, items: Sequence[T], number: int) -> list[T]:
        """Return some of the items, each once, in random order."""
        order = np.argsort(self.uniforms(len(items)), kind="stable")
        return [items[position] for position in order[:number].tolist()]
