"""Nearest valid placement, and conflicts between constraints, by CP-SAT."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from device_placement.envs.arrays import Assignment, Bool, Int64
from device_placement.envs.costs import FREE, Costs

SCALED = 2**40  # bytes above this are scaled down in the program
FROM_BELOW = {
    "optimize_with_core": True,
    "linearization_level": 0,
    "cp_model_probing_level": 0,
    "symmetry_level": 0,
}
"""Parameters of CP-SAT to allow one more move after another until the moves suffice.

That finds nothing before it has found the best, which it often does several times as fast as a
search for better and better placements. A proposal far from all valid ones is left to that one.
"""


def nearest_valid(
    costs: Costs,
    supported: Bool | None,
    wanted: Int64,
    start: Assignment | None,
    seconds: float,
) -> tuple[Assignment | None, bool]:
    """Return the valid placement with the fewest groups elsewhere than wanted.

    Args:
        costs: with the constraints.
        supported: (num_groups, num_devices) devices that run each group, if the costs allow them.
        wanted: (num_groups,) device numbers.
        start: a valid placement to start from, if one is known.
        seconds: limit.

    Returns:
        The placement, None if none was found; and whether it is proven that none exists.
    """
    from ortools.sat.python import cp_model

    program, on = constraint_program(costs, supported, costs.constraints)
    program.maximize(sum(row[device] for row, device in zip(on, wanted.tolist(), strict=True)))
    if start is not None:
        for row, device in zip(on, start.tolist(), strict=True):
            for number, literal in enumerate(row):
                program.add_hint(literal, number == device)
    solver, status = run(program, seconds / 2, FROM_BELOW)
    if status == cp_model.UNKNOWN:
        solver, status = run(program, seconds - solver.wall_time)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None, status == cp_model.INFEASIBLE
    places = [[solver.boolean_value(literal) for literal in row].index(True) for row in on]
    return np.array(places, dtype=np.int64), False


def smallest_conflict(
    costs: Costs, supported: Bool | None, seconds: float = 10.0
) -> tuple[str, ...] | None:
    """Return the smallest set of constraints that no placement satisfies together.

    Memory limits count as the constraint ``memory``, that groups of a colour share a device as
    ``colour``.

    Args:
        costs: with the constraints.
        supported: (num_groups, num_devices) devices that run each group, if the costs allow them.
        seconds: limit of each attempt.

    Returns:
        Its names; None if a placement satisfies all of them, or nothing was proven in time.
    """
    from ortools.sat.python import cp_model

    names = [name for name in costs.constraints if name != "memory"]
    if next(costs.memory_limits(), None) is not None:
        names.append("memory")
    if (costs.colour != FREE).any():
        names.append("colour")
    for size in range(len(names) + 1):
        for some in itertools.combinations(names, size):
            if ("triangle" in some or "neighbours" in some) and "acyclic" not in some:
                continue
            program, _ = constraint_program(
                costs, supported, some, limited="memory" in some, coloured="colour" in some
            )
            if run(program, seconds)[1] == cp_model.INFEASIBLE:
                return some
    return None


def run(program: Any, seconds: float, settings: Mapping[str, Any] = {}) -> tuple[Any, Any]:
    """Solve a program, with further parameters of CP-SAT; return the solver and its status."""
    from ortools.sat.python import cp_model

    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = 1  # so that results are equal everywhere
    for name, value in settings.items():
        setattr(solver.parameters, name, value)
    return solver, solver.solve(program)


def constraint_program(
    costs: Costs,
    supported: Bool | None,
    constraints: Sequence[str],
    *,
    limited: bool = True,
    coloured: bool = True,
) -> tuple[Any, list[list[Any]]]:
    """Return a program of all valid placements, and its literals, (num_groups, num_devices).

    Args:
        costs: of the groups.
        supported: (num_groups, num_devices) devices that run each group, if the costs allow them.
        constraints: names of `CONSTRAINTS` that hold.
        limited: whether memory limits hold.
        coloured: whether groups of one colour share a device.
    """
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    groups, devices = range(costs.num_groups), range(costs.num_devices)
    runs = np.isfinite(costs.compute_s) if supported is None else supported
    runs = runs & np.isfinite(costs.compute_s)
    on = [[model.new_bool_var("") for _ in devices] for _ in groups]
    for group, row in enumerate(on):
        model.add_exactly_one(row)
        for device in devices:
            if not runs[group, device]:
                model.add(row[device] == 0)
    if coloured:
        _share_colours(model, on, costs)
    if limited:
        _keep_limits(model, on, costs)
    add_constraints(model, on, costs, constraints)
    return model, on


def add_constraints(
    model: Any, on: Sequence[Sequence[Any]], costs: Costs, constraints: Sequence[str]
) -> None:
    """Add constraints to a program.

    Args:
        model: a `CpModel`.
        on: (num_groups, num_devices) literals, of which one per group is true.
        costs: of the groups.
        constraints: names of `CONSTRAINTS`; memory limits are not added.
    """
    if "acyclic" in constraints:
        _go_forward(model, on, costs, neighbours="neighbours" in constraints)
    if "no_skip" in constraints:
        _use_first(model, on)
    if "triangle" in constraints and "neighbours" not in constraints:  # which is stricter
        _avoid_detours(model, on, costs)


def _share_colours(model: Any, on: list[list[Any]], costs: Costs) -> None:
    first: dict[int, list[Any]] = {}
    for group, colour in enumerate(costs.colour.tolist()):
        if colour != FREE:
            leader = first.setdefault(colour, on[group])
            for one, other in zip(leader, on[group], strict=True):
                model.add(one == other)


def _keep_limits(model: Any, on: list[list[Any]], costs: Costs) -> None:
    scale = max(1.0, costs.group_bytes.sum() / SCALED)
    # Sizes are rounded up and limits down: what the program accepts, fits.
    sizes = np.ceil(costs.group_bytes / scale).astype(int).tolist()
    for members, limit in costs.memory_limits():
        used = sum(
            size * row[device] for size, row in zip(sizes, on, strict=True) for device in members
        )
        model.add(used <= int(limit // scale))


def _go_forward(model: Any, on: Sequence[Sequence[Any]], costs: Costs, neighbours: bool) -> None:
    """Make every reader be on the device of its producer or a later one, or on the next one."""
    devices = range(costs.num_devices)
    # after[g][d]: the group is on device d or a later one.
    after = []
    for row in on:
        later = [model.new_bool_var("") for _ in devices]
        model.add(later[0] == 1)
        for device in devices[1:]:
            model.add_implication(later[device], later[device - 1])
            model.add(row[device - 1] == later[device - 1] - later[device])
        model.add(row[-1] == later[-1])
        after.append(later)
    for producer, reader in costs.edges.T.tolist():
        for device in devices:
            model.add_implication(after[producer][device], after[reader][device])
            if neighbours and device + 1 < len(devices):
                model.add_implication(after[reader][device + 1], after[producer][device])


def _use_first(model: Any, on: Sequence[Sequence[Any]]) -> None:
    """Make the devices used the first ones."""
    used = [model.new_bool_var("") for _ in on[0]]
    for device, literal in enumerate(used):
        model.add_bool_or([row[device] for row in on]).only_enforce_if(literal)
        for row in on:
            model.add_implication(row[device], literal)
    for one, other in itertools.pairwise(used):
        model.add_implication(other, one)


def _avoid_detours(model: Any, on: Sequence[Sequence[Any]], costs: Costs) -> None:
    """Let no data go from a to b directly and over others, too."""
    devices = range(costs.num_devices)
    pairs = list(itertools.combinations(devices, 2))
    sent = {pair: model.new_bool_var("") for pair in pairs}
    reached = {pair: model.new_bool_var("") for pair in pairs}
    for producer, reader in costs.edges.T.tolist():
        for first, last in pairs:
            model.add_bool_or(
                [on[producer][first].negated(), on[reader][last].negated(), sent[first, last]]
            )
    for pair in pairs:
        model.add_implication(sent[pair], reached[pair])
    for first, middle, last in itertools.combinations(devices, 3):
        way = [reached[first, middle].negated(), reached[middle, last].negated()]
        model.add_bool_or([*way, reached[first, last]])
        model.add_bool_or([*way, sent[first, last].negated()])
