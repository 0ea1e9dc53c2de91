"""The formats of workloads made elsewhere: text in, nodes and edges out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from device_placement.envs.devices import Device
from device_placement.envs.execution.costs import FREE

MS = 1e-3  # both formats tell milliseconds
NOMINAL_BYTES_PER_S = 1e9  # a tensor counts as the bytes that this link moves in its cost

_NODE = re.compile(r"(?P<id>\S+) -- (?P<op>.*?) -- (?P<numbers>\w+=.*?)( -- stage_id=\d+)?")
_EDGE = re.compile(r"\t(?P<source>\S+) -- (?P<target>\S+)")


@dataclass(frozen=True)
class WorkloadNode:
    """One node of a file; sizes in bytes."""

    kind: str
    times_s: tuple[float, ...]  # (num_devices,) NaN where it does not run
    weight_bytes: float
    colour: int = FREE


@dataclass(frozen=True)
class WorkloadContent:
    """A file, read: nodes by their names, edges with the bytes of their tensor."""

    nodes: Mapping[str, WorkloadNode]
    edges: Sequence[tuple[str, str, float]]  # producer, consumer, bytes
    devices: tuple[Device, ...]
    pays_transfers: tuple[bool, ...]
    bytes_per_s: float  # between any two devices


def _read_partitioning(
    text: str, accelerators: int | None, bytes_per_s: float, training: bool
) -> WorkloadContent:
    content = json.loads(text)
    number = int(content["maxFPGAs"]) if accelerators is None else accelerators
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
            # Of several outputs the file tells the sizes as [1.0; 2.0].
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
"""Suffix -> reader of the text, for so many accelerators, links and passes."""
