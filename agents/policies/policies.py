"""Policies for PPO, A2C, MaskablePPO and REINFORCE."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces
from sb3_contrib.common.maskable.policies import (
    MaskableActorCriticPolicy,
    MaskableMultiInputActorCriticPolicy,
)
from stable_baselines3.common.policies import ActorCriticPolicy, MultiInputActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from device_placement.agents.policies.construct import ConstructExtractor
from device_placement.agents.policies.distributions import (
    GroupedDistribution,
    MaskablePlacementDistribution,
    PlacementDistribution,
)
from device_placement.agents.policies.extractors import GraphFeaturesExtractor
from device_placement.agents.policies.graph_parsing import GroupingExtractor
from device_placement.agents.policies.nodewise import NodewiseExtractor


class Halves(nn.Module):
    """Split of a feature row into logits and value features.

    Args:
        num_logits: number of logits, which come first.
        num_values: number of value features, which follow.
    """

    def __init__(self, num_logits: int, num_values: int) -> None:
        super().__init__()
        self.latent_dim_pi, self.latent_dim_vf = num_logits, num_values

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and value features."""
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: Tensor) -> Tensor:
        """Return the logits."""
        return features[:, : self.latent_dim_pi]

    def forward_critic(self, features: Tensor) -> Tensor:
        """Return the value features."""
        return features[:, self.latent_dim_pi :]


class _Placements:
    """Mixin that draws whole placements at once, from our own distribution."""

    distribution: type[PlacementDistribution] = PlacementDistribution

    def _build(self, lr_schedule: Schedule) -> None:
        self._choose_distribution()
        super()._build(lr_schedule)  # type: ignore[misc]

    def _choose_distribution(self) -> None:
        policy: Any = self
        if isinstance(policy.action_space, spaces.MultiDiscrete):
            groups, devices = policy.observation_space["device_mask"].shape
            policy.action_dist = self.distribution(groups, devices)


class _Features(_Placements):
    """Mixin that uses the features of `GraphFeaturesExtractor`."""

    extractor = GraphFeaturesExtractor

    def __init__(self, *spaces_and_schedule: Any, **options: Any) -> None:
        options.setdefault("features_extractor_class", self.extractor)
        super().__init__(*spaces_and_schedule, **options)


class FeaturesPolicy(_Features, MultiInputActorCriticPolicy):
    """SB3's MultiInputPolicy with our features extractor, and placements drawn at once.

    For PPO and A2C, in all formulations; `MaskableFeaturesPolicy` is the same for MaskablePPO. It
    takes the arguments of `NodewisePolicy`, with the ``features_extractor_kwargs`` of
    `GraphFeaturesExtractor`.

    >>> import gymnasium as gym
    >>> from stable_baselines3 import PPO
    >>> env = gym.make("device_placement.envs:SimulatedDevicePlacement-v0", model="diamond")
    >>> agent = PPO(FeaturesPolicy, env, n_steps=16, batch_size=16).learn(16)
    """


class MaskableFeaturesPolicy(_Features, MaskableMultiInputActorCriticPolicy):
    """`FeaturesPolicy` for sb3-contrib's MaskablePPO."""

    distribution = MaskablePlacementDistribution


class _Logits(_Placements):
    """Mixin for extractors whose features contain the logits."""

    extractor: type[NodewiseExtractor | GroupingExtractor | ConstructExtractor]

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        **options: Any,
    ) -> None:
        given = options.pop("features_extractor_kwargs", None) or {}
        options["features_extractor_class"] = self.extractor
        options["features_extractor_kwargs"] = {**given, "action_space": action_space}
        options["share_features_extractor"] = True
        if "optimizer_class" not in options:
            options.setdefault("optimizer_kwargs", {"eps": 1e-5, "fused": True})
        super().__init__(observation_space, action_space, lr_schedule, **options)  # type: ignore[call-arg]

    def _build(self, lr_schedule: Schedule) -> None:
        """Build the other networks and the optimizer; every value starts at 0."""
        self._choose_distribution()
        policy: Any = self
        num_logits = policy.features_extractor.num_logits
        policy.mlp_extractor = Halves(num_logits, policy.features_dim - num_logits)
        policy.action_net = nn.Identity()
        policy.value_net = nn.Linear(policy.mlp_extractor.latent_dim_vf, 1)
        nn.init.zeros_(policy.value_net.weight)
        nn.init.zeros_(policy.value_net.bias)
        policy.optimizer = policy.optimizer_class(
            policy.parameters(), lr=lr_schedule(1), **policy.optimizer_kwargs
        )


class NodewisePolicy(_Logits, ActorCriticPolicy):
    """Policy with one head shared by all groups, for graphs of any size and any devices.

    For PPO and A2C, in all formulations; `MaskableNodewisePolicy` is the same for MaskablePPO.
    Devices that may not run a group have probability 0 with every algorithm. Weights fit any
    model and devices, by ``policy.load_state_dict``.

    Args:
        observation_space: of a `DevicePlacementEnv`.
        action_space: of the same.
        lr_schedule: learning rate as a function of the training's progress.
        options: arguments of `ActorCriticPolicy`; ``features_extractor_kwargs`` are those of
            `NodewiseExtractor`.

    >>> import gymnasium as gym
    >>> from stable_baselines3 import PPO
    >>> env = gym.make("device_placement.envs:SimulatedDevicePlacement-v0", model="diamond")
    >>> agent = PPO(NodewisePolicy, env, n_steps=16, batch_size=16).learn(16)
    """

    extractor = NodewiseExtractor


class GraphParsingPolicy(_Logits, ActorCriticPolicy):
    """HSDAG's learned grouping (arXiv 2405.14185): one device for each learned group.

    For PPO, A2C and `Reinforce`, in ``assign``.

    Args:
        observation_space: of a `DevicePlacementEnv`.
        action_space: of the same.
        lr_schedule: learning rate as a function of the training's progress.
        options: arguments of `ActorCriticPolicy`; ``features_extractor_kwargs`` are those of
            `GroupingExtractor`.

    Raises:
        DevicePlacementError: in another formulation.
    """

    extractor = GroupingExtractor
    distribution = GroupedDistribution


class MaskableNodewisePolicy(_Logits, MaskableActorCriticPolicy):
    """`NodewisePolicy` for sb3-contrib's MaskablePPO."""

    extractor = NodewiseExtractor
    distribution = MaskablePlacementDistribution


class ConstructPolicy(_Logits, ActorCriticPolicy):
    """Policy that constructs placements from costs, and begins near the placer ``greedy``.

    For PPO and A2C, in ``construct`` with ``costs="profile"``; `MaskableConstructPolicy` is the
    same for MaskablePPO. Devices that may not run a group, or whose memory is full, have
    probability 0. Weights fit any model and devices; those in the package are read by
    `load_weights` and belong to ``policy.features_extractor.network``.

    Args:
        observation_space: of a `DevicePlacementEnv`.
        action_space: of the same.
        lr_schedule: learning rate as a function of the training's progress.
        options: arguments of `ActorCriticPolicy`; ``features_extractor_kwargs`` are those of
            `ConstructExtractor`.

    Raises:
        DevicePlacementError: in another formulation, or without costs.

    >>> import gymnasium as gym
    >>> from stable_baselines3 import PPO
    >>> name = "device_placement.envs:SimulatedDevicePlacementConstruct-v0"
    >>> env = gym.make(name, model="diamond", costs="profile")
    >>> agent = PPO(ConstructPolicy, env, n_steps=16, batch_size=16).learn(16)
    """

    extractor = ConstructExtractor


class MaskableConstructPolicy(_Logits, MaskableActorCriticPolicy):
    """`ConstructPolicy` for sb3-contrib's MaskablePPO."""

    extractor = ConstructExtractor
