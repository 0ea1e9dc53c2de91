"""Lower bounds for the constraint program: single-entry-exit regions, packing, pigeonhole."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from ortools.sat.python import cp_model

from device_placement.agents.placers.exact.cp_program import ConstraintProgram, solve, weighted
from device_placement.envs.arrays import Bool, Float64, Int64
from device_placement.envs.costs import Costs
from device_placement.envs.simulation.schedule import schedule_times

MAX_PLACEMENTS = 2**21  # of one region, all of which are tried
CHUNK = 2**16  # tried at once

Readers = Sequence[tuple[int, frozenset[int]]]  # per tensor: its group, those that read it


@dataclass(frozen=True)
class Region:
    """Groups on all paths from an entry to an exit, which joins some of these paths."""

    groups: Int64  # ascending: the entry first, the exit last
    least_s: Float64 | None = None  # (num_devices, num_devices) by those of entry and exit


def find_regions(costs: Costs, seconds: float) -> list[Region]:
    """Find the smallest regions that end at each group that joins paths, by paths joined.

    A region's time runs from the end of its entry to the end of its exit. Its minimum under
    `concurrent` is found by trying all placements of the region alone: in the whole graph,
    other groups only delay it. This requires that no tensor of the region has readers
    elsewhere, which could request it earlier; other regions and large ones have no minimum.

    Args:
        costs: of the groups.
        seconds: time limit of the minimum times; later regions have none.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    >>> [region.groups.tolist() for region in find_regions(evaluator.costs, seconds=1.0)]
    [[0, 1, 2, 3]]
    """
    deadline = time.perf_counter() + seconds
    tensors = [
        (producer, frozenset(costs.readers(tensor).tolist()))
        for tensor, producer in enumerate(costs.tensor_group.tolist())
    ]
    known: dict[tuple[bytes, ...], Float64] = {}
    found = []
    for region in _regions(costs.num_groups, tensors):
        small = costs.num_devices**region.groups.size <= MAX_PLACEMENTS
        closed = small and _is_closed(set(region.groups.tolist()), tensors)
        if closed and time.perf_counter() < deadline:
            alone = _alone(costs, region, tensors)
            key = tuple(np.asarray(one).tobytes() for one in vars(alone).values())
            if key not in known:
                known[key] = _least(alone)
            region = replace(region, least_s=known[key])
        found.append(region)
    return found


def _regions(num_groups: int, tensors: Readers) -> Iterator[Region]:
    """Yield the smallest closed region for each group that joins paths and number of paths.

    If no region is closed, yield the smallest one.
    """
    parents = np.zeros((num_groups, num_groups), dtype=np.bool_)  # group, one that it reads from
    for producer, readers in tensors:
        parents[list(readers), producer] = True
    before = _ancestors(parents)
    for exit_ in np.flatnonzero(parents.sum(axis=1) > 1):
        entries = np.flatnonzero(before[exit_])
        inside = before[:, entries].T & before[exit_]  # (num_entries, num_groups)
        joined = (inside & parents[exit_]).sum(axis=1) + parents[exit_, entries]
        order = np.argsort(inside.sum(axis=1), kind="stable")
        most, smallest = 1, None
        for row in order[joined[order] > 1]:
            if joined[row] > most:
                groups = np.array([entries[row], *np.flatnonzero(inside[row]), exit_])
                smallest = smallest or Region(groups)
                if _is_closed(set(groups.tolist()), tensors):
                    yield Region(groups)
                    most = joined[row]
        if most == 1 and smallest is not None:
            yield smallest


def _ancestors(parents: Bool) -> Bool:
    """Return whether a path leads from the second to the first, (num_groups, num_groups)."""
    before = np.zeros_like(parents)
    for group, row in enumerate(parents):
        before[group] = row | before[row].any(axis=0)
    return before


def _is_closed(groups: set[int], tensors: Readers) -> bool:
    """Return whether a region has all readers of each of its tensors, or none."""
    return all(
        readers <= groups or not readers & groups
        for producer, readers in tensors
        if producer in groups
    )


def _alone(costs: Costs, region: Region, tensors: Readers) -> Costs:
    """Return the costs of a region alone, from the end of its entry."""
    groups = region.groups
    place = {group: number for number, group in enumerate(groups.tolist())}
    kept = [
        number
        for number, (producer, readers) in enumerate(tensors)
        if producer in place and readers & place.keys()
    ]
    readers = [[place[reader] for reader in sorted(tensors[number][1])] for number in kept]
    compute_s = costs.compute_s[groups]
    compute_s[0, np.isfinite(compute_s[0])] = 0.0
    return replace(
        costs,
        compute_s=compute_s,
        tensor_group=np.array([place[tensors[one][0]] for one in kept], dtype=np.int32),
        tensor_bytes=costs.tensor_bytes[kept],
        reader_start=np.cumsum([0, *map(len, readers)]).astype(np.int32),
        reader=np.array([reader for row in readers for reader in row], dtype=np.int32),
        group_bytes=costs.group_bytes[groups],
        colour=costs.colour[groups],
    )


def _least(alone: Costs) -> Float64:
    """Return the least time by devices of first and last group, (num_devices, num_devices)."""
    devices, groups = alone.num_devices, alone.num_groups
    least_s = np.full((devices, devices), np.inf)
    for start in range(0, devices**groups, CHUNK):
        number = np.arange(start, min(start + CHUNK, devices**groups))
        placements = (number[:, None] // devices ** np.arange(groups)) % devices
        times_s = schedule_times(alone, placements, "concurrent")
        np.minimum.at(least_s, (placements[:, 0], placements[:, -1]), times_s)
    return least_s


LARGE = 0.01  # of the sum of all units: smaller ones only fill gaps
MAX_LARGE = 40  # units; more of them pack well, and sums bound their maximum load


def packing_bound(program: ConstraintProgram, seconds: float, workers: int, seed: int) -> int:
    """Return a lower bound of the maximum load of a device, as an integer.

    Only the large units are packed, which leaves few choices; a relaxation that splits units
    ignores that they are indivisible.

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
            for number, row in enumerate(on):  # of two alike, the first gets its first unit first
                before = [earlier[first] for earlier in on[:number]]
                model.add_bool_or([*before, row[second].negated()])
    model.minimize(largest)
    proven = solve(model, seconds, workers, seed).bound
    return max(bound, int(proven)) if math.isfinite(proven) else bound


def pigeonhole_bound(sizes: Int64, fits: Bool) -> int:
    """Return a bound: of n units on k devices, one has at least the ceil(n / k) smallest.

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
