"""Workloads (graphs with given costs): readers of dnn-partitioning and PipeDream files."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from device_placement.envs.arrays import Float64, Int32
from device_placement.envs.costs import FREE, MAX_DEVICES
from device_placement.envs.devices import Device
from device_placement.envs.errors import DevicePlacementError, ModelError
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.graph.computation_graph import ComputationGraph
from device_placement.envs.simulation.profile import LARGEST_BYTES, HardwareProfile
from device_placement.envs.simulation.simulator import SimulatedEvaluator
from device_placement.envs.untrusted import parse_json, read_bytes, reading


@dataclass(frozen=True)
class Workload:
    """Graph of groups, and their costs on some devices."""

    coarse: CoarseGraph  # every node is its own group
    profile: HardwareProfile
    colour: Int32  # (num_groups,) groups of one colour share a device; -1: no such rule

    def evaluator(
        self,
        schedule: str = "max_load",
        devices: Sequence[Device] | None = None,
        constraints: Sequence[str] = (),
    ) -> SimulatedEvaluator:
        """Return an evaluator of its placements.

        Args:
            schedule: a name of `SCHEDULES`.
            devices: which of its devices; all of them by default.
            constraints: names of `CONSTRAINTS`.

        Raises:
            DevicePlacementError: on an unknown schedule, device or constraint.
        """
        names = [device.name for device in devices or self.profile.devices]
        profile = self.profile.select(names)
        columns = [self.coarse.graph.devices.index(name) for name in names]
        supported = self.coarse.supported[:, columns]
        graph = replace(self.coarse.graph, devices=tuple(names), supported=supported)
        coarse = replace(self.coarse, graph=graph, supported=supported)
        return SimulatedEvaluator(
            coarse,
            profile.devices,
            profile=profile,
            schedule=schedule,
            colour=self.colour,
            constraints=constraints,
        )


def load_workload(
    path: str | os.PathLike[str],
    *,
    accelerators: int | None = None,
    bytes_per_s: float = 10e9,
    training: bool = False,
) -> Workload:
    """Read a workload of dnn-partitioning (.json) or of PipeDream (.txt), and return it.

    dnn-partitioning (Tarnawski et al., NeurIPS 2020): devices are ``CPU``, a pool that pays for
    no communication, and the accelerators ``FPGA.0``, ``FPGA.1`` ... with their memory limit. A
    tensor costs the same on every link: the cost of its producer's edges. Nodes of one
    ``colorClass`` share a device. Use the schedule ``max_load``.

    PipeDream (Narayanan et al., SOSP 2019): devices are the equal GPUs ``GPU.0``, ``GPU.1`` ...

    Sizes that are not in a file (FLOPs, bytes of dnn-partitioning's tensors) are nominal:
    the time at 1 GFLOP/s on the first device, the cost at 1 GB/s.

    Args:
        path: the file.
        accelerators: number of accelerators; by default that of the file, or 4.
        bytes_per_s: of the links between PipeDream's GPUs.
        training: add the times of PipeDream's backward pass.

    Raises:
        ModelError: when the file can't be read or is not of one of the formats.
    """
    suffix = Path(path).suffix
    if suffix not in READERS:
        raise ModelError(f"Can't read {str(path)!r} as a workload; give {FORMS}.")
    if accelerators is not None and accelerators < 1:
        raise DevicePlacementError(f"Got accelerators={accelerators}; there must be 1 or more.")
    with reading(path, "a workload", f"give {FORMS}.", ModelError):
        raw = read_bytes(path)
        content = READERS[suffix](raw.decode(), accelerators, bytes_per_s, training)
        return _build(Path(path).stem, hashlib.sha256(raw).hexdigest(), content)


def is_workload(model: Any) -> bool:
    """Return whether a model is a file for `load_workload`."""
    return isinstance(model, str | os.PathLike) and Path(model).suffix in READERS


def _build(name: str, digest: str, content: WorkloadContent) -> Workload:
    """Number the nodes topologically, and return everything as arrays."""
    if not content.nodes:
        raise ValueError("it has no nodes")
    order = _topological(content)
    rank = {node: number for number, node in enumerate(order)}
    nodes = [content.nodes[node] for node in order]
    size = {(rank[a], rank[b]): size for a, b, size in content.edges}
    pairs = sorted(size)
    edge_index = np.array(pairs, dtype=np.int32).reshape(-1, 2).T
    # The edges of one producer carry one tensor; should its costs differ, the largest counts.
    tensor_bytes = np.zeros(len(nodes))
    sizes = np.array([size[pair] for pair in pairs])
    np.maximum.at(tensor_bytes, edge_index[0], sizes)
    op_s = np.array([node.times_s for node in nodes])
    if not ((sizes >= 0) & (sizes <= LARGEST_BYTES)).all():
        raise ValueError(f"a tensor's cost or size is negative or above {LARGEST_BYTES:g}")
    weight_bytes = np.array([node.weight_bytes for node in nodes])
    if not ((weight_bytes >= 0) & (weight_bytes <= LARGEST_BYTES)).all():
        raise ValueError(f"a node's size is negative or above {LARGEST_BYTES:g}")
    bytes_in = np.zeros(len(nodes))
    np.add.at(bytes_in, edge_index[1], tensor_bytes[edge_index[0]])
    graph = ComputationGraph(
        name=name,
        model_hash=digest,
        op_names=tuple(order),
        op_types=tuple(node.kind for node in nodes),
        output_shapes=tuple((int(size // 4),) for size in tensor_bytes),
        is_constant=np.zeros(len(nodes), dtype=np.bool_),
        flops=np.nan_to_num(op_s[:, 0]) * 1e9,
        bytes_in=bytes_in,
        bytes_out=tensor_bytes,
        weight_bytes=weight_bytes,
        edge_index=edge_index,
        edge_port=np.zeros(len(pairs), dtype=np.int32),
        edge_bytes=tensor_bytes[edge_index[0]],
        devices=tuple(device.name for device in content.devices),
        supported=~np.isnan(op_s),
        fusion_sets=(),
    )
    return Workload(_coarse(graph), _profile(graph, content, op_s), _colours(nodes))


def _topological(content: WorkloadContent) -> list[str]:
    """Return the nodes depth first, so that what is near in the order is near in the graph."""
    import networkx as nx  # here, so that environments without workloads start faster

    graph: nx.DiGraph[str] = nx.DiGraph()  # from readers to what they read
    graph.add_nodes_from(content.nodes)
    for source, target, _ in content.edges:
        if source not in content.nodes or target not in content.nodes:
            raise ValueError(f"an edge joins {source!r} and {target!r}, which are not both nodes")
        graph.add_edge(target, source)
    if not nx.is_directed_acyclic_graph(graph):
        raise ValueError("its edges make a cycle")
    last = [node for node in graph if graph.in_degree(node) == 0]
    return list(dict.fromkeys(one for end in last for one in nx.dfs_postorder_nodes(graph, end)))


def _coarse(graph: ComputationGraph) -> CoarseGraph:
    return CoarseGraph(
        graph=graph,
        method="none",
        op_group=np.arange(graph.num_ops, dtype=np.int32),
        num_groups=graph.num_ops,
        edge_index=graph.edge_index,
        edge_bytes=graph.edge_bytes,
        edge_tensors=np.ones(graph.num_edges, dtype=np.int32),
        supported=graph.supported,
    )


def _profile(graph: ComputationGraph, content: WorkloadContent, op_s: Float64) -> HardwareProfile:
    number = len(content.devices)
    bandwidth = np.full((number, number), content.bytes_per_s)
    np.fill_diagonal(bandwidth, np.inf)
    return HardwareProfile(
        name=graph.name,
        model=graph.name,
        model_hash=graph.model_hash,
        op_names=graph.op_names,
        devices=content.devices,
        op_s=op_s,
        latency_s=np.zeros((number, number)),
        bytes_per_s=bandwidth,
        subgraph_s=np.zeros(number),
        pays_transfers=content.pays_transfers,
    )


def _colours(nodes: Sequence[WorkloadNode]) -> Int32:
    """Return the colour of each node, (num_groups,), if others share it; else `FREE`."""
    colours = [node.colour for node in nodes]
    return np.array([one if colours.count(one) > 1 else FREE for one in colours], dtype=np.int32)


FORMS = "a dnn-partitioning file (.json) or a PipeDream profile (.txt)"
MS = 1e-3  # both formats are in milliseconds
NOMINAL_BYTES_PER_S = 1e9  # a tensor counts as the bytes that this link moves in its cost

_NODE = re.compile(r"(?P<id>\S+) -- (?P<op>.*?) -- (?P<numbers>\w+=.*?)( -- stage_id=\d+)?")
_EDGE = re.compile(r"\t(?P<source>\S+) -- (?P<target>\S+)")


@dataclass(frozen=True)
class WorkloadNode:
    """Node of a file; sizes in bytes."""

    kind: str
    times_s: tuple[float, ...]  # (num_devices,) NaN where it does not run
    weight_bytes: float
    colour: int = FREE


@dataclass(frozen=True)
class WorkloadContent:
    """Content of a file: nodes by name, and edges with the bytes of their tensor."""

    nodes: Mapping[str, WorkloadNode]
    edges: Sequence[tuple[str, str, float]]  # producer, consumer, bytes
    devices: tuple[Device, ...]
    pays_transfers: tuple[bool, ...]
    bytes_per_s: float  # between any two devices


def _read_partitioning(
    text: str, accelerators: int | None, bytes_per_s: float, training: bool
) -> WorkloadContent:
    content = parse_json(text)
    number = int(content["maxFPGAs"]) if accelerators is None else accelerators
    if number >= MAX_DEVICES:  # before anything of that size is made
        raise ValueError(f"maxFPGAs is {number}; the simulator takes {MAX_DEVICES} devices")
    memory_bytes = int(content["maxSizePerFPGA"])
    nodes = {}
    for one in content["nodes"]:
        accelerated_s = float(one["fpgaLatency"]) * MS if one["supportedOnFpga"] else np.nan
        kind = re.match("[A-Za-z]+", str(one.get("name", "")))
        nodes[str(one["id"])] = WorkloadNode(
            kind=(kind[0] if kind else "node") + "_backward" * bool(one["isBackwardNode"]),
            times_s=(float(one["cpuLatency"]) * MS, *[accelerated_s] * number),
            weight_bytes=float(one["size"]),
            colour=int(one.get("colorClass", FREE)),
        )
    if len(nodes) < len(content["nodes"]):
        raise ValueError("two nodes have the same id")
    return WorkloadContent(
        nodes=nodes,
        edges=[
            (
                str(one["sourceId"]),
                str(one["destId"]),
                float(one["cost"]) * MS * NOMINAL_BYTES_PER_S,
            )
            for one in content["edges"]
        ],
        devices=(
            Device("CPU"),
            *(Device(f"FPGA.{index}", memory_bytes=memory_bytes) for index in range(number)),
        ),
        pays_transfers=(False, *[True] * number),
        bytes_per_s=NOMINAL_BYTES_PER_S,
    )


def _read_pipedream(
    text: str, accelerators: int | None, bytes_per_s: float, training: bool
) -> WorkloadContent:
    number = 4 if accelerators is None else accelerators
    nodes, sizes, edges = {}, {}, []
    for line in text.splitlines():
        if edge := _EDGE.fullmatch(line):
            edges.append((edge["source"], edge["target"]))
        elif node := _NODE.fullmatch(line):
            values = dict(part.split("=", 1) for part in node["numbers"].split(", "))
            time_s = float(values["forward_compute_time"]) * MS
            if training:
                time_s += float(values["backward_compute_time"]) * MS
            kind = re.match(r"\w+", node["op"])
            nodes[node["id"]] = WorkloadNode(
                kind[0] if kind else "node", (time_s,) * number, float(values["parameter_size"])
            )
            # The file lists the sizes of several outputs as [1.0; 2.0].
            outputs = values["activation_size"].strip("[]").split(";")
            sizes[node["id"]] = sum(float(size) for size in outputs)
        elif line.strip():
            raise ValueError(f"neither a node nor an edge: {line[:60]!r}")
    return WorkloadContent(
        nodes=nodes,
        edges=[(source, target, sizes[source]) for source, target in edges],
        devices=tuple(Device(f"GPU.{index}") for index in range(number)),
        pays_transfers=(True,) * number,
        bytes_per_s=bytes_per_s,
    )


READERS: Mapping[str, Callable[[str, int | None, float, bool], WorkloadContent]] = {
    ".json": _read_partitioning,
    ".txt": _read_pipedream,
}
"""Suffix -> reader of the text; takes accelerators, bandwidth and training, too."""
