"""Features extractor for off-the-shelf SB3 policies: message passing along the graph."""

from __future__ import annotations

import math

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import TensorDict
from torch import Tensor, nn

from device_placement.agents.policies.cost_inputs import (
    NUM_NODE_COSTS,
    NUM_PAIR_COSTS,
    num_device_inputs,
    num_edge_inputs,
    read_devices,
    read_node_costs,
    read_pair_costs,
    sees_costs,
)
from device_placement.agents.policies.gnn import GraphEncoder, masked_mean, read_graphs


class GraphFeaturesExtractor(BaseFeaturesExtractor):
    """Message passing along the edges, read out as one vector per graph.

    The padded graphs of a batch become one graph without edges between them. A node starts as
    its features, its device and whether it is the next to place. After `layers` rounds of
    messages the readout is the mean and the maximum over the real nodes, the node to place
    minus that mean (0 if there is none), the devices' features, the last time, and the graph's
    number. Costs are read if the observations have them. Neither padding nor the order of the
    nodes changes the result.

    Args:
        observation_space: of a `DevicePlacementEnv`.
        features_dim: size of the result.
        hidden: size of a node's embedding.
        layers: rounds of messages.
        conv: a name of `CONVS`: ``gcn``, ``gat``, ``gin`` or ``sage``.
        direction: ``both`` or ``undirected``, as `MessageLayer` takes it.

    Raises:
        DevicePlacementError: on an unknown conv or direction.

    Shapes:
        input: the observation's arrays, each with the batch in front.
        output: (batch, features_dim).

    >>> import gymnasium as gym
    >>> env = gym.make("device_placement.envs:SimulatedDevicePlacement-v0", model="diamond")
    >>> extractor = GraphFeaturesExtractor(env.observation_space)
    >>> observation, _ = env.reset(seed=0)
    >>> batch = {key: torch.as_tensor(array)[None] for key, array in observation.items()}
    >>> extractor(batch).shape
    torch.Size([1, 64])
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        features_dim: int = 64,
        hidden: int = 32,
        layers: int = 2,
        conv: str = "gin",
        direction: str = "both",
    ) -> None:
        super().__init__(observation_space, features_dim)
        shapes = {key: space.shape or () for key, space in observation_space.spaces.items()}
        self.num_graphs = _num_graphs(observation_space["graph_id"])
        self.embed_features = nn.Linear(shapes["node_features"][1], hidden)
        self.embed_state = nn.Linear(shapes["placement"][1] + 1, hidden)
        costs = sees_costs(observation_space)
        self.embed_costs: nn.Linear | None = None
        if costs:
            num_pairs = shapes["device_mask"][1] * NUM_PAIR_COSTS
            self.embed_costs = nn.Linear(NUM_NODE_COSTS + num_pairs, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.encoder = GraphEncoder(
            hidden, num_edge_inputs(costs), layers, conv=conv, direction=direction
        )
        num_devices = shapes["device_features"][0] * num_device_inputs(costs)
        num_outputs = 3 * hidden + num_devices + 1 + self.num_graphs
        num_outputs += math.prod(shapes.get("partial_schedule", (0,)))
        self.read = nn.Sequential(nn.Linear(num_outputs, features_dim), nn.Tanh())

    def forward(self, observations: TensorDict) -> Tensor:
        """Return the features of each observation of a batch."""
        parts = [
            self._read_nodes(self._embed_nodes(observations), observations),
            read_devices(observations).flatten(1),
            observations["last_time"].float(),
            self._one_hot(observations["graph_id"]),
        ]
        if "partial_schedule" in observations:
            parts.append(observations["partial_schedule"].float().flatten(1))
        features: Tensor = self.read(torch.cat(parts, dim=1))
        return features

    def _embed_nodes(self, observations: TensorDict) -> Tensor:
        """Return the embeddings, (batch, max_groups, hidden)."""
        features = self.embed_features(observations["node_features"].float())
        features = self.norm(features - masked_mean(features, observations["node_mask"])[:, None])
        state = [observations["placement"].float(), observations["cursor"].float()[:, :, None]]
        inputs = features + self.embed_state(torch.cat(state, dim=2))
        if self.embed_costs is not None:
            pairs = read_pair_costs(observations).flatten(2)
            costs = torch.cat([read_node_costs(observations), pairs], dim=2)
            inputs = inputs + self.embed_costs(costs)
        inputs = torch.relu(inputs)
        nodes: Tensor = self.encoder(inputs, read_graphs(observations))
        return nodes

    def _read_nodes(self, nodes: Tensor, observations: TensorDict) -> Tensor:
        """Return mean, maximum, and the node to place minus the mean, (batch, 3 * hidden)."""
        padding = ~observations["node_mask"].bool()[:, :, None]
        mean = masked_mean(nodes, observations["node_mask"])
        highest = nodes.masked_fill(padding, -torch.inf).amax(dim=1)
        cursor = observations["cursor"].float()[:, None, :]
        placed_next = (cursor @ (nodes - mean[:, None])).squeeze(1)
        return torch.cat([mean, highest.nan_to_num(neginf=0.0), placed_next], dim=1)

    def _one_hot(self, graph_id: Tensor) -> Tensor:
        """Encode graph numbers as one-hot rows, (batch, num_graphs)."""
        numbers = torch.arange(self.num_graphs, device=graph_id.device)
        return (graph_id == numbers).float()


def _num_graphs(space: spaces.Space[object]) -> int:
    """Return the number of models by the space, which has at least 2."""
    if not isinstance(space, spaces.Box):
        raise TypeError(f"Got the space {space} for graph_id; GraphFeaturesExtractor reads a Box.")
    return int(space.high.max()) + 1
