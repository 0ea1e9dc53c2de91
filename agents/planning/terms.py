"""Which costs add up to the time of a placement: a row of numbers for each schedule.

Under every schedule the time is a sum of some of the costs: all that are paid, or those on the
longest path, or of the largest load. A row says how often each counts::

    time = row @ [compute_s | latency_s | s_per_byte], each flattened

so that a row is also the time's derivative with respect to the costs. What subgraphs cost is
left out: latencies of the moves between them tell nearly the same, and to count them in each
placement would take longer than all the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from device_placement.agents.planning.rows import Placements, longest_path, moves
from device_placement.envs.errors import choose
from device_placement.envs.execution.costs import Costs
from device_placement.envs.execution.schedule import inputs_of
from device_placement.envs.graph import Float64


def terms(costs: Costs, placements: NDArray[np.integer], schedule: str) -> Float64:
    """What the time of each placement is made of.

    Args:
        costs: of the groups, tensors and devices; where a schedule takes the larger of two
            times, they tell which.
        placements: (batch, num_groups) device numbers.
        schedule: a name of `SCHEDULES`.

    Returns:
        (batch, num_terms) rows; `flatten_costs` gives the column that they are multiplied with.

    Raises:
        DevicePlacementError: on an unknown schedule.
    """
    rows_of = choose("schedule", schedule, ROWS)
    return rows_of(costs, np.ascontiguousarray(placements, dtype=np.uint8))


def flatten_costs(costs: Costs) -> Float64:
    """(num_terms,) the costs in the order of the columns of `terms`; 0 where there is none."""
    compute_s = np.where(np.isfinite(costs.compute_s), costs.compute_s, 0.0)
    return np.concatenate([compute_s.ravel(), costs.latency_s.ravel(), costs.s_per_byte.ravel()])


def _sequential(costs: Costs, placements: Placements) -> Float64:
    return _rows(_groups(costs, placements), _moves(costs, placements))


def _concurrent(costs: Costs, placements: Placements) -> Float64:
    start, tensor = inputs_of(costs)
    on_path, counts = longest_path(
        placements,
        costs.compute_s,
        costs.latency_s,
        costs.s_per_byte,
        costs.tensor_group,
        costs.tensor_bytes,
        start,
        tensor,
    )
    return _rows(_groups(costs, placements) * on_path[:, :, None], counts)


def _pipelined(costs: Costs, placements: Placements) -> Float64:
    groups, counts = _groups(costs, placements), _moves(costs, placements)
    loads = _link_loads(costs, counts)
    own = np.arange(costs.num_devices)
    loads[:, own, own] = _device_loads(costs, groups)
    largest = loads.reshape(len(loads), -1).argmax(axis=1)[:, None]
    links = (np.arange(costs.num_devices**2) == largest).reshape(loads.shape)
    return _rows(groups * links[:, None, own, own], counts * links[:, None])


def _max_load(costs: Costs, placements: Placements) -> Float64:
    groups = _groups(costs, placements)
    sent = _moves(costs, placements, slowest_only=True) * costs.pays[:, None]
    received = _moves(costs, placements) * costs.pays
    loads = _device_loads(costs, groups)
    loads += _link_loads(costs, sent).sum(axis=2) + _link_loads(costs, received).sum(axis=1)
    largest = np.arange(costs.num_devices) == loads.argmax(axis=1)[:, None]
    counts = sent * largest[:, None, :, None] + received * largest[:, None, None, :]
    return _rows(groups * largest[:, None], counts)


ROWS: Mapping[str, Callable[[Costs, Placements], Float64]] = {
    "sequential": _sequential,
    "concurrent": _concurrent,
    "pipelined": _pipelined,
    "max_load": _max_load,
}
"""Name of the schedule -> its rows."""


def _groups(costs: Costs, placements: Placements) -> Float64:
    """(batch, num_groups, num_devices) 1 where a group is on a device."""
    return np.eye(costs.num_devices)[placements]


def _moves(costs: Costs, placements: Placements, slowest_only: bool = False) -> Float64:
    counts: Float64 = moves(
        placements,
        costs.latency_s,
        costs.s_per_byte,
        costs.tensor_group,
        costs.tensor_bytes,
        costs.reader_start,
        costs.reader,
        slowest_only,
    )
    return counts


def _device_loads(costs: Costs, groups: Float64) -> Float64:
    """(batch, num_devices) the time of the groups on each."""
    compute_s = np.where(np.isfinite(costs.compute_s), costs.compute_s, 0.0)
    return np.asarray(np.einsum("bgd,gd->bd", groups, compute_s))


def _link_loads(costs: Costs, counts: Float64) -> Float64:
    """(batch, num_devices, num_devices) the time of the moves on each."""
    return np.asarray(counts[:, 0] * costs.latency_s + counts[:, 1] * costs.s_per_byte)


def _rows(groups: Float64, counts: Float64) -> Float64:
    """(batch, num_terms) both in one."""
    batch = len(groups)
    return np.concatenate([groups.reshape(batch, -1), counts.reshape(batch, -1)], axis=1)
