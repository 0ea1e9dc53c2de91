"""Chips with just enough memory, each of which holds a part of a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from device_placement.envs.devices import Device
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.graph.coarsening import CoarseGraph, coarsen
from device_placement.envs.graph.computation_graph import ComputationGraph
from device_placement.envs.simulation.hardware import HARDWARE
from device_placement.envs.simulation.roofline import derive_profile
from device_placement.envs.simulation.simulator import SimulatedEvaluator


def on_chips(
    graph: ComputationGraph,
    chips: int,
    *,
    room: float = 1.5,
    max_groups: int | None = None,
    constraints: str | Sequence[str] | None = None,
    hardware: str = "mcm",
) -> SimulatedEvaluator:
    """Return an evaluator of a model on chips whose memory is a multiple of an even share.

    A chip holds `room` times the bytes of all weights over the number of chips, or the largest
    group, if that is more. So how tight memory is does not depend on how large the model is.

    Args:
        graph: of the model.
        chips: how many, the first ones of the hardware.
        room: memory of a chip as a multiple of an even share of the weights, 1 or more.
        max_groups: maximum number of groups.
        constraints: names of `CONSTRAINTS`; those of the hardware by default.
        hardware: a name of `HARDWARE`.

    Raises:
        DevicePlacementError: when an argument is out of range, or nothing satisfies the
            constraints.

    >>> from device_placement.envs import load_model, read_graph
    >>> graph = read_graph(load_model("diamond"), "CPU", simulated=True)
    >>> on_chips(graph, 3, room=2.0).devices[2].name
    'NPU.2'
    """
    machine = HARDWARE[hardware]
    names = list(machine.devices)[:chips]
    if not 2 <= chips <= len(machine.devices):
        raise DevicePlacementError(
            f"Got {chips} chips; at least 2 are needed, and {hardware!r} has "
            f"{len(machine.devices)}."
        )
    if not 1 <= room < math.inf:
        raise DevicePlacementError(f"Got room={room}; it must be 1 or more.")
    everywhere = np.ones((graph.num_ops, chips), dtype=np.bool_)
    graph = replace(graph, devices=tuple(names), supported=everywhere)
    profile = derive_profile(graph, hardware, names)
    coarse = coarsen(graph, max_groups=max_groups)
    size = chip_bytes(coarse, chips, room)
    devices = tuple(Device(name, memory_bytes=size) for name in names)
    return SimulatedEvaluator(
        coarse,
        devices,
        profile=replace(profile, devices=devices),
        schedule=machine.schedule,
        constraints=machine.constraints if constraints is None else constraints,
    )


def chip_bytes(coarse: CoarseGraph, chips: int, room: float) -> int:
    """Return the memory of each chip, in bytes; see `on_chips`."""
    weights = np.bincount(coarse.op_group, coarse.graph.weight_bytes, coarse.num_groups)
    return max(1, math.ceil(max(room * float(weights.sum()) / chips, float(weights.max()))))
