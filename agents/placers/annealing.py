"""Simulated annealing (Kirkpatrick, Gelatt and Vecchi, Science 1983)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from device_placement.agents.placers.base import PlacerResult, Trace, check_options
from device_placement.agents.placers.search_space import Choice, SearchSpace, first_choice
from device_placement.envs.evaluation import Evaluator

STALE = 2  # requests per possible move without a new placement, after which it is frozen


@dataclass(frozen=True)
class Annealing:
    """Simulated annealing: random moves from the best single, some of them to slower placements.

    A move that is slower by d seconds is accepted with probability exp(-d / temperature). The
    initial temperature accepts a move of mean difference, estimated from some trials, with
    probability `acceptance`. It falls geometrically, by `cooling` in total over the budget. When
    no new placement turns up any more, the search restarts from a random one.

    Raises:
        DevicePlacementError: when an option is out of range.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    >>> Annealing().place(evaluator, budget=10, seed=0).assignment
    (0, 0, 0, 0)
    """

    acceptance: float = 0.4
    """Initial probability of accepting a move of mean difference, above 0 and below 1."""
    cooling: float = 1e-2
    """Last temperature divided by the first."""
    trials: int = 20
    """Moves from which the mean difference is estimated."""

    def __post_init__(self) -> None:
        check_options(self, acceptance=(1e-9, 1 - 1e-9), cooling=(1e-9, 1.0), trials=(1, math.inf))

    def place(self, evaluator: Evaluator, budget: int, seed: int) -> PlacerResult:
        """Search, and return the best placement; see `Placer`."""
        trace, space = Trace(evaluator, budget), SearchSpace.of(evaluator)
        generator = np.random.default_rng(seed)
        choice, time_s = first_choice(trace, space, generator)
        first = self._temperature(trace, space, choice, time_s, generator)
        stale = 0  # requests since the last new placement
        while not trace.spent:
            if stale > STALE * len(space.moves):
                choice, stale = space.sample(generator, 1)[0], 0
                time_s = trace.time_s(space.assignment(choice))
                continue
            progress = trace.progress
            moved = space.neighbour(choice, generator)
            moved_s = trace.time_s(space.assignment(moved))
            stale = stale + 1 if trace.progress == progress else 0
            slower_s = moved_s - time_s if moved_s > time_s else 0.0  # both may be inf
            temperature = first * self.cooling**progress
            if generator.random() < math.exp(-slower_s / temperature):
                choice, time_s = moved, moved_s
        return trace.result()

    def _temperature(
        self,
        trace: Trace,
        space: SearchSpace,
        choice: Choice,
        time_s: float,
        generator: np.random.Generator,
    ) -> float:
        """Return the initial temperature in seconds, estimated from random moves."""
        differences = []
        for _ in range(self.trials):
            if not trace.spent:
                moved_s = trace.time_s(space.assignment(space.neighbour(choice, generator)))
                differences.append(abs(moved_s - time_s))
        known = [one for one in differences if 0.0 < one < math.inf]
        mean = sum(known) / len(known) if known else 1.0  # otherwise all moves are equal or invalid
        return mean / -math.log(self.acceptance)
