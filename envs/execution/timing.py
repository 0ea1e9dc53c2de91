"""From samples to an estimate: the median and its confidence interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from device_placement.envs.errors import DevicePlacementError


@dataclass(frozen=True)
class Timing:
    """The protocol of one measurement."""

    warmup: int = 3  # runs before the first sample
    repeats: int = 10  # samples
    max_seconds: float = 5.0  # no further sample is begun after this long

    def __post_init__(self) -> None:
        if self.warmup < 0 or self.repeats < 1 or self.max_seconds <= 0:
            raise DevicePlacementError(
                f"Got {self}; warmup must be at least 0, repeats at least 1 and max_seconds "
                "above 0."
            )


def median_interval(samples: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """A distribution-free confidence interval of the median, from order statistics.

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
    rank = int(binom.ppf((1 - confidence) / 2, ordered.size, 0.5))
    low = max(rank - 1, 0)
    return float(ordered[low]), float(ordered[ordered.size - 1 - low])
