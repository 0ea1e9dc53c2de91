"""Random layered graphs of any size, reproducible by seed, and simulators for them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from device_placement.envs.devices import parse_devices
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.factory import check_several, simulate, usual_devices
from device_placement.envs.graph.computation_graph import ComputationGraph
from device_placement.envs.simulation.roofline import derive_profile
from device_placement.envs.simulation.simulator import SimulatedEvaluator

PREFIX = "layered:"
MOST_OPS = 1_000_000  # a minute or two, and a gigabyte
WIDTHS = 2, 12  # least and most ops of a layer
INPUTS = 1, 3  # of an op, from the layer before
SKIPS = 0.1  # share of inputs that come from further up instead
REACH = 8  # layers that such an input skips at most
TYPES = ("MatMul", "Convolution", "Add", "Relu")
COMPUTED = 2  # the first types have their own FLOPs, the others one per element
BYTES = 1e4, 1e6  # smallest and largest tensor, log-uniform
FLOPS = 1e7, 1e9  # likewise


def layered_graph(
    num_ops: int, seed: int = 0, devices: Sequence[str] = ("CPU",)
) -> ComputationGraph:
    """Draw a DAG whose ops are in layers of random width and read from earlier layers.

    Args:
        num_ops: number of ops, at least 2.
        seed: of all random choices.
        devices: names; each supports every op.

    Raises:
        DevicePlacementError: when there are too few ops.

    >>> graph = layered_graph(100)
    >>> graph.num_ops, bool((graph.edge_index[0] < graph.edge_index[1]).all())
    (100, True)
    """
    if num_ops < 2:
        raise DevicePlacementError(f"Got {num_ops} ops; a layered graph has at least 2.")
    generator = np.random.default_rng(seed)
    layers = _layers(num_ops, generator)
    edge_index = np.array(_edges(layers, generator), dtype=np.int32).reshape(-1, 2).T
    kind = generator.integers(len(TYPES), size=num_ops)
    size = _between(*BYTES, num_ops, generator).round()
    flops = np.where(kind < COMPUTED, _between(*FLOPS, num_ops, generator), size / 4).round()
    edge_bytes = size[edge_index[0]]
    return ComputationGraph(
        name=f"{num_ops} ops in layers",
        model_hash=f"{PREFIX}{num_ops}:{seed}",
        op_names=tuple(f"op{op}" for op in range(num_ops)),
        op_types=tuple(TYPES[one] for one in kind),
        output_shapes=tuple((1, int(one) // 4) for one in size),
        is_constant=np.zeros(num_ops, dtype=np.bool_),
        flops=flops,
        bytes_in=np.bincount(edge_index[1], edge_bytes, minlength=num_ops).astype(np.float64),
        bytes_out=size,
        weight_bytes=np.zeros(num_ops),
        edge_index=edge_index,
        edge_port=np.zeros(len(edge_bytes), dtype=np.int32),
        edge_bytes=edge_bytes,
        devices=tuple(devices),
        supported=np.ones((num_ops, len(devices)), dtype=np.bool_),
        fusion_sets=(),
    )


def layered_evaluator(
    model: str,
    hardware: str,
    devices: str = "auto",
    schedule: str = "sequential",
    max_groups: int | None = None,
) -> SimulatedEvaluator:
    """Make a simulator for a random graph on a machine of the table `HARDWARE`.

    Args:
        model: ``layered:OPS`` or ``layered:OPS:SEED``.
        hardware: a name of the table.
        devices: what `parse_devices` takes; those that the machine has by default.
        schedule: a name of `SCHEDULES`.
        max_groups: maximum number of groups; one per op by default.

    Raises:
        DevicePlacementError: when any of them is invalid.
    """
    ops, _, seed = model.removeprefix(PREFIX).partition(":")
    whole = re.fullmatch("[0-9]{1,18}", ops) and re.fullmatch("[0-9]{0,18}", seed)
    if not whole or not 1 <= int(ops) <= MOST_OPS:
        raise DevicePlacementError(
            f"Got the model {model!r}; give {PREFIX}OPS or {PREFIX}OPS:SEED, with 1 to {MOST_OPS} "
            "ops."
        )
    chosen = usual_devices(hardware) if devices == "auto" else devices
    parsed = check_several(parse_devices(chosen))
    graph = layered_graph(int(ops), int(seed or 0), [device.name for device in parsed])
    profile = derive_profile(graph, hardware, parsed)
    return simulate(graph, parsed, profile, max_groups=max_groups, schedule=schedule)


def _layers(num_ops: int, generator: np.random.Generator) -> list[range]:
    """Return the ops of each layer."""
    layers, first = [], 0
    while first < num_ops:
        width = int(generator.integers(WIDTHS[0], WIDTHS[1] + 1))
        layers.append(range(first, min(first + width, num_ops)))
        first += width
    return layers


def _edges(layers: Sequence[range], generator: np.random.Generator) -> list[tuple[int, int]]:
    """Draw producer and consumer of each edge; ops after the first layer have an input."""
    edges = set()
    for number, layer in enumerate(layers[1:], start=1):
        for op in layer:
            for _ in range(generator.integers(INPUTS[0], INPUTS[1] + 1)):
                back = 1
                if generator.random() < SKIPS:
                    back = int(generator.integers(1, min(REACH, number) + 1))
                edges.add((int(generator.choice(layers[number - back])), op))
    return sorted(edges, key=lambda edge: (edge[1], edge[0]))


def _between(
    least: float, most: float, number: int, generator: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Draw log-uniform numbers."""
    return np.exp(generator.uniform(np.log(least), np.log(most), number))
