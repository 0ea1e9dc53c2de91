"""Profiles whose costs are known."""

from __future__ import annotations

import dataclasses

import numpy as np

from device_placement.envs import Device, HardwareProfile
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.simulation.simulator import SimulatedEvaluator


def given_costs(coarse: CoarseGraph, num_devices: int, seed: int = 0) -> HardwareProfile:
    """Random costs, of which those of transfers and subgraphs matter."""
    generator = np.random.default_rng(seed)
    graph, shape = coarse.graph, (num_devices, num_devices)
    apart = ~np.eye(num_devices, dtype=np.bool_)
    return HardwareProfile(
        name="given",
        model=graph.name,
        model_hash=graph.model_hash,
        op_names=graph.op_names,
        devices=tuple(Device(name) for name in graph.devices),
        op_s=generator.uniform(1e-4, 1e-3, (graph.num_ops, num_devices)),
        latency_s=np.where(apart, generator.uniform(1e-4, 1e-3, shape), 0.0),
        bytes_per_s=np.where(apart, generator.uniform(1e5, 1e6, shape), np.inf),
        subgraph_s=generator.uniform(1e-4, 1e-3, num_devices),
        pays_transfers=(True,) * num_devices,
    )


def predict(coarse: CoarseGraph, profile: HardwareProfile, placements: np.ndarray) -> np.ndarray:
    return SimulatedEvaluator(coarse, profile.devices, profile=profile).evaluate_many(placements)


def without_costs(profile: HardwareProfile, factors: list[float]) -> HardwareProfile:
    """The op times alone, each device's divided by a factor: what a profiler might tell."""
    return dataclasses.replace(
        profile,
        op_s=profile.op_s / factors,
        latency_s=np.zeros_like(profile.latency_s),
        bytes_per_s=np.full_like(profile.bytes_per_s, np.inf),
        subgraph_s=np.zeros_like(profile.subgraph_s),
    )
