"""Op times of a model on a device, by OpenVINO's profiler."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import openvino as ov

from device_placement.envs.arrays import Float64
from device_placement.envs.devices import Device, is_cpu
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.graph.coarsening import coarsen
from device_placement.envs.graph.computation_graph import ComputationGraph
from device_placement.envs.measuring.inputs import Samples, invented_inputs
from device_placement.envs.measuring.lock import machine_lock
from device_placement.envs.measuring.program import is_stateful, prepare
from device_placement.envs.placement import Placement
from device_placement.envs.simulation.hardware import HARDWARE
from device_placement.envs.simulation.roofline import roofline_times

WARMUP, MIN_RUNS, MAX_RUNS = 3, 5, 30
MAX_SECONDS = 5.0  # no run begins after this long
RESOLUTION_S = 1e-6  # the profiler counts whole microseconds, so a node that reads 0 took less
PREFIX = re.compile(r"subgraph\d+: ")  # HETERO puts this before the name of an executed node


@dataclass(frozen=True)
class ExecutedNode:
    """Node that a device runs: one op, several fused ops, or an inserted reorder."""

    name: str
    ops: tuple[str, ...]  # names of the ops fused into it; none when it was inserted
    readers: tuple[str, ...]  # names of the nodes that read its output, each once
    time_s: float


def measure_op_times(
    core: ov.Core,
    model: ov.Model,
    graph: ComputationGraph,
    devices: Sequence[Device],
    device: int,
    samples: Samples | None = None,
) -> Float64:
    """Profile a model on one of its devices with OpenVINO's profiler, and return its op times.

    Ops that the device does not support run on the first one that does. See "Performance
    counters" (``PERF_COUNT``, ``get_profiling_info``) and ``get_runtime_model`` in
    OpenVINO's documentation.

    Args:
        core: made by `make_core` for the devices.
        model: the normalised model.
        graph: its graph, for the same devices.
        devices: (num_devices,) in the order of the graph.
        device: number of the device to profile.
        samples: of the inputs, run in turn; invented if None.

    Returns:
        (num_ops,) seconds of each op, from `estimate_unseen` and `share_out`; NaN if the device
        does not support it. If its profiler reports nothing, the scale of the times is arbitrary.

    Raises:
        DevicePlacementError: when the device can't run its part.
    """
    alone = coarsen(graph, "none")
    homes = np.where(alone.supported[:, device], device, alone.supported.argmax(axis=1))
    placement = Placement.from_groups(alone, devices, homes.tolist())
    placed = model.clone()
    placement.set_affinities(placed)
    try:
        with machine_lock():
            nodes = _run(core, placed, placement.hetero_name, samples or invented_inputs(model))
    except RuntimeError as error:
        raise DevicePlacementError(
            f"{devices[device]} can't run {graph.name!r} with its profiler on: {error} Leave the "
            "device out."
        ) from error
    here = np.array(placement.op_devices) == device
    op_s = share_out(graph, estimate_unseen(graph, nodes))
    known = graph.supported[:, device] & (here | graph.is_constant)
    return np.where(known, op_s, np.nan)


def estimate_unseen(graph: ComputationGraph, nodes: Sequence[ExecutedNode]) -> list[ExecutedNode]:
    """Estimate times from FLOPs and bytes for nodes that the profiler reported as 0.

    The estimates are roofline times on a generic CPU, scaled by the ratio of reported to roofline
    time of the other nodes. They are at most `RESOLUTION_S`, because more would have been
    reported. If no time was reported, they are not scaled.

    Args:
        graph: of the ops.
        nodes: in a topological order.

    Returns:
        The nodes in the same order. Only nodes without ops that compute still take 0.
    """
    rooflines = roofline_times(graph, HARDWARE["desktop"].devices["CPU"])
    expected_s = np.array([rooflines[ops].sum() for ops in _members(graph, nodes)])
    taken_s = np.array([node.time_s for node in nodes])
    seen = (taken_s > 0) & (expected_s > 0)
    scale, limit_s = 1.0, np.inf
    if seen.any():
        scale, limit_s = taken_s[seen].sum() / expected_s[seen].sum(), RESOLUTION_S
    estimated_s = np.minimum(scale * expected_s, limit_s).tolist()
    return [
        node if node.time_s else replace(node, time_s=time_s)
        for node, time_s in zip(nodes, estimated_s, strict=True)
    ]


def share_out(graph: ComputationGraph, nodes: Sequence[ExecutedNode]) -> Float64:
    """Return the time of each op, from the times of the nodes that ops were fused into.

    A node's time is divided among its ops by FLOPs, or evenly if none has any; that of an
    inserted node is divided evenly among the nodes that read it. An op that no node lists was
    fused into its only reader. Constants take no time.

    Args:
        graph: of the ops.
        nodes: in a topological order.

    Returns:
        (num_ops,) seconds.
    """
    time_s = {node.name: node.time_s for node in nodes}
    op_s = np.zeros(graph.num_ops)
    for node, ops in zip(nodes, _members(graph, nodes), strict=True):
        if ops:
            flops = graph.flops[ops]
            shares = flops / flops.sum() if flops.any() else np.full(len(ops), 1 / len(ops))
            op_s[ops] += shares * time_s[node.name]
            continue
        for reader in node.readers:
            time_s[reader] += time_s[node.name] / len(node.readers)
    return op_s


def _members(graph: ComputationGraph, nodes: Sequence[ExecutedNode]) -> list[list[int]]:
    """Return the ops of each node, without constants."""
    numbers = {name: op for op, name in enumerate(graph.op_names) if not graph.is_constant[op]}
    members = [[numbers[name] for name in node.ops if name in numbers] for node in nodes]
    home = {op: ops for ops in reversed(members) for op in ops}
    producer, consumer = graph.edge_index
    for op in np.flatnonzero(~graph.is_constant)[::-1].tolist():
        readers = np.unique(consumer[producer == op]).tolist()
        if op not in home and len(readers) == 1 and readers[0] in home:
            home[op] = home[readers[0]]
            home[op].append(op)
    return members


def _run(core: ov.Core, model: ov.Model, device_name: str, samples: Samples) -> list[ExecutedNode]:
    """Compile and run a model; return its nodes in topological order, with their times.

    The time of a node is its median for each sample, and their mean over the samples.
    """
    config = {"PERFORMANCE_HINT": "LATENCY", "PERF_COUNT": True}
    compiled = core.compile_model(model, device_name, config)
    request = compiled.create_infer_request()
    tensors, stateful = samples.tensors(compiled), is_stateful(model)
    times: dict[str, list[list[float]]] = {}
    start = time.perf_counter()
    for done in range(-WARMUP, MAX_RUNS):
        if done >= MIN_RUNS and time.perf_counter() - start > MAX_SECONDS:
            break
        for number, sample in enumerate(tensors):
            prepare(request, sample, stateful)
            request.infer()
            for node in request.get_profiling_info() if done >= 0 else ():
                name = PREFIX.sub("", node.node_name, count=1)
                several = times.setdefault(name, [[] for _ in tensors])
                several[number].append(node.real_time.total_seconds())
    time_s = {
        name: statistics.fmean(statistics.median(one or [0.0]) for one in several)
        for name, several in times.items()
    }
    nodes = [_read_node(node, time_s) for node in compiled.get_runtime_model().get_ordered_ops()]
    profiled = {node.name for node in nodes}  # some plugins name the same node differently
    others = {name: taken for name, taken in time_s.items() if taken and name not in profiled}
    return nodes + [ExecutedNode(name, (name,), (), taken) for name, taken in others.items()]


def _read_node(node: Any, time_s: dict[str, float]) -> ExecutedNode:
    name = node.get_friendly_name()
    ops = node.get_rt_info()["originalLayersNames"].astype(str).split(",")
    ports = [port for output in node.outputs() for port in output.get_target_inputs()]
    readers = dict.fromkeys(port.get_node().get_friendly_name() for port in ports)
    return ExecutedNode(name, tuple(filter(None, ops)), tuple(readers), time_s.get(name, 0.0))


def alike_devices(core: ov.Core, devices: Sequence[Device]) -> list[list[int]]:
    """Return the numbers of devices by kind: those of one kind are equal hardware, set up equally.

    >>> from device_placement.envs.devices import make_core, parse_devices
    >>> three = parse_devices("CPU,CPU_B,CPU_C:INFERENCE_NUM_THREADS=1")
    >>> alike_devices(make_core(three), three)
    [[0, 1], [2]]
    """
    kinds: dict[tuple[object, ...], list[int]] = {}
    for number, device in enumerate(devices):
        try:
            hardware = str(core.get_property(device.name, "FULL_DEVICE_NAME"))
        except RuntimeError:  # not reported: like no other
            hardware = device.name
        settings = tuple(sorted(device.openvino_properties.items()))
        kinds.setdefault((is_cpu(device.name), hardware, settings), []).append(number)
    return list(kinds.values())
