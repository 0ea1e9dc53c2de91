"""Greedy placement: each group where the schedule's time grows least, in topological order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from device_placement.agents.placers.base import PlacerResult, Trace
from device_placement.agents.placers.search_space import SearchSpace, needed_costs
from device_placement.envs.evaluation import Evaluator
from device_placement.envs.simulation.partial_schedule import PartialSchedules, can_run


@dataclass(frozen=True)
class Greedy:
    """Each group in turn goes where the time of all groups so far grows least.

    The time is that of the evaluator's own schedule; under ``dataflow`` that of ``concurrent``.
    Of devices with equal times it takes the one where the group ends first, then the one with the
    least load, then the first. The first group of a colour decides for all of it. A device whose
    memory is full is left out, unless all are. One evaluation; nothing is random.

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
        costs = needed_costs(evaluator)
        trace, space = Trace(evaluator, budget), SearchSpace.of(evaluator)
        allowed, row = space.allowed.copy(), np.array([0])
        partial = PartialSchedules([costs], [evaluator.schedule], num_rows=1)
        outlook = partial.look(row)
        for unit in space.unit.tolist():
            fits = allowed[unit] & can_run(outlook)[0]
            usable = np.flatnonzero(fits if fits.any() else allowed[unit])
            keys = outlook.load_s, outlook.finish_s, outlook.value_s  # the last counts first
            device = usable[np.lexsort([key[0, usable] for key in keys])[0]]
            allowed[unit] = np.arange(costs.num_devices) == device
            outlook = partial.place(row, np.array([device]))
        trace.evaluate(allowed.argmax(axis=1)[space.unit].tolist())
        return trace.result()
