"""Observations of the twelve groups, and a short training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import A2C
from torch import Tensor

from device_placement.agents.policies.cost_inputs import NUM_PAIR_COSTS
from device_placement.agents.policies.policies import NodewisePolicy
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.observation import (
    GRAPH_COSTS,
    Layout,
    Observation,
    action_space,
    device_features,
    graph_arrays,
    observation_space,
    observe,
)
from scripted import twelve_groups_evaluator

COARSE = twelve_groups_evaluator().coarse
GROUPS, EDGES, FEATURES = COARSE.num_groups, COARSE.num_edges, 5
LAYOUT = Layout(max_groups=GROUPS, max_edges=EDGES, num_features=FEATURES, num_devices=2)
PER_GROUP = ("node_features", "node_mask", "placement", "cursor", "device_mask")
PER_GROUP_COSTS = ("group_device_costs", "group_costs")
NAMES = {
    "assign": "SimulatedDevicePlacement-v0",
    "construct": "SimulatedDevicePlacementConstruct-v0",
    "refine": "SimulatedDevicePlacementRefine-v0",
}


def coarse_on(num_devices: int, forbidden: dict[int, list[int]] | None = None) -> CoarseGraph:
    """The twelve groups on two devices and others that nothing runs on."""
    supported = np.zeros((GROUPS, num_devices), dtype=np.bool_)
    supported[:, :2] = True
    for group, devices in (forbidden or {}).items():
        supported[group, devices] = False
    graph = replace(COARSE.graph, supported=supported, devices=("CPU",) * num_devices)
    return replace(COARSE, graph=graph, supported=supported)


def made_up_costs(layout: Layout) -> Observation:
    """Costs of the twelve groups on two devices; zeros for others and for padding."""
    generator = np.random.default_rng(7)
    costs: Observation = {}
    sizes = {"group_device_costs": (GROUPS, 2), "group_costs": (GROUPS,), "edge_costs": (EDGES,)}
    sizes |= {"device_costs": (2,), "partial_schedule": (2,)}
    for key, space in observation_space(layout).spaces.items():
        if key in sizes:
            shape = space.shape or ()
            if key == "group_device_costs":
                shape = layout.max_groups, layout.num_devices, shape[1]
            costs[key] = np.zeros(shape, dtype=np.float32)
            real = tuple(slice(size) for size in sizes[key])
            drawn = generator.normal(size=(*sizes[key], costs[key].shape[-1]))
            costs[key][real] = drawn.astype(np.float32)
    if layout.costs:
        pairs = costs["group_device_costs"][:GROUPS, :2]
        pairs[..., 0], pairs[..., 1] = 1.0, np.abs(pairs[..., 1])  # it runs there, in that time
        graph = generator.normal(size=len(GRAPH_COSTS))
        costs |= {"graph_costs": graph.astype(np.float32), "costs_known": np.ones(2, np.int8)}
    return costs


def make_observation(
    layout: Layout,
    coarse: CoarseGraph,
    cursor: int | None = None,
    order: NDArray[np.int64] | None = None,
) -> dict[str, Tensor]:
    """A batch of one, of the twelve groups; order[i] is the old number of the new node i."""
    order = np.arange(GROUPS) if order is None else order
    features = np.random.default_rng(0).normal(size=(GROUPS, FEATURES)).astype(np.float32)
    static = graph_arrays(coarse, features, layout, graph_id=0)
    logs = np.array([0.0, -0.3, np.nan])[: layout.num_devices]
    devices = device_features(logs, coarse, [None] * layout.num_devices, reference=0)
    placement = np.arange(GROUPS) % 3 - 1  # some unplaced
    seen: Observation = observe(static, devices, layout, placement, cursor, log_time=0.3, step=2)
    seen |= made_up_costs(layout)
    for key in (*PER_GROUP, *PER_GROUP_COSTS) if layout.costs else PER_GROUP:
        seen[key][:GROUPS] = seen[key][:GROUPS][order]
    if layout.costs:
        seen["group_device_costs"] = seen["group_device_costs"].reshape(-1, NUM_PAIR_COSTS)
    seen["edge_index"][:, :EDGES] = np.argsort(order)[seen["edge_index"][:, :EDGES]]
    return {key: torch.as_tensor(array)[None].float() for key, array in seen.items()}


def seeing(layout: Layout, costs: bool, formulation: str) -> Layout:
    """The layout, with costs or without."""
    return replace(layout, costs=costs, partial=costs and formulation == "construct")


def trained(algorithm: Any, policy: Any, formulation: str, **options: Any) -> dict[str, Tensor]:
    """The weights after two updates."""
    env = gym.make(f"device_placement.envs:{NAMES[formulation]}", model="diamond")
    if algorithm is not A2C:
        options = {"batch_size": 16, "n_epochs": 3, **options}
    agent = algorithm(policy, env, n_steps=16, seed=3, **options).learn(32)
    return dict(agent.policy.state_dict())


def make_policy(layout: Layout, formulation: str, **options: Any) -> NodewisePolicy:
    """A policy with random weights, those of the head among them; equal for all layouts."""
    torch.manual_seed(0)
    policy = NodewisePolicy(
        observation_space(layout),
        action_space(layout, formulation),
        lambda _: 1e-3,
        features_extractor_kwargs={"hidden": 16, **options},
    )
    torch.manual_seed(1)
    for weight in policy.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return policy.eval()


def probabilities(
    policy: NodewisePolicy, layout: Layout, formulation: str, seen: dict[str, Tensor]
) -> Tensor:
    """Of each device for each real group; (1, num_devices) in ``construct``."""
    found: Any = policy.get_distribution(seen)  # type: ignore[arg-type]
    each = found.each if formulation == "assign" else found.distribution
    rows: Tensor = each.probs.reshape(-1, layout.num_devices)
    return rows[:GROUPS]
