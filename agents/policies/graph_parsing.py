"""HSDAG's network: it scores edges, groups nodes by the scores, and places each learned group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import TensorDict
from torch import Tensor, nn
from torch.nn import functional

from device_placement.agents.policies.cost_inputs import (
    NUM_PAIR_COSTS,
    pool_pair_costs,
    read_devices,
    read_pair_costs,
    sees_costs,
)
from device_placement.agents.policies.distributions import MASKED
from device_placement.agents.policies.gnn import (
    Graphs,
    StaticEncoder,
    distinct_graphs,
    masked_mean,
    read_graphs,
)
from device_placement.agents.policies.node_groups import find_leaders, make_convex, parse, pool
from device_placement.agents.policies.nodewise import PairHead
from device_placement.envs.errors import DevicePlacementError


class ParsedSteps(NamedTuple):
    """States, groups and logits of each step so far, for each graph of a batch.

    They depend only on the weights and the step's number, so they are kept for the next call.
    """

    key: tuple[list[int], list[int]]  # numbers of the graphs, versions of the weights
    states: list[Tensor]  # of each step and the next: (num_graphs, max_groups, hidden)
    logits: list[Tensor]  # of each step: (num_graphs, max_groups, num_devices)
    leaders: list[Tensor]  # of each step: (num_graphs, max_groups) first nodes of learned groups


class GroupingExtractor(BaseFeaturesExtractor):
    """Logits of each group's device, the first group of each learned group, and value features.

    In step t of an episode the state is Z_t. Z_0 is the encoder's output, and every step adds
    to each node the embedding of its learned group: Z_(t + 1) = Z_t + Z'_t. Groups follow from
    the state, so everything depends only on the weights and the number of the step.

    Costs are read if the observations have them; they change nodes' embeddings only as they are
    learned, so that the first groups don't depend on them. The costs of a learned group are those
    of one group with all its ops.

    In training the groups of the rollout are kept while the weights change, so that sampled
    placements stay possible; `distinct_graphs` determines which rows are one graph.

    Args:
        observation_space: of a `DevicePlacementEnv`.
        action_space: of the same, in ``assign``.
        hidden: size of an embedding.
        layers: rounds of messages.
        passes: number of parsings, each of the graph between the previous groups.
        min_score: edges with a lower score are not kept, so that a group may stay alone; with 0
            every group keeps its best edge, as published.
        similarity: see `ParsingLayer`.
        convex: split learned groups where the graph between them has a cycle, so that none is
            executed in several pieces.
        moves_state: whether the state changes between the steps of an episode.
        parsing_dropout: `dropout` of `ParsingLayer`.
        options: further arguments of `GraphEncoder`.

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
        min_score: float = 0.0,
        similarity: float | None = None,
        convex: bool = False,
        moves_state: bool = True,
        parsing_dropout: float = 0.0,
        **options: Any,
    ) -> None:
        if not isinstance(action_space, spaces.MultiDiscrete):
            raise DevicePlacementError(
                f"Got the action space {action_space}; learned groups need whole placements: use "
                "formulation='assign'."
            )
        if passes < 1:
            raise DevicePlacementError(f"Got passes={passes}; it must be 1 or more.")
        groups, devices = observation_space["device_mask"].shape or ()
        self.num_logits = groups * (devices + 1)
        super().__init__(observation_space, self.num_logits + hidden)
        num_features = (observation_space["node_features"].shape or ())[1]
        costs = sees_costs(observation_space)
        self.static = StaticEncoder(num_features, hidden, costs=costs, layers=layers, **options)
        if self.static.embed_costs is not None:  # which would tell all nodes apart at first
            nn.init.zeros_(self.static.embed_costs.weight)
            nn.init.zeros_(self.static.embed_costs.bias)
        self.parsers = nn.ModuleList(
            ParsingLayer(hidden, parsing_dropout, similarity) for _ in range(passes)
        )
        self.head = PairHead(hidden, num_costs=NUM_PAIR_COSTS * costs, sees_costs=costs)
        self.min_score, self.convex, self.moves_state = min_score, convex, moves_state
        self._own = [*self.parsers.parameters(), *self.head.parameters()]
        self._last: ParsedSteps | None = None
        self._kept: dict[tuple[int, int], Tensor] = {}  # of graph and step, in the last rollout
        self.num_groups = 0.0  # mean number of learned groups in the last forward pass

    def forward(self, observations: TensorDict) -> Tensor:
        """Return logits, first groups and value features of each observation of a batch."""
        static, graph = distinct_graphs(observations)
        graphs = read_graphs(static)
        ids = torch.empty(len(graphs.node_mask), dtype=torch.long, device=graph.device)
        ids[graph] = observations["graph_id"].flatten().long()
        step = observations["step"].flatten().long()
        if not self.moves_state:
            step = torch.zeros_like(step)
        start = self.static(static)
        value = masked_mean(start, static["node_mask"])
        steps = self._known_steps(start, ids.tolist())
        new = range(len(steps.logits), int(step.max()) + 1)
        # In a rollout one by one, so that one which is resumed within an episode rounds alike.
        for some in [new] if torch.is_grad_enabled() else [[at] for at in new]:
            self._add_steps(steps, some, value, static, graphs)
        leader = torch.stack(steps.leaders)[step, graph]
        itself = torch.arange(leader.shape[1], device=leader.device)
        self.num_groups = float(((leader == itself) & graphs.node_mask[graph]).sum() / len(leader))
        row = [torch.stack(steps.logits)[step, graph].flatten(1), leader.float(), value[graph]]
        return torch.cat(row, dim=1)

    def _known_steps(self, start: Tensor, ids: list[int]) -> ParsedSteps:
        """Return the steps so far; without gradients, the last call's if nothing has changed."""
        key = ids, [weight._version for weight in self._own]
        last, self._last = self._last, None
        # Encoded graphs are the same object exactly while they and the encoder are unchanged.
        if last is None or last.states[0] is not start or last.key != key:
            last = ParsedSteps(key, [start], [], [])
        if not torch.is_grad_enabled():
            self._last = last
        return last

    def _add_steps(
        self,
        steps: ParsedSteps,
        numbers: Sequence[int],
        value: Tensor,
        static: TensorDict,
        graphs: Graphs,
    ) -> None:
        """Add the next steps, with these numbers; their groups are placed together."""
        allowed, every = static["device_mask"].bool(), []
        for at in numbers:
            keys = [(one, at) for one in steps.key[0]]
            leader, embedded = self._group(steps.states[at], graphs, allowed, keys)
            steps.leaders.append(leader)
            steps.states.append(steps.states[at] + embedded)
            every.append(embedded)
        if every:
            steps.logits.extend(self._place(every, value, steps.leaders[-len(every) :], static))

    def _group(
        self, state: Tensor, graphs: Graphs, allowed: Tensor, keys: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """Return each learned group's first group, (num_graphs, max_groups), and embedding."""
        nodes, edges = _normal(state, graphs.node_mask).flatten(0, 1), graphs.edge_index
        labels, embedded = torch.arange(len(nodes), device=nodes.device), nodes
        scores = nodes.new_zeros(edges.shape[1])
        known = self._kept if self.training else {}
        kept = [known.get(key) for key in keys]
        for number, parser in enumerate(self.parsers, start=1):
            if number > 1:
                embedded = pool(nodes, labels, edges, scores)
            ends = labels[edges]
            outer = ends[0] != ends[1]
            ends = ends[:, outer]
            scores = scores.index_put((outer.nonzero().squeeze(1),), parser(embedded, ends))
            if number < len(self.parsers) or any(one is None for one in kept):
                joined = parse(len(embedded), ends, scores[outer], self.min_score)
                labels = joined[labels]
        leader = self._leaders(labels, edges, allowed, keys, kept)
        first = torch.arange(len(allowed), device=nodes.device)[:, None] * allowed.shape[1]
        labels = (leader + first).flatten()
        embedded = pool(nodes, labels, edges, scores)
        return leader, embedded.index_select(0, labels).reshape(state.shape)

    def _leaders(
        self,
        labels: Tensor,  # (num_graphs * max_groups,)
        edges: Tensor,
        allowed: Tensor,
        keys: list[tuple[int, int]],
        kept: list[Tensor | None],
    ) -> Tensor:
        """Return each first group, (num_graphs, max_groups): as kept, or else by the labels."""
        known = [one for one in kept if one is not None]
        if len(known) == len(keys):
            return torch.stack(known)
        if self.convex:
            convex = make_convex(edges.cpu().numpy(), labels.cpu().numpy())
            labels = torch.as_tensor(convex, device=labels.device)
        leader = find_leaders(labels, allowed)
        for row, (key, one) in enumerate(zip(keys, kept, strict=True)):
            if one is not None:
                leader[row] = one
            elif not self.training:
                self._kept[key] = leader[row].clone()
        return leader

    def _place(
        self, embedded: list[Tensor], graph: Tensor, leaders: list[Tensor], static: TensorDict
    ) -> tuple[Tensor, ...]:
        """Return the logits of each step, (num_graphs, max_groups, num_devices)."""
        steps, leader = len(embedded), torch.cat(leaders)
        devices = read_devices(static).repeat(steps, 1, 1)
        allowed = static["device_mask"].repeat(steps, 1, 1)
        costs: Tensor | None = None
        if "group_device_costs" in static:
            pairs = read_pair_costs(static).repeat(steps, 1, 1, 1)
            costs = pool_pair_costs(pairs, leader)
        nodes, pooled = torch.cat(embedded), graph.repeat(steps, 1)
        logits: Tensor = self.head(nodes, pooled, devices, costs=costs)
        masked = logits.masked_fill(~_in_common(leader, allowed.bool()), MASKED)
        return masked.chunk(steps)


def _normal(state: Tensor, node_mask: Tensor) -> Tensor:
    """Return normalised embeddings to score and place, (num_graphs, max_groups, hidden).

    The mean over the nodes of a graph is subtracted, and each node is scaled to one length
    (PairNorm-SI: Zhao and Akoglu, ICLR 2020, arXiv 1909.12223). The differences between nodes
    would be small otherwise, and shrink with every step, as nodes of a group become alike.
    """
    centred = state - masked_mean(state, node_mask)[:, None]
    return functional.layer_norm(centred, centred.shape[2:])


def _in_common(leader: Tensor, allowed: Tensor) -> Tensor:
    """Return the devices a learned group may use, (num_graphs, max_groups, num_devices)."""
    index = leader[:, :, None].expand_as(allowed)
    common = torch.ones_like(allowed, dtype=torch.uint8)
    common.scatter_reduce_(1, index, allowed.to(torch.uint8), "amin")
    return common.gather(1, index).bool()


SHARPNESS = 10.0  # of scores that start as a cosine


class ParsingLayer(nn.Module):
    """Scores of edges, from which `parse` makes groups, without a gradient.

    The score of an edge is sigmoid(MLP(z_u * z_v)). The gradient reaches it because a group's
    embedding, the mean over its nodes, is multiplied by the mean score of the edges inside it.

    Args:
        hidden: size of an embedding.
        dropout: share of the products' values that is dropped in training.
        similarity: start with an MLP whose score is sigmoid(`SHARPNESS` (c - similarity)), where c
            is the cosine of the embeddings at both ends: as the policy learns, nodes that it
            places alike become similar and so a group. None: start with random scores; groups then
            hardly change, as the gradient does not show which nodes to separate.

    Shapes:
        input: (num_nodes, hidden), (2, num_edges).
        output: (num_edges,) scores.
    """

    def __init__(self, hidden: int, dropout: float = 0.0, similarity: float | None = None) -> None:
        super().__init__()
        first, last = nn.Linear(hidden, hidden), nn.Linear(hidden, 1)
        if similarity is not None:
            _begin_alike(first, last, similarity)
        self.score = nn.Sequential(first, nn.ReLU(), nn.Dropout(dropout), last)

    def forward(self, nodes: Tensor, edge_index: Tensor) -> Tensor:
        """Return the scores of the edges, 0 to 1."""
        normal = functional.layer_norm(nodes, nodes.shape[1:])
        producer, consumer = (normal.index_select(0, ends) for ends in edge_index)
        scores: Tensor = self.score(producer * consumer)
        return torch.sigmoid(scores).squeeze(1)


@torch.no_grad()
def _begin_alike(first: nn.Linear, last: nn.Linear, similarity: float) -> None:
    """Set two hidden units to plus and minus the cosine, and ignore the others at first."""
    sign = torch.tensor([1.0, -1.0])
    first.weight[:2] = sign[:, None] / first.in_features  # normal embeddings: c is a mean
    first.bias[:2] = 0.0
    last.weight.zero_()
    last.weight[0, :2] = SHARPNESS * sign
    last.bias.fill_(-SHARPNESS * similarity)
