"""What the agent sees of many copies at once, a row a copy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.observation import LIMIT, UNPLACED, Layout, Observation


def stack_static(
    static: Sequence[Observation],
    devices: Sequence[NDArray[np.float32]],
    graph_ids: NDArray[np.int64],
) -> Observation:
    """What stays as it is in the observations of many copies: read-only, a row a copy.

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
    assignments: NDArray[np.int64],
    cursors: NDArray[np.int64] | None,
    log_times: Sequence[float],
    steps: NDArray[np.int64],
) -> Observation:
    """The observations of many copies, a row a copy; see `observe`.

    Args:
        static: from `stack_static`; passed on as it is.
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
