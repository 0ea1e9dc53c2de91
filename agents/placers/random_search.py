"""Random search: each group's device drawn on its own, evenly among those that can run it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from device_placement.agents.placers.moves import Space
from device_placement.agents.placers.result import PlacerResult, Trace
from device_placement.envs.coarsening import CoarseGraph
from device_placement.envs.execution.evaluation import Evaluator


@dataclass(frozen=True)
class RandomSearch:
    """The singles, then random placements, until the budget is spent.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    >>> len(RandomSearch().place(evaluator, budget=5, seed=0).evaluations)
    5
    """

    def place(self, evaluator: Evaluator, budget: int, seed: int) -> PlacerResult:
        """Search, as `Placer` says."""
        trace, space = Trace(evaluator, budget), Space.of(evaluator)
        generator = np.random.default_rng(seed)
        trace.singles()
        while not trace.spent:
            trace.evaluate(space.assignment(space.sample(generator, 1)[0]))
        return trace.result()


def random_assignment(coarse: CoarseGraph, generator: np.random.Generator) -> list[int]:
    """(num_groups,) device numbers, drawn evenly among the supported ones."""
    scores = generator.random(coarse.supported.shape)
    best = np.where(coarse.supported, scores, -1.0).argmax(axis=1)
    return [int(device) for device in best]
