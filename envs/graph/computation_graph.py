"""Computation graph of a normalised model: each op's type, shape, FLOPs, bytes and devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov

from device_placement.envs.arrays import Bool, Float64, Int32, Int64
from device_placement.envs.devices import Device, make_core, parse_devices, supported_ops
from device_placement.envs.errors import DeviceError, ModelError
from device_placement.envs.graph.flops import op_flops
from device_placement.envs.graph.shapes import largest_shape
from device_placement.envs.graph.tied_ops import STATE_TYPES, TiedOps, read_tied_ops
from device_placement.envs.models.loading import model_hash
from device_placement.envs.models.normalisation import bodies_of, input_name

if TYPE_CHECKING:
    import networkx as nx

IN_F32 = {"INFERENCE_PRECISION_HINT": "f32"}
NO_WORK = ("Parameter", "Result")  # their tensors are there at the beginning, or leave at the end


@dataclass(frozen=True)
class ComputationGraph:
    """The DAG of ops of one model; ops are numbered in topological order.

    There is one edge per input of an op, so two ops may be joined by several.
    Edges with the same producer and the same ``edge_port`` carry the same tensor.
    Where a shape depends on the data, it, FLOPs and bytes are upper bounds; a size that has
    none counts as 1.
    """

    name: str
    model_hash: str
    op_names: tuple[str, ...]  # (num_ops,) friendly names of the normalised model
    op_types: tuple[str, ...]  # (num_ops,) OpenVINO type names
    output_shapes: tuple[tuple[int, ...], ...]  # (num_ops,) of the first output
    is_constant: Bool  # (num_ops,) Constants, and ops computed from Constants alone
    flops: Float64  # (num_ops,) floating-point operations of one inference
    bytes_in: Float64  # (num_ops,) of the inputs that are not constant
    bytes_out: Float64  # (num_ops,) of all outputs
    weight_bytes: Float64  # (num_ops,) of a Constant, or of those in the bodies of a loop
    edge_index: Int32  # (2, num_edges) producer, consumer
    edge_port: Int32  # (num_edges,) output port of the producer
    edge_bytes: Float64  # (num_edges,) size of the tensor
    devices: tuple[str, ...]  # (num_devices,) device names
    supported: Bool  # (num_ops, num_devices)
    fusion_sets: tuple[tuple[int, ...], ...]  # ops that the first device runs as one node
    tied: tuple[TiedOps, ...] = ()  # disjoint sets of ops that must share a group
    inputs: tuple[tuple[int, str], ...] = ()  # op and name of each input of the model

    @property
    def num_ops(self) -> int:
        """Number of ops, constants included."""
        return len(self.op_names)

    @property
    def num_edges(self) -> int:
        """Number of edges, one per input of an op."""
        return int(self.edge_index.shape[1])

    def to_networkx(self) -> nx.MultiDiGraph[int]:
        """Return the graph for NetworkX: op numbers as nodes, properties of ops as attributes.

        >>> from device_placement.envs import load_model, read_graph
        >>> graph = read_graph(load_model("diamond"), "CPU").to_networkx()
        >>> sum(kind == "Add" for _, kind in graph.nodes(data="type")) > 0
        True
        """
        import networkx as nx

        result: nx.MultiDiGraph[int] = nx.MultiDiGraph(name=self.name)
        for op, (name, kind) in enumerate(zip(self.op_names, self.op_types, strict=True)):
            shape, flops = self.output_shapes[op], float(self.flops[op])
            result.add_node(op, name=name, type=kind, shape=shape, flops=flops)
        columns = (*self.edge_index, self.edge_port, self.edge_bytes)
        for producer, consumer, port, size in zip(*columns, strict=True):
            result.add_edge(int(producer), int(consumer), port=int(port), bytes=float(size))
        return result


def read_graph(
    model: ov.Model,
    devices: str | Device | Sequence[str | Device],
    core: ov.Core | None = None,
    simulated: bool = False,
    fusion: Mapping[str, str] | None = None,
) -> ComputationGraph:
    """Read the computation graph of a normalised model, and return it.

    Args:
        model: from `load_model`.
        devices: as `parse_devices` takes them. Fusion sets come from compiling the model
            on the first of them, supported ops from a query to each.
        core: made by `make_core` for these devices; a new one if None.
        simulated: the devices need not be on this machine. Then every op counts as
            supported by every device, and the fusion sets are the CPU's.
        fusion: properties of the device that the fusion sets are read from. By default a simulated
            CPU computes in f32, as what it fuses in its own precision depends on the processor,
            and a device to measure has none.

    Raises:
        DeviceError: when a device is missing or can't be loaded.
        ModelError: when the first device can't compile the model.
    """
    parsed = parse_devices(devices)
    core = core or make_core(("CPU",) if simulated else parsed)
    ops = model.get_ordered_ops()
    names = tuple(op.get_friendly_name() for op in ops)
    number = {name: index for index, name in enumerate(names)}
    edges = read_edges(ops)
    constant = constant_ops(ops, edges)
    bytes_in = np.zeros(len(ops))
    np.add.at(bytes_in, edges[1], np.where(constant[edges[0]], 0, edges[3]))
    host = parsed[0].name if not simulated else "CPU"
    properties = fusion if fusion is not None else IN_F32 if simulated else {}
    return ComputationGraph(
        name=model.get_friendly_name(),
        model_hash=model_hash(model),
        op_names=names,
        op_types=tuple(op.get_type_name() for op in ops),
        output_shapes=tuple(_first_shape(op) for op in ops),
        is_constant=constant,
        flops=np.where(constant, 0.0, [op_flops(op) for op in ops]),
        bytes_in=bytes_in,
        bytes_out=np.array([_bytes_out(op) for op in ops]),
        weight_bytes=np.array([_weight_bytes(op) for op in ops]),
        edge_index=edges[:2].astype(np.int32),
        edge_port=edges[2].astype(np.int32),
        edge_bytes=edges[3].astype(np.float64),
        devices=tuple(device.name for device in parsed),
        supported=_read_support(core, model, parsed, names, simulated),
        fusion_sets=_read_fusion_sets(core, model, host, properties, number, edges[:2], constant),
        tied=read_tied_ops(ops, edges[:2], constant),
        inputs=tuple(
            (number[port.get_node().get_friendly_name()], input_name(port)) for port in model.inputs
        ),
    )


def read_edges(ops: Sequence[Any]) -> Int64:
    """Return rows of producer, consumer, output port and bytes, with one column per input.

    Args:
        ops: (num_ops,) in topological order.
    """
    number = {op.get_friendly_name(): index for index, op in enumerate(ops)}
    rows = [
        (
            number[value.get_node().get_friendly_name()],
            consumer,
            value.get_index(),
            _tensor_bytes(value),
        )
        for consumer, op in enumerate(ops)
        for value in op.input_values()
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 4).T


def _tensor_bytes(output: Any) -> int:
    elements = int(np.prod(largest_shape(output), dtype=np.int64))
    return -(-elements * int(output.get_element_type().get_bitwidth()) // 8)


def constant_ops(ops: Sequence[Any], edges: Int64) -> Bool:
    """Return which ops are Constants or computed from Constants alone, (num_ops,).

    Args:
        ops: (num_ops,) in topological order.
        edges: from `read_edges`; the first two rows are enough.
    """
    constant = np.array([op.get_type_name() == "Constant" for op in ops], dtype=np.bool_)
    producers: list[list[int]] = [[] for _ in ops]
    for producer, consumer in edges[:2].T.tolist():
        producers[consumer].append(producer)
    for op, sources in enumerate(producers):
        if sources and ops[op].get_type_name() not in ("Result", *STATE_TYPES):
            constant[op] = bool(constant[sources].all())
    return constant


def _first_shape(op: Any) -> tuple[int, ...]:
    return largest_shape(op.output(0)) if op.get_output_size() else ()


def _bytes_out(op: Any) -> float:
    if op.get_type_name() == "Result":
        return 0.0
    return float(sum(_tensor_bytes(output) for output in op.outputs()))


def _weight_bytes(op: Any) -> float:
    """Return the bytes of a Constant, or of the Constants in an op's bodies."""
    if op.get_type_name() == "Constant":
        return float(_tensor_bytes(op.output(0)))
    return sum(_weight_bytes(inner) for body in bodies_of(op) for inner in body.get_ops())


def _read_support(
    core: ov.Core,
    model: ov.Model,
    devices: Sequence[Device],
    names: Sequence[str],
    simulated: bool,
) -> Bool:
    if simulated:
        return np.ones((len(names), len(devices)), dtype=np.bool_)
    columns = []
    for device in devices:
        try:
            known = supported_ops(core, model, device.name)
        except RuntimeError as error:
            raise DeviceError(f"The device {device.name!r} can't be loaded: {error}") from error
        columns.append([name in known for name in names])
    return np.array(columns, dtype=np.bool_).T.copy()


def _read_fusion_sets(
    core: ov.Core,
    model: ov.Model,
    device: str,
    properties: Mapping[str, str],
    number: Mapping[str, int],
    edges: Int64,
    constant: Bool,
) -> tuple[tuple[int, ...], ...]:
    """Return the ops that the device runs as one node, from the runtime model's original names.

    See OpenVINO's "Runtime model" page: ``originalLayersNames`` is comma-separated. An op
    that no node lists (the MatMul of a MatMul with bias, say) was fused into its only consumer.
    """
    try:
        # In a thread of its own: with some properties, OpenVINO changes how the calling thread
        # rounds numbers next to 0, for good.
        with ThreadPoolExecutor(1) as thread:
            compiled = thread.submit(core.compile_model, model, device, dict(properties)).result()
        runtime = compiled.get_runtime_model()
    except RuntimeError as error:
        raise ModelError(
            f"The first device, {device!r}, can't compile {model.get_friendly_name()!r}: "
            f"{error} Put a device that can first."
        ) from error
    node_of = np.full(len(number), -1)
    for node, op in enumerate(runtime.get_ordered_ops()):
        for name in op.get_rt_info()["originalLayersNames"].astype(str).split(","):
            if name in number and node_of[number[name]] < 0:
                node_of[number[name]] = node
    for op in np.flatnonzero((node_of < 0) & ~constant)[::-1]:
        consumers = np.unique(edges[1, edges[0] == op])
        if consumers.size == 1:
            node_of[op] = node_of[consumers[0]]
    sets: dict[int, list[int]] = {}
    for op in np.flatnonzero((node_of >= 0) & ~constant):
        sets.setdefault(int(node_of[op]), []).append(int(op))
    return tuple(sorted(tuple(members) for members in sets.values() if len(members) > 1))
