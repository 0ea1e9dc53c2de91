"""Design matrix of the cost regression: how often each cost counts in a placement's time.

Under every schedule but `dataflow` the time is a sum of some of the costs: all that are paid, those
on the longest path, or those of the largest load. A row holds how often each counts::

    time = row @ [compute_s | latency_s | s_per_byte], each flattened

A row is therefore also the time's derivative with respect to the costs. Costs of subgraphs are
left out: the latencies of the moves between them carry nearly the same information, and counting
subgraphs in each placement would take longer than all the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.arrays import Bool, Float64, Int32, PlacementRows
from device_placement.envs.costs import Costs
from device_placement.envs.errors import choose
from device_placement.envs.jit import compiled

# (batch, num_groups) how often each group counts, on its device; and (batch, 2, num_devices,
# num_devices) number of moves, and their bytes, by from and to.
Counts = tuple[Float64, Float64]

NOTHING = -1  # predecessor of an event that starts at once


@compiled
def moves(
    placements: PlacementRows,
    latency_s: Float64,
    s_per_byte: Float64,
    tensor_group: Int32,
    tensor_bytes: Float64,
    reader_start: Int32,
    reader: Int32,
    slowest_only: bool,
) -> Float64:
    """Count every tensor once to each device that reads it, or once only, on its slowest link.

    The outer loop is over placements: they and their counts are rows, so that the data of one
    placement fits into the cache.

    Returns:
        (batch, 2, num_devices, num_devices): number of moves, and their bytes, by from and to.
    """
    batch, devices = len(placements), len(latency_s)
    counts = np.zeros((batch, 2, devices, devices))
    for b in range(batch):
        for tensor in range(tensor_group.size):
            source, size = placements[b, tensor_group[tensor]], tensor_bytes[tensor]
            # Devices that have the tensor, as bits; target and seconds of its slowest move.
            seen, slowest, slowest_s = 1 << source, -1, -1.0
            for position in range(reader_start[tensor], reader_start[tensor + 1]):
                device = placements[b, reader[position]]
                if (seen >> device) & 1:
                    continue
                seen |= 1 << device
                move_s = latency_s[source, device] + size * s_per_byte[source, device]
                if move_s > slowest_s:
                    slowest, slowest_s = device, move_s
                if not slowest_only:
                    counts[b, 0, source, device] += 1.0
                    counts[b, 1, source, device] += size
            if slowest_only and slowest >= 0:
                counts[b, 0, source, slowest] += 1.0
                counts[b, 1, source, slowest] += size
    return counts


@compiled
def longest_path(
    placements: PlacementRows,
    compute_s: Float64,
    latency_s: Float64,
    s_per_byte: Float64,
    tensor_group: Int32,
    tensor_bytes: Float64,
    input_start: Int32,
    input_tensor: Int32,
) -> tuple[Float64, Float64]:
    """Return the longest path of each placement: 1 for each group on it, and its moves.

    An event is a group, or a move of tensor t to device d with the number groups + t D + d. A
    path is found backwards, from the event that ends last to the one that it waited for. So each
    placement, in the outer loop, is scheduled as in `concurrent_times` and then traced back.

    Returns:
        (batch, num_groups); and (batch, 2, num_devices, num_devices): number of moves, and their
        bytes, by from and to.
    """
    batch, groups = placements.shape
    devices = compute_s.shape[1]
    on_path = np.zeros((batch, groups))
    counts = np.zeros((batch, 2, devices, devices))
    end = np.empty(groups + tensor_group.size * devices)  # seconds at which each event ends
    before = np.empty(end.size, dtype=np.int64)  # what an event waited for last; set with its end
    for b in range(batch):
        end[:] = -1.0  # not yet
        # Of each device, and of each link by from and to: its last event, and when that ends.
        device_free, device_last = np.zeros(devices), np.full(devices, NOTHING)
        link_free, link_last = np.zeros((devices, devices)), np.full((devices, devices), NOTHING)
        for group in range(groups):
            device = placements[b, group]
            ready, waits_for = device_free[device], device_last[device]
            for position in range(input_start[group], input_start[group + 1]):
                tensor = input_tensor[position]
                producer = tensor_group[tensor]
                source, event = placements[b, producer], producer
                if source != device:
                    event = groups + tensor * devices + device
                    if end[event] < 0.0:
                        begin, before[event] = end[producer], producer
                        if link_free[source, device] > begin:
                            begin = link_free[source, device]
                            before[event] = link_last[source, device]
                        move_s = latency_s[source, device]
                        move_s += tensor_bytes[tensor] * s_per_byte[source, device]
                        end[event] = begin + move_s
                        link_free[source, device], link_last[source, device] = end[event], event
                if end[event] > ready:
                    ready, waits_for = end[event], event
            end[group], before[group] = ready + compute_s[group, device], waits_for
            device_free[device], device_last[device] = end[group], group
        event = device_last[np.argmax(device_free)]
        while event != NOTHING:
            if event < groups:
                on_path[b, event] = 1.0
            else:
                tensor, device = divmod(event - groups, devices)
                source = placements[b, tensor_group[tensor]]
                counts[b, 0, source, device] += 1.0
                counts[b, 1, source, device] += tensor_bytes[tensor]
            event = before[event]
    return on_path, counts


@compiled
def device_loads(placements: PlacementRows, compute_s: Float64) -> Float64:
    """Return the time of the groups on each device, (batch, num_devices)."""
    batch, groups = placements.shape
    loads = np.zeros((batch, compute_s.shape[1]))
    for b in range(batch):
        for group in range(groups):
            device = placements[b, group]
            loads[b, device] += compute_s[group, device]
    return loads


@compiled
def join(placements: PlacementRows, values: Float64, counts: Float64, weights: Float64) -> Float64:
    """Join the counts of groups and of moves into rows, each times its weight.

    Args:
        placements: (batch, num_groups) device numbers.
        values: (batch, num_groups) how often each group counts, on its device.
        counts: (batch, 2, num_devices, num_devices) of moves.
        weights: (num_terms,) in the order of `flatten_costs`.

    Returns:
        (batch, num_terms) rows.
    """
    batch, groups = placements.shape
    devices = counts.shape[2]
    rows = np.zeros((batch, weights.size))
    for b in range(batch):
        for group in range(groups):
            term = group * devices + placements[b, group]
            rows[b, term] = values[b, group] * weights[term]
        term = groups * devices
        for kind in range(2):
            for source in range(devices):
                for target in range(devices):
                    rows[b, term] = counts[b, kind, source, target] * weights[term]
                    term += 1
    return rows


def terms(costs: Costs, placements: NDArray[np.integer], schedule: str) -> Float64:
    """Return the terms that each placement's time is the sum of.

    Args:
        costs: of the groups, tensors and devices; where a schedule takes the larger of two
            times, they decide which.
        placements: (batch, num_groups) device numbers.
        schedule: a name of `COUNTS`.

    Returns:
        (batch, num_terms) rows; `flatten_costs` returns the column to multiply them with.

    Raises:
        DevicePlacementError: on an unknown schedule.
    """
    return _weighted(costs, placements, schedule, np.ones_like(flatten_costs(costs)))


def contributions(costs: Costs, placements: NDArray[np.integer], schedule: str) -> Float64:
    """Return what each cost adds to each time, (batch, num_terms): `terms` times `flatten_costs`.

    Raises:
        DevicePlacementError: on an unknown schedule.
    """
    return _weighted(costs, placements, schedule, flatten_costs(costs))


def _weighted(
    costs: Costs, placements: NDArray[np.integer], schedule: str, weights: Float64
) -> Float64:
    numbers = np.ascontiguousarray(placements, dtype=np.uint8)
    values, counts = choose("schedule", schedule, COUNTS)(costs, numbers)
    rows: Float64 = join(numbers, values, counts, weights)
    return rows


def flatten_costs(costs: Costs) -> Float64:
    """Return the costs in the column order of `terms`, (num_terms,); 0 where there is none."""
    compute_s = np.where(np.isfinite(costs.compute_s), costs.compute_s, 0.0)
    return np.concatenate([compute_s.ravel(), costs.latency_s.ravel(), costs.s_per_byte.ravel()])


def _sequential(costs: Costs, placements: PlacementRows) -> Counts:
    return np.ones(placements.shape), _moves(costs, placements)


def _concurrent(costs: Costs, placements: PlacementRows) -> Counts:
    start, tensor = costs.inputs
    found: Counts = longest_path(
        placements,
        costs.compute_s,
        costs.latency_s,
        costs.s_per_byte,
        costs.tensor_group,
        costs.tensor_bytes,
        start,
        tensor,
    )
    return found


def _pipelined(costs: Costs, placements: PlacementRows) -> Counts:
    counts = _moves(costs, placements)
    loads = _link_loads(costs, counts)
    own = np.arange(costs.num_devices)
    loads[:, own, own] = _device_loads(costs, placements)
    largest = loads.reshape(len(loads), -1).argmax(axis=1)[:, None]
    links = (np.arange(costs.num_devices**2) == largest).reshape(loads.shape)
    return _on(links[:, own, own], placements), counts * links[:, None]


def _max_load(costs: Costs, placements: PlacementRows) -> Counts:
    sent = _moves(costs, placements, slowest_only=True) * costs.pays[:, None]
    received = _moves(costs, placements) * costs.pays
    loads = _device_loads(costs, placements)
    loads += _link_loads(costs, sent).sum(axis=2) + _link_loads(costs, received).sum(axis=1)
    largest = np.arange(costs.num_devices) == loads.argmax(axis=1)[:, None]
    counts = sent * largest[:, None, :, None] + received * largest[:, None, None, :]
    return _on(largest, placements), counts


COUNTS: Mapping[str, Callable[[Costs, PlacementRows], Counts]] = {
    "sequential": _sequential,
    "concurrent": _concurrent,
    "pipelined": _pipelined,
    "max_load": _max_load,
}
"""Name of the schedule -> how often each group and each move counts; the simplest first.

`dataflow` is missing: which regions there are, and their order, differ from placement to placement.
`concurrent`, which has links and devices side by side, too, comes nearest to it.
"""


def _on(chosen: Bool, placements: PlacementRows) -> Float64:
    """Return 1 for the groups on chosen devices, (batch, num_groups)."""
    return np.take_along_axis(chosen, placements.astype(np.int64), axis=1).astype(np.float64)


def _moves(costs: Costs, placements: PlacementRows, slowest_only: bool = False) -> Float64:
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


def _device_loads(costs: Costs, placements: PlacementRows) -> Float64:
    """Return the time of the groups on each device, (batch, num_devices)."""
    compute_s = np.where(np.isfinite(costs.compute_s), costs.compute_s, 0.0)
    loads: Float64 = device_loads(placements, compute_s)
    return loads


def _link_loads(costs: Costs, counts: Float64) -> Float64:
    """Return the time of the moves on each link, (batch, num_devices, num_devices)."""
    return np.asarray(counts[:, 0] * costs.latency_s + counts[:, 1] * costs.s_per_byte)
