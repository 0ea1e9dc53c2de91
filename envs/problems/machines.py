"""Random machines: devices, their speeds by op type, links, memories, and what they lack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from device_placement.envs.arrays import Bool, Float64, Int64
from device_placement.envs.devices import Device, SharedMemory
from device_placement.envs.graph.computation_graph import ComputationGraph
from device_placement.envs.problems.config import GeneratorConfig
from device_placement.envs.problems.draws import Draws, mean
from device_placement.envs.problems.graphs import OP_KINDS
from device_placement.envs.simulation.profile import HardwareProfile

FLOPS_PER_S, BYTES_PER_S = 1e12, 5e10  # whose ratio decides what limits an op, work or memory
MAKES = {"GPU": 0.5, "NPU": 0.3, "CPU": 0.2}  # of devices after the first
LINKS = {"uniform": 0.3, "host": 0.25, "peers": 0.2, "varied": 0.25}
LACKING_DEVICES = LIMITED_DEVICES = 0.6  # share of the kinds, in a problem that has some


@dataclass(frozen=True)
class Fleet:
    """Devices of a machine, by kind: those of one kind are exact twins."""

    names: tuple[str, ...]  # (num_devices,) the first is the CPU
    kind: Int64  # (num_devices,) ascending from 0
    makes: tuple[str, ...]  # (num_kinds,)

    @property
    def num_kinds(self) -> int:
        """Number of kinds."""
        return len(self.makes)


def draw_profile(
    graph: ComputationGraph, config: GeneratorConfig, draws: Draws, provenance: Mapping[str, Any]
) -> HardwareProfile:
    """Draw a machine, and return the costs of a graph on it.

    The first device runs every op and has no memory limit.

    Args:
        graph: of ops that are groups.
        config: the distribution.
        draws: all random choices.
        provenance: of the profile.
    """
    fleet = _draw_fleet(config, draws)
    op_s = _draw_times(graph, fleet, config, draws)
    mean_s = mean(op_s.min(axis=1))
    lacks = _draw_lacks(graph, fleet, config, draws)
    latency_s, s_per_byte = _draw_links(graph, fleet, mean_s, config, draws)
    limits, pools = _draw_memory(graph, fleet, config, draws)
    flow = _draw_flow(fleet, mean_s, draws)
    pays = [True, *[draws.chance(0.9) for _ in range(fleet.num_kinds - 1)]]
    pays[0] = draws.chance(0.6)
    kind = fleet.kind
    with np.errstate(divide="ignore"):
        bytes_per_s = 1.0 / s_per_byte
    return HardwareProfile(
        name=f"{graph.name} on {len(kind)} devices",
        model=graph.name,
        model_hash=graph.model_hash,
        op_names=graph.op_names,
        devices=tuple(
            Device(name, memory_bytes=limits[one])
            for name, one in zip(fleet.names, kind.tolist(), strict=True)
        ),
        op_s=np.where(lacks, np.nan, op_s)[:, kind],
        latency_s=latency_s,
        bytes_per_s=bytes_per_s,
        subgraph_s=np.zeros(len(kind)),
        pays_transfers=tuple(pays[one] for one in kind.tolist()),
        provenance=provenance,
        shared_memory=pools,
        region_s=flow[0][kind],
        crossing_s=flow[1][kind],
        split_factor=flow[2][kind],
    )


def _draw_fleet(config: GeneratorConfig, draws: Draws) -> Fleet:
    number = draws.whole_scale(*config.devices)
    # Two twins alone are dull under some schedules: the same device twice.
    twins = draws.chance(config.twin_share if number > 2 else config.twin_share / 3)
    num_kinds = draws.whole(min(2, number - 1), number - 1) if twins else number
    further = [draws.whole(0, num_kinds - 1) for _ in range(number - num_kinds)]
    kind = sorted([*range(num_kinds), *further])
    makes = ("CPU", *(draws.pick(MAKES) for _ in range(num_kinds - 1)))
    made = [makes[one] for one in kind]
    names, seen = [], dict.fromkeys(MAKES, 0)
    for make in made:
        if make == "CPU":
            names.append(f"CPU_{seen[make]}" if seen[make] else "CPU")
        else:
            names.append(f"{make}.{seen[make]}" if made.count(make) > 1 else make)
        seen[make] += 1
    return Fleet(tuple(names), np.array(kind), makes)


def _draw_times(
    graph: ComputationGraph, fleet: Fleet, config: GeneratorConfig, draws: Draws
) -> Float64:
    """Draw the seconds of each op on each kind of device, (num_ops, num_kinds).

    An op takes the time to launch it, and its roofline time over the speed of the device for
    ops of its type. Ops of one type and size take the same time.
    """
    moved = graph.bytes_in + graph.bytes_out + graph.weight_bytes
    work_s = np.maximum(graph.flops / FLOPS_PER_S, moved / BYTES_PER_S)
    work_s = work_s * (draws.scale(*config.group_s) / mean(work_s))
    spread = config.type_spread * draws.scale(0.25, 1.0)
    types = sorted(set(graph.op_types))
    row = {name: number for number, name in enumerate(types)}
    families = sorted({OP_KINDS[name].family for name in types})
    family = [families.index(OP_KINDS[name].family) for name in types]
    shape = len(types), fleet.num_kinds
    speed = draws.spread(config.speed_spread, fleet.num_kinds)
    by_family = draws.spread(spread, len(families), fleet.num_kinds)[family]
    rate = speed * by_family * draws.spread(0.5 * spread, *shape)
    rate[:, 0] = by_family[:, 0]
    launch_s = mean(work_s) * draws.scales(0.003, 0.3, fleet.num_kinds)
    op = [row[name] for name in graph.op_types]
    number: dict[object, int] = {}
    sizes = graph.op_types, graph.output_shapes, graph.flops.tolist(), graph.weight_bytes.tolist()
    same = [number.setdefault(one, len(number)) for one in zip(*sizes, strict=True)]
    noise = draws.spread(0.2, len(number), fleet.num_kinds)[same]
    return np.asarray(launch_s + work_s[:, None] / rate[op] * noise)


def _draw_lacks(
    graph: ComputationGraph, fleet: Fleet, config: GeneratorConfig, draws: Draws
) -> Bool:
    """Draw which ops the kinds of devices can't run, (num_ops, num_kinds); never all of them."""
    types = sorted(set(graph.op_types))
    lacks = np.zeros((graph.num_ops, fleet.num_kinds), dtype=np.bool_)
    if fleet.num_kinds == 1 or len(types) == 1 or not draws.chance(config.lacking_share):
        return lacks
    names = np.array(graph.op_types)
    for kind in _some_kinds(fleet, LACKING_DEVICES, draws):
        missing = draws.some(types, draws.whole(1, max(1, len(types) // 2)))
        lacks[:, kind] = np.isin(names, missing)
    return lacks


def _some_kinds(fleet: Fleet, share: float, draws: Draws) -> list[int]:
    """Return at least one kind that is not the first."""
    certain = draws.whole(1, fleet.num_kinds - 1)
    return [one for one in range(1, fleet.num_kinds) if draws.chance(share) or one == certain]


def _draw_links(
    graph: ComputationGraph, fleet: Fleet, mean_s: float, config: GeneratorConfig, draws: Draws
) -> tuple[Float64, Float64]:
    """Draw latency and seconds per byte, (num_devices, num_devices) each, from and to."""
    number, num_kinds = len(fleet.kind), fleet.num_kinds
    away = (np.arange(num_kinds) > 0).astype(np.float64)
    both_away = away[:, None] * away[None, :] > 0
    slower = np.ones((num_kinds, num_kinds))  # seconds per byte over those of the usual link
    latency = np.ones((num_kinds, num_kinds))
    layout = draws.pick(LINKS)
    if layout == "host":  # what goes from one to another passes the first device's memory
        slower = np.where(both_away, 2.0, 1.0)
        latency = np.where(both_away, 2.0, 1.0)
    elif layout == "peers":
        faster = draws.scale(2.0, 16.0)
        slower = np.where(both_away, 1.0 / faster, 1.0)
        latency = np.where(both_away, 0.5, 1.0)
    elif layout == "varied":
        slower = draws.spread(1.2, num_kinds, num_kinds)
        upper = np.triu(np.ones((num_kinds, num_kinds), dtype=np.bool_))
        if draws.chance(0.5):  # as fast there as back
            slower = np.where(upper, slower, slower.T)
    if draws.chance(0.25):  # back to the first device, and from it, at different speeds
        slower[:, 0] = slower[:, 0] * draws.scale(0.25, 4.0)
    read = mean(graph.edge_bytes)
    ratio = draws.scale(*config.transfer_ratio)
    share = draws.scale(0.02, 0.7)  # of the latency in the time of a mean tensor
    kind = fleet.kind
    other = ~np.eye(number, dtype=np.bool_)
    latency_s = latency[np.ix_(kind, kind)] * (ratio * share * mean_s)
    s_per_byte = slower[np.ix_(kind, kind)] * (ratio * (1.0 - share) * mean_s / read)
    return np.where(other, latency_s, 0.0), np.where(other, s_per_byte, 0.0)


def _draw_memory(
    graph: ComputationGraph, fleet: Fleet, config: GeneratorConfig, draws: Draws
) -> tuple[list[int | None], tuple[SharedMemory, ...]]:
    """Draw the memory of each kind of device, (num_kinds,), and memory that devices share."""
    limits: list[int | None] = [None] * fleet.num_kinds
    if fleet.num_kinds == 1 or not draws.chance(config.limited_share):
        return limits, ()
    total = float(graph.weight_bytes.sum())
    away = [name for name, kind in zip(fleet.names, fleet.kind.tolist(), strict=True) if kind]
    if len(away) > 1 and draws.chance(config.pool_share):
        members = tuple(away[: draws.whole(2, len(away))])
        return limits, (SharedMemory(members, 1 + int(total * draws.scale(0.1, 0.95))),)
    for kind in _some_kinds(fleet, LIMITED_DEVICES, draws):
        limits[kind] = 1 + int(total * draws.scale(0.03, 0.9))
    return limits, ()


def _draw_flow(fleet: Fleet, mean_s: float, draws: Draws) -> Sequence[Float64]:
    """Draw what `dataflow` charges: per region, per crossing tensor, and for sharing."""
    number = fleet.num_kinds
    region_s = mean_s * draws.scales(0.005, 0.3, number)
    crossing_s = region_s * draws.scales(0.05, 0.5, number)
    return region_s, crossing_s, 1.0 + 0.3 * np.square(draws.uniforms(number))
