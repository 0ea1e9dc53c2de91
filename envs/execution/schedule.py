"""The time of a placement, by four schedules: from costs to seconds, for many at once.

Notation: group g runs on device p(g) in c(g, p(g)) seconds; w(t, a, b) = latency(a, b) +
bytes(t) / bandwidth(a, b) moves tensor t from device a to b; R(t) are the devices, other than
that of its producer, on which groups read t. A tensor moves once to each device in R(t).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.compiled import compiled
from device_placement.envs.errors import PlacementError, choose
from device_placement.envs.execution.costs import FREE, Costs
from device_placement.envs.graph import Bool, Float64, Int32

Devices = NDArray[np.uint8]  # (num_groups, batch) the batch lies innermost in memory
Masks = NDArray[np.uint16]  # sets of devices, a bit each
BLOCK = 64  # placements whose state stays in the cache while their schedule is made


@dataclass(frozen=True)
class Schedule:
    """One way to tell the time of a placement."""

    summary: str
    times: Callable[[Costs, Devices], Float64]  # (num_groups, batch) -> (batch,) seconds


def schedule_times(costs: Costs, placements: NDArray[np.integer], schedule: str) -> Float64:
    """The time of each placement in seconds; inf where it is not allowed.

    A placement is not allowed where a device can't run a group, weights exceed the memory of a
    device, or groups of one colour are on different devices.

    Args:
        costs: of the groups, tensors and devices.
        placements: (batch, num_groups) device numbers.
        schedule: a name of `SCHEDULES`.

    Returns:
        (batch,) seconds per inference.

    Raises:
        DevicePlacementError: on an unknown schedule.
        PlacementError: when a number names no device.
    """
    way = choose("schedule", schedule, SCHEDULES)
    numbers = np.asarray(placements)
    if numbers.size and (numbers.min() < 0 or numbers.max() >= costs.num_devices):
        raise PlacementError(
            f"Got devices {numbers.min()} to {numbers.max()}; they are numbered 0 to "
            f"{costs.num_devices - 1}."
        )
    devices = np.ascontiguousarray(numbers.T, dtype=np.uint8)
    times = way.times(costs, devices)
    times[broken_rules(costs, devices) != 0] = np.inf
    return times


def broken_rules(costs: Costs, devices: Devices) -> NDArray[np.uint8]:
    """(batch,) 0: allowed; 1: weights exceed a memory; 2: a colour is divided."""
    broken = np.zeros(devices.shape[1], dtype=np.uint8)
    if np.isfinite(costs.memory_bytes).any():
        over = _memory(devices, costs.group_bytes, costs.num_devices) > costs.memory_bytes[:, None]
        broken[over.any(axis=0)] = 1
    coloured = np.flatnonzero(costs.colour != FREE)
    if coloured.size:
        order = coloured[np.argsort(costs.colour[coloured], kind="stable")]
        same = costs.colour[order[1:]] == costs.colour[order[:-1]]
        broken[_differ(devices, order[1:][same], order[:-1][same])] = 2
    return broken


def count_subgraphs(costs: Costs, devices: Devices) -> NDArray[np.int32]:
    """(num_devices, batch) connected regions of each device."""
    ends = _edges(costs)
    return _pieces(devices, ends[0], ends[1], costs.num_devices)


def sequential(costs: Costs, devices: Devices) -> Float64:
    """One after the other: sum_g c(g, p(g)) + sum_t sum_{b in R(t)} w(t, p(t), b).

    What one request of OpenVINO's HETERO plugin does. Where `Costs.subgraph_s` is not 0, each
    connected region of one device costs that besides.
    """
    latency, per_byte = _sums_over_sets(costs.latency_s), _sums_over_sets(costs.s_per_byte)
    times = _sequential(
        devices,
        costs.compute_s,
        costs.tensor_group,
        costs.tensor_bytes,
        costs.reader_start,
        costs.reader,
        latency,
        per_byte,
    )
    if costs.subgraph_s.any():
        # Not as a product of matrices, whose rounding depends on the size of the batch.
        for subgraph_s, pieces in zip(
            costs.subgraph_s, count_subgraphs(costs, devices), strict=True
        ):
            times += subgraph_s * pieces
    return times


def concurrent(costs: Costs, devices: Devices) -> Float64:
    """Devices and links work side by side; the time at which the last group ends.

    List scheduling with one queue for each device and each directed link. The list is the
    topological order of the groups. Group g starts when its device has ended the groups
    before it in the list and its inputs are there. A tensor is moved when the first
    group in the list that reads it on another device comes up, and starts when its link is
    free and its producer has ended::

        start(g)   = max(end of the group before g on p(g), max over inputs t of there(t, p(g)))
        there(t,b) = end(t)                                        if t is made on b
                   = max(end(t), end of the move before on (p(t), b)) + w(t, p(t), b)
    """
    start, tensor = _inputs(costs)
    return _concurrent(
        devices,
        costs.compute_s,
        costs.tensor_group,
        costs.tensor_bytes,
        costs.reader_start,
        start,
        tensor,
        costs.latency_s,
        costs.s_per_byte,
        BLOCK,
    )


def pipelined(costs: Costs, devices: Devices) -> Float64:
    """Many requests in flight: the largest load of a device or a directed link.

    The load of a device is the sum of c(g, p(g)) over its groups, that of a link (a, b) the
    sum of w(t, a, b) over the tensors made on a and read on b. Its inverse is the throughput.
    """
    return _pipelined(
        devices,
        costs.compute_s,
        costs.tensor_group,
        costs.tensor_bytes,
        costs.reader_start,
        costs.reader,
        costs.latency_s,
        costs.s_per_byte,
    )


def max_load(costs: Costs, devices: Devices) -> Float64:
    """The largest sum of compute and communication of a device (Tarnawski et al., NeurIPS 2020).

    A device pays for its groups, for each of its tensors that is read elsewhere once (at the
    slowest of the links that it takes), and for each tensor that it reads from elsewhere
    once. Devices with ``pays`` False, as the CPUs there, pay for their groups only.
    """
    return _max_load(
        devices,
        costs.compute_s,
        costs.tensor_group,
        costs.tensor_bytes,
        costs.reader_start,
        costs.reader,
        costs.latency_s,
        costs.s_per_byte,
        costs.pays,
    )


SCHEDULES: dict[str, Schedule] = {
    function.__name__: Schedule((function.__doc__ or "").splitlines()[0], function)
    for function in (sequential, concurrent, pipelined, max_load)
}
"""Name -> schedule."""


def _edges(costs: Costs) -> Int32:
    """(2, num_edges) producer, reader: the quotient graph, a pair once per tensor."""
    producer = np.repeat(costs.tensor_group, np.diff(costs.reader_start))
    return np.stack([producer, costs.reader]).astype(np.int32)


def _inputs(costs: Costs) -> tuple[Int32, Int32]:
    """Where each group's inputs begin, (num_groups + 1,), and the tensors, (num_readers,)."""
    tensor = np.repeat(np.arange(costs.num_tensors), np.diff(costs.reader_start))
    order = np.argsort(costs.reader, kind="stable")
    start = np.searchsorted(costs.reader[order], np.arange(costs.num_groups + 1))
    return start.astype(np.int32), tensor[order].astype(np.int32)


def _sums_over_sets(values: Float64) -> Float64:
    """(num_devices, 2 ** num_devices) the sum over each set of devices, itself left out."""
    devices = len(values)
    member = (np.arange(2**devices)[None, :] >> np.arange(devices)[:, None]) & 1
    inner = np.where(np.eye(devices, dtype=np.bool_), 0.0, values)
    return np.asarray(inner @ member)


@compiled
def _sequential(
    devices: Devices,
    compute_s: Float64,
    tensor_group: Int32,
    tensor_bytes: Float64,
    reader_start: Int32,
    reader: Int32,
    latency: Float64,
    per_byte: Float64,
) -> Float64:
    groups, batch = devices.shape
    times = np.zeros(batch)
    for group in range(groups):
        row = compute_s[group]
        for b in range(batch):
            times[b] += row[devices[group, b]]
    mask = np.zeros(batch, dtype=np.uint16)
    for tensor in range(tensor_group.size):
        mask[:] = 0
        for position in range(reader_start[tensor], reader_start[tensor + 1]):
            group = reader[position]
            for b in range(batch):
                mask[b] |= np.uint16(1) << devices[group, b]
        producer, size = tensor_group[tensor], tensor_bytes[tensor]
        for b in range(batch):
            device = devices[producer, b]
            times[b] += latency[device, mask[b]] + size * per_byte[device, mask[b]]
    return times


@compiled
def _concurrent(
    placements: Devices,
    compute_s: Float64,
    tensor_group: Int32,
    tensor_bytes: Float64,
    reader_start: Int32,
    input_start: Int32,
    input_tensor: Int32,
    latency_s: Float64,
    s_per_byte: Float64,
    block: int,
) -> Float64:
    groups, batch = placements.shape
    num_devices = compute_s.shape[1]
    times = np.zeros(batch)
    devices = np.zeros((groups, block), dtype=np.uint8)
    end = np.empty((groups, block))
    there = np.empty((tensor_group.size, block, num_devices))
    device_free = np.empty((block, num_devices))
    link_free = np.empty((block, num_devices, num_devices))
    ready = np.empty(block)
    for first in range(0, batch, block):
        width = min(block, batch - first)
        devices[:, :width] = placements[:, first : first + width]
        there[:] = -1.0  # not moved yet
        device_free[:] = 0.0
        link_free[:] = 0.0
        for group in range(groups):
            for b in range(block):
                ready[b] = device_free[b, devices[group, b]]
            for position in range(input_start[group], input_start[group + 1]):
                tensor = input_tensor[position]
                producer, size = tensor_group[tensor], tensor_bytes[tensor]
                if reader_start[tensor + 1] - reader_start[tensor] == 1:
                    for b in range(block):
                        own, source, made = (
                            devices[group, b],
                            devices[producer, b],
                            end[producer, b],
                        )
                        free = link_free[b, source, own]
                        cost = latency_s[source, own] + size * s_per_byte[source, own]
                        moved = max(made, free) + cost
                        link_free[b, source, own] = free if source == own else moved
                        ready[b] = max(ready[b], made if source == own else moved)
                    continue
                for b in range(block):
                    own, source, made = devices[group, b], devices[producer, b], end[producer, b]
                    free, known = link_free[b, source, own], there[tensor, b, own]
                    cost = latency_s[source, own] + size * s_per_byte[source, own]
                    moved = max(made, free) + cost
                    arrived = made if source == own else (moved if known < 0.0 else known)
                    link_free[b, source, own] = free if source == own or known >= 0.0 else moved
                    there[tensor, b, own] = arrived
                    ready[b] = max(ready[b], arrived)
            row = compute_s[group]
            for b in range(block):
                device = devices[group, b]
                ended = ready[b] + row[device]
                end[group, b] = ended
                device_free[b, device] = ended
        for b in range(width):
            for device in range(num_devices):
                times[first + b] = max(times[first + b], device_free[b, device])
    return times


@compiled
def _pipelined(
    devices: Devices,
    compute_s: Float64,
    tensor_group: Int32,
    tensor_bytes: Float64,
    reader_start: Int32,
    reader: Int32,
    latency_s: Float64,
    s_per_byte: Float64,
) -> Float64:
    groups, batch = devices.shape
    num_devices = compute_s.shape[1]
    load = np.zeros((batch, num_devices))
    link = np.zeros((batch, num_devices, num_devices))
    for group in range(groups):
        for b in range(batch):
            device = devices[group, b]
            load[b, device] += compute_s[group, device]
    mask = np.zeros(batch, dtype=np.uint16)
    for tensor in range(tensor_group.size):
        mask[:] = 0
        for position in range(reader_start[tensor], reader_start[tensor + 1]):
            group = reader[position]
            for b in range(batch):
                mask[b] |= np.uint16(1) << devices[group, b]
        producer, size = tensor_group[tensor], tensor_bytes[tensor]
        for b in range(batch):
            source = devices[producer, b]
            for device in range(num_devices):
                if device != source and (mask[b] >> device) & 1:
                    link[b, source, device] += (
                        latency_s[source, device] + size * s_per_byte[source, device]
                    )
    times = np.zeros(batch)
    for b in range(batch):
        for device in range(num_devices):
            times[b] = max(times[b], load[b, device])
            for other in range(num_devices):
                times[b] = max(times[b], link[b, device, other])
    return times


@compiled
def _max_load(
    devices: Devices,
    compute_s: Float64,
    tensor_group: Int32,
    tensor_bytes: Float64,
    reader_start: Int32,
    reader: Int32,
    latency_s: Float64,
    s_per_byte: Float64,
    pays: NDArray[np.bool_],
) -> Float64:
    groups, batch = devices.shape
    num_devices = compute_s.shape[1]
    load = np.zeros((batch, num_devices))
    for group in range(groups):
        for b in range(batch):
            device = devices[group, b]
            load[b, device] += compute_s[group, device]
    mask = np.zeros(batch, dtype=np.uint16)
    for tensor in range(tensor_group.size):
        mask[:] = 0
        for position in range(reader_start[tensor], reader_start[tensor + 1]):
            group = reader[position]
            for b in range(batch):
                mask[b] |= np.uint16(1) << devices[group, b]
        producer, size = tensor_group[tensor], tensor_bytes[tensor]
        for b in range(batch):
            source = devices[producer, b]
            sent = 0.0
            for device in range(num_devices):
                if device != source and (mask[b] >> device) & 1:
                    cost = latency_s[source, device] + size * s_per_byte[source, device]
                    sent = max(sent, cost)
                    if pays[device]:
                        load[b, device] += cost
            if pays[source]:
                load[b, source] += sent
    times = np.zeros(batch)
    for b in range(batch):
        for device in range(num_devices):
            times[b] = max(times[b], load[b, device])
    return times


@compiled
def _memory(devices: Devices, group_bytes: Float64, num_devices: int) -> Float64:
    groups, batch = devices.shape
    used = np.zeros((num_devices, batch))
    for group in range(groups):
        for b in range(batch):
            used[devices[group, b], b] += group_bytes[group]
    return used


@compiled
def _differ(devices: Devices, ones: NDArray[np.int64], others: NDArray[np.int64]) -> Bool:
    batch = devices.shape[1]
    differ = np.zeros(batch, dtype=np.bool_)
    for pair in range(ones.size):
        one, other = devices[ones[pair]], devices[others[pair]]
        for b in range(batch):
            differ[b] |= one[b] != other[b]
    return differ


@compiled
def _pieces(
    devices: Devices, producer: Int32, reader: Int32, num_devices: int
) -> NDArray[np.int32]:
    groups, batch = devices.shape
    pieces = np.zeros((num_devices, batch), dtype=np.int32)
    root = np.empty(groups, dtype=np.int32)
    for b in range(batch):
        for group in range(groups):
            root[group] = group
            pieces[devices[group, b], b] += 1
        for edge in range(producer.size):
            one, other = producer[edge], reader[edge]
            if devices[one, b] == devices[other, b]:
                while root[one] != one:
                    root[one] = root[root[one]]
                    one = root[one]
                while root[other] != other:
                    root[other] = root[root[other]]
                    other = root[other]
                if one != other:
                    root[max(one, other)] = min(one, other)
                    pieces[devices[one, b], b] -= 1
    return pieces
