"""Policy that constructs placements from costs: one network for any graph, machine and schedule."""

from __future__ import annotations

from typing import NamedTuple

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import TensorDict
from torch import Tensor, nn

from device_placement.agents.policies.cost_inputs import (
    NUM_PAIR_COSTS,
    NUM_PARTIAL,
    STATIC_COSTS,
    read_pair_costs,
    sees_costs,
    sees_partial,
)
from device_placement.agents.policies.distributions import MASKED
from device_placement.agents.policies.gnn import CachedEncoder, distinct_graphs, masked_mean
from device_placement.agents.policies.nodewise import formulation_of
from device_placement.envs.errors import DevicePlacementError, choose
from device_placement.envs.observation import (
    DEVICE_COSTS,
    EDGE_COSTS,
    GRAPH_COSTS,
    GROUP_COSTS,
    PARTIAL_SCHEDULE,
)

NUM_PROBLEM = len(GRAPH_COSTS) + 2  # with which costs are known
NUM_PAIR = NUM_PAIR_COSTS + len(DEVICE_COSTS)
FITS = PARTIAL_SCHEDULE.index("1 if the weights fit")

SCHEDULES = [number for number, name in enumerate(GRAPH_COSTS) if name.startswith("1 for ")]
# The untrained policy is close to the placer `lookahead`: which of its two estimates decides
# depends on the schedule. Weights for sequential, concurrent, dataflow, pipelined and max_load.
LOOKAHEAD = {
    "estimate of the time of all groups, and the price, over the least: sl(excess / m)": (
        (-4.0, 0.0, 0.0, -4.0, 0.0)
    ),
    "time of all groups if those after it follow a rule, over the least: sl(excess / m)": (
        (-3.0, -6.0, -6.0, -2.0, -6.0)
    ),
    "end of the group, over the earliest: sl(excess / m)": (-0.3,) * 5,
    "load of the device then, over the least: sl(excess / m)": (-0.1,) * 5,
}
HIDDEN_INPUTS = {
    "": "sees everything",
    "costs": "without the costs of groups, edges, devices and the graph",
    "partial_schedule": "without the state of the partial schedule",
}
"""What a network can be made not to see -> description."""


class Encoded(NamedTuple):
    """What a network knows of some problems before anything is placed."""

    nodes: Tensor  # (num_problems, max_groups, hidden) embeddings of the groups
    common: Tensor  # (num_problems, max_groups, hidden) terms of the groups in the head
    pairs: Tensor  # (num_problems, max_groups, num_devices, hidden) the same on each device
    skip: Tensor  # (num_problems, NUM_PARTIAL) weights of the partial schedule


class CostMessages(nn.Module):
    """One round of messages along the edges, against them, and from the whole graph.

    Args:
        hidden: size of a group's embedding.

    Shapes:
        input: (num_problems, max_groups, hidden), (num_problems, max_groups), (2, num_edges) into
            the flat nodes, and (num_edges, len(EDGE_COSTS)).
        output: (num_problems, max_groups, hidden).
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.along = nn.Linear(hidden + len(EDGE_COSTS), hidden)
        self.against = nn.Linear(hidden + len(EDGE_COSTS), hidden)
        self.norm = nn.LayerNorm(3 * hidden)
        self.mix = nn.Linear(3 * hidden, hidden)

    def forward(self, nodes: Tensor, mask: Tensor, edge_index: Tensor, edges: Tensor) -> Tensor:
        """Return embeddings that cover one more step of the graph."""
        flat, (producer, reader) = nodes.flatten(0, 1), edge_index
        along = _summed(self.along(torch.cat([flat[producer], edges], 1)), reader, len(flat))
        against = _summed(self.against(torch.cat([flat[reader], edges], 1)), producer, len(flat))
        whole = masked_mean(nodes, mask)[:, None].expand_as(nodes).flatten(0, 1)
        received = self.norm(torch.cat([along, against, whole], dim=1))
        result: Tensor = nodes + torch.relu(self.mix(received)).reshape(nodes.shape)
        return result


def _summed(messages: Tensor, target: Tensor, num_nodes: int) -> Tensor:
    """Return the sum of the messages to each node over the square root of their number."""
    sums = messages.new_zeros(num_nodes, messages.shape[1])
    count = torch.bincount(target, minlength=num_nodes).clamp(min=1).to(messages.dtype)
    return sums.index_add(0, target, torch.relu(messages)) / count.sqrt()[:, None]


class ConstructNetwork(CachedEncoder):
    """Encoder of a problem's costs, and a head on the state of its partial schedule.

    The graph is encoded once. Then each step gives a logit to every device for the next group, from
    the group's embedding, its costs on the device and what placing it there would do. Devices are
    exchangeable and of any number: no weight depends on their order. A linear term on the partial
    schedule, with weights of its own for each kind of schedule, begins as `LOOKAHEAD`, and the rest
    at 0, so that learning begins near the placer ``lookahead``.

    Args:
        hidden: size of an embedding.
        layers: rounds of messages.
        without: a name of `HIDDEN_INPUTS`, to find out what an input is worth.

    Raises:
        DevicePlacementError: on an unknown name.
    """

    def __init__(self, hidden: int = 64, layers: int = 4, without: str = "") -> None:
        super().__init__()
        choose("hidden input", without, HIDDEN_INPUTS)
        self.hidden, self.without = hidden, without
        half = hidden // 2
        self.read_pair = nn.Sequential(nn.Linear(NUM_PAIR, half), nn.ReLU(), nn.Linear(half, half))
        self.read_group = nn.Linear(len(GROUP_COSTS) + NUM_PROBLEM + 2 * half, hidden)
        self.layers = nn.ModuleList(CostMessages(hidden) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.of_node = nn.Linear(hidden, hidden)
        self.of_problem = nn.Linear(NUM_PROBLEM, hidden, bias=False)
        self.of_pair = nn.Linear(NUM_PAIR, hidden)
        self.of_partial = nn.Linear(NUM_PARTIAL, hidden, bias=False)
        self.of_others = nn.Linear(hidden, hidden, bias=False)
        self.mix = nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, 1)
        self.skip = nn.Linear(len(SCHEDULES), NUM_PARTIAL, bias=False)
        for parameter in (*self.score.parameters(), self.skip.weight):
            nn.init.zeros_(parameter)
        with torch.no_grad():
            for name, weights in LOOKAHEAD.items():
                self.skip.weight[PARTIAL_SCHEDULE.index(name)] = torch.tensor(weights)

    def encode(self, static: TensorDict) -> Encoded:
        """Encode problems, from the static part of observations."""
        skip = self.skip((static["graph_costs"][:, SCHEDULES] > 0).float())
        if self.without == "costs":
            static = {**static, **{key: torch.zeros_like(static[key]) for key in STATIC_COSTS}}
        allowed = static["device_mask"].bool()
        devices = static["device_costs"].float()[:, None].expand(-1, allowed.shape[1], -1, -1)
        pairs = torch.cat([read_pair_costs(static), devices], dim=3)
        problem = torch.cat([static["graph_costs"].float(), static["costs_known"].float()], dim=1)
        problem = problem[:, None].expand(-1, allowed.shape[1], -1)
        seen = self.read_pair(pairs)
        mean = (seen * allowed[..., None]).sum(2) / allowed.sum(2, keepdim=True).clamp(min=1)
        most = seen.masked_fill(~allowed[..., None], -torch.inf).amax(2).nan_to_num(neginf=0.0)
        inputs = torch.cat([static["group_costs"].float(), problem, mean, most], dim=2)
        nodes = torch.relu(self.read_group(inputs))
        real = static["edge_mask"].bool()
        first = torch.arange(len(real), device=real.device)[:, None, None] * allowed.shape[1]
        edge_index = (static["edge_index"].long() + first).transpose(0, 1)[:, real]
        edges = static["edge_costs"].float()[real]
        for layer in self.layers:
            nodes = layer(nodes, static["node_mask"], edge_index, edges)
        nodes = self.norm(nodes)
        common = self.of_node(nodes) + self.of_problem(problem)
        return Encoded(nodes, common, self.of_pair(pairs), skip)

    def head(
        self, common: Tensor, pairs: Tensor, skip: Tensor, partial: Tensor, allowed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return logits of the next group's devices, and the units that they are made from.

        Args:
            common: (batch, hidden), of `Encoded`, for the group that is next in each row.
            pairs: (batch, num_devices, hidden), likewise.
            skip: (batch, `NUM_PARTIAL`), likewise.
            partial: (batch, num_devices, `NUM_PARTIAL`) state of the partial schedule.
            allowed: (batch, num_devices) bool.

        Returns:
            (batch, num_devices), `MASKED` where a device may not be used, and (batch, num_devices,
            hidden).
        """
        if self.without == "partial_schedule":
            partial = torch.zeros_like(partial)
        each = pairs + self.of_partial(partial)
        weight = allowed[..., None].float()
        mean = (torch.relu(each) * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)
        others = common + self.of_others(mean)
        units = torch.relu(self.mix(torch.relu(each + others[:, None])))
        logits = self.score(units).squeeze(2) + (partial * skip[:, None]).sum(dim=2)
        return logits.masked_fill(~allowed, MASKED), units


def usable_devices(masks: Tensor, partial: Tensor) -> Tensor:
    """Return the devices that may run the next group and hold its weights; if none can, all such.

    Args:
        masks: (batch, num_devices) bool, devices that may run it.
        partial: (batch, num_devices, `NUM_PARTIAL`).

    >>> partial = torch.zeros(1, 2, NUM_PARTIAL)
    >>> partial[0, 1, FITS] = 1.0
    >>> usable_devices(torch.ones(1, 2, dtype=torch.bool), partial)
    tensor([[False,  True]])
    """
    fitting = masks & (partial[..., FITS] > 0)
    return torch.where(fitting.any(dim=1, keepdim=True), fitting, masks)


class ConstructExtractor(BaseFeaturesExtractor):
    """`ConstructNetwork` for policies of stable-baselines3: logits, and features for the value.

    Args:
        observation_space: of a `DevicePlacementEnv` in ``construct`` with costs.
        action_space: of the same.
        hidden: size of an embedding.
        layers: rounds of messages.

    Shapes:
        output: (batch, num_devices + 2 * hidden).

    Raises:
        DevicePlacementError: in another formulation, or without costs.
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Space[object],
        hidden: int = 64,
        layers: int = 4,
    ) -> None:
        formulation = formulation_of(observation_space, action_space)
        if formulation != "construct" or not sees_costs(observation_space):
            costs = "profile" if sees_costs(observation_space) else "none"
            raise DevicePlacementError(
                f"Got formulation={formulation!r} and costs={costs!r}, but this policy constructs "
                "placements from costs; use formulation='construct' and costs='profile'."
            )
        assert sees_partial(observation_space)
        _, self.num_logits = observation_space["device_mask"].shape or ()
        super().__init__(observation_space, self.num_logits + 2 * hidden)
        self.network = ConstructNetwork(hidden, layers)

    def forward(self, observations: TensorDict) -> Tensor:
        """Return logits and value features of each observation of a batch."""
        static, graph = distinct_graphs(observations)
        encoded: Encoded = self.network(static)
        group = observations["cursor"].float().argmax(dim=1)
        partial = observations["partial_schedule"].float()
        rows = torch.arange(len(group), device=group.device)
        masks = observations["device_mask"].bool()[rows, group]
        allowed = usable_devices(masks, partial)
        logits, units = self.network.head(
            encoded.common[graph, group],
            encoded.pairs[graph, group],
            encoded.skip[graph],
            partial,
            allowed,
        )
        whole = masked_mean(encoded.nodes, static["node_mask"])[graph]
        weight = allowed[..., None].float()
        seen = (units * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)
        return torch.cat([logits, whole, seen], dim=1)
