"""How tight can units be packed? Lower bounds of the largest load, transfers left out."""

from __future__ import annotations

import itertools
import math

import numpy as np
from ortools.sat.python import cp_model

from device_placement.agents.placers.cp_program import Program, weighted
from device_placement.agents.placers.cp_solver import solve
from device_placement.agents.placers.exact import Whole
from device_placement.envs.graph import Bool

LARGE = 0.01  # of the sum of all units: what is less only fills gaps
MAX_LARGE = 40  # units; so many pack well, and sums bound their largest load


def packing_bound(program: Program, seconds: float, workers: int, seed: int) -> int:
    """A lower bound of the largest load of a device, as a whole number.

    Only the large units are packed, which leaves little to choose; a relaxation that shares
    units out does not see that they are whole.

    Args:
        program: the placements.
        seconds: the time limit.
        workers: threads.
        seed: of the solver.
    """
    fits = program.space.allowed & (program.unit_compute <= program.upper)
    least = np.where(fits, program.unit_compute, program.upper + 1).min(axis=1)
    order = np.argsort(-least, kind="stable")
    large = order[least[order] >= LARGE * least.sum()]
    bound = pigeonhole_bound(least[order], fits[order])
    if len(program.devices) == 2 or not 0 < large.size <= MAX_LARGE or seconds <= 0:
        return bound
    model = cp_model.CpModel()
    largest = model.new_int_var(bound, max(bound, program.upper), "")
    on = [[model.new_bool_var("") for _ in program.devices] for _ in large]
    for row, unit in zip(on, large.tolist(), strict=True):
        model.add_exactly_one(row)
        for device in np.flatnonzero(~fits[unit]).tolist():
            model.add(row[device] == 0)
    for device in program.devices:
        times = np.minimum(program.unit_compute[large, device], program.upper + 1)
        model.add(largest >= weighted([row[device] for row in on], times))
    for kind in program.kinds:
        for first, second in itertools.pairwise(kind):
            for number, row in enumerate(on):  # the first of two alike gets its first unit first
                before = [earlier[first] for earlier in on[:number]]
                model.add_bool_or([*before, row[second].negated()])
    model.minimize(largest)
    proven = solve(model, seconds, workers, seed).bound
    return max(bound, int(proven)) if math.isfinite(proven) else bound


def pigeonhole_bound(sizes: Whole, fits: Bool) -> int:
    """Of n units on k devices, one has n / k or more, rounded up, which are the least at best.

    Args:
        sizes: (num_units,) descending.
        fits: (num_units, num_devices) where each may be.

    >>> pigeonhole_bound(np.array([5, 4, 3]), np.ones((3, 2), dtype=np.bool_))
    7
    """
    total = np.append(0, sizes.cumsum())
    hosts = np.maximum(np.logical_or.accumulate(fits, axis=0).sum(axis=1), 1)
    number = np.arange(1, sizes.size + 1)
    share = -(-number // hosts)
    return int((total[number] - total[number - share]).max(initial=0))
