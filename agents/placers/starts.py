"""Starts of searches: the best single, or placements of the pretrained policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from device_placement.agents.placers.base import Trace
from device_placement.agents.placers.search_space import Choice, SearchSpace, first_choice
from device_placement.envs.evaluation import Evaluator

SAMPLES = 15  # of the pretrained policy, in addition to what it proposes first

Start = Callable[[Trace, SearchSpace, np.random.Generator, Evaluator, int], tuple[Choice, float]]


def single_start(
    trace: Trace,
    space: SearchSpace,
    generator: np.random.Generator,
    evaluator: Evaluator,
    seed: int,
) -> tuple[Choice, float]:
    """Start where `first_choice` does."""
    return first_choice(trace, space, generator)


def pretrained_start(
    trace: Trace,
    space: SearchSpace,
    generator: np.random.Generator,
    evaluator: Evaluator,
    seed: int,
) -> tuple[Choice, float]:
    """Evaluate the singles and placements of the pretrained policy, and start at the fastest."""
    # Imports torch, which takes seconds.
    from device_placement.agents.placers.pretrained.placer import (
        PretrainedPolicy,
        distinct_samples,
        one_thread,
    )

    best, best_s = first_choice(trace, space, generator)
    with one_thread():
        policy = PretrainedPolicy.load("", evaluator, "auto", seed)
        for placement in [policy.first(), *distinct_samples(policy, SAMPLES)]:
            if trace.spent:
                break
            time_s = trace.time_s(placement)
            if time_s < best_s:
                best, best_s = np.array(placement)[space.first], time_s
    return best, best_s


STARTS: Mapping[str, Start] = {"single": single_start, "pretrained": pretrained_start}
"""Name -> start of a search: its first choice and the seconds of that."""
