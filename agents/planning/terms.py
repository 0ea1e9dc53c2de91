"""Which costs add up to the time of a placement: a row of numbers for each schedule.

Under every schedule the time is a sum of some of the costs: all that are paid, or those on the
longest path, or of the largest load. A row says how often each counts::

    time = row @ [compute_s | latency_s | s_per_byte | subgraph_s], each flattened

so that a row is also the time's derivative with respect to the costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from device_placement.agents.planning.rows import (
    Placements,
    largest_load,
    largest_queue,
    longest_path,
    paid,
)
from device_placement.envs.errors import choose
from device_placement.envs.execution.costs import Costs
from device_placement.envs.execution.schedule import count_subgraphs, inputs_of
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
    parts = (compute_s, costs.latency_s, costs.s_per_byte, costs.subgraph_s)
    return np.concatenate([part.ravel() for part in parts])


def _sequential(costs: Costs, placements: Placements) -> Float64:
    rows = paid(
        placements,
        costs.num_devices,
        costs.tensor_group,
        costs.tensor_bytes,
        costs.reader_start,
        costs.reader,
    )
    pieces = count_subgraphs(costs, np.ascontiguousarray(placements.T)).T
    return np.concatenate([rows, pieces], axis=1)


def _concurrent(costs: Costs, placements: Placements) -> Float64:
    start, tensor = inputs_of(costs)
    rows = longest_path(
        placements,
        costs.compute_s,
        costs.latency_s,
        costs.s_per_byte,
        costs.tensor_group,
        costs.tensor_bytes,
        start,
        tensor,
    )
    return _without_subgraphs(rows, costs)


def _pipelined(costs: Costs, placements: Placements) -> Float64:
    rows = largest_queue(
        placements,
        costs.compute_s,
        costs.latency_s,
        costs.s_per_byte,
        costs.tensor_group,
        costs.tensor_bytes,
        costs.reader_start,
        costs.reader,
    )
    return _without_subgraphs(rows, costs)


def _max_load(costs: Costs, placements: Placements) -> Float64:
    rows = largest_load(
        placements,
        costs.compute_s,
        costs.latency_s,
        costs.s_per_byte,
        costs.tensor_group,
        costs.tensor_bytes,
        costs.reader_start,
        costs.reader,
        costs.pays,
    )
    return _without_subgraphs(rows, costs)


ROWS: Mapping[str, Callable[[Costs, Placements], Float64]] = {
    "sequential": _sequential,
    "concurrent": _concurrent,
    "pipelined": _pipelined,
    "max_load": _max_load,
}
"""Name of the schedule -> its rows."""


def _without_subgraphs(rows: Float64, costs: Costs) -> Float64:
    """With columns of zeros for the subgraphs, which only `sequential` charges."""
    return np.pad(rows, ((0, 0), (0, costs.num_devices)))
