"""Costs as inputs of networks: which of an observation's keys they read, and how."""

from __future__ import annotations

import torch
from gymnasium import spaces
from stable_baselines3.common.type_aliases import TensorDict
from torch import Tensor, nn

from device_placement.envs.observation import (
    DEVICE_COSTS,
    EDGE_COSTS,
    GRAPH_COSTS,
    GROUP_COSTS,
    GROUP_DEVICE_COSTS,
    NUM_DEVICE_FEATURES,
    NUM_EDGE_FEATURES,
    PARTIAL_SCHEDULE,
)

STATIC_COSTS = (
    "group_device_costs",
    "group_costs",
    "edge_costs",
    "device_costs",
    "graph_costs",
    "costs_known",
)
"""Keys of costs that are the same for all observations of one model."""

NUM_PAIR_COSTS = len(GROUP_DEVICE_COSTS)
IN_RUNS = GROUP_DEVICE_COSTS.index(
    "time of the group and of all after it in runs, over the least: sl(excess / m)"
)
NUM_NODE_COSTS = len(GROUP_COSTS) + NUM_PAIR_COSTS + len(GRAPH_COSTS) + 2
TIME = 1  # the column sl(time / m)
NUM_PARTIAL = len(PARTIAL_SCHEDULE)


def sees_costs(space: spaces.Dict) -> bool:
    """Return whether costs are part of the observations of a space."""
    return "group_costs" in space.spaces


def sees_partial(space: spaces.Dict) -> bool:
    """Return whether the state of the partial schedule is part of the observations of a space."""
    return "partial_schedule" in space.spaces


def num_edge_inputs(costs: bool) -> int:
    """Return the size of what `read_edges` returns for an edge."""
    return NUM_EDGE_FEATURES + (len(EDGE_COSTS) if costs else 0)


def num_device_inputs(costs: bool) -> int:
    """Return the size of what `read_devices` returns for a device."""
    return NUM_DEVICE_FEATURES + (len(DEVICE_COSTS) if costs else 0)


def read_edges(observations: TensorDict) -> Tensor:
    """Return features and, if they are seen, costs of edges, (batch, max_edges, size)."""
    return _with_costs(observations, "edge_features", "edge_costs")


def read_devices(observations: TensorDict) -> Tensor:
    """Return features and, if they are seen, costs of devices, (batch, num_devices, size)."""
    return _with_costs(observations, "device_features", "device_costs")


def _with_costs(observations: TensorDict, features: str, costs: str) -> Tensor:
    """Join two keys, of which the second may be missing."""
    found = observations[features].float()
    if costs not in observations:
        return found
    return torch.cat([found, observations[costs].float()], dim=-1)


def read_pair_costs(observations: TensorDict) -> Tensor:
    """Return the costs of groups on devices, (batch, max_groups, num_devices, `NUM_PAIR_COSTS`)."""
    pairs = observations["group_device_costs"].float()
    return pairs.reshape(*observations["device_mask"].shape, NUM_PAIR_COSTS)


def read_node_costs(observations: TensorDict) -> Tensor:
    """Return the costs of nodes whatever their devices, (batch, max_groups, `NUM_NODE_COSTS`).

    These are a group's own, the mean over the devices that run it, and the graph's.
    """
    own, pairs = observations["group_costs"].float(), read_pair_costs(observations)
    runs = pairs[..., :1]
    mean = (pairs * runs).sum(dim=2) / runs.sum(dim=2).clamp(min=1.0)
    graph = torch.cat([observations[key].float() for key in ("graph_costs", "costs_known")], dim=1)
    return torch.cat([own, mean, graph[:, None].expand(-1, own.shape[1], -1)], dim=2)


def pool_pair_costs(pairs: Tensor, leader: Tensor) -> Tensor:
    """Return the costs of each node's learned group on each device, as those of one group.

    Args:
        pairs: (batch, max_groups, num_devices, `NUM_PAIR_COSTS`), from `read_pair_costs`.
        leader: (batch, max_groups) long, the first node of each one's learned group.

    >>> pairs = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0]).expand(1, 2, 1, 5).clone()
    >>> pairs[..., 1] = torch.log1p(torch.tensor([2.0, 3.0]))[:, None]
    >>> pool_pair_costs(pairs, torch.tensor([[0, 0]]))[0, 1, 0, 1].expm1().round(decimals=3)
    tensor(5.)
    """
    index = leader[:, :, None].expand(pairs.shape[:3])
    runs = _smallest(pairs[..., 0], index)
    time = torch.expm1(pairs[..., TIME]) * pairs[..., 0]
    time = torch.zeros_like(time).scatter_add_(1, index, time).gather(1, index) * runs
    fastest = time.masked_fill(runs == 0, torch.inf).amin(dim=2, keepdim=True)
    valid = (time > 0) & (fastest > 0) & torch.isfinite(fastest)
    ratio = torch.where(valid, time, 1.0) / torch.where(valid, fastest, 1.0)
    mean = time.sum(dim=2, keepdim=True) / runs.sum(dim=2, keepdim=True).clamp(min=1.0)
    excess = (time - mean) * runs
    columns = [runs, torch.log1p(time), ratio.log(), excess.sign() * excess.abs().log1p()]
    # Of what follows in runs the mean, whatever the order of the nodes.
    sums = [
        torch.zeros_like(time).scatter_add_(1, index, one).gather(1, index)
        for one in (pairs[..., IN_RUNS], torch.ones_like(time))
    ]
    return torch.stack([*columns, sums[0] / sums[1]], dim=3)


def _smallest(values: Tensor, index: Tensor) -> Tensor:
    """Return the least value of each learned group, at all of its nodes."""
    least = torch.ones_like(values).scatter_reduce_(1, index, values, "amin")
    return least.gather(1, index)


class CostTerms(nn.Module):
    """Terms that costs add to the hidden units and to the logit of a pair of node and device.

    The latter is linear and begins at 0, so that all devices are equally likely at first.

    Args:
        size: of the costs of a pair.
        hidden: number of hidden units.

    Shapes:
        input: (..., size).
        output: (..., hidden) and (...).
    """

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.of_costs = nn.Linear(size, hidden, bias=False)
        self.skip = nn.Linear(size, 1, bias=False)
        nn.init.zeros_(self.skip.weight)

    def forward(self, costs: Tensor) -> tuple[Tensor, Tensor]:
        """Return both terms."""
        return self.of_costs(costs), self.skip(costs).squeeze(-1)
