"""Baseline placers: random search, the best single device, HETERO's automatic choice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from device_placement.agents.placers.base import PlacerResult, Trace
from device_placement.agents.placers.search_space import Choice, SearchSpace
from device_placement.envs.evaluation import Evaluator
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.measuring.openvino_evaluator import (
    OpenVINOEvaluator,
    as_measuring,
    query,
)

AHEAD = 16  # draws of random search that several machines share


@dataclass(frozen=True)
class RandomSearch:
    """The singles, then random placements, until the budget is spent.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    >>> len(RandomSearch().place(evaluator, budget=5, seed=0).evaluations)
    5
    """

    def place(self, evaluator: Evaluator, budget: int, seed: int) -> PlacerResult:
        """Search, and return the best placement; see `Placer`."""
        trace, space = Trace(evaluator, budget), SearchSpace.of(evaluator)
        generator = np.random.default_rng(seed)
        trace.singles()
        while not trace.spent:
            drawn = [space.assignment(space.sample(generator, 1)[0]) for _ in range(AHEAD)]
            trace.prefetch(drawn)
            for one in drawn:
                if not trace.spent:
                    trace.evaluate(one)
        return trace.result()


def random_assignment(coarse: CoarseGraph, generator: np.random.Generator) -> list[int]:
    """Draw each group's device evenly among the supported ones, (num_groups,)."""
    scores = generator.random(coarse.supported.shape)
    best = np.where(coarse.supported, scores, -1.0).argmax(axis=1)
    return [int(device) for device in best]


@dataclass(frozen=True)
class BestSingle:
    """Best single device, found by evaluating each in turn; nothing is random.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    >>> BestSingle().place(evaluator, budget=3, seed=0).assignment
    (0, 0, 0, 0)
    """

    def place(self, evaluator: Evaluator, budget: int, seed: int) -> PlacerResult:
        """Search, and return the best placement; see `Placer`."""
        trace = Trace(evaluator, budget)
        trace.singles()
        return trace.result()


@dataclass(frozen=True)
class Automatic:
    """HETERO's automatic choice; one evaluation, nothing is random.

    With an evaluator that measures, OpenVINO is queried: a group goes to the device that most
    of its ops are assigned to, among those that run all of them. In the simulator it goes to
    the first device that runs it.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    >>> Automatic().place(evaluator, budget=3, seed=0).assignment
    (0, 0, 0, 0)
    """

    def place(self, evaluator: Evaluator, budget: int, seed: int) -> PlacerResult:
        """Search, and return the best placement; see `Placer`."""
        trace, space = Trace(evaluator, budget), SearchSpace.of(evaluator)
        if evaluator.measures:
            choice = hetero_choice(as_measuring(evaluator), space)
        else:
            choice = space.allowed.argmax(axis=1)
        trace.evaluate(space.assignment(choice))
        return trace.result()


def hetero_choice(evaluator: OpenVINOEvaluator, space: SearchSpace) -> Choice:
    """Return the device that HETERO assigns most ops of each unit to, (num_units,)."""
    names = [device.name for device in evaluator.devices]
    answer = evaluator.call(query, f"HETERO:{','.join(names)}")
    votes = np.zeros(space.allowed.shape)
    unit = space.unit[evaluator.coarse.op_group]
    for op, name in enumerate(evaluator.coarse.graph.op_names):
        if name in answer and not evaluator.coarse.graph.is_constant[op]:
            votes[unit[op], names.index(answer[name])] += 1
    return np.asarray(np.where(space.allowed, votes, -1.0).argmax(axis=1))
