"""Rewards: pure functions of three times, chosen by name.

Each takes seconds: the time of the new placement, of the one before it and of the
reference single. The environment sets the time of an invalid placement, so a reward
never gets NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable

Reward = Callable[[float, float, float], float]


def negative_ms(time_s: float, previous_s: float, reference_s: float) -> float:
    """Return minus the time, in milliseconds."""
    return -1e3 * time_s


def improvement_ms(time_s: float, previous_s: float, reference_s: float) -> float:
    """Return the time before minus the time now, in milliseconds (Placeto, NeurIPS 2019)."""
    return 1e3 * (previous_s - time_s)


def log_speedup(time_s: float, previous_s: float, reference_s: float) -> float:
    """Return the logarithm of the speed-up over the reference: 0 for the reference itself."""
    return math.log(reference_s / time_s)


def log_improvement(time_s: float, previous_s: float, reference_s: float) -> float:
    """Return the logarithm of the speed-up over the placement before; sums to the episode's."""
    return math.log(previous_s / time_s)


def relative(time_s: float, previous_s: float, reference_s: float) -> float:
    """Return the share of the reference's time that is saved; 0.2 is 20 % less time."""
    return 1.0 - time_s / reference_s


def inverse(time_s: float, previous_s: float, reference_s: float) -> float:
    """Return inferences per second, the reward of HSDAG (arXiv 2405.14185, section 2.6)."""
    return 1.0 / time_s


def speedup(time_s: float, previous_s: float, reference_s: float) -> float:
    """Return the speed-up over the reference: `inverse` without a unit."""
    return reference_s / time_s


def negative_sqrt(time_s: float, previous_s: float, reference_s: float) -> float:
    """Return minus the root of the time in milliseconds (Mirhoseini et al., arXiv 1706.04972)."""
    return -math.sqrt(1e3 * time_s)


REWARDS: dict[str, Reward] = {
    function.__name__: function
    for function in (
        negative_ms,
        improvement_ms,
        log_speedup,
        log_improvement,
        relative,
        inverse,
        speedup,
        negative_sqrt,
    )
}

DEFAULT_REWARDS = {"assign": "negative_ms", "construct": "negative_ms", "refine": "improvement_ms"}
