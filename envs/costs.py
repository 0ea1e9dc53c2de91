"""Costs behind a simulated time: arrays over groups, tensors and devices."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.arrays import Bool, Float64, Int32, Int64, UInt8, UInt32
from device_placement.envs.devices import Device, SharedMemory
from device_placement.envs.errors import DeviceError
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.graph.computation_graph import NO_WORK

MAX_DEVICES = 16  # sets of devices are bit masks of 16 bits
MAX_PIPELINED = 60  # the same of the schedule `pipelined`, and of constraints
FREE = -1  # the colour of a group that may be placed on any device


def _no() -> Bool:
    return np.zeros(0, dtype=np.bool_)


FROM_INPUT, TO_OUTPUT = 1, 2  # bits: of a tensor that a Parameter makes; by Results alone


@dataclass(frozen=True)
class RegionalCosts:
    """Costs of regions, and reads of tensors, as the kernels take them.

    Reads are those of `Costs`, tensor by tensor. Edges are the reads that are neither from an
    input of the model nor to an output; they are ordered by the groups that read. Indices are
    unsigned, as compiled code checks whether signed ones are negative.
    """

    read_start: UInt32  # (num_groups + 1,) where the reads of each group's tensors begin
    read_tensor: UInt32  # (num_readers,)
    reader: UInt32  # (num_readers,) group
    read_kind: UInt8  # (num_readers,) sum of `FROM_INPUT` and `TO_OUTPUT`
    edge_start: UInt32  # (num_groups + 1,) where the edges into each group begin
    edge_tensor: UInt32  # (num_edges,)
    edge_producer: UInt32  # (num_edges,) group
    edge_reader: UInt32  # (num_edges,) group
    is_idle: Bool  # (num_groups,) whether no op of it computes
    region_s: Float64  # (num_devices,) per region
    crossing_s: Float64  # (num_devices,) per tensor that leaves a region of the device
    split_factor: Float64  # (num_devices,) of times of groups if several devices are used


@dataclass(frozen=True)
class Costs:
    """Costs of one coarse graph on some devices, as the schedules need them.

    Tensors are those that leave their group, ordered by the group that produces them.
    """

    compute_s: Float64  # (num_groups, num_devices); inf where a group can't run
    tensor_group: Int32  # (num_tensors,) the group that produces it
    tensor_bytes: Float64  # (num_tensors,)
    reader_start: Int32  # (num_tensors + 1,) where each tensor's readers begin
    reader: Int32  # (num_readers,) groups, each once per tensor, ascending
    latency_s: Float64  # (num_devices, num_devices) from, to; 0 on the diagonal
    s_per_byte: Float64  # (num_devices, num_devices) from, to; 0 on the diagonal
    subgraph_s: Float64  # (num_devices,) per subgraph on the device; 0: not charged
    group_bytes: Float64  # (num_groups,) of weights
    memory_bytes: Float64  # (num_devices,) inf where there is no limit
    pays: Bool  # (num_devices,) whether `max_load` charges it for what it sends and receives
    colour: Int32  # (num_groups,) groups of one colour share a device; FREE: no such rule
    # (num_pools, num_devices) whether the devices share a pool of memory; no pools by default
    pool_devices: Bool = field(default_factory=lambda: np.zeros((0, 0), dtype=np.bool_))
    pool_bytes: Float64 = field(default_factory=lambda: np.zeros(0))  # (num_pools,)
    # What `dataflow` charges in addition; an empty array means 0 or no.
    region_s: Float64 = field(default_factory=lambda: np.zeros(0))  # (num_devices,) per region
    # (num_devices,) per tensor that leaves a region of the device for others
    crossing_s: Float64 = field(default_factory=lambda: np.zeros(0))
    # (num_devices,) at least 1: multiplies the time of groups while other devices are used, too;
    # an empty array means 1
    split_factor: Float64 = field(default_factory=lambda: np.ones(0))
    # The model's inputs and outputs, which belong to no region.
    is_input: Bool = field(default_factory=_no)  # (num_tensors,) whether a Parameter makes it
    is_output: Bool = field(default_factory=_no)  # (num_readers,) whether only Results read there
    is_idle: Bool = field(default_factory=_no)  # (num_groups,) whether no op of it computes
    constraints: tuple[str, ...] = ()  # names of `CONSTRAINTS` that placements must satisfy

    @cached_property
    def edges(self) -> Int32:
        """The edges between groups, each once, (2, num_edges) producer and reader, sorted."""
        producer = np.repeat(self.tensor_group, np.diff(self.reader_start))
        pairs = np.unique(np.stack([producer, self.reader]), axis=1)
        return np.ascontiguousarray(pairs[:, pairs[0] != pairs[1]], dtype=np.int32)

    @cached_property
    def regional(self) -> RegionalCosts:
        """What `dataflow` needs in addition."""
        tensor = np.repeat(np.arange(self.num_tensors), np.diff(self.reader_start))
        kind = np.zeros(tensor.size, dtype=np.uint8)
        kind[_filled(self.is_input, self.num_tensors)[tensor]] |= FROM_INPUT
        kind[_filled(self.is_output, tensor.size)] |= TO_OUTPUT
        edges = np.flatnonzero(kind == 0)
        edges = edges[np.argsort(self.reader[edges], kind="stable")]
        groups, producer = np.arange(self.num_groups + 1), self.tensor_group[tensor]
        return RegionalCosts(
            read_start=np.searchsorted(producer, groups).astype(np.uint32),
            read_tensor=tensor.astype(np.uint32),
            reader=self.reader.astype(np.uint32),
            read_kind=kind,
            edge_start=np.searchsorted(self.reader[edges], groups).astype(np.uint32),
            edge_tensor=tensor[edges].astype(np.uint32),
            edge_producer=producer[edges].astype(np.uint32),
            edge_reader=self.reader[edges].astype(np.uint32),
            is_idle=_filled(self.is_idle, self.num_groups),
            region_s=_filled(self.region_s, self.num_devices),
            crossing_s=_filled(self.crossing_s, self.num_devices),
            split_factor=_filled(self.split_factor, self.num_devices, 1),
        )

    @cached_property
    def inputs(self) -> tuple[Int32, Int32]:
        """(num_groups + 1,) where each group's inputs begin, and (num_readers,) the tensors."""
        tensor = np.repeat(np.arange(self.num_tensors), np.diff(self.reader_start))
        order = np.argsort(self.reader, kind="stable")
        start = np.searchsorted(self.reader[order], np.arange(self.num_groups + 1))
        return start.astype(np.int32), tensor[order].astype(np.int32)

    def with_times(self, compute_s: Float64, latency_s: Float64, s_per_byte: Float64) -> Costs:
        """Return a copy with other times, for the same groups, tensors and devices."""
        _ = self.inputs, self.regional, self.restricted  # not to be computed again by each copy
        made = copy.copy(self)  # takes a tenth of the time of `replace`
        times = {"compute_s": compute_s, "latency_s": latency_s, "s_per_byte": s_per_byte}
        made.__dict__.update(times)
        return made

    @cached_property
    def unit(self) -> Int64:
        """(num_groups,) numbers that only groups of one colour share, in the order of groups."""
        groups = np.arange(self.num_groups)
        label = np.where(self.colour == FREE, groups, groups.size + self.colour.astype(np.int64))
        _, first, unit = np.unique(label, return_index=True, return_inverse=True)
        return np.asarray(np.argsort(np.argsort(first))[unit], dtype=np.int64)

    @cached_property
    def restricted(self) -> bool:
        """Whether constraints, memory limits or colours forbid some placements."""
        limited = self.pool_bytes.size or np.isfinite(self.memory_bytes).any()
        return bool(self.constraints or limited or (self.colour != FREE).any())

    @property
    def num_groups(self) -> int:
        """Number of groups to place."""
        return int(self.compute_s.shape[0])

    @property
    def num_devices(self) -> int:
        """Number of devices."""
        return int(self.compute_s.shape[1])

    @property
    def num_tensors(self) -> int:
        """Number of tensors that leave their group."""
        return int(self.tensor_group.size)

    def memory_limits(self) -> Iterator[tuple[list[int], float]]:
        """Yield sets of devices, and the bytes that the weights on each set may take together.

        First come the devices with a limit of their own, then the pools that several share.
        """
        for device in np.flatnonzero(np.isfinite(self.memory_bytes)).tolist():
            yield [device], float(self.memory_bytes[device])
        for devices, limit in zip(self.pool_devices, self.pool_bytes.tolist(), strict=True):
            yield np.flatnonzero(devices).tolist(), limit

    def reachable_bytes(self) -> Float64:
        """Return the bytes of weights that each device can hold alone, (num_devices,)."""
        most = np.full(self.num_devices, np.inf)
        for devices, limit in self.memory_limits():
            most[devices] = np.minimum(most[devices], limit)
        return most

    def readers(self, tensor: int) -> Int32:
        """Return the groups that read a tensor, (num_readers,)."""
        return self.reader[self.reader_start[tensor] : self.reader_start[tensor + 1]]

    def transfer_s(self, tensor: int) -> Float64:
        """Return the seconds to move a tensor, (num_devices, num_devices) from, to."""
        return np.asarray(self.latency_s + self.tensor_bytes[tensor] * self.s_per_byte)


def free_costs(
    coarse: CoarseGraph,
    devices: Sequence[Device],
    colour: NDArray[np.integer] | None = None,
    shared_memory: Sequence[SharedMemory] = (),
) -> Costs:
    """Return costs in which every time is 0, for use without a profile.

    Args:
        coarse: the groups.
        devices: (num_devices,) with their memory limits.
        colour: (num_groups,) groups of one colour, other than `FREE`, must share a device.
        shared_memory: limits on what several of the devices hold together.

    Returns:
        Costs with sizes, memory limits and supported devices, but no times.

    Raises:
        DeviceError: when there are more than `MAX_PIPELINED` devices.
    """
    num_devices = len(devices)
    if num_devices > MAX_PIPELINED:
        raise DeviceError(f"Got {num_devices} devices; the simulator takes up to {MAX_PIPELINED}.")
    group_bytes = np.zeros(coarse.num_groups)
    np.add.at(group_bytes, coarse.op_group, coarse.graph.weight_bytes)
    limits = [device.memory_bytes for device in devices]
    tensor_group, tensor_bytes, reader_start, reader, is_input, is_output = _tensors(coarse)
    return Costs(
        compute_s=np.where(coarse.supported, 0.0, np.inf),
        tensor_group=tensor_group,
        tensor_bytes=tensor_bytes,
        reader_start=reader_start,
        reader=reader,
        latency_s=np.zeros((num_devices, num_devices)),
        s_per_byte=np.zeros((num_devices, num_devices)),
        subgraph_s=np.zeros(num_devices),
        group_bytes=group_bytes,
        memory_bytes=np.array([np.inf if limit is None else limit for limit in limits]),
        pays=np.ones(num_devices, dtype=np.bool_),
        colour=np.asarray(
            np.full(coarse.num_groups, FREE) if colour is None else colour, dtype=np.int32
        ),
        pool_devices=np.array(
            [[device.name in pool.devices for device in devices] for pool in shared_memory],
            dtype=np.bool_,
        ).reshape(-1, num_devices),
        pool_bytes=np.array([float(pool.memory_bytes) for pool in shared_memory]),
        is_input=is_input,
        is_output=is_output,
        is_idle=np.bincount(coarse.op_group, ~_idle_ops(coarse), coarse.num_groups) == 0,
    )


def without_times(costs: Costs) -> Costs:
    """Return a copy in which every time is 0, as from `free_costs`."""
    return replace(
        costs,
        compute_s=np.where(np.isfinite(costs.compute_s), 0.0, np.inf),
        latency_s=np.zeros_like(costs.latency_s),
        s_per_byte=np.zeros_like(costs.s_per_byte),
        subgraph_s=np.zeros_like(costs.subgraph_s),
        pays=np.ones_like(costs.pays),
        region_s=np.zeros_like(costs.region_s),
        crossing_s=np.zeros_like(costs.crossing_s),
        split_factor=np.ones_like(costs.split_factor),
    )


def _filled(values: NDArray[Any], size: int, default: int = 0) -> NDArray[Any]:
    """Return the values, or as many defaults if there are none."""
    return values if values.size else np.full(size, default, dtype=values.dtype)


def _idle_ops(coarse: CoarseGraph) -> Bool:
    """Return whether each op computes nothing in an inference, (num_ops,)."""
    return np.asarray(coarse.graph.is_constant | np.isin(coarse.graph.op_types, NO_WORK))


def _tensors(coarse: CoarseGraph) -> tuple[Int32, Float64, Int32, Int32, Bool, Bool]:
    """Return the tensors that leave their group, and their readers, row by row.

    Returns:
        Producer and size of each tensor; where its readers begin; the readers; whether the tensor
        is an input of the model, (num_tensors,); whether only outputs read it, (num_readers,).
    """
    graph = coarse.graph
    producer, consumer = coarse.op_group[graph.edge_index]
    leaves = (producer != consumer) & ~graph.is_constant[graph.edge_index[0]]
    columns = producer, graph.edge_index[0], graph.edge_port, consumer
    keys, first, place = np.unique(
        np.stack([column[leaves] for column in columns]),
        axis=1,
        return_index=True,
        return_inverse=True,
    )
    begins = np.ones(keys.shape[1], dtype=np.bool_)
    begins[1:] = (keys[:3, 1:] != keys[:3, :-1]).any(axis=0)
    starts = np.flatnonzero(begins)
    idle = _idle_ops(coarse)
    computes = np.bincount(place.ravel(), ~idle[graph.edge_index[1, leaves]], keys.shape[1])
    return (
        keys[0, starts].astype(np.int32),
        graph.edge_bytes[leaves][first[starts]],
        np.append(starts, keys.shape[1]).astype(np.int32),
        keys[3].astype(np.int32),
        idle[keys[1, starts]],
        computes == 0,
    )
