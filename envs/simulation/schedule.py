"""Schedules: five ways to compute times from costs, for many placements at once.

Notation: group g runs on device p(g) in c(g, p(g)) seconds; w(t, a, b) = latency(a, b) +
bytes(t) / bandwidth(a, b) moves tensor t from device a to b; R(t) are the devices, other than
that of its producer, on which groups read t. A tensor moves once to each device in R(t).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.arrays import Float64, Int32, Int64, PlacementColumns, UInt8, UInt32
from device_placement.envs.constraints import first_broken
from device_placement.envs.costs import FREE, MAX_DEVICES, MAX_PIPELINED, Costs
from device_placement.envs.errors import DeviceError, PlacementError, choose
from device_placement.envs.simulation.kernels import (
    any_differs,
    concurrent_times,
    count_pieces,
    max_load_times,
    memory_used,
    pipelined_times,
    sequential_times,
)
from device_placement.envs.simulation.region_kernels import dataflow_times, region_roots

BROKEN_CONSTRAINT = 3  # the first code of `broken_rules` that is about a constraint
BLOCK = 64  # placements per block, whose state fits into the cache


@dataclass(frozen=True)
class Schedule:
    """Way to compute the time of a placement."""

    summary: str
    times: Callable[[Costs, PlacementColumns], Float64]  # (num_groups, batch) -> (batch,) seconds
    max_devices: int = MAX_DEVICES

    def check(self, num_devices: int) -> None:
        """Check that it takes a number of devices.

        Raises:
            DeviceError: when they are too many.
        """
        if num_devices > self.max_devices:
            raise DeviceError(
                f"Got {num_devices} devices, of which this schedule takes up to "
                f"{self.max_devices}; use fewer, or the schedule 'pipelined', which takes "
                f"{MAX_PIPELINED}."
            )


def schedule_times(costs: Costs, placements: NDArray[np.integer], schedule: str) -> Float64:
    """Return the time of each placement in seconds; inf if it is not allowed.

    A placement is not allowed if a device can't run a group, weights exceed the memory of a
    device or of devices that share it, groups of one colour are on different devices, or a
    constraint of the costs is broken.

    Args:
        costs: of the groups, tensors and devices.
        placements: (batch, num_groups) device numbers.
        schedule: a name of `SCHEDULES`.

    Returns:
        (batch,) seconds per inference.

    Raises:
        DevicePlacementError: on an unknown schedule.
        DeviceError: when there are too many devices for it.
        PlacementError: when a number is not that of a device.
    """
    way = choose("schedule", schedule, SCHEDULES)
    way.check(costs.num_devices)
    numbers = np.asarray(placements)
    signed = numbers.dtype.kind != "u"
    if numbers.size and (numbers.max() >= costs.num_devices or (signed and numbers.min() < 0)):
        raise PlacementError(
            f"Got devices {numbers.min()} to {numbers.max()}; they are numbered 0 to "
            f"{costs.num_devices - 1}."
        )
    devices = np.ascontiguousarray(numbers.T, dtype=np.uint8)
    times = way.times(costs, devices)
    if costs.restricted:
        times[broken_rules(costs, devices) != 0] = np.inf
    return times


def broken_rules(costs: Costs, devices: PlacementColumns) -> UInt8:
    """Return the rule that each placement breaks, (batch,).

    Returns:
        0: allowed; 1: weights exceed a memory; 2: groups of a colour are split; from 3 on:
        `BROKEN_CONSTRAINT` plus the position of a constraint in `BROKEN`.
    """
    first = first_broken(costs, devices)
    broken = np.where(first, first + (BROKEN_CONSTRAINT - 1), 0).astype(np.uint8)
    if costs.pool_bytes.size or np.isfinite(costs.memory_bytes).any():
        used = memory_used(devices, costs.group_bytes, costs.num_devices)
        for members, limit in costs.memory_limits():
            broken[used[members].sum(axis=0) > limit] = 1  # whole bytes: sums are exact
    coloured = np.flatnonzero(costs.colour != FREE)
    if coloured.size:
        order = coloured[np.argsort(costs.colour[coloured], kind="stable")]
        same = costs.colour[order[1:]] == costs.colour[order[:-1]]
        broken[any_differs(devices, order[1:][same], order[:-1][same])] = 2
    return broken


def count_subgraphs_by_device(costs: Costs, devices: PlacementColumns) -> Int32:
    """Return the number of connected regions of each device, (num_devices, batch)."""
    ends = _edges(costs)
    return count_pieces(devices, ends[0], ends[1], costs.num_devices)


def _work_and_tensors(costs: Costs) -> tuple[Float64, Int32, Float64, Int32, Int32]:
    """Return the arrays that the kernels take first: of groups, and of tensors with readers."""
    tensors = costs.tensor_group, costs.tensor_bytes, costs.reader_start, costs.reader
    return costs.compute_s, *tensors


def sequential(costs: Costs, devices: PlacementColumns) -> Float64:
    """Return the sum of all costs: sum_g c(g, p(g)) + sum_t sum_{b in R(t)} w(t, p(t), b).

    One request of OpenVINO's HETERO plugin runs like this, one step after the other. If
    `Costs.subgraph_s` is not 0, it is added for each connected region of a device.
    """
    latency, per_byte = _sums_over_sets(costs.latency_s), _sums_over_sets(costs.s_per_byte)
    times = sequential_times(
        devices,
        *_work_and_tensors(costs),
        latency,
        per_byte,
    )
    if costs.subgraph_s.any():
        # Not a matrix product, whose rounding depends on the size of the batch.
        for subgraph_s, pieces in zip(
            costs.subgraph_s, count_subgraphs_by_device(costs, devices), strict=True
        ):
            times += subgraph_s * pieces
    return times


def concurrent(costs: Costs, devices: PlacementColumns) -> Float64:
    """Return when the last group ends, with devices and links that work side by side.

    List scheduling with one queue for each device and each directed link. The list is the
    topological order of the groups. Group g starts when its device has finished the groups
    before it in the list and its inputs have arrived. The move of a tensor is queued when the
    list reaches the first group that reads it on another device, and starts when its link is
    free and its producer has ended::

        start(g)   = max(end of the group before g on p(g), max over inputs t of there(t, p(g)))
        there(t,b) = end(t)                                        if t is made on b
                   = max(end(t), end of the move before on (p(t), b)) + w(t, p(t), b)
    """
    start, tensor = costs.inputs
    return concurrent_times(
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


def dataflow(costs: Costs, devices: PlacementColumns) -> Float64:
    """Return when the last region ends, when all run as the executor `dataflow` runs them.

    Regions are the largest pieces that delay nothing (`executors.regions`). A region r on device d
    takes, in one piece,

        seconds(r) = split(d) work(r) + region_s(d) + crossing_s(d) tensors(r)

    where work(r) is the sum of c(g, d) over its groups, tensors(r) the number of its tensors that
    other regions read, and split(d) is `split_factor` if the placement uses several devices,
    else 1. Whenever a device is free, it starts, of its regions whose inputs have arrived, the one
    with the longest remaining path::

        rank(r)    = seconds(r) + max of rank over the regions that read from r
        there(t,b) = max(end(t), end of the move before on (p(t), b)) + w(t, p(t), b)

    Tensors join the queue of their link when their region ends. Inputs of the model are there
    from the beginning, on the device of their Parameter. Parameters, Results and constants are in
    no region; moving inputs and outputs takes time, but separates no groups.
    """
    regional = costs.regional
    times = np.empty(devices.shape[1])
    for first in range(0, times.size, BLOCK):
        block = np.ascontiguousarray(devices[:, first : first + BLOCK])
        times[first : first + BLOCK] = dataflow_times(
            block,
            find_roots(costs, block),
            costs.compute_s,
            costs.tensor_group,
            costs.tensor_bytes,
            regional.read_start,
            regional.read_tensor,
            regional.reader,
            regional.read_kind,
            regional.edge_start,
            regional.edge_producer,
            regional.edge_reader,
            regional.is_idle,
            costs.latency_s,
            costs.s_per_byte,
            regional.region_s,
            regional.crossing_s,
            regional.split_factor,
        )
    return times


def find_roots(costs: Costs, devices: PlacementColumns) -> UInt32:
    """Return the smallest group of each group's region, (batch, num_groups).

    A group without ops that compute is in no region, and gets its own number.
    """
    regional = costs.regional
    return region_roots(
        devices,
        costs.num_tensors,
        regional.edge_tensor,
        regional.edge_producer,
        regional.edge_reader,
    )


def count_parts(costs: Costs, devices: PlacementColumns, schedule: str) -> Int64:
    """Return how many parts run separately, (batch,): regions under `dataflow`, else subgraphs."""
    if schedule != dataflow.__name__:
        return np.asarray(count_subgraphs_by_device(costs, devices).sum(axis=0, dtype=np.int64))
    roots = find_roots(costs, devices)
    is_root = (roots == np.arange(costs.num_groups)) & ~costs.regional.is_idle
    return np.asarray(is_root.sum(axis=1, dtype=np.int64))


def pipelined(costs: Costs, devices: PlacementColumns) -> Float64:
    """Return the largest load of a device or a directed link, with many requests in flight.

    The load of a device is the sum of c(g, p(g)) over its groups, that of a link (a, b) the
    sum of w(t, a, b) over the tensors made on a and read on b. Its inverse is the throughput.
    """
    return pipelined_times(
        devices,
        *_work_and_tensors(costs),
        costs.latency_s,
        costs.s_per_byte,
    )


def max_load(costs: Costs, devices: PlacementColumns) -> Float64:
    """Return the largest compute and communication of a device (Tarnawski et al., NeurIPS 2020).

    A device pays for its groups, once for each of its tensors that is read elsewhere (at the
    slowest link used), and once for each tensor that it reads from elsewhere. Devices with
    ``pays`` False, as the CPUs in the paper, pay only for their groups.
    """
    return max_load_times(
        devices,
        *_work_and_tensors(costs),
        costs.latency_s,
        costs.s_per_byte,
        costs.pays,
    )


SCHEDULES: dict[str, Schedule] = {
    function.__name__: Schedule((function.__doc__ or "").splitlines()[0], function, most)
    for function, most in (
        *((one, MAX_DEVICES) for one in (sequential, concurrent, dataflow)),
        (pipelined, MAX_PIPELINED),
        (max_load, MAX_DEVICES),
    )
}
"""Name -> schedule."""


def _edges(costs: Costs) -> Int32:
    """Return producer and reader, (2, num_edges): the quotient graph, a pair once per tensor."""
    producer = np.repeat(costs.tensor_group, np.diff(costs.reader_start))
    return np.stack([producer, costs.reader]).astype(np.int32)


def _sums_over_sets(values: Float64) -> Float64:
    """Return sums over all sets of devices, itself left out, (num_devices, 2 ** num_devices)."""
    devices = len(values)
    member = (np.arange(2**devices)[None, :] >> np.arange(devices)[:, None]) & 1
    inner = np.where(np.eye(devices, dtype=np.bool_), 0.0, values)
    return np.asarray(inner @ member)
