"""Exact placer for contiguous splits: one stage per device, with the smallest maximum load."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from device_placement.agents.placers.base import PlacerResult, Trace
from device_placement.agents.placers.exact.common import alike_devices, schedule_of
from device_placement.agents.placers.exact.contiguous_dp import (
    Kinds,
    Stage,
    best_split,
    chain_of_ideals,
    find_ideals,
)
from device_placement.agents.placers.exact.contiguous_reduction import Parts, find_parts
from device_placement.agents.placers.search_space import SearchSpace, needed_costs
from device_placement.envs.arrays import Int32
from device_placement.envs.costs import Costs
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.evaluation import Evaluator


@dataclass(frozen=True)
class ContiguousSplits:
    """Exact placer for contiguous splits under `max_load` (Tarnawski et al., NeurIPS 2020).

    A split is contiguous when, for some order of the devices, no tensor flows back: the groups
    on the first devices are closed under predecessors. The graph can be cut at each of its
    ideals, of which long and narrow graphs have few.

    Placements that are not contiguous may be better, so there is no bound: `bound_s` is NaN.
    Nothing is random.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator(
    ...     "resnet50", evaluator="simulator", hardware="paper", schedule="max_load"
    ... )
    >>> found = ContiguousSplits().place(evaluator, budget=3, seed=0)
    >>> sum(one != other for one, other in zip(found.assignment, found.assignment[1:]))
    1
    """

    def place(self, evaluator: Evaluator, budget: int, seed: int) -> PlacerResult:
        """Search, and return the best placement; see `Placer`.

        Raises:
            DevicePlacementError: when the schedule is not `max_load`, transfer times differ
                between pairs of devices, there are too many ideals, the weights exceed memory
                that devices share, or the evaluator measures and so has no costs.
        """
        costs = needed_costs(evaluator)
        schedule_of(evaluator, "max_load")
        trace, space = Trace(evaluator, budget), SearchSpace.of(evaluator)
        trace.singles()
        assignment = best_contiguous(costs, space)
        if assignment is not None and not trace.spent:
            trace.evaluate(assignment.tolist())
        return trace.result()


def best_contiguous(costs: Costs, space: SearchSpace) -> Int32 | None:
    """Return the best contiguous split; None when none fits into memory.

    Args:
        costs: with equal transfer times between any two devices.
        space: of the same groups.

    Returns:
        (num_groups,) device numbers.

    Raises:
        DevicePlacementError: when transfer times differ, there are too many ideals, or the
            weights exceed memory that devices share.
    """
    for members, limit in costs.memory_limits():
        if len(members) > 1 and costs.group_bytes.sum() > limit:
            raise DevicePlacementError(
                f"Got weights of {costs.group_bytes.sum():.0f} bytes, and devices that share "
                f"{limit:.0f}; contiguous splits check the memory of each device alone. Use cp_sat."
            )
    apart = ~np.eye(costs.num_devices, dtype=np.bool_)
    for links in (costs.latency_s[apart], costs.s_per_byte[apart]):
        if not np.allclose(links, links[0], rtol=1e-12, atol=0.0):
            raise DevicePlacementError(
                f"Got links that differ: {sorted(set(links.tolist()))}; contiguous splits need "
                "equal transfers between any two devices. Use cp_sat."
            )
    devices = alike_devices(costs)
    columns = np.array([kind[0] for kind in devices], dtype=np.int32)
    kinds = Kinds(
        column=columns,
        count=np.array([len(kind) for kind in devices], dtype=np.int32),
        memory_bytes=costs.reachable_bytes()[columns],
        pays=costs.pays[columns],
    )
    parts = find_parts(costs, space)
    stages = _stages(parts, kinds)
    return None if stages is None else _assignment(parts, stages, devices)


def _stages(parts: Parts, kinds: Kinds) -> list[Stage] | None:
    """Return the best stages; the best cuts of one topological order bound the search."""
    nodes = len(parts.compute_s)
    edges = np.stack(
        [np.repeat(parts.tensor_part, np.diff(parts.reader_start)), parts.reader]
    ).astype(np.int32)
    quick = best_split(parts, chain_of_ideals(nodes), kinds, math.inf)
    upper_s = math.inf if quick is None else quick[0]
    found = best_split(parts, find_ideals(nodes, edges), kinds, upper_s) or quick
    return None if found is None else found[1]


def _assignment(parts: Parts, stages: list[Stage], devices: list[list[int]]) -> Int32:
    """Return the devices, (num_groups,); each stage takes the next one of its kind."""
    unused = [list(kind) for kind in devices]
    row = [unused[stage.kind].pop(0) for stage in stages]
    of_part = np.full(len(parts.compute_s) + 1, row[0] if row else 0, dtype=np.int32)
    for device, stage in zip(row, stages, strict=True):
        of_part[:-1][stage.parts] = device
    return of_part[parts.part]  # NOWHERE is the last entry
