"""Observation and action spaces: their padded shapes, and the arrays for one copy and for many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from device_placement.envs.arrays import Bool, Float32, Float64, Int64
from device_placement.envs.errors import choose
from device_placement.envs.graph.coarsening import CoarseGraph

Observation = dict[str, NDArray[np.generic]]

FORMULATIONS = ("assign", "construct", "refine")
UNPLACED = -1
LIMIT = 10.0  # of the absolute value of every float in an observation
NUM_EDGE_FEATURES = 2
NUM_DEVICE_FEATURES = 4

# Columns of the cost features, which `cost_features` computes: m is the mean time of a group on its
# fastest device, S the sum of these times, and sl(x) = sign(x) log(1 + |x|).
GROUP_DEVICE_COSTS = (
    "1 if the device runs the group",
    "sl(time / m)",
    "log(time / time on the fastest device)",
    "sl((time - mean over the devices) / m)",
    "time of the group and of all after it in runs, over the least: sl(excess / m)",
)
GROUP_COSTS = (
    "sl(time on the fastest device / m)",
    "longest path to the group / S, by mean times and half of the moves",
    "longest path from the group / S, likewise",
    "longest path to the group / S, by the fastest times",
    "longest path from the group / S, likewise",
    "sl(moves of its inputs / m)",
    "sl(moves of its outputs / m)",
    "share of the weights",
    "share of the devices that run it",
)
EDGE_COSTS = (
    "sl(mean move / m)",
    "1 / edges from the producer",
    "1 / edges to the consumer",
    "1 if the move takes longer than the consumer",
)
DEVICE_COSTS = (
    "log(time of all groups / S)",
    "log(time of all groups / that of the fastest device)",
    "share of the groups that it can't run",
    "share of the weights that fit",
    "share of the other devices that are alike",
    "share of the other devices that are faster",
    "sl(mean move to it / m)",
    "sl(mean move from it / m)",
)
GRAPH_COSTS = (
    "critical path / S, by mean times and half of the moves",
    "critical path / S, by the fastest times",
    "sl(mean move / m)",
    "sl(all moves / S)",
    "log(groups)",
    "log(devices)",
    *("1 for sequential", "1 for concurrent", "1 for dataflow", "1 for pipelined"),
    "1 for max_load",
)
PARTIAL_SCHEDULE = (
    "1 if the weights fit",
    "end of the group, over the earliest: sl(excess / m)",
    "arrival of its inputs, likewise",
    "when the device is free, likewise",
    "sl((end of the group - end of all before) / m)",
    "time and moves, over the least: sl(excess / m)",
    "sl(moves / m)",
    "time of all that is then placed, over the least: sl(excess / m)",
    "sl(growth of that time / m)",
    "load of the device then, over the least: sl(excess / m)",
    "share of the input bytes that are made there",
    "share of the input bytes that were moved there before",
    "1 if any input is made there",
    "1 if the group before is there",
    "room left, as a share of the weights",
    "sl(load / S)",
    "sl(time of the groups not placed, if all go there / S)",
    "sl(time of all that is placed / S)",
    "share of the groups placed",
    "end of the group and of what depends on it, over the least: sl(excess / m)",
    "1 if any group is there",
    "room before the group, over the weights not placed yet, at most 2",
    "sl(weights of the group / mean weights of a group)",
    "price of the room that the group takes: sl(price / m)",
    "estimate of the time of all groups, and the price, over the least: sl(excess / m)",
    "time of all groups if those after it follow a rule, over the least: sl(excess / m)",
    "end of all groups if the devices share those not placed, likewise",
    "load of the device then, over that end, at most 2",
)


@dataclass(frozen=True)
class Layout:
    """Sizes that every model of one environment is padded to."""

    max_groups: int
    max_edges: int
    num_features: int
    num_devices: int
    num_graphs: int = 1
    costs: bool = False  # whether costs are part of the observation
    partial: bool = False  # whether the state of the partial schedule is, too

    @classmethod
    def of(
        cls,
        graphs: Sequence[CoarseGraph],
        num_features: int,
        num_devices: int,
        costs: bool = False,
        partial: bool = False,
    ) -> Layout:
        """Return the smallest layout that holds all the given graphs."""
        return cls(
            max_groups=max(coarse.num_groups for coarse in graphs),
            max_edges=max(1, *(coarse.num_edges for coarse in graphs)),
            num_features=num_features,
            num_devices=num_devices,
            num_graphs=len(graphs),
            costs=costs,
            partial=costs and partial,
        )


def observation_space(layout: Layout) -> spaces.Dict:
    """Return the flat Dict of finite Boxes; padding is 0 and masked."""
    groups, edges, devices = layout.max_groups, layout.max_edges, layout.num_devices
    known = {
        # SB3 takes a Box of three dimensions for an image.
        "group_device_costs": _real(groups * devices, len(GROUP_DEVICE_COSTS)),
        "group_costs": _real(groups, len(GROUP_COSTS)),
        "edge_costs": _real(edges, len(EDGE_COSTS)),
        "device_costs": _real(devices, len(DEVICE_COSTS)),
        "graph_costs": _real(len(GRAPH_COSTS)),
        "costs_known": _flags(2),
    }
    partial = {"partial_schedule": _real(devices, len(PARTIAL_SCHEDULE))}
    return spaces.Dict(
        {
            "node_features": _real(groups, layout.num_features),
            "node_mask": _flags(groups),
            "edge_index": spaces.Box(0, max(groups - 1, 1), (2, edges), np.int32),
            "edge_features": _real(edges, NUM_EDGE_FEATURES),
            "edge_mask": _flags(edges),
            "placement": _flags(groups, devices + 1),
            "cursor": _flags(groups),
            "device_mask": _flags(groups, devices),
            "device_features": _real(devices, NUM_DEVICE_FEATURES),
            "last_time": _real(1),
            "step": spaces.Box(0, np.iinfo(np.int32).max, (1,), np.int32),
            "graph_id": spaces.Box(0, max(layout.num_graphs - 1, 1), (1,), np.int32),
            **(known if layout.costs else {}),
            **(partial if layout.partial else {}),
        }
    )


def _real(*shape: int) -> spaces.Box[Any]:
    return spaces.Box(-LIMIT, LIMIT, shape, np.float32)


def _flags(*shape: int) -> spaces.Box[Any]:
    return spaces.Box(0, 1, shape, np.int8)


def action_space(layout: Layout, formulation: str) -> spaces.Space[Any]:
    """Return the action space of a formulation.

    Raises:
        DevicePlacementError: on an unknown formulation.
    """
    groups, devices = layout.max_groups, layout.num_devices
    table: dict[str, spaces.Space[Any]] = {
        "assign": spaces.MultiDiscrete([devices] * groups),
        "construct": spaces.Discrete(devices),
        "refine": spaces.Discrete(groups * devices),
    }
    return choose("formulation", formulation, table)


def device_masks(supported: Bool, layout: Layout) -> Bool:
    """Return the devices allowed for each group: those that run it, or all if none does.

    Args:
        supported: (num_groups, num_devices).
        layout: the sizes to pad to.

    Returns:
        (max_groups, num_devices) of the layout; padding of groups allows device 0 only, and
        devices beyond those given are never allowed.
    """
    masks = np.zeros((layout.max_groups, layout.num_devices), dtype=np.bool_)
    masks[len(supported) :, 0] = True
    groups, devices = supported.shape
    masks[:groups, :devices] = supported | ~supported.any(axis=1, keepdims=True)
    return masks


def graph_arrays(
    coarse: CoarseGraph, features: Float32, layout: Layout, graph_id: int
) -> Observation:
    """Return the constant arrays of one graph's observations, padded.

    Args:
        coarse: the groups.
        features: (num_groups, num_features) from `group_features`.
        layout: the sizes to pad to.
        graph_id: number of the graph.
    """
    groups, edges = coarse.num_groups, coarse.num_edges
    arrays: Observation = {
        "node_features": np.zeros((layout.max_groups, layout.num_features), dtype=np.float32),
        "node_mask": np.zeros(layout.max_groups, dtype=np.int8),
        "edge_index": np.zeros((2, layout.max_edges), dtype=np.int32),
        "edge_features": np.zeros((layout.max_edges, NUM_EDGE_FEATURES), dtype=np.float32),
        "edge_mask": np.zeros(layout.max_edges, dtype=np.int8),
        "device_mask": device_masks(coarse.supported, layout).astype(np.int8),
        "graph_id": np.array([graph_id], dtype=np.int32),
    }
    arrays["node_features"][:groups] = features
    arrays["node_mask"][:groups] = 1
    arrays["edge_index"][:, :edges] = coarse.edge_index
    arrays["edge_features"][:edges, 0] = np.log1p(coarse.edge_bytes) / 10.0
    arrays["edge_features"][:edges, 1] = np.log1p(coarse.edge_tensors)
    arrays["edge_mask"][:edges] = 1
    return arrays


def device_features(
    log_single_times: Float64,
    coarse: CoarseGraph,
    memory_bytes: Sequence[float | None],
    reference: int,
) -> Float32:
    """Return the features of each device.

    Args:
        log_single_times: (num_devices,) log(single / reference single); NaN: invalid.
        coarse: the groups.
        memory_bytes: (num_devices,) that each device can use; None: no limit is known.
        reference: number of the reference device.

    Returns:
        (num_devices, 4): the logs (10 for an invalid single), share of ops supported,
        share of the weights that fit, 1 for the reference.
    """
    weights = max(float(coarse.graph.weight_bytes.sum()), 1.0)
    result = np.zeros((len(memory_bytes), NUM_DEVICE_FEATURES))
    result[:, 0] = np.nan_to_num(log_single_times, nan=LIMIT)
    result[:, 1] = coarse.graph.supported.mean(axis=0)
    result[:, 2] = [1.0 if size is None else min(1.0, size / weights) for size in memory_bytes]
    result[reference, 3] = 1.0
    return np.clip(result, -LIMIT, LIMIT).astype(np.float32)


def observe(
    static: Observation,
    devices: Float32,
    layout: Layout,
    assignment: Int64,
    cursor: int | None,
    log_time: float,
    step: int,
    partial: Float32 | None = None,
) -> Observation:
    """Return one observation; every array is a copy.

    Args:
        static: from `graph_arrays`.
        devices: (num_devices, 4) from `device_features`.
        layout: the sizes that `static` was padded to.
        assignment: (num_groups,) device of each group, `UNPLACED` where it has none.
        cursor: the group to place next, if the formulation has one.
        log_time: log(time / reference time) of the last placement.
        step: actions of the episode so far.
        partial: (num_devices, len(PARTIAL_SCHEDULE)), if it is part of the observation.
    """
    groups = np.arange(assignment.size)
    placement = np.zeros((layout.max_groups, layout.num_devices + 1), dtype=np.int8)
    placement[groups, assignment] = 1  # UNPLACED is -1: the last slot
    pointer = np.zeros(layout.max_groups, dtype=np.int8)
    if cursor is not None:
        pointer[cursor] = 1
    return {
        **{key: array.copy() for key, array in static.items()},
        "placement": placement,
        "cursor": pointer,
        "device_features": devices.copy(),
        "last_time": np.array([np.clip(log_time, -LIMIT, LIMIT)], dtype=np.float32),
        "step": np.array([step], dtype=np.int32),
        **({} if partial is None else {"partial_schedule": partial.copy()}),
    }


def stack_static(
    static: Sequence[Observation],
    devices: Sequence[Float32],
    graph_ids: Int64,
) -> Observation:
    """Return the constant arrays of many copies' observations: read-only, one row per copy.

    Args:
        static: of each graph, from `graph_arrays`.
        devices: (num_devices, 4) of each graph, from `device_features`.
        graph_ids: (num_envs,) the graph of each copy.
    """
    wholes = [{**one, "device_features": own} for one, own in zip(static, devices, strict=True)]
    result: Observation = {}
    for key, first in wholes[0].items():
        if len(wholes) == 1:
            result[key] = np.broadcast_to(first, (len(graph_ids), *first.shape))
        else:
            result[key] = np.stack([whole[key] for whole in wholes])[graph_ids]
            result[key].setflags(write=False)
    return result


def one_hot_placements(assignments: Int64, real: Bool, num_devices: int) -> NDArray[np.int8]:
    """Return the devices of groups as flags, (num_envs, max_groups, num_devices + 1).

    Args:
        assignments: (num_envs, max_groups) device of each group, `UNPLACED` where it has none.
        real: (num_envs, max_groups) whether it is a group, and not padding.
        num_devices: number of devices.
    """
    placement = np.empty((*assignments.shape, num_devices + 1), dtype=np.bool_)
    for slot, device in enumerate((*range(num_devices), UNPLACED)):
        np.equal(assignments, device, out=placement[:, :, slot])
    placement &= real[:, :, None]
    return placement.view(np.int8)


def observe_many(
    static: Observation,
    placements: NDArray[np.int8],
    cursors: Int64 | None,
    log_times: Sequence[float],
    steps: Int64,
    partial: Float32 | None = None,
) -> Observation:
    """Return the observations of many copies, one row per copy; see `observe`.

    Args:
        static: from `stack_static`; returned unchanged.
        placements: (num_envs, max_groups, num_devices + 1) from `one_hot_placements`; returned
            unchanged.
        cursors: (num_envs,) the group to place next, -1 where there is none.
        log_times: (num_envs,) log(time / reference time) of the last placements.
        steps: (num_envs,) actions of the episodes so far.
        partial: (num_envs, num_devices, len(PARTIAL_SCHEDULE)), if it is part of the observation.
    """
    pointers = np.zeros(placements.shape[:2], dtype=np.int8)
    if cursors is not None:
        rows = np.flatnonzero(cursors >= 0)
        pointers[rows, cursors[rows]] = 1
    last_time = np.clip(log_times, -LIMIT, LIMIT).astype(np.float32)
    return {
        **static,
        "placement": placements,
        "cursor": pointers,
        "last_time": last_time[:, None],
        "step": steps.astype(np.int32)[:, None],
        **({} if partial is None else {"partial_schedule": partial.copy()}),
    }
