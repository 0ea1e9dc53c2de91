"""Minimum-cut placer: exact for two devices under the `sequential` schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import networkx as nx
import numpy as np
from networkx.algorithms.flow import preflow_push  # the fastest of networkx on these graphs

from device_placement.agents.placers.base import PlacerResult, Trace
from device_placement.agents.placers.exact.common import NEVER, rounded_down, scale_of, schedule_of
from device_placement.agents.placers.search_space import Choice, SearchSpace, needed_costs
from device_placement.envs.arrays import Int64
from device_placement.envs.costs import Costs
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.evaluation import Evaluator

SOURCE, SINK = "device 0", "device 1"
BITS = 60  # of the sum of all times; a flow of integers is exact

Node: TypeAlias = int | str | tuple[str, int]  # a unit, a device, or half of a tensor
Network: TypeAlias = "nx.DiGraph[Node]"


@dataclass(frozen=True)
class MinimumCut:
    """Exact placer for two devices under `sequential`, in polynomial time.

    The total time of groups and transfers is the capacity of a cut between the two devices
    (Stone, "Multiprocessor Scheduling with the Aid of Network Flow Algorithms", 1977). A tensor
    that several groups read on the other device is moved, and charged, once: its readers are
    attached to a separate node, as in the cuts of hypergraphs (Lawler, 1973).

    Memory limits and costs of subgraphs are not part of a cut. With these, the cut is still a
    lower bound, and the result is the best of the cut's placement and the singles by actual
    time. Nothing is random.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator("inception_v3", evaluator="simulator", hardware="paper")
    >>> found = MinimumCut().place(evaluator, budget=3, seed=0)
    >>> f"{found.time_s:.6f}", found.proven
    ('0.010488', True)
    """

    def place(self, evaluator: Evaluator, budget: int, seed: int) -> PlacerResult:
        """Search, and return the best placement; see `Placer`.

        Raises:
            DevicePlacementError: when there are not exactly two devices, the schedule is not
                `sequential`, or the evaluator measures and so has no costs.
        """
        costs = needed_costs(evaluator)
        schedule_of(evaluator, "sequential")
        if costs.num_devices != 2:
            raise DevicePlacementError(
                f"Got {costs.num_devices} devices; a minimum cut is between two devices. Name two, "
                "or use cp_sat."
            )
        trace, space = Trace(evaluator, budget), SearchSpace.of(evaluator)
        trace.singles()
        choice, bound_s = minimum_cut(costs, space)
        if not trace.spent:
            trace.evaluate(space.assignment(choice))
        found = trace.result()
        # Both are sums of the same times, which may be rounded differently.
        return trace.result(min(bound_s, found.time_s) if found.assignment else bound_s)


def minimum_cut(costs: Costs, space: SearchSpace) -> tuple[Choice, float]:
    """Return the choice with the least sum of compute and transfers, and a lower bound of it.

    Args:
        costs: on two devices.
        space: of the same groups.

    Returns:
        (num_units,) devices, and seconds.
    """
    largest = np.where(np.isfinite(costs.compute_s), costs.compute_s, 0.0).max(axis=1).sum()
    transfers = sum(costs.transfer_s(tensor).sum() for tensor in range(costs.num_tensors))
    scale = scale_of(float(largest + transfers), BITS)
    network: Network = nx.DiGraph()
    network.add_nodes_from((SOURCE, SINK))
    _add_compute(network, rounded_down(costs.compute_s, scale), space)
    for tensor in range(costs.num_tensors):
        _add_tensor(network, rounded_down(costs.transfer_s(tensor), scale), tensor, costs, space)
    value, (_, on_one) = nx.minimum_cut(network, SOURCE, SINK, flow_func=preflow_push)
    choice = np.array([unit in on_one for unit in range(space.num_units)], dtype=np.int64)
    return choice, value / scale


def _add_compute(network: Network, compute: Int64, space: SearchSpace) -> None:
    """Add edges so that a unit on device 1 is cut from the source, on device 0 from the sink."""
    for group, unit in enumerate(space.unit.tolist()):
        _add(network, SOURCE, unit, int(compute[group, 1]))
        _add(network, unit, SINK, int(compute[group, 0]))


def _add_tensor(
    network: Network, moves: Int64, tensor: int, costs: Costs, space: SearchSpace
) -> None:
    """Add edges so that a producer on device 0 is cut from the first half, on 1 from the second.

    A reader can't be cut from a half, so it pulls the half to its own side.
    """
    producer = int(space.unit[costs.tensor_group[tensor]])
    readers = set(space.unit[costs.readers(tensor)].tolist()) - {producer}
    if readers:
        _add(network, producer, ("to 1", tensor), int(moves[0, 1]))
        _add(network, ("to 0", tensor), producer, int(moves[1, 0]))
    for reader in readers:
        _add(network, ("to 1", tensor), reader, NEVER)
        _add(network, reader, ("to 0", tensor), NEVER)


def _add(network: Network, start: Node, end: Node, capacity: int) -> None:
    """Add an edge; capacities between the same nodes add up, and `NEVER` is infinite."""
    if not network.has_edge(start, end):
        network.add_edge(start, end, capacity=0)
    edge = network[start][end]
    if capacity == NEVER:
        edge.pop("capacity", None)
    elif "capacity" in edge:
        edge["capacity"] += capacity
