"""First placements of models with independent parts, such as two models: the parts apart."""

from __future__ import annotations

import itertools

import numpy as np

from device_placement.agents.placers.search_space import SearchSpace
from device_placement.envs.arrays import Float64, Int64
from device_placement.envs.evaluation import Evaluator

MOST = 4  # placements
TRIES = 1000  # orders of devices; there may be very many
SMALL = 0.02  # of the work of all groups: a part with less goes with another one


def parts_apart(evaluator: Evaluator, space: SearchSpace) -> list[list[int]]:
    """Return placements in which each device has independent parts of the model, evenly by FLOPs.

    No tensor moves between devices, which no sequence of small steps from a single arrives at.

    Args:
        evaluator: of the problem.
        space: of its placements.

    Returns:
        At most `MOST` placements, (num_groups,) device numbers each; none if the model has one part
        only, or a device can't run all groups of its parts.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    >>> parts_apart(evaluator, SearchSpace.of(evaluator))
    []
    """
    part = _parts(evaluator, space)
    work = np.bincount(part, weights=_work(evaluator, space))
    large = np.flatnonzero(work > SMALL * work.sum())
    devices = space.allowed.shape[1]
    if large.size < 2 or devices < 2:
        return []
    bins = min(large.size, devices)
    share, load = np.zeros(part.max() + 1, dtype=np.int64), np.zeros(bins)
    for one in np.argsort(-work, kind="stable").tolist():  # the largest first, where least is
        share[one] = load.argmin()
        load[share[one]] += work[one]
    found = list[list[int]]()
    for order in itertools.islice(itertools.permutations(range(devices), bins), TRIES):
        choice = np.array(order)[share[part]]
        if space.allowed[np.arange(part.size), choice].all():
            found.append(space.assignment(space.repaired(choice)))
        if len(found) == MOST:
            break
    return found


def _parts(evaluator: Evaluator, space: SearchSpace) -> Int64:
    """Return the connected part of each unit, (num_units,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = space.unit[evaluator.coarse.edge_index]
    units = space.num_units
    graph = coo_array((np.ones(ends.shape[1]), (ends[0], ends[1])), shape=(units, units))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def _work(evaluator: Evaluator, space: SearchSpace) -> Float64:
    """Return the FLOPs of each unit, (num_units,)."""
    coarse = evaluator.coarse
    unit = space.unit[coarse.op_group]
    work = np.zeros(space.num_units)
    np.add.at(work, unit, coarse.graph.flops)
    return work
