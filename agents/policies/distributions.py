"""Action distributions over whole placements: independent, masked, one per learned group."""

from __future__ import annotations

import torch
from sb3_contrib.common.maskable.distributions import MaskableDistribution, MaybeMasks
from stable_baselines3.common.distributions import MultiCategoricalDistribution
from torch import Tensor
from torch.distributions import Categorical

MASKED = -1e8  # a logit whose probability is 0


class PlacementDistribution(MultiCategoricalDistribution):
    """Distribution that draws each group's device independently.

    It equals SB3's `MultiCategoricalDistribution` for the same logits, without one object per
    group: with hundreds of groups these take most of the time of a training.

    Args:
        num_groups: groups of the padded graph.
        num_devices: number of devices.

    >>> distribution = PlacementDistribution(3, 2).proba_distribution(torch.zeros(1, 6))
    >>> distribution.log_prob(distribution.sample()).exp()
    tensor([0.1250])
    """

    def __init__(self, num_groups: int, num_devices: int) -> None:
        super().__init__([num_devices] * num_groups)
        self.num_groups, self.num_devices = num_groups, num_devices

    def proba_distribution(self, action_logits: Tensor) -> PlacementDistribution:
        """Set the logits, (batch, num_groups * num_devices), and return the distribution."""
        shaped = action_logits.reshape(len(action_logits), self.num_groups, self.num_devices)
        self.each = Categorical(logits=shaped, validate_args=False)
        return self

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return log-probabilities, (batch,), of whole placements, (batch, num_groups)."""
        each: Tensor = self.each.log_prob(actions.long())  # type: ignore[no-untyped-call]
        return self._sum(each)

    def entropy(self) -> Tensor:
        """Return the entropies, (batch,)."""
        each: Tensor = self.each.entropy()  # type: ignore[no-untyped-call]
        return self._sum(each)

    def sample(self) -> Tensor:
        """Draw devices, (batch, num_groups)."""
        drawn: Tensor = self.each.sample()  # type: ignore[no-untyped-call]
        return drawn

    def mode(self) -> Tensor:
        """Return the likeliest device of each group, (batch, num_groups)."""
        likeliest: Tensor = self.each.logits.argmax(dim=2)
        return likeliest

    def _sum(self, each: Tensor) -> Tensor:
        """Sum (batch, num_groups) over the groups to (batch,)."""
        return each.sum(dim=1)


class MaskablePlacementDistribution(PlacementDistribution, MaskableDistribution):
    """`PlacementDistribution` for sb3-contrib's MaskablePPO.

    >>> distribution = MaskablePlacementDistribution(1, 2).proba_distribution(torch.zeros(1, 2))
    >>> distribution.apply_masking(torch.tensor([[True, False]]))
    >>> distribution.each.probs
    tensor([[[1., 0.]]])
    """

    def proba_distribution(self, action_logits: Tensor) -> MaskablePlacementDistribution:
        """Set logits, (batch, num_groups * num_devices), without masks; return the distribution."""
        super().proba_distribution(action_logits)
        self.unmasked = self.each.logits
        return self

    def apply_masking(self, masks: MaybeMasks) -> None:
        """Set the probability to 0 where (batch, num_groups * num_devices) masks are False."""
        logits = self.unmasked
        if masks is not None:
            allowed = torch.as_tensor(masks, dtype=torch.bool, device=logits.device)
            logits = logits.masked_fill(~allowed.reshape(logits.shape), MASKED)
        self.each = Categorical(logits=logits, validate_args=False)


class GroupedDistribution(PlacementDistribution):
    """Distribution of one device per learned group, which counts once, whatever its size.

    >>> first = torch.tensor([[0.0, 0.0, 2.0]])  # groups 0 and 1 are one learned group
    >>> features = torch.cat([torch.zeros(1, 6), first], dim=1)
    >>> distribution = GroupedDistribution(3, 2).proba_distribution(features)
    >>> distribution.log_prob(distribution.sample()).exp()
    tensor([0.2500])
    """

    def proba_distribution(self, action_logits: Tensor) -> GroupedDistribution:
        """Set logits and each group's first group in its learned group; return the distribution.

        Args:
            action_logits: (batch, num_groups * num_devices + num_groups), as `GroupingExtractor`
                returns them.
        """
        super().proba_distribution(action_logits[:, : -self.num_groups])
        self.leader = action_logits[:, -self.num_groups :].long()
        self.leads = self.leader == torch.arange(self.num_groups, device=action_logits.device)
        return self

    def sample(self) -> Tensor:
        """Draw devices, (batch, num_groups), equal within a learned group."""
        return super().sample().gather(1, self.leader)

    def _sum(self, each: Tensor) -> Tensor:
        return (each * self.leads).sum(dim=1)
