"""Features extractor whose shared head scores each group and device, for graphs of any size."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import TensorDict
from torch import Tensor, nn

from device_placement.agents.policies.cost_inputs import (
    NUM_PAIR_COSTS,
    NUM_PARTIAL,
    CostTerms,
    num_device_inputs,
    num_edge_inputs,
    read_devices,
    read_pair_costs,
    sees_costs,
    sees_partial,
)
from device_placement.agents.policies.distributions import MASKED
from device_placement.agents.policies.gnn import (
    GraphEncoder,
    StaticEncoder,
    distinct_graphs,
    masked_mean,
    read_graphs,
)
from device_placement.envs.costs import MAX_DEVICES
from device_placement.envs.errors import DevicePlacementError

NUM_STATE = 3  # whether a group is on the device, is unplaced, and is the next to place


def formulation_of(observation_space: spaces.Dict, action_space: spaces.Space[object]) -> str:
    """Return the formulation of an action space."""
    if isinstance(action_space, spaces.MultiDiscrete):
        return "assign"
    assert isinstance(action_space, spaces.Discrete), action_space
    _, num_devices = observation_space["device_mask"].shape or ()
    return "construct" if action_space.n == num_devices else "refine"


class PairHead(nn.Module):
    """Head that computes a logit for each node and device from node, pooled graph and device.

    Devices are distinguished by their features and by one-hot codes of their numbers, up to
    `MAX_DEVICES`; no weight depends on how many there are.

    Args:
        hidden: size of the embeddings of nodes and graphs.
        num_extra: size of further features of each pair of node and device.
        num_costs: size of the costs of each pair, which also have a linear term in the logit.
        sees_costs: whether the costs of devices are seen.

    Shapes:
        input: (batch, num_nodes, hidden), (batch, hidden), (batch, num_devices, size), as
            `read_devices` returns it, (batch, num_nodes, num_devices, num_extra) and (batch,
            num_nodes, num_devices, num_costs).
        output: (batch, num_nodes, num_devices).
    """

    def __init__(
        self, hidden: int, num_extra: int = 0, num_costs: int = 0, sees_costs: bool = False
    ) -> None:
        super().__init__()
        self.of_node = nn.Linear(hidden, hidden)
        self.of_graph = nn.Linear(hidden, hidden, bias=False)
        num_inputs = num_device_inputs(sees_costs) + MAX_DEVICES
        self.of_device = nn.Linear(num_inputs, hidden, bias=False)
        self.of_extra = nn.Linear(num_extra, hidden, bias=False) if num_extra else None
        self.mix = nn.Linear(hidden, hidden)
        self.read = nn.Linear(hidden, 1, bias=False)
        nn.init.zeros_(self.read.weight)  # all devices are equally likely at first
        self.of_costs = CostTerms(num_costs, hidden) if num_costs else None

    def forward(
        self,
        nodes: Tensor,
        graph: Tensor,
        devices: Tensor,
        extra: Tensor | None = None,
        costs: Tensor | None = None,
    ) -> Tensor:
        """Return the logits.

        Raises:
            DevicePlacementError: when there are more than `MAX_DEVICES` devices.
        """
        if devices.shape[1] > MAX_DEVICES:
            raise DevicePlacementError(
                f"Got {devices.shape[1]} devices, of which this policy tells up to {MAX_DEVICES} "
                "apart; use fewer, or the preset ppo, maskable_ppo or construct_ppo."
            )
        codes = torch.eye(MAX_DEVICES, device=devices.device)[: devices.shape[1]]
        described = torch.cat([devices, codes.expand(len(devices), -1, -1)], dim=2)
        node = self.of_node(nodes) + self.of_graph(graph)[:, None]
        pairs = node[:, :, None] + self.of_device(described)[:, None]
        if self.of_extra is not None:
            pairs = pairs + self.of_extra(extra)
        skip: Tensor | None = None
        if self.of_costs is not None:
            term, skip = self.of_costs(costs)
            pairs = pairs + term
        logits: Tensor = self.read(torch.relu(self.mix(torch.relu(pairs)))).squeeze(3)
        return logits if skip is None else logits + skip


class NodewiseExtractor(BaseFeaturesExtractor):
    """Masked logits of all actions, and features for the value, in one row.

    The graph is encoded without its placement, once for all rows of a batch that hold it. In
    ``construct`` and ``refine``, and with ``sees_placement`` in ``assign``, a copy of the graph
    is also encoded for each device, with groups marked that are on it. So a device is described
    by the groups it already has, whatever its number.

    Costs are read if the observations have them. There is then always a copy of the graph for each
    device, with the costs of groups on it. The head also reads these costs, those of devices and,
    in ``construct``, the state of the partial schedule.

    Args:
        observation_space: of a `DevicePlacementEnv`.
        action_space: of the same; its kind determines the formulation.
        hidden: size of a node's embedding.
        layers: rounds of messages before the placement is seen.
        state_layers: rounds of messages on the copies for each device.
        sees_placement: whether logits depend on the placement; by default all but in ``assign``.
        sweeps: in ``refine``, move one group per step, in topological order.
        attention: see `StaticEncoder`.
        options: further arguments of `GraphEncoder`: ``conv``, ``direction``, ``residual``,
            ``norm`` and ``dropout``.

    Shapes:
        output: (batch, num_logits + hidden).
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Space[object],
        hidden: int = 64,
        layers: int = 3,
        state_layers: int = 2,
        sees_placement: bool | None = None,
        sweeps: bool = False,
        attention: int = 0,
        **options: Any,
    ) -> None:
        groups, devices = observation_space["device_mask"].shape or ()
        self.formulation = formulation_of(observation_space, action_space)
        self.num_logits = devices if self.formulation == "construct" else groups * devices
        super().__init__(observation_space, self.num_logits + hidden)
        num_features = (observation_space["node_features"].shape or ())[1]
        costs = sees_costs(observation_space)
        self.static = StaticEncoder(
            num_features, hidden, attention, costs, layers=layers, **options
        )
        self.sweeps = sweeps and self.formulation == "refine"
        if sees_placement is None:
            sees_placement = self.formulation != "assign"
        self.sees_placement = sees_placement
        self.state: GraphEncoder | None = None
        if sees_placement or costs:
            num_inputs = NUM_STATE * sees_placement + NUM_PAIR_COSTS * costs
            self.embed_state = nn.Linear(hidden + num_inputs, hidden)
            self.state = GraphEncoder(
                hidden,
                num_edge_inputs(costs),
                layers=state_layers,
                **options,
            )
        partial = NUM_PARTIAL if sees_partial(observation_space) else 0
        num_costs = NUM_PAIR_COSTS + partial if costs else 0
        self.head = PairHead(hidden, 0 if self.state is None else hidden, num_costs, costs)
        self.value = nn.Linear(2 * hidden + 1, hidden)

    def forward(self, observations: TensorDict) -> Tensor:
        """Return logits and value features of each observation of a batch."""
        if self.sweeps:
            observations = {**observations, "cursor": _next_in_turn(observations)}
        static, graph = distinct_graphs(observations)
        nodes = self.static(static)
        pooled = masked_mean(nodes, static["node_mask"])
        if not self.sees_placement:
            pairs = None if self.state is None else self._see(nodes, static)
            devices, costs = read_devices(static), _pair_costs(static)
            logits = self._mask(self.head(nodes, pooled, devices, pairs, costs), static)
            logits, seen = logits[graph], torch.zeros_like(pooled)[graph]
        else:
            pairs = self._see(nodes[graph], observations)
            devices, costs = read_devices(observations), _pair_costs(observations)
            logits = self.head(nodes[graph], pooled[graph], devices, pairs, costs)
            logits = self._mask(logits, observations)
            usable = observations["device_mask"].bool().any(dim=1).float()
            seen = masked_mean(_mean_over_devices(pairs, usable), observations["node_mask"])
        value = [pooled[graph], seen, observations["last_time"].float()]
        row = [self._of_actions(logits, observations), self.value(torch.cat(value, dim=1))]
        return torch.cat(row, dim=1)

    def _see(self, nodes: Tensor, observations: TensorDict) -> Tensor:
        """Encode each group for each device, (batch, max_groups, num_devices, hidden)."""
        batch, groups, devices = observations["device_mask"].shape
        parts = [nodes[:, :, None].expand(-1, -1, devices, -1)]
        if self.sees_placement:
            placement = observations["placement"].float()
            here, unplaced = placement[:, :, :-1], placement[:, :, -1:]
            state = [here, unplaced, observations["cursor"].float()[:, :, None]]
            parts.append(torch.stack([one.expand_as(here) for one in state], dim=3))
        if "group_device_costs" in observations:
            parts.append(read_pair_costs(observations))
        pairs = torch.cat(parts, dim=3)
        copies = torch.relu(self.embed_state(pairs)).transpose(1, 2).flatten(0, 1)
        graphs = read_graphs(
            {
                key: observations[key].repeat_interleave(devices, dim=0)
                for key in ("edge_index", "edge_features", "edge_costs", "edge_mask", "node_mask")
                if key in observations
            }
        )
        assert self.state is not None
        encoded = self.state(copies, graphs)
        result: Tensor = encoded.reshape(batch, devices, groups, -1).transpose(1, 2)
        return result

    def _mask(self, logits: Tensor, observations: TensorDict) -> Tensor:
        """Return logits that mask devices which may not be used."""
        return logits.masked_fill(~observations["device_mask"].bool(), MASKED)

    def _of_actions(self, logits: Tensor, observations: TensorDict) -> Tensor:
        """Return the logits in the order of the actions, (batch, num_logits)."""
        if self.formulation == "construct":
            return (observations["cursor"].float()[:, None] @ logits).squeeze(1)
        if self.formulation == "refine":
            movable = observations["cursor" if self.sweeps else "node_mask"].bool()
            logits = logits.masked_fill(~movable[:, :, None], MASKED)
        return logits.flatten(1)


def _pair_costs(observations: TensorDict) -> Tensor | None:
    """Return the costs of each pair, (batch, max_groups, num_devices, size), if they are seen.

    The state of the partial schedule is that of the group to place; others get the same.
    """
    if "group_device_costs" not in observations:
        return None
    pairs = read_pair_costs(observations)
    if "partial_schedule" not in observations:
        return pairs
    partial = observations["partial_schedule"].float()[:, None].expand(-1, pairs.shape[1], -1, -1)
    return torch.cat([pairs, partial], dim=3)


def _next_in_turn(observations: TensorDict) -> Tensor:
    """Return 1 for the group whose turn it is, one per step, (batch, max_groups)."""
    number = observations["node_mask"].float().sum(dim=1, keepdim=True).clamp(min=1)
    turn = torch.remainder(observations["step"].float(), number).long()
    return torch.zeros_like(observations["cursor"]).scatter_(1, turn, 1)


def _mean_over_devices(pairs: Tensor, usable: Tensor) -> Tensor:
    """Return the mean over the devices that some group may use, (batch, max_groups, hidden)."""
    weights = usable / usable.sum(dim=1, keepdim=True)
    return torch.einsum("bgdh,bd->bgh", pairs, weights)
