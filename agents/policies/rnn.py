"""Recurrent policy of Mirhoseini et al. 2017 (arXiv 1706.04972): LSTM encoder and decoder."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule, TensorDict
from torch import Tensor, nn
from torch.nn.functional import embedding, linear
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from device_placement.agents.policies.cost_inputs import (
    NUM_NODE_COSTS,
    NUM_PAIR_COSTS,
    read_node_costs,
    read_pair_costs,
    sees_costs,
)
from device_placement.agents.policies.distributions import MASKED
from device_placement.agents.policies.gnn import distinct_graphs, read_graphs
from device_placement.envs.errors import DevicePlacementError


class Encoded(NamedTuple):
    """Input of the decoder for each graph of a batch; num_groups is that of the largest."""

    groups: Tensor  # (batch, num_groups, hidden) output of the encoder at each
    hidden: Tensor  # (batch, hidden) of the encoder's state after the last group
    cell: Tensor  # (batch, hidden) the rest of that state
    padding: Tensor  # (batch, num_groups) bool
    forbidden: Tensor  # (batch, num_groups, num_devices) bool


def neighbour_means(nodes: Tensor, edge_index: Tensor) -> Tensor:
    """Return mean features of each node's producers and consumers, (num_nodes, 2 * num_features).

    Args:
        nodes: (num_nodes, num_features).
        edge_index: (2, num_edges) producer and consumer of each edge.

    >>> neighbour_means(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([[0, 1], [2, 2]]))
    tensor([[0., 5.],
            [0., 5.],
            [2., 0.]])
    """
    producer, consumer = edge_index
    means = []
    for source, target in ((producer, consumer), (consumer, producer)):
        total = torch.zeros_like(nodes).index_add(0, target, nodes[source])
        number = torch.bincount(target, minlength=len(nodes)).clamp(min=1)
        means.append(total / number[:, None])
    return torch.cat(means, dim=1)


class SequenceEncoder(BaseFeaturesExtractor):
    """LSTM over the groups in topological order, which is that of their numbers.

    The paper describes a group by its ops' types, output shapes and neighbours (a slot for each
    other group). Here these are ``node_features``, and their means over its producers and over
    its consumers, so that no weight depends on the number of groups. If costs are seen, a group's
    own are added, with those on each device.

    Args:
        observation_space: of a `DevicePlacementEnv`.
        hidden: size of the embeddings and of the LSTM's state.

    Shapes:
        output: an `Encoded`.
    """

    def __init__(self, observation_space: spaces.Dict, hidden: int = 64) -> None:
        super().__init__(observation_space, hidden)
        num_features = (observation_space["node_features"].shape or ())[1]
        num_costs = 0
        if sees_costs(observation_space):
            num_devices = (observation_space["device_mask"].shape or ())[1]
            num_costs = NUM_NODE_COSTS + num_devices * NUM_PAIR_COSTS
        self.embed = nn.Linear(3 * num_features + num_costs, hidden)
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)

    def forward(self, observations: TensorDict) -> Encoded:
        """Return the encoded graph of each observation, computed once per distinct graph."""
        static, graph = distinct_graphs(observations)
        real = static["node_mask"].bool()
        num_groups = real.sum(dim=1).cpu()
        longest = int(num_groups.max())
        features = static["node_features"].float()
        means = neighbour_means(features.flatten(0, 1), read_graphs(static).edge_index)
        described = torch.cat([features, means.reshape(*real.shape, -1)], dim=2)
        if "group_costs" in static:
            pairs = read_pair_costs(static).flatten(2)
            described = torch.cat([described, read_node_costs(static), pairs], dim=2)
        embedded = self.embed(described[:, :longest])
        packed = pack_padded_sequence(embedded, num_groups, True, enforce_sorted=False)
        packed, (hidden, cell) = self.lstm(packed)
        groups, _ = pad_packed_sequence(packed, batch_first=True)
        return Encoded(
            groups=groups[graph],
            hidden=hidden[0, graph],
            cell=cell[0, graph],
            padding=~real[graph, :longest],
            forbidden=~static["device_mask"].bool()[graph, :longest],
        )


class Memory(NamedTuple):
    """Inputs of a decoder's attention that are the same in every step."""

    keys: Tensor  # (batch, hidden, num_groups)
    padding: Tensor  # (batch, 1, num_groups) 0, or very negative where there is no group
    context: Tensor  # (batch, num_groups, num_devices) what attention to each adds to the logits
    of_seen: Tensor  # (num_devices, hidden) weights of what the decoder's own state adds


class AttentionDecoder(nn.Module):
    """LSTM that reads the previously chosen device and attends to the groups.

    As in the paper, its input does not contain the next group, so it has to count. A group's
    attention weight is the product of the encoder's and the decoder's output, with a matrix
    between them (Luong et al. 2015, arXiv 1508.04025). The paper has a small network for each
    pair (Bahdanau et al. 2015, arXiv 1409.0473), which needs `hidden` times the memory to
    evaluate whole placements.

    Args:
        hidden: size of the embeddings and of the LSTM's state, which starts as the encoder's.
        num_devices: number of devices.
    """

    def __init__(self, hidden: int, num_devices: int) -> None:
        super().__init__()
        self.start = num_devices  # represents the device before the first
        self.embed = nn.Embedding(num_devices + 1, hidden)
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.read = nn.Linear(2 * hidden, num_devices)
        nn.init.zeros_(self.read.weight)  # all devices are equally likely at first
        nn.init.zeros_(self.read.bias)

    def follow(self, encoded: Encoded, devices: Tensor) -> Tensor:
        """Return log-probabilities given previous devices, (batch, num_groups, num_devices)."""
        start = torch.full_like(devices[:, :1], self.start)
        before = self.embed(torch.cat([start, devices[:, :-1]], dim=1))
        seen, _ = self.lstm(before, (encoded.hidden[None], encoded.cell[None]))
        return _log_probs(self._attend(seen, self._remember(encoded)), encoded)

    def choose(self, encoded: Encoded, deterministic: bool) -> tuple[Tensor, Tensor]:
        """Return devices, (batch, num_groups), drawn or likeliest, and their log-probabilities."""
        memory, weights = self._remember(encoded), self.lstm.all_weights[0]
        hidden, cell = encoded.hidden, encoded.cell
        favours = torch.zeros_like(memory.context)
        if not deterministic:  # the largest of logits with Gumbel noise is a draw
            favours = -favours.exponential_().log()
        favours = favours.masked_fill(encoded.forbidden, MASKED)
        device = torch.full_like(encoded.padding[:, 0], self.start, dtype=torch.long)
        chosen, logits = [], []
        for favour in favours.unbind(dim=1):
            state = hidden, cell
            hidden, cell = torch.lstm_cell(embedding(device, self.embed.weight), state, *weights)
            each = self._attend(hidden[:, None], memory)[:, 0]
            device = (each + favour).argmax(dim=1)
            chosen.append(device)
            logits.append(each)
        devices = torch.stack(chosen, dim=1)
        log_probs = _log_probs(torch.stack(logits, dim=1), encoded)
        return devices, log_probs.gather(2, devices[:, :, None]).squeeze(2)

    def _remember(self, encoded: Encoded) -> Memory:
        """Compute what does not change from step to step."""
        hidden = encoded.groups.shape[2]
        keys = self.key(encoded.groups).transpose(1, 2) / math.sqrt(hidden)
        of_seen, of_groups = self.read.weight[:, :hidden], self.read.weight[:, hidden:]
        padding = torch.zeros_like(keys[:, :1]).masked_fill(encoded.padding[:, None], MASKED)
        return Memory(keys, padding, encoded.groups @ of_groups.T, of_seen)

    def _attend(self, seen: Tensor, memory: Memory) -> Tensor:
        """Return logits, (batch, num_steps, num_devices), of (batch, num_steps, hidden)."""
        weights = torch.baddbmm(memory.padding, seen, memory.keys).softmax(dim=2)
        return torch.baddbmm(linear(seen, memory.of_seen, self.read.bias), weights, memory.context)


def _log_probs(logits: Tensor, encoded: Encoded) -> Tensor:
    """Return masked log-probabilities, (batch, num_groups, num_devices)."""
    return logits.masked_fill(encoded.forbidden, MASKED).log_softmax(dim=2)


class RnnPolicy(ActorCriticPolicy):
    """Mirhoseini et al. 2017: one LSTM reads the groups, another chooses the devices in turn.

    For PPO, A2C and `Reinforce`, in ``assign``. Devices that may not run a group have probability
    0. Padding is skipped: it gets device 0. Weights fit any model on the same number of devices.

    Args:
        observation_space: of a `DevicePlacementEnv`.
        action_space: of the same, in ``assign``.
        lr_schedule: learning rate as a function of the training's progress.
        options: arguments of `ActorCriticPolicy`; ``features_extractor_kwargs`` are those of
            `SequenceEncoder`.

    Raises:
        DevicePlacementError: in another formulation.

    >>> import gymnasium as gym
    >>> from device_placement.agents.training.reinforce import Reinforce
    >>> env = gym.make("device_placement.envs:SimulatedDevicePlacement-v0", model="diamond")
    >>> Reinforce(RnnPolicy, env, baseline="moving_average").learn(40).num_timesteps
    40
    """

    extractor = SequenceEncoder

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        **options: Any,
    ) -> None:
        if not isinstance(action_space, spaces.MultiDiscrete):
            raise DevicePlacementError(
                f"Got the action space {action_space}; this policy chooses each device given the "
                "earlier ones, so it needs whole placements: use formulation='assign'."
            )
        options["features_extractor_class"] = self.extractor
        options["share_features_extractor"] = True
        super().__init__(observation_space, action_space, lr_schedule, **options)

    def _build(self, lr_schedule: Schedule) -> None:
        """Build the decoder, the value, which starts at 0, and the optimizer."""
        assert isinstance(self.action_space, spaces.MultiDiscrete)
        self.decoder = AttentionDecoder(self.features_dim, int(self.action_space.nvec[0]))
        self.value_net = nn.Linear(self.features_dim, 1)
        nn.init.zeros_(self.value_net.weight)
        nn.init.zeros_(self.value_net.bias)
        make: Any = self.optimizer_class
        self.optimizer = make(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def encode(self, obs: PyTorchObs) -> Encoded:
        """Return the input of the decoder and the value."""
        encoded: Any = self.extract_features(obs)
        assert isinstance(encoded, Encoded)
        return encoded

    def forward(
        self, obs: PyTorchObs, deterministic: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return devices, (batch, max_groups), values, (batch, 1), and (batch,) log-probs."""
        encoded = self.encode(obs)
        chosen, log_probs = self.decoder.choose(encoded, deterministic)
        actions = chosen.new_zeros(len(chosen), *(self.action_space.shape or ()))
        actions[:, : chosen.shape[1]] = chosen.masked_fill(encoded.padding, 0)
        log_prob = log_probs.masked_fill(encoded.padding, 0.0).sum(dim=1)
        return actions, self.value_net(encoded.hidden), log_prob

    def evaluate_actions(
        self, obs: PyTorchObs, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return values, (batch, 1), log-probabilities and entropies, (batch,), of placements.

        The entropy is the sum over the groups of that of a group's device, given the devices of
        the earlier groups in `actions`; its mean over draws is the policy's.
        """
        encoded = self.encode(obs)
        devices = actions[:, : encoded.padding.shape[1]].long()
        each = self.decoder.follow(encoded, devices).masked_fill(encoded.padding[:, :, None], 0.0)
        log_prob = each.gather(2, devices[:, :, None]).sum(dim=(1, 2))
        entropy = -(each.exp() * each).sum(dim=(1, 2))
        return self.value_net(encoded.hidden), log_prob, entropy

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        """Return the values, (batch, 1)."""
        values: Tensor = self.value_net(self.encode(obs).hidden)
        return values

    def get_distribution(self, obs: PyTorchObs) -> Distribution:
        """Raise an error, as there is none in closed form: devices depend on earlier ones.

        Raises:
            DevicePlacementError: always.
        """
        raise DevicePlacementError("Placements have no closed form here; use evaluate_actions.")

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        actions: Tensor = self(observation, deterministic)[0]
        return actions
