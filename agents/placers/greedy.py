"""Placement of one group after another, in topological order, where it costs least."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from device_placement.agents.placers.base import PlacerResult, Trace
from device_placement.agents.placers.search_space import SearchSpace, needed_costs
from device_placement.envs.arrays import Float64
from device_placement.envs.costs import Costs
from device_placement.envs.evaluation import Evaluator
from device_placement.envs.repair.repairer import NO_DEVICE
from device_placement.envs.simulation.partial_schedule import (
    Outlook,
    PartialSchedules,
    can_run,
)

ROW = np.array([0])

Cost = Callable[[PartialSchedules, Outlook], Float64]  # seconds on each device, (1, num_devices)


@dataclass(frozen=True)
class Greedy:
    """Each group in turn goes where the time of all groups so far grows least.

    The time is that of the evaluator's own schedule; under ``dataflow`` that of ``concurrent``.
    Of devices with equal times it takes the one where the group ends first, then the one with the
    least load, then the first. The first group of a colour decides for all of it. A device whose
    memory is full, or which constraints rule out, is left out, unless all are; the result is
    repaired. One evaluation; nothing is random.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    >>> Greedy().place(evaluator, budget=3, seed=0).assignment
    (0, 0, 0, 0)
    """

    def place(self, evaluator: Evaluator, budget: int, seed: int) -> PlacerResult:
        """Search, and return the best placement; see `Placer`.

        Raises:
            DevicePlacementError: when the evaluator measures and so has no costs.
        """
        trace = Trace(evaluator, budget)
        costs, space = needed_costs(evaluator), SearchSpace.of(evaluator)
        trace.evaluate(_constructed(costs, evaluator.schedule, space, _time_so_far))
        return trace.result()


@dataclass(frozen=True)
class Lookahead:
    """Like `Greedy`, but each group goes where an estimate for *all* groups is least.

    The estimates are those of `Ahead`: roughly what all groups take at least, and what they take if
    those not placed follow a rule. Two evaluations, one of each; nothing is random.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    >>> len(Lookahead().place(evaluator, budget=3, seed=0).evaluations)
    1
    """

    def place(self, evaluator: Evaluator, budget: int, seed: int) -> PlacerResult:
        """Search, and return the best placement; see `Placer`.

        Raises:
            DevicePlacementError: when the evaluator measures and so has no costs.
        """
        trace = Trace(evaluator, budget)
        costs, space = needed_costs(evaluator), SearchSpace.of(evaluator)
        for placement in lookahead_placements(costs, evaluator.schedule, space):
            if not trace.spent:
                trace.evaluate(placement)
        return trace.result()


def lookahead_placements(costs: Costs, schedule: str, space: SearchSpace) -> list[list[int]]:
    """Return the placements of `Lookahead`, one for each estimate, (num_groups,) devices each.

    Args:
        costs: of the groups.
        schedule: a name of `SCHEDULES`.
        space: of the placements.
    """
    return [_constructed(costs, schedule, space, cost) for cost in (_estimate, _reached)]


def _time_so_far(partial: PartialSchedules, outlook: Outlook) -> Float64:
    return outlook.value_s


def _estimate(partial: PartialSchedules, outlook: Outlook) -> Float64:
    return partial.ahead(ROW, outlook).estimate_s


def _reached(partial: PartialSchedules, outlook: Outlook) -> Float64:
    return partial.ahead(ROW, outlook).reached_s


def _constructed(costs: Costs, schedule: str, space: SearchSpace, cost: Cost) -> list[int]:
    """Return the device of each group when each in turn goes where a cost is least."""
    allowed = space.allowed.copy()
    partial = PartialSchedules([costs], [schedule], num_rows=1)
    outlook = partial.look(ROW)
    placed = np.full(costs.num_groups, NO_DEVICE)
    for group, unit in enumerate(space.unit.tolist()):
        usable = allowed[unit]
        for fits in (space.left(placed, group), can_run(outlook)[0]):
            usable = usable & fits if (usable & fits).any() else usable
        devices = np.flatnonzero(usable)
        # The last key counts first.
        keys = outlook.load_s, outlook.finish_s, outlook.value_s, cost(partial, outlook)
        device = placed[group] = devices[np.lexsort([key[0, devices] for key in keys])[0]]
        allowed[unit] = np.arange(costs.num_devices) == device
        outlook = partial.place(ROW, np.array([device]))
    return space.assignment(space.repaired(allowed.argmax(axis=1)))
