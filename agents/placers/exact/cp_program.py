"""Constraint program of placements: variables, rules, crossing tensors, and the solver call."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ortools.sat.python import cp_model

from device_placement.agents.placers.exact.common import alike_devices, rounded_down, scale_of
from device_placement.agents.placers.search_space import Choice, SearchSpace
from device_placement.envs.arrays import Float64, Int64
from device_placement.envs.costs import Costs
from device_placement.envs.repair.nearest import add_constraints

MEMORY_BITS = 50  # of all weights as an integer: bytes stay exact
Literal = Any  # a Boolean variable or its negation
Linear = Any  # a sum of variables with factors


@dataclass(frozen=True)
class Tensor:
    """Tensor that may move between devices."""

    number: int
    producer: int  # unit
    readers: tuple[int, ...]  # other units


@dataclass(frozen=True)
class Crossing:
    """Move of a tensor to a device from one of several, at the same cost."""

    moves: Literal
    sources: tuple[int, ...]
    target: int
    cost: int


class ConstraintProgram:
    """Variables and constraints that all placements share.

    Times are integers, rounded down, so that the program's minimum is a lower bound of the
    least time. None is above ``upper + 1``, as longer ones are ruled out anyway.

    Args:
        costs: of the groups.
        space: of the same groups.
        upper_s: a time that the best placement does not exceed.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    >>> program = ConstraintProgram(evaluator.costs, SearchSpace.of(evaluator), upper_s=1.0)
    >>> len(program.on), len(program.tensors), program.kinds
    (4, 3, [[0], [1]])
    """

    def __init__(self, costs: Costs, space: SearchSpace, upper_s: float) -> None:
        self.costs, self.space = costs, space
        self.devices = range(costs.num_devices)
        self.scale = scale_of(upper_s)
        self.upper = int(upper_s * self.scale) + 1  # sums of floats may be rounded down
        self.compute = self.whole(costs.compute_s)  # (num_groups, num_devices)
        self.unit_compute = np.zeros(space.allowed.shape, dtype=np.int64)
        np.add.at(self.unit_compute, space.unit, self.compute)
        # Constraints are about the order of devices, so none can take the place of another.
        self.kinds = [[device] for device in self.devices]
        if not costs.constraints:
            self.kinds = alike_devices(costs)
        self.model = cp_model.CpModel()
        self.on = [self._place(unit) for unit in range(space.num_units)]  # one literal per device
        self.tensors = list(self._tensors())
        self._keep_memory()
        add_constraints(self.model, [self.on[one] for one in space.unit], costs, costs.constraints)
        for kind in self.kinds:
            for first, second in itertools.pairwise(kind):
                self._use_before(first, second)

    def whole(self, values: Float64) -> Int64:
        """Return times as integers, none above ``upper + 1``."""
        return rounded_down(np.minimum(values, (self.upper + 1) / self.scale), self.scale)

    def new_bool(self) -> Literal:
        """Return a new Boolean variable."""
        return self.model.new_bool_var("")

    def new_time(self) -> Linear:
        """Return a new time variable, at most the upper bound."""
        return self.model.new_int_var(0, self.upper, "")

    def group_on(self, group: int, device: int) -> Literal:
        """Return the literal for a group being on a device."""
        return self.on[self.space.unit[group]][device]

    def load(self, device: int) -> Linear:
        """Return the time of everything on a device."""
        literals, times = [row[device] for row in self.on], self.unit_compute[:, device]
        return weighted(literals, np.minimum(times, self.upper + 1).tolist())

    def crossings(self, tensor: Tensor, *, by_link: bool = False) -> list[Crossing]:
        """Return a literal for each target and cost of a tensor, true when it moves that way.

        The literals z of one target satisfy z >= reader there - producer there, as in a minimum
        cut: for two devices the linear relaxation is exact.

        Args:
            tensor: one of this program.
            by_link: return a literal for each link, even if links cost the same.
        """
        cost = self.whole(self.costs.transfer_s(tensor.number))
        found = []
        for target in self.devices:
            sources: dict[int, list[int]] = {}
            for source in self.devices:
                if source != target:
                    key = source if by_link else int(cost[source, target])
                    sources.setdefault(key, []).append(source)
            here = [
                Crossing(self.new_bool(), tuple(some), target, int(cost[some[0], target]))
                for some in sources.values()
            ]
            producer = self.on[tensor.producer]
            for one in here:
                sources_on = [producer[source] for source in one.sources]
                self.model.add_bool_or([one.moves.negated(), *sources_on])
            moves = [one.moves for one in here]
            for reader in tensor.readers:
                away = self.on[reader][target].negated()
                self.model.add_bool_or([*moves, producer[target], away])
            found += here
        return found

    def add_hint(self, choice: Choice) -> None:
        """Start the search from a choice."""
        choice = self._in_order(choice)
        for unit, row in enumerate(self.on):
            for device in self.devices[:1] if len(row) == 2 else self.devices:
                self.model.add_hint(row[device], int(choice[unit] == device))

    def _place(self, unit: int) -> list[Literal]:
        row = [self.new_bool() for _ in self.devices]
        if len(row) == 2:
            row[1] = row[0].negated()
        else:
            self.model.add_exactly_one(row)
        for device in self.devices:
            takes = self.unit_compute[unit, device]
            if not self.space.allowed[unit, device] or takes > self.upper:
                self.model.add(row[device] == 0)
        return row

    def _tensors(self) -> Iterator[Tensor]:
        unit = self.space.unit
        for number, group in enumerate(self.costs.tensor_group.tolist()):
            producer = int(unit[group])
            readers = set(unit[self.costs.readers(number)].tolist()) - {producer}
            if readers:
                yield Tensor(number, producer, tuple(sorted(readers)))

    def _keep_memory(self) -> None:
        sizes = np.zeros(self.space.num_units)
        np.add.at(sizes, self.space.unit, self.costs.group_bytes)
        scale = scale_of(float(sizes.sum()), MEMORY_BITS)
        for devices, limit in self.costs.memory_limits():
            if sizes.sum() > limit:
                literals = [row[device] for device in devices for row in self.on]
                used = weighted(literals, np.tile(rounded_down(sizes, scale), len(devices)))
                self.model.add(used <= int(limit * scale))

    def _use_before(self, first: int, second: int) -> None:
        """Make the first of two identical devices get its first unit before the second."""
        before: list[Literal] = []  # whether an earlier unit is on the first device
        for row in self.on:
            self.model.add_bool_or([*before, row[second].negated()])
            used = self.new_bool()
            self.model.add_bool_or([*before, row[first], used.negated()])
            before = [used]

    def _in_order(self, choice: Choice) -> Choice:
        """Return the choice with identical devices numbered by their first units."""
        name = np.arange(len(self.devices))
        for kind in self.kinds:
            used = list(dict.fromkeys(one for one in choice.tolist() if one in kind))
            name[[*used, *(one for one in kind if one not in used)]] = kind
        return name[choice]


def weighted(literals: Sequence[Literal], factors: Any) -> Linear:
    """Return the sum of literals with integer factors."""
    return cp_model.LinearExpr.weighted_sum(list(literals), [int(one) for one in factors])


FULL_PORTFOLIO = 8  # workers from which the solver's own choice of strategies is varied enough


@dataclass(frozen=True)
class Outcome:
    """Solution that a solver found, and the bound that it proved."""

    solver: Any  # returns the value of each variable, if a solution was found
    found: bool
    bound: float  # no solution's value is less; inf: there is none, -inf: nothing proven


def solve(model: Any, seconds: float, workers: int, seed: int) -> Outcome:
    """Minimise the objective of a model, and return the outcome.

    Args:
        model: a `CpModel`.
        seconds: the time limit.
        workers: threads, each with its own strategy, so more threads than cores may be faster.
        seed: of all random choices.

    >>> model = cp_model.CpModel()
    >>> number = model.new_int_var(3, 9, "")
    >>> model.minimize(2 * number)
    >>> solve(model, seconds=1.0, workers=1, seed=0).bound
    6.0
    """
    solver = cp_model.CpSolver()
    parameters = solver.parameters
    parameters.max_time_in_seconds = max(0.0, seconds)
    parameters.num_workers = workers
    parameters.random_seed = seed % 2**31
    parameters.linearization_level = 2  # the relaxations are strong
    # With presolve, OR-tools 9.15 proves wrong optima: github.com/google/or-tools/issues/5293.
    parameters.cp_model_presolve = False
    if workers >= FULL_PORTFOLIO:
        parameters.extra_subsolvers.append("lb_tree_search")
    elif workers > 1:
        parameters.subsolvers.extend(("max_lp", "lb_tree_search"))
    status = solver.solve(model)
    assert status != cp_model.MODEL_INVALID, model.validate()
    found = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    bound = math.inf if status == cp_model.INFEASIBLE else solver.best_objective_bound
    return Outcome(solver, found, bound)
