"""Action distributions over whole placements: independent, masked, one a learned group."""

from __future__ import annotations

import torch
from sb3_contrib.common.maskable.distributions import MaskableDistribution, MaybeMasks
from stable_baselines3.common.distributions import MultiCategoricalDistribution
from torch import Tensor
from torch.distributions import Categorical

MASKED = -1e8  # a logit whose probability is 0


class PlacementDistribution(MultiCategoricalDistribution):
    """A device for each group, each drawn on its own.

    What SB3's `MultiCategoricalDistribution` says of the same logits, without an object a group:
    with hundreds of groups those take most of the time of a training.

    Args:
        num_groups: groups of the padded graph.
        num_devices: how many there are.

    >>> distribution = PlacementDistribution(3, 2).proba_distribution(torch.zeros(1, 6))
    >>> distribution.log_prob(distribution.sample()).exp()
    tensor([0.1250])
    """

    def __init__(self, num_groups: int, num_devices: int) -> None:
        super().__init__([num_devices] * num_groups)
        self.num_groups, self.num_devices = num_groups, num_devices

    def proba_distribution(self, action_logits: Tensor) -> PlacementDistribution:
        """The distribution of logits, (batch, num_groups * num_devices)."""
        shaped = action_logits.reshape(len(action_logits), self.num_groups, self.num_devices)
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

    def _sum(self, each: Tensor) -> Tensor:
        """(batch,) over the groups, of (batch, num_groups)."""
        return each.sum(dim=1)


class MaskablePlacementDistribution(PlacementDistribution, MaskableDistribution):
    """The same for sb3-contrib's MaskablePPO.

    >>> distribution = MaskablePlacementDistribution(1, 2).proba_distribution(torch.zeros(1, 2))
    >>> distribution.apply_masking(torch.tensor([[True, False]]))
    >>> distribution.each.probs
    tensor([[[1., 0.]]])
    """

    def proba_distribution(self, action_logits: Tensor) -> MaskablePlacementDistribution:
        """The distribution of logits, (batch, num_groups * num_devices), without masks."""
        super().proba_distribution(action_logits)
        self.unmasked = self.each.logits
        return self

    def apply_masking(self, masks: MaybeMasks) -> None:
        """Give what is masked, False in (batch, num_groups * num_devices), probability 0."""
        logits = self.unmasked
        if masks is not None:
            allowed = torch.as_tensor(masks, dtype=torch.bool, device=logits.device)
            logits = logits.masked_fill(~allowed.reshape(logits.shape), MASKED)
        self.each = Categorical(logits=logits, validate_args=False)


class GroupedDistribution(PlacementDistribution):
    """One device is drawn for each learned group; it counts once, whatever the group's size.

    >>> first = torch.tensor([[0.0, 0.0, 2.0]])  # groups 0 and 1 are one learned group
    >>> features = torch.cat([torch.zeros(1, 6), first], dim=1)
    >>> distribution = GroupedDistribution(3, 2).proba_distribution(features)
    >>> distribution.log_prob(distribution.sample()).exp()
    tensor([0.2500])
    """

    def proba_distribution(self, action_logits: Tensor) -> GroupedDistribution:
        """The distribution of logits, and of the first group of each one's learned group.

        Args:
            action_logits: (batch, num_groups * num_devices + num_groups), as `GroupingExtractor`
                gives them.
        """
        super().proba_distribution(action_logits[:, : -self.num_groups])
        self.leader = action_logits[:, -self.num_groups :].long()
        self.leads = self.leader == torch.arange(self.num_groups, device=action_logits.device)
        return self

    def sample(self) -> Tensor:
        """(batch, num_groups) drawn devices, the same in all of a learned group."""
        return super().sample().gather(1, self.leader)

    def _sum(self, each: Tensor) -> Tensor:
        return (each * self.leads).sum(dim=1)
