"""Cross-entropy method (de Boer, Kroese, Mannor and Rubinstein, Ann. Oper. Res. 2005)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from device_placement.agents.placers.base import PlacerResult, Trace, check_options
from device_placement.agents.placers.search_space import SearchSpace, evaluate_choices, first_choice
from device_placement.envs.arrays import Float64, Int64
from device_placement.envs.evaluation import Evaluator

COLLAPSED = 0.999  # probability of every unit's likeliest device from which nothing new is drawn


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy method: draws placements, then moves the probabilities towards the best.

    The device of each unit is drawn independently, evenly at first. The best so far, at first
    the best single, is part of each draw. The search restarts when the probabilities collapse.

    Raises:
        DevicePlacementError: when an option is out of range.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    >>> CrossEntropy().place(evaluator, budget=10, seed=0).assignment
    (0, 0, 0, 0)
    """

    population: int = 50
    """Placements per draw."""
    elite: int = 5
    """Best placements of a draw, which the probabilities move towards."""
    smoothing: float = 0.3
    """Size of that step; 1 forgets the previous probabilities."""

    def __post_init__(self) -> None:
        check_options(
            self, population=(2, math.inf), elite=(1, self.population), smoothing=(1e-9, 1.0)
        )

    def place(self, evaluator: Evaluator, budget: int, seed: int) -> PlacerResult:
        """Search, and return the best placement; see `Placer`."""
        trace, space = Trace(evaluator, budget), SearchSpace.of(evaluator)
        generator = np.random.default_rng(seed)
        even = space.allowed / space.allowed.sum(axis=1, keepdims=True)
        probability = even
        best, best_s = first_choice(trace, space, generator)
        while not trace.spent:
            choices = sample_choices(probability, self.population, generator)
            times = np.append(evaluate_choices(trace, space, choices), best_s)
            choices = np.concatenate([choices, best[None]])
            order = np.argsort(times, kind="stable")
            best, best_s = choices[order[0]], float(times[order[0]])
            elite = choices[order[: self.elite]][np.isfinite(times[order[: self.elite]])]
            if len(elite):
                shares = (elite[:, :, None] == np.arange(even.shape[1])).mean(axis=0)
                probability = probability + self.smoothing * (shares - probability)
            if probability.max(axis=1).min() >= COLLAPSED:
                probability, best_s = even, math.inf
        return trace.result()


def sample_choices(probability: Float64, count: int, generator: np.random.Generator) -> Int64:
    """Draw devices, (count, num_units), by probabilities, (num_units, num_devices)."""
    # With exponential waits of these rates, each device ends first with its probability.
    waits = generator.exponential(size=(count, *probability.shape))
    rates = np.maximum(probability, 1e-300)
    return np.asarray(np.where(probability > 0.0, waits / rates, math.inf).argmin(axis=2))
