"""CP-SAT placer: an optimal placement with a proof, or the best one found with a bound."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from device_placement.agents.placers.base import PlacerResult, Trace, check_options
from device_placement.agents.placers.exact.common import schedule_of
from device_placement.agents.placers.exact.contiguous import best_contiguous
from device_placement.agents.placers.exact.cp_bounds import packing_bound
from device_placement.agents.placers.exact.cp_program import ConstraintProgram, Linear, solve
from device_placement.agents.placers.exact.cp_schedules import (
    concurrent_objective,
    dataflow_objective,
    max_load_objective,
    pipelined_objective,
    sequential_objective,
)
from device_placement.agents.placers.exact.min_cut import minimum_cut
from device_placement.agents.placers.neighbourhoods import descend
from device_placement.agents.placers.search_space import Choice, Choices, SearchSpace, needed_costs
from device_placement.envs.arrays import Float64
from device_placement.envs.costs import Costs
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.evaluation import Evaluator
from device_placement.envs.simulation.schedule import schedule_times

START, BOUNDS = 0.1, 0.15  # shares of the time limit for the warm start and for initial bounds

OBJECTIVES: Mapping[str, Callable[[ConstraintProgram, float], Linear]] = {
    "sequential": lambda program, _: sequential_objective(program),
    "concurrent": concurrent_objective,
    "dataflow": lambda program, _: dataflow_objective(program),
    "pipelined": lambda program, _: pipelined_objective(program),
    "max_load": lambda program, _: max_load_objective(program),
}
"""Schedule -> its time as an expression of a program, or a bound of it under `dataflow`; some take
seconds to bound."""


@dataclass(frozen=True)
class CpSat:
    """Exact for any devices, memory limits, colours and constraints, given time (OR-tools CP-SAT).

    It solves every schedule but `dataflow`. Under that, the program holds a lower bound of the time
    only (`dataflow_objective`), so an optimum is proven only where the bound meets the time.

    It starts from the best result of descents from the singles, a minimum cut and contiguous
    splits, all computed from the costs: it evaluates only the singles and two more placements.
    At the time limit it returns the best found, and `bound_s`, which no placement is below.

    Costs are rounded down to integers, by less than 1e-7 of the result in total, so bounds
    hold. A proven optimum has the same time in every run, though several placements may reach
    it. Without a proof, the result depends on the machine.

    Raises:
        DevicePlacementError: when an option is out of range.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    >>> found = CpSat(time_limit_s=10.0).place(evaluator, budget=5, seed=0)
    >>> found.assignment, found.proven
    ((0, 0, 0, 0), True)
    """

    time_limit_s: float = 60.0
    """Limit for everything, but a started step of the warm start ends; 0: warm start only."""
    workers: int = 8
    """Threads, each with its own strategy, so more threads than cores can be faster."""

    def __post_init__(self) -> None:
        check_options(self, time_limit_s=(0, math.inf), workers=(1, math.inf))

    def place(self, evaluator: Evaluator, budget: int, seed: int) -> PlacerResult:
        """Search, and return the best placement; see `Placer`.

        Raises:
            DevicePlacementError: when the evaluator measures and so has no costs.
        """
        costs, schedule = needed_costs(evaluator), schedule_of(evaluator)
        trace, space = Trace(evaluator, budget), SearchSpace.of(evaluator)
        deadline = trace.start + self.time_limit_s
        trace.singles()
        choice, time_s = warm_start(costs, space, schedule, START * self.time_limit_s)
        if math.isfinite(time_s) and not trace.spent:
            trace.evaluate(space.assignment(choice))
        if time.perf_counter() >= deadline:
            return trace.result()
        program = ConstraintProgram(costs, space, min(time_s, _longest(costs)))
        if math.isfinite(time_s):
            program.add_hint(choice)
        found, bound_s = self._solve(program, schedule, deadline, seed)
        if found is not None and not trace.spent:
            trace.evaluate(space.assignment(found))
        best = trace.result()
        # The sums of a time may be rounded differently.
        return trace.result(min(bound_s, best.time_s) if best.assignment else bound_s)

    def _solve(
        self, program: ConstraintProgram, schedule: str, deadline: float, seed: int
    ) -> tuple[Choice | None, float]:
        """Return the best choice found, if any, and a lower bound in seconds."""
        seconds = BOUNDS * self.time_limit_s
        objective = OBJECTIVES[schedule](program, seconds)
        if schedule != "sequential":
            program.model.add(objective >= packing_bound(program, seconds, self.workers, seed))
        program.model.minimize(objective)
        outcome = solve(program.model, deadline - time.perf_counter(), self.workers, seed)
        choice = None
        if outcome.found:
            value = outcome.solver.boolean_value
            places = [next(d for d in program.devices if value(row[d])) for row in program.on]
            choice = np.array(places, dtype=np.int64)
        return choice, outcome.bound / program.scale


def _longest(costs: Costs) -> float:
    """Return an upper bound in seconds: every group, move, subgraph and region at its slowest."""
    compute_s = np.where(np.isfinite(costs.compute_s), costs.compute_s, 0.0).max(axis=1).sum()
    moves_s = sum(costs.transfer_s(tensor).max(axis=0).sum() for tensor in range(costs.num_tensors))
    regional = costs.regional
    parts_s = costs.num_groups * max(costs.subgraph_s.max(), regional.region_s.max())
    parts_s += costs.num_tensors * regional.crossing_s.max()
    longest_s = compute_s * regional.split_factor.max() + moves_s + parts_s
    return float(longest_s) * (1 + 1e-9)


def warm_start(
    costs: Costs, space: SearchSpace, schedule: str, seconds: float
) -> tuple[Choice, float]:
    """Return the best choice of descents from singles and from exact solutions of simpler problems.

    Args:
        costs: of the groups.
        space: of the same groups.
        schedule: a name of `SCHEDULES`.
        seconds: time limit, after which descents end and nothing else starts.

    Returns:
        (num_units,) devices, and the time in seconds, which is inf when no valid one was found.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    >>> space = SearchSpace.of(evaluator)
    >>> warm_start(evaluator.costs, space, "sequential", seconds=1.0)[0].tolist()
    [0, 0, 0, 0]
    """
    deadline = time.perf_counter() + seconds

    def times(choices: Choices) -> Float64:
        return schedule_times(costs, choices[:, space.unit], schedule)

    best, best_s = np.zeros(space.num_units, dtype=np.int64), math.inf
    for start in _starts(costs, space, schedule, deadline):
        choice, time_s = descend(times, start, space.allowed, deadline)
        if time_s < best_s:
            best, best_s = choice, time_s
    return best, best_s


def _starts(costs: Costs, space: SearchSpace, schedule: str, deadline: float) -> Iterator[Choice]:
    """Yield singles, moving what they can't run, and exact solutions of simpler problems."""
    if space.repairer is not None:
        balanced = space.repairer.balanced()
        if balanced.found:
            yield balanced.assignment[space.first]
    for device in range(costs.num_devices):
        yield np.where(space.allowed[:, device], device, space.allowed.argmax(axis=1))
    if costs.num_devices == 2 and time.perf_counter() < deadline:
        yield minimum_cut(costs, space)[0]
    if schedule == "max_load" and time.perf_counter() < deadline:
        with contextlib.suppress(DevicePlacementError):  # links differ, or too many ideals
            assignment = best_contiguous(costs, space)
            if assignment is not None:
                yield assignment[space.first].astype(np.int64)
