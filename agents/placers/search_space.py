"""Search space of the placers: allowed choices, random moves, and their evaluation."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from device_placement.agents.placers.base import Trace
from device_placement.envs.arrays import Bool, Float64, Int64, UInt8
from device_placement.envs.costs import Costs
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.evaluation import Evaluator
from device_placement.envs.repair.repairer import Repairer

Choice = Int64  # (num_units,) the device of each unit
Choices = UInt8  # (batch, num_units) the same for many choices


@dataclass(frozen=True)
class SearchSpace:
    """Placements that respect device support and colours.

    A unit moves as a whole: the groups of one colour, or a group without one. Memory limits
    are not checked here but by the evaluator. Where constraints forbid nearly everything, what
    is drawn is a valid placement, and what is moved is repaired.

    >>> from device_placement.envs import make_evaluator
    >>> space = SearchSpace.of(make_evaluator("diamond", "CPU,GPU", evaluator="simulator"))
    >>> space.num_units, len(space.moves)
    (4, 8)
    >>> space.assignment(space.moved(np.zeros(4, dtype=np.int64), unit=2, device=1))
    [0, 0, 1, 0]
    """

    unit: Int64  # (num_groups,) the unit of each group; units are numbered by their first group
    allowed: Bool  # (num_units, num_devices) devices that run every group of the unit
    repairer: Repairer | None = None  # if there are constraints

    @classmethod
    def of(cls, evaluator: Evaluator) -> SearchSpace:
        """Return the space of an evaluator's placements.

        Raises:
            DevicePlacementError: when the groups of a unit have no device in common.
        """
        costs, supported = evaluator.costs, evaluator.coarse.supported
        unit = np.arange(evaluator.coarse.num_groups)
        if costs is not None:
            supported = supported & np.isfinite(costs.compute_s)
            unit = costs.unit
        allowed = np.ones((unit.max() + 1, supported.shape[1]), dtype=np.bool_)
        np.logical_and.at(allowed, unit, supported)
        stuck = np.flatnonzero(~allowed.any(axis=1))
        if stuck.size:
            members = np.flatnonzero(unit == stuck[0]).tolist()
            raise DevicePlacementError(
                f"No device runs all of the groups {members}, which must share one; add a device "
                "that does."
            )
        if costs is None or not costs.constraints:
            return cls(unit, allowed)
        return cls(unit, allowed, Repairer(costs, supported))

    @property
    def num_units(self) -> int:
        """Number of units to place."""
        return len(self.allowed)

    @functools.cached_property
    def first(self) -> Int64:
        """First group of each unit, (num_units,)."""
        return np.unique(self.unit, return_index=True)[1]

    @functools.cached_property
    def moves(self) -> Int64:
        """Unit and device of every possible move, (num_moves, 2)."""
        return np.argwhere(self.allowed & (self.allowed.sum(axis=1) > 1)[:, None])

    def assignment(self, choice: Choice) -> list[int]:
        """Return the device of each group, (num_groups,)."""
        devices: list[int] = choice[self.unit].tolist()
        return devices

    def sample(self, generator: np.random.Generator, count: int) -> Int64:
        """Draw choices, (count, num_units): each unit independently, evenly among its devices.

        Under constraints: valid ones, drawn as `Repairer.uniform` does; where the search gave up,
        one that is not.
        """
        if self.repairer is not None:
            found = [self.repairer.uniform(generator) for _ in range(count)]
            return np.array([one.assignment[self.first] for one in found]).clip(0)
        scores = generator.random((count, *self.allowed.shape))
        return np.asarray(np.where(self.allowed, scores, -1.0).argmax(axis=2))

    def moved(self, choice: Choice, unit: int, device: int) -> Choice:
        """Return the choice with one unit on another device."""
        result = choice.copy()
        result[unit] = device
        return result

    def neighbour(self, choice: Choice, generator: np.random.Generator) -> Choice:
        """Return the choice with a random unit on another random device, if there is one.

        Under constraints it is repaired, which may undo the move.
        """
        while len(self.moves):
            unit, device = self.moves[generator.integers(len(self.moves))]
            if choice[unit] != device:
                return self.repaired(self.moved(choice, unit, device))
        return choice

    def left(self, placed: Int64, group: int) -> Bool:
        """Return the devices that constraints leave to a group, (num_devices,).

        Args:
            placed: (num_groups,) device numbers so far; -1 for none.
            group: to place next.
        """
        if self.repairer is None:
            return np.ones(self.allowed.shape[1], dtype=np.bool_)
        return self.repairer.allowed(placed, group)

    def repaired(self, choice: Choice) -> Choice:
        """Return a choice that satisfies the constraints, near another one."""
        if self.repairer is None:
            return choice
        return np.asarray(self.repairer.fix(self.assignment(choice)).assignment[self.first])


def first_choice(
    trace: Trace, space: SearchSpace, generator: np.random.Generator
) -> tuple[Choice, float]:
    """Evaluate the singles; return the best of them and its seconds.

    If no single is valid, return the balanced placement where there are constraints, or the first
    valid random choice; the time is inf when the budget ends before there is one.
    """
    singles = trace.singles()
    device = int(np.argmin(singles))
    choice, time_s = np.full(space.num_units, device), singles[device]
    known = trace.result()
    if math.isinf(time_s) and known.assignment:
        choice, time_s = np.array(known.assignment)[space.first], known.time_s
    while math.isinf(time_s) and not trace.spent:
        choice = space.sample(generator, 1)[0]
        time_s = trace.time_s(space.assignment(choice))
    return choice, time_s


def evaluate_choices(trace: Trace, space: SearchSpace, choices: Iterable[Choice]) -> Float64:
    """Return each choice's seconds, (count,); inf if it is invalid or the budget is spent."""
    wanted = [space.assignment(choice) for choice in choices]
    trace.prefetch(wanted)
    return np.array([math.inf if trace.spent else trace.time_s(one) for one in wanted])


def needed_costs(evaluator: Evaluator) -> Costs:
    """Return an evaluator's costs, for a placer that plans with them.

    Raises:
        DevicePlacementError: for an evaluator that measures.
    """
    costs = evaluator.costs
    if costs is None:
        raise DevicePlacementError(
            f"Got {type(evaluator.unwrapped).__name__}, which has no costs to plan with; use "
            "evaluator='simulator', or a placer that searches, such as local_search."
        )
    return costs
