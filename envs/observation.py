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


@dataclass(frozen=True)
class Layout:
    """Sizes that every model of one environment is padded to."""

    max_groups: int
    max_edges: int
    num_features: int
    num_devices: int
    num_graphs: int = 1

    @classmethod
    def of(cls, graphs: Sequence[CoarseGraph], num_features: int, num_devices: int) -> Layout:
        """Return the smallest layout that holds all the given graphs."""
        return cls(
            max_groups=max(coarse.num_groups for coarse in graphs),
            max_edges=max(1, *(coarse.num_edges for coarse in graphs)),
            num_features=num_features,
            num_devices=num_devices,
            num_graphs=len(graphs),
        )


def observation_space(layout: Layout) -> spaces.Dict:
    """Return the flat Dict of finite Boxes; padding is 0 and masked."""
    groups, edges, devices = layout.max_groups, layout.max_edges, layout.num_devices
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
        (max_groups, num_devices); padding allows device 0 only.
    """
    masks = np.zeros((layout.max_groups, layout.num_devices), dtype=np.bool_)
    masks[:, 0] = True
    masks[: len(supported)] = supported | ~supported.any(axis=1, keepdims=True)
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


def observe_many(
    static: Observation,
    layout: Layout,
    assignments: Int64,
    cursors: Int64 | None,
    log_times: Sequence[float],
    steps: Int64,
) -> Observation:
    """Return the observations of many copies, one row per copy; see `observe`.

    Args:
        static: from `stack_static`; returned unchanged.
        layout: the sizes that it was padded to.
        assignments: (num_envs, max_groups) device of each group, `UNPLACED` where it has none.
        cursors: (num_envs,) the group to place next, -1 where there is none.
        log_times: (num_envs,) log(time / reference time) of the last placements.
        steps: (num_envs,) actions of the episodes so far.
    """
    number, real = len(assignments), static["node_mask"].astype(np.bool_)
    placement = np.empty((*assignments.shape, layout.num_devices + 1), dtype=np.bool_)
    for slot, device in enumerate((*range(layout.num_devices), UNPLACED)):
        np.equal(assignments, device, out=placement[:, :, slot])
    placement &= real[:, :, None]
    pointers = np.zeros((number, layout.max_groups), dtype=np.int8)
    if cursors is not None:
        rows = np.flatnonzero(cursors >= 0)
        pointers[rows, cursors[rows]] = 1
    last_time = np.clip(log_times, -LIMIT, LIMIT).astype(np.float32)
    return {
        **static,
        "placement": placement.view(np.int8),
        "cursor": pointers,
        "last_time": last_time[:, None],
        "step": steps.astype(np.int32)[:, None],
    }
