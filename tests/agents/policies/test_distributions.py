"""Whole placements are distributed as stable-baselines3 and sb3-contrib have it."""

from __future__ import annotations

import pytest
import torch
from sb3_contrib.common.maskable.distributions import MaskableMultiCategoricalDistribution
from stable_baselines3.common.distributions import MultiCategoricalDistribution

from device_placement.agents.policies.distributions import (
    MaskablePlacementDistribution,
    PlacementDistribution,
)

BATCH, GROUPS, DEVICES = 4, 5, 3


@pytest.fixture
def logits() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 2.0 * torch.randn(BATCH, GROUPS * DEVICES, generator=generator)


@pytest.fixture
def masks() -> torch.Tensor:
    """Every group may be on device 0, half of the other devices are ruled out."""
    allowed = torch.arange(BATCH * GROUPS * DEVICES).reshape(BATCH, GROUPS, DEVICES) % 2 == 0
    allowed[:, :, 0] = True
    return allowed.reshape(BATCH, -1)


def assert_same(
    ours: PlacementDistribution,
    theirs: MultiCategoricalDistribution | MaskableMultiCategoricalDistribution,
) -> None:
    actions = torch.arange(BATCH * GROUPS).reshape(BATCH, GROUPS) % DEVICES
    torch.testing.assert_close(ours.log_prob(actions), theirs.log_prob(actions))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    assert ours.mode().tolist() == theirs.mode().tolist()


def test_the_same_without_masks(logits: torch.Tensor) -> None:
    ours = PlacementDistribution(GROUPS, DEVICES).proba_distribution(logits)
    theirs = MultiCategoricalDistribution([DEVICES] * GROUPS).proba_distribution(logits)
    assert_same(ours, theirs)


def test_the_same_with_masks_and_again_without(logits: torch.Tensor, masks: torch.Tensor) -> None:
    ours = MaskablePlacementDistribution(GROUPS, DEVICES).proba_distribution(logits)
    theirs = MaskableMultiCategoricalDistribution([DEVICES] * GROUPS).proba_distribution(logits)
    for given in (masks, None):
        ours.apply_masking(given)
        theirs.apply_masking(given)
        assert_same(ours, theirs)


def test_what_is_masked_is_never_drawn(logits: torch.Tensor, masks: torch.Tensor) -> None:
    distribution = MaskablePlacementDistribution(GROUPS, DEVICES)
    distribution.proba_distribution(logits.repeat(100, 1))
    distribution.apply_masking(masks.repeat(100, 1).numpy())
    allowed = masks.repeat(100, 1).reshape(-1, GROUPS, DEVICES)
    assert allowed.gather(2, distribution.sample()[:, :, None]).all()
