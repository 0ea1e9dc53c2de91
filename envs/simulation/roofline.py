"""Roofline profiles of other machines, from a model's sizes and data-sheet numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from device_placement.envs.arrays import Float64
from device_placement.envs.devices import Device, parse_devices
from device_placement.envs.errors import DeviceError, choose, unknown
from device_placement.envs.graph.computation_graph import ComputationGraph
from device_placement.envs.simulation.hardware import (
    HARDWARE,
    PAPER_SINGLES_S,
    DeviceSheet,
    Hardware,
    Link,
)
from device_placement.envs.simulation.profile import HardwareProfile, select_pools

FORMULA = (
    "time of an op = launch + max(FLOPs / (efficiency * peak), bytes in, out and of weights / "
    "(efficiency of memory * bandwidth)); 0 for constants, Parameters, Results and reshapes"
)
CLASSES = {
    "Convolution": "convolution",
    "GroupConvolution": "convolution",
    "ConvolutionBackpropData": "convolution",
    "MatMul": "product",
    "ScaledDotProductAttention": "product",
    "LSTMSequence": "product",
    "GRUSequence": "product",
}
FREE_OPS = ("Constant", "Parameter", "Result", "Reshape", "Squeeze", "Unsqueeze")


def derive_profile(
    graph: ComputationGraph,
    hardware: str | Hardware = "desktop",
    devices: str | Sequence[str | Device] | None = None,
) -> HardwareProfile:
    """Return the roofline costs of a model on a machine of the table `HARDWARE`.

    On the machine ``paper``, the times of Inception-V3, ResNet-50 and BERT-base are multiplied
    by one factor per device, so that the singles take the times of the paper's table 2.

    Args:
        graph: of the model.
        hardware: a name of `HARDWARE`, or a machine of your own.
        devices: which of its devices, in this order; all of them by default. An unknown name
            takes the numbers of the device whose kind it begins with: ``GPU.2`` those of
            ``GPU``, ``CPU_F32`` those of ``CPU``.

    Raises:
        DevicePlacementError: on an unknown machine or device.

    >>> from device_placement.envs import load_model, read_graph
    >>> graph = read_graph(load_model("diamond"), "CPU,GPU.1", simulated=True)
    >>> derive_profile(graph, "paper", "CPU,GPU.1").provenance["kind"]
    'derived'
    """
    name = hardware if isinstance(hardware, str) else hardware.title
    machine = choose("hardware", hardware, HARDWARE) if isinstance(hardware, str) else hardware
    parsed = parse_devices(list(machine.devices) if devices is None else devices)
    homes = {device.name: _home(device.name, machine, name) for device in parsed}
    sheets = [machine.devices[homes[device.name]] for device in parsed]
    op_s = np.stack([roofline_times(graph, sheet) for sheet in sheets], axis=1)
    factors = _factors(graph, name, parsed, op_s)
    links = [[_link(machine, homes, a.name, b.name) for b in parsed] for a in parsed]
    return HardwareProfile(
        name=f"{graph.name} on {name}",
        model=graph.name,
        model_hash=graph.model_hash,
        op_names=graph.op_names,
        devices=tuple(
            Device(device.name, device.properties, device.memory_bytes or sheet.memory_bytes)
            for device, sheet in zip(parsed, sheets, strict=True)
        ),
        op_s=op_s * [factors.get(device.name, 1.0) for device in parsed],
        latency_s=np.array([[link.latency_s for link in row] for row in links]),
        bytes_per_s=np.array([[link.bytes_per_s for link in row] for row in links]),
        subgraph_s=np.zeros(len(parsed)),
        pays_transfers=(True,) * len(parsed),
        provenance=_provenance(machine, homes, sheets, factors),
        shared_memory=select_pools(machine.shared_memory, homes),
    )


def roofline_times(graph: ComputationGraph, sheet: DeviceSheet) -> Float64:
    """Return (num_ops,) seconds by `FORMULA`; NaN for what the device lacks."""
    # Ops of no class are limited by the bandwidth; their few FLOPs run at the rate of products.
    share = np.array([sheet.efficiency[CLASSES.get(kind, "product")] for kind in graph.op_types])
    compute_s = graph.flops / (share * sheet.flops_per_s)
    moved = graph.bytes_in + graph.bytes_out + _weights_read(graph)
    memory_s = moved / (sheet.efficiency["memory"] * sheet.bytes_per_s)
    times = sheet.launch_s + np.maximum(compute_s, memory_s)
    free = graph.is_constant | np.isin(graph.op_types, FREE_OPS)
    return np.where(np.isin(graph.op_types, sheet.lacks) & ~free, np.nan, np.where(free, 0, times))


def _weights_read(graph: ComputationGraph) -> Float64:
    """Return the bytes of the constants that each op reads, (num_ops,)."""
    producer, consumer = graph.edge_index
    constant = graph.is_constant[producer]
    return np.bincount(
        consumer[constant], graph.edge_bytes[constant], minlength=graph.num_ops
    ).astype(np.float64)


def _factors(
    graph: ComputationGraph, hardware: str, devices: Sequence[Device], op_s: Float64
) -> dict[str, float]:
    """Return the factor on the times of each device whose single the paper reports."""
    if hardware != "paper":
        return {}
    singles = PAPER_SINGLES_S.get(graph.name, {})
    return {
        device.name: singles[device.name] / float(op_s[:, number].sum())
        for number, device in enumerate(devices)
        if device.name in singles
    }


def _home(device: str, machine: Hardware, name: str) -> str:
    """Return the device of the table whose numbers a name takes."""
    if device in machine.devices:
        return device
    fitting = [known for known in machine.devices if device.startswith(known.partition(".")[0])]
    if not fitting:
        raise DeviceError(unknown(f"device of the hardware {name!r}", device, machine.devices))
    return fitting[0]


def _link(machine: Hardware, homes: Mapping[str, str], source: str, target: str) -> Link:
    if source == target:
        return Link(0.0, float("inf"))
    return machine.links.get((homes[source], homes[target]), machine.link)


def _provenance(
    machine: Hardware,
    homes: Mapping[str, str],
    sheets: Sequence[DeviceSheet],
    factors: Mapping[str, float],
) -> dict[str, Any]:
    return {
        "kind": "derived",
        "formula": FORMULA,
        "hardware": machine.title,
        "sources": list(machine.sources),
        "devices": {
            name: {
                "title": sheet.title,
                "flops_per_s": sheet.flops_per_s,
                "bytes_per_s": sheet.bytes_per_s,
                "launch_s": sheet.launch_s,
                "efficiency": dict(sheet.efficiency),
                "lacks": list(sheet.lacks),
                "fitted_factor": factors.get(name, 1.0),
            }
            for name, sheet in zip(homes, sheets, strict=True)
        },
        "fitted": (
            "times multiplied by fitted_factor, so that the singles take the times of table 2 of "
            "arXiv 2405.14185"
            if factors
            else "nothing"
        ),
    }
