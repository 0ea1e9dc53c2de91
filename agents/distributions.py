"""Distributions of whole placements, computed for all groups at once."""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.distributions import Distribution
from torch import Tensor, nn
from torch.distributions import Categorical


class PlacementDistribution(Distribution):
    """A device for each group, each drawn on its own.

    What SB3's `MultiCategoricalDistribution` says of the same logits, without an object a group.

    Args:
        num_groups: groups of the padded graph.
        num_devices: how many there are.

    >>> distribution = PlacementDistribution(3, 2).proba_distribution(torch.zeros(1, 6))
    >>> distribution.log_prob(distribution.sample()).exp()
    tensor([0.1250])
    """

    def __init__(self, num_groups: int, num_devices: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num_groups, self.num_devices = num_groups, num_devices

    def proba_distribution_net(self, *args: Any, **kwargs: Any) -> nn.Module:
        """What is between the features and the distribution: nothing."""
        return nn.Identity()

    def proba_distribution(self, features: Tensor) -> PlacementDistribution:
        """The distribution of logits, (batch, num_groups * num_devices)."""
        shaped = features.reshape(len(features), self.num_groups, self.num_devices)
        self.each = Categorical(logits=shaped, validate_args=False)
        return self

    def log_prob(self, actions: Tensor) -> Tensor:
        """(batch,) of whole placements, (batch, num_groups)."""
        each: Tensor = self.each.log_prob(actions.long())  # type: ignore[no-untyped-call]
        return self._sum(each)

    def entropy(self) -> Tensor:
        """(batch,)."""
        each: Tensor = self.each.entropy()  # type: ignore[no-untyped-call]
        return self._sum(each)

    def sample(self) -> Tensor:
        """(batch, num_groups) drawn devices."""
        drawn: Tensor = self.each.sample()  # type: ignore[no-untyped-call]
        return drawn

    def mode(self) -> Tensor:
        """(batch, num_groups) the likeliest device of each."""
        likeliest: Tensor = self.each.logits.argmax(dim=2)
        return likeliest

    def actions_from_params(self, *args: Any, **kwargs: Any) -> Tensor:
        """Devices for what `proba_distribution` takes."""
        deterministic = bool(kwargs.pop("deterministic", False))
        return self.proba_distribution(*args, **kwargs).get_actions(deterministic)

    def log_prob_from_params(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Drawn devices and their log-probability."""
        actions = self.actions_from_params(*args, **kwargs)
        return actions, self.log_prob(actions)

    def _sum(self, each: Tensor) -> Tensor:
        """(batch,) over the groups, of (batch, num_groups)."""
        return each.sum(dim=1)


class GroupedDistribution(PlacementDistribution):
    """One device is drawn for each learned group; it counts once, whatever the group's size.

    >>> first = torch.tensor([[0.0, 0.0, 2.0]])  # groups 0 and 1 are one learned group
    >>> features = torch.cat([torch.zeros(1, 6), first], dim=1)
    >>> distribution = GroupedDistribution(3, 2).proba_distribution(features)
    >>> distribution.log_prob(distribution.sample()).exp()
    tensor([0.2500])
    """

    def proba_distribution(self, features: Tensor) -> GroupedDistribution:
        """The distribution of logits, and of the first group of each one's learned group.

        Args:
            features: (batch, num_groups * num_devices + num_groups), as `GroupingExtractor`
                gives them.
        """
        super().proba_distribution(features[:, : -self.num_groups])
        self.leader = features[:, -self.num_groups :].long()
        self.leads = self.leader == torch.arange(self.num_groups, device=features.device)
        return self

    def sample(self) -> Tensor:
        """(batch, num_groups) drawn devices, the same in all of a learned group."""
        return super().sample().gather(1, self.leader)

    def _sum(self, each: Tensor) -> Tensor:
        return (each * self.leads).sum(dim=1)
