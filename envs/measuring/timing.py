"""Timing protocol: an estimate from samples, and when there are enough of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from device_placement.envs.arrays import Float64
from device_placement.envs.errors import DevicePlacementError, choose

Pairs = Sequence[tuple[float, float]]  # (num_samples, 2) seconds: candidate, reference
HOPELESS_SAMPLES = 3  # number of samples that giving up needs
MIN_SAMPLES = 6  # fewer have no 95 % interval of their median


@dataclass(frozen=True)
class Timing:
    """Protocol of one measurement.

    ``paired`` alternates the candidate with the reference, so that a drift of the machine
    affects both; ``plain`` runs the candidate alone.
    """

    protocol: str = "paired"
    warmup: int = 1  # runs before the first sample
    min_samples: int = MIN_SAMPLES
    max_samples: int = 40
    max_seconds: float = 5.0  # no sample begins after this long
    tolerance: float = 0.02  # stop when the relative width of the interval is below this
    tolerance_growth: float = 4.0  # widest interval over its distance from the best
    give_up_factor: float = 1.25  # cut short when clearly slower than this times the best

    def __post_init__(self) -> None:
        choose("timing", self.protocol, TIMINGS)
        wrong = (
            self.warmup < 0
            or not 1 <= self.min_samples <= self.max_samples
            or not self.max_seconds > 0
            or not self.tolerance >= 0
            or not 0 <= self.tolerance_growth < math.inf
            or not self.give_up_factor >= 1
        )
        if wrong:
            raise DevicePlacementError(
                f"Got {self}; warmup and tolerance must be at least 0, tolerance_growth at least 0 "
                "and finite, the samples 1 or more and min_samples at most max_samples, "
                "max_seconds above 0, give_up_factor at least 1."
            )

    @property
    def paired(self) -> bool:
        """Whether the candidate alternates with the reference."""
        return self.protocol == "paired"

    @classmethod
    def named(cls, protocol: str, **changes: float | None) -> Timing:
        """Return a protocol with its own defaults, except for the values that are given.

        >>> Timing.named("plain", max_samples=20, tolerance=None).max_samples
        20
        """
        given = {name: value for name, value in changes.items() if value is not None}
        if "max_samples" in given:
            given.setdefault("min_samples", min(cls.min_samples, given["max_samples"]))
        settings: dict[str, Any] = choose("timing", protocol, TIMINGS) | given
        return cls(protocol=protocol, **settings)


# The protocols, with what differs from the defaults above.
TIMINGS: dict[str, dict[str, float]] = {
    "paired": {},
    "plain": {
        "warmup": 3,
        "max_samples": 10,
        "tolerance": 0.0,
        "tolerance_growth": 0.0,
        "give_up_factor": math.inf,
    },
}


def relative_samples(pairs: Pairs) -> Float64:
    """Return the ratios candidate / reference, (num_samples,), or seconds if it ran alone."""
    candidate, reference = np.asarray(pairs, dtype=np.float64).reshape(-1, 2).T
    return np.where(np.isnan(reference), candidate, candidate / reference)


def is_precise(values: Sequence[float], timing: Timing) -> bool:
    """Return whether the interval of the median is narrower than the tolerance."""
    if len(values) < timing.min_samples:
        return False
    low, high = median_interval(values)
    return high - low < timing.tolerance * float(np.median(values))


def is_clearly_slower(values: Sequence[float], timing: Timing, best: float) -> bool:
    """Return whether a candidate is so far above the best that more samples tell nothing of use.

    The whole interval of the median counts, not the noisy median: its lower end is above
    ``give_up_factor`` times the best, or the interval is narrower than ``tolerance_growth`` times
    the distance from the best to its lower end. So the tolerance grows with the distance, as in
    racing algorithms, and a candidate whose interval reaches the best is never clearly slower.

    Args:
        values: (num_samples,) as `relative_samples` returns them.
        timing: has the factors.
        best: the time to beat, in the unit of the values; inf if there is none.
    """
    if len(values) < HOPELESS_SAMPLES or math.isinf(best):
        return False
    low, high = median_interval(values)
    if low > timing.give_up_factor * best:
        return True
    enough = len(values) >= max(timing.min_samples, MIN_SAMPLES)
    return enough and high - low < timing.tolerance_growth * (low - best)


def median_interval(samples: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return a distribution-free confidence interval of the median, from order statistics.

    The ranks are the binomial ones (Hollander, Wolfe and Chicken, "Nonparametric
    Statistical Methods", section 3.6). With fewer than six samples no pair of ranks
    reaches 95 %, and the interval is the range of the samples.

    Args:
        samples: (num_samples,) at least one.
        confidence: the probability that the interval covers the median.

    >>> median_interval([5.0, 1.0, 3.0, 2.0, 4.0, 6.0, 7.0, 8.0])
    (1.0, 8.0)
    """
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    low = _low_rank(ordered.size, confidence)
    return float(ordered[low]), float(ordered[ordered.size - 1 - low])


@functools.cache
def _low_rank(size: int, confidence: float) -> int:
    """Return the largest rank, from 0, below which the median lies with half the allowed error."""
    allowed = Fraction((1 - confidence) / 2) * 2**size  # of the 2**size outcomes
    below, rank = 1, 0
    while below + math.comb(size, rank + 1) <= allowed:
        rank += 1
        below += math.comb(size, rank)
    return rank
