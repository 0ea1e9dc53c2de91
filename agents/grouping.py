"""HSDAG's learned grouping: a network that parses the graph, and one device a learned group."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import TensorDict
from torch import Tensor, nn
from torch.nn import functional

from device_placement.agents.gnn import Graphs, masked_mean, read_graphs
from device_placement.agents.nodewise import MASKED, PairHead
from device_placement.agents.parsing import make_convex, parse
from device_placement.agents.static_graphs import StaticEncoder, distinct_graphs
from device_placement.envs.errors import DevicePlacementError


class ParsingLayer(nn.Module):
    """Scores of edges, the groups that they make, and the groups' embeddings.

    The score of an edge is sigmoid(MLP(z_u * z_v)); `parse` makes groups of the scores, which
    no gradient passes. It reaches them because a group's embedding, the mean over its nodes,
    is multiplied by the mean score of the edges inside it.

    Args:
        hidden: size of an embedding.
        dropout: share of the products' values that is dropped in training.

    Shapes:
        input: (num_nodes, hidden), (2, num_edges).
        output: (num_edges,) scores.
    """

    def __init__(self, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.score = nn.Sequential(
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 1)
        )

    def forward(self, nodes: Tensor, edge_index: Tensor) -> Tensor:
        """The scores of the edges, 0 to 1."""
        normal = functional.layer_norm(nodes, nodes.shape[1:])
        scores: Tensor = self.score(normal[edge_index[0]] * normal[edge_index[1]])
        return torch.sigmoid(scores).squeeze(1)


def pool(nodes: Tensor, labels: Tensor, edge_index: Tensor, scores: Tensor) -> Tensor:
    """(num_groups, hidden) the mean of each group's nodes times the mean score of its edges.

    A group without edges keeps its mean as it is.

    Args:
        nodes: (num_nodes, hidden).
        labels: (num_nodes,) long, 0 to num_groups - 1.
        edge_index: (2, num_edges).
        scores: (num_edges,).
    """
    num_groups = int(labels.max()) + 1 if labels.numel() else 0
    size = torch.bincount(labels, minlength=num_groups).clamp(min=1)
    sums = nodes.new_zeros(num_groups, nodes.shape[1]).index_add(0, labels, nodes)
    producer, consumer = labels[edge_index]
    inner = producer == consumer
    number = torch.bincount(producer[inner], minlength=num_groups)
    total = scores.new_zeros(num_groups).index_add(0, producer[inner], scores[inner])
    gate = torch.where(number > 0, total / number.clamp(min=1), 1.0)
    return sums / size[:, None] * gate[:, None]


class GroupingExtractor(BaseFeaturesExtractor):
    """Logits of each group's device, the first group of each learned group, and value features.

    In step t of an episode the state is Z_t; Z_0 is what the encoder gives, and every step adds
    to each node the embedding of the learned group it was in: Z_(t + 1) = Z_t + Z'_t. As groups
    follow from the state, so does all of this from the weights and the number of the step.

    In training the groups of the rollout are kept while the weights change, so that the
    placements that were sampled stay possible; `distinct_graphs` says which rows are one graph.

    Args:
        observation_space: of a `DevicePlacementEnv`.
        action_space: of the same, in ``assign``.
        hidden: size of an embedding.
        layers: rounds of messages.
        passes: how often the graph of the groups is parsed again; 1 is once.
        convex: split learned groups where the graph between them has a cycle, so that none is
            executed in several pieces.
        moves_state: whether the state moves between the steps of an episode.
        parsing_dropout: as `ParsingLayer` takes it.
        options: what `GraphEncoder` takes besides.

    Shapes:
        output: (batch, num_logits + hidden), of which the last max_groups of the num_logits are
            numbers of groups.

    Raises:
        DevicePlacementError: in another formulation than ``assign``, or on passes below 1.
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Space[object],
        hidden: int = 64,
        layers: int = 2,
        passes: int = 1,
        convex: bool = False,
        moves_state: bool = True,
        parsing_dropout: float = 0.0,
        **options: Any,
    ) -> None:
        if not isinstance(action_space, spaces.MultiDiscrete):
            raise DevicePlacementError(
                "A learned group is placed as a whole, so its policy needs whole placements; use "
                "formulation='assign'."
            )
        if passes < 1:
            raise DevicePlacementError(f"Got passes={passes}; the graph is parsed once or more.")
        groups, devices = observation_space["device_mask"].shape or ()
        self.num_logits = groups * (devices + 1)
        super().__init__(observation_space, self.num_logits + hidden)
        num_features = (observation_space["node_features"].shape or ())[1]
        self.static = StaticEncoder(num_features, hidden, layers=layers, **options)
        self.parsers = nn.ModuleList(ParsingLayer(hidden, parsing_dropout) for _ in range(passes))
        self.head = PairHead(hidden)
        self.convex, self.moves_state = convex, moves_state
        self._kept: dict[tuple[int, int], Tensor] = {}  # of graph and step, in the last rollout
        self.num_groups = 0.0  # mean number of learned groups in the last forward pass

    def forward(self, observations: TensorDict) -> Tensor:
        """Logits, first groups and value features of each observation of a batch."""
        static, graph = distinct_graphs(observations)
        graphs = read_graphs(static)
        ids = torch.empty(len(graphs.node_mask), dtype=torch.long, device=graph.device)
        ids[graph] = observations["graph_id"].flatten().long()
        step = observations["step"].flatten().long()
        if not self.moves_state:
            step = torch.zeros_like(step)
        state, logits, leaders = self.static(static), [], []
        value = masked_mean(state, static["node_mask"])
        for at in range(int(step.max()) + 1):
            keys = [(one, at) for one in ids.tolist()]
            leader, embedded = self._group(state, graphs, static["device_mask"].bool(), keys)
            logits.append(self._place(embedded, value, leader, static))
            leaders.append(leader)
            state = state + embedded
        leader = torch.stack(leaders)[step, graph]
        itself = torch.arange(leader.shape[1], device=leader.device)
        self.num_groups = float(((leader == itself) & graphs.node_mask[graph]).sum() / len(leader))
        row = [torch.stack(logits)[step, graph].flatten(1), leader.float(), value[graph]]
        return torch.cat(row, dim=1)

    def _group(
        self, state: Tensor, graphs: Graphs, allowed: Tensor, keys: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """The first group of each learned group, (num_graphs, max_groups), and its embedding."""
        nodes, edges = state.flatten(0, 1), graphs.edge_index
        labels, embedded = torch.arange(len(nodes), device=nodes.device), nodes
        scores = nodes.new_zeros(edges.shape[1])
        for parser in self.parsers:
            ends = labels[edges]
            outer = ends[0] != ends[1]
            ends = ends[:, outer]
            scores = scores.index_put((outer.nonzero().squeeze(1),), parser(embedded, ends))
            labels = parse(len(embedded), ends, scores[outer].detach())[labels]
            embedded = pool(nodes, labels, edges, scores)
        if self.convex:
            labels = torch.as_tensor(make_convex(edges.cpu().numpy(), labels.cpu().numpy()))
        leader = _first(labels.to(nodes.device)).reshape(allowed.shape[:2])
        first = torch.arange(len(allowed), device=nodes.device)[:, None] * allowed.shape[1]
        leader = _apart(leader - first, allowed)
        for row, key in enumerate(keys):
            if self.training:
                leader[row] = self._kept.get(key, leader[row])
            else:
                self._kept[key] = leader[row].clone()
        _, labels = torch.unique((leader + first).flatten(), return_inverse=True)
        embedded = pool(nodes, labels, edges, scores)
        return leader, embedded[labels].reshape(state.shape)

    def _place(self, embedded: Tensor, graph: Tensor, leader: Tensor, static: TensorDict) -> Tensor:
        """(num_graphs, max_groups, num_devices) the logits of each group's learned group."""
        logits: Tensor = self.head(embedded, graph, static["device_features"].float())
        return logits.masked_fill(~_in_common(leader, static["device_mask"].bool()), MASKED)


def _first(labels: Tensor) -> Tensor:
    """(num_nodes,) the first node of each one's group."""
    itself = torch.arange(len(labels), device=labels.device)
    first = torch.full_like(itself, len(labels)).scatter_reduce_(0, labels, itself, "amin")
    return first[labels]


def _in_common(leader: Tensor, allowed: Tensor) -> Tensor:
    """(num_graphs, max_groups, num_devices) the devices that all of a learned group may use."""
    index = leader[:, :, None].expand_as(allowed)
    common = torch.ones_like(allowed, dtype=torch.uint8)
    common.scatter_reduce_(1, index, allowed.to(torch.uint8), "amin")
    return common.gather(1, index).bool()


def _apart(leader: Tensor, allowed: Tensor) -> Tensor:
    """The learned groups, but for those without a device in common: their groups stay alone."""
    itself = torch.arange(leader.shape[1], device=leader.device)
    return torch.where(_in_common(leader, allowed).any(dim=2), leader, itself)
