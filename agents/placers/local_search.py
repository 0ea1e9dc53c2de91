"""Local search: move one unit at a time while the placement gets faster."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from device_placement.agents.placers.base import PlacerResult, Trace
from device_placement.agents.placers.search_space import (
    Choice,
    SearchSpace,
    evaluate_choices,
)
from device_placement.agents.placers.starts import STARTS
from device_placement.envs.errors import choose
from device_placement.envs.evaluation import Evaluator

Descent = Callable[[Trace, SearchSpace, Choice, float, np.random.Generator], None]


@dataclass(frozen=True)
class LocalSearch:
    """Descents from a start, then from random placements, until the budget is spent.

    Raises:
        DevicePlacementError: when an option is out of range.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    >>> LocalSearch("steepest").place(evaluator, budget=10, seed=0).assignment
    (0, 0, 0, 0)
    """

    descent: str = "first"
    """first: take any move that helps; steepest: the one that helps most."""
    start: str = "single"
    """single: the best single; pretrained: the best of 16 placements of the pretrained policy."""

    def __post_init__(self) -> None:
        choose("descent", self.descent, DESCENTS)
        choose("start", self.start, STARTS)

    def place(self, evaluator: Evaluator, budget: int, seed: int) -> PlacerResult:
        """Search, and return the best placement; see `Placer`."""
        trace, space = Trace(evaluator, budget), SearchSpace.of(evaluator)
        generator = np.random.default_rng(seed)
        choice, time_s = STARTS[self.start](trace, space, generator, evaluator, seed)
        while not trace.spent:
            if math.isfinite(time_s):
                DESCENTS[self.descent](trace, space, choice, time_s, generator)
            choice = space.sample(generator, 1)[0]
            (time_s,) = evaluate_choices(trace, space, [choice])
        return trace.result()


def first_improvement(
    trace: Trace, space: SearchSpace, choice: Choice, time_s: float, generator: np.random.Generator
) -> None:
    """Try the moves in a random order, repeatedly, and keep each that helps."""
    moves = generator.permutation(space.moves)
    number = untried = len(moves)
    position = 0
    while untried and not trace.spent:
        unit, device = moves[position % number]
        position, untried = position + 1, untried - 1
        if choice[unit] != device:
            moved = space.moved(choice, unit, device)
            moved_s = trace.time_s(space.assignment(moved))
            if moved_s < time_s:
                choice, time_s, untried = moved, moved_s, number - 1


def steepest(
    trace: Trace, space: SearchSpace, choice: Choice, time_s: float, generator: np.random.Generator
) -> None:
    """Try all moves, keep the best, and repeat; nothing is random."""
    while len(space.moves) and not trace.spent:
        moved = [
            space.moved(choice, unit, device)
            for unit, device in space.moves
            if choice[unit] != device
        ]
        times = evaluate_choices(trace, space, moved)
        best = int(np.argmin(times))
        if times[best] >= time_s:
            return
        choice, time_s = moved[best], float(times[best])


DESCENTS: Mapping[str, Descent] = {"first": first_improvement, "steepest": steepest}
"""Name -> descent to a placement that no single move improves."""
