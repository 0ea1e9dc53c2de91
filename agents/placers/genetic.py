"""Genetic algorithm: tournaments, uniform crossover (Syswerda, ICGA 1989), mutation, elitism."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from device_placement.agents.placers.base import PlacerResult, Trace, check_options
from device_placement.agents.placers.search_space import SearchSpace, evaluate_choices
from device_placement.envs.arrays import Float64, Int64
from device_placement.envs.evaluation import Evaluator


@dataclass(frozen=True)
class Genetic:
    """Genetic algorithm; the first generation is the singles and random placements.

    Raises:
        DevicePlacementError: when an option is out of range.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    >>> Genetic(population=4, elite=1).place(evaluator, budget=10, seed=0).assignment
    (0, 0, 0, 0)
    """

    population: int = 20
    """Placements per generation."""
    tournament: int = 3
    """Placements drawn at random, of which the fastest becomes a parent."""
    mutations: float = 2.0
    """Mean number of units of a child that move to a random device."""
    elite: int = 2
    """Fastest placements that survive unchanged."""

    def __post_init__(self) -> None:
        check_options(
            self,
            population=(2, math.inf),
            tournament=(1, math.inf),
            mutations=(0.0, math.inf),
            elite=(0, self.population - 1),
        )

    def place(self, evaluator: Evaluator, budget: int, seed: int) -> PlacerResult:
        """Search, and return the best placement; see `Placer`."""
        trace, space = Trace(evaluator, budget), SearchSpace.of(evaluator)
        generator = np.random.default_rng(seed)
        trace.singles()
        everywhere = np.flatnonzero(space.allowed.all(axis=0))[: self.population]
        singles = np.repeat(everywhere[:, None], space.num_units, axis=1)
        others = space.sample(generator, self.population - len(singles))
        choices = np.concatenate([singles, others])
        times = evaluate_choices(trace, space, choices)
        while not trace.spent:
            order = np.argsort(times, kind="stable")[: self.elite]
            children = self._breed(space, choices, times, generator)
            children_s = evaluate_choices(trace, space, children)
            choices = np.concatenate([choices[order], children])
            times = np.concatenate([times[order], children_s])
        return trace.result()

    def _breed(
        self, space: SearchSpace, choices: Int64, times: Float64, generator: np.random.Generator
    ) -> Int64:
        """Return children, (population - elite, num_units); each gene comes from one parent."""
        count = self.population - self.elite
        drawn = generator.integers(len(choices), size=(2 * count, self.tournament))
        winners = drawn[np.arange(2 * count), times[drawn].argmin(axis=1)]
        mothers, fathers = choices[winners[:count]], choices[winners[count:]]
        children = np.where(generator.random(mothers.shape) < 0.5, mothers, fathers)
        mutated = generator.random(mothers.shape) < self.mutations / space.num_units
        return np.where(mutated, space.sample(generator, count), children)
