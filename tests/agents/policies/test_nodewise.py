"""What the nodewise policies promise: of size, order and devices; of masks and of seeds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3 import A2C, PPO

from device_placement.agents.policies.cost_inputs import STATIC_COSTS
from device_placement.agents.policies.gnn import CONVS, DIRECTIONS
from device_placement.agents.policies.policies import MaskableNodewisePolicy, NodewisePolicy
from device_placement.envs import DevicePlacementError
from device_placement.envs.observation import FORMULATIONS
from observations import (
    EDGES,
    GROUPS,
    LAYOUT,
    coarse_on,
    make_observation,
    make_policy,
    probabilities,
    seeing,
    trained,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("change", ["padding", "order", "device"])
@pytest.mark.parametrize(
    ("costs", "sees_placement"), [(False, True), (True, True), (True, None)], ids=str
)
def test_nothing_that_does_not_matter_changes_a_probability(
    change: str, formulation: str, costs: bool, sees_placement: bool | None
) -> None:
    cursor = 4 if formulation == "construct" else None
    layout, coarse, order = seeing(LAYOUT, costs, formulation), coarse_on(2), np.arange(GROUPS)
    expected = probabilities(
        make_policy(layout, formulation, sees_placement=sees_placement),
        layout,
        formulation,
        make_observation(layout, coarse, cursor),
    )
    if change == "padding":
        layout = replace(layout, max_groups=2 * GROUPS, max_edges=2 * EDGES)
    elif change == "order":
        order = np.random.default_rng(3).permutation(GROUPS)
    else:
        layout, coarse = replace(layout, num_devices=3), coarse_on(3)
    found = probabilities(
        make_policy(layout, formulation, sees_placement=sees_placement),
        layout,
        formulation,
        make_observation(layout, coarse, cursor, order),
    )
    if formulation != "construct":
        expected = expected[order]
    assert expected.std() > 0.02 * expected.mean()  # the policy has an opinion
    torch.testing.assert_close(found[:, :2], expected, atol=1e-5, rtol=0)
    assert not found[:, 2:].any()


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_masked_actions_have_probability_0(formulation: str) -> None:
    coarse = coarse_on(2, {4: [0], 7: [1]})
    cursor = 4 if formulation == "construct" else None
    policy = make_policy(LAYOUT, formulation)
    found = probabilities(policy, LAYOUT, formulation, make_observation(LAYOUT, coarse, cursor))
    if formulation == "construct":
        assert found.tolist() == [[0, 1]]
        return
    zeros = {(group, device) for group, device in (found == 0).nonzero().tolist()}
    assert zeros == {(4, 0), (7, 1)}
    torch.testing.assert_close(found.sum(), torch.tensor(12.0 if formulation == "assign" else 1.0))


def test_refine_never_moves_padding() -> None:
    layout = replace(LAYOUT, max_groups=2 * GROUPS)
    found: Any = make_policy(layout, "refine").get_distribution(
        make_observation(layout, coarse_on(2))  # type: ignore[arg-type]
    )
    assert not found.distribution.probs[0, 2 * GROUPS :].any()


@pytest.mark.parametrize("conv", CONVS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("costs", [False, True])
def test_every_convolution_learns_from_every_weight(conv: str, direction: str, costs: bool) -> None:
    layout = seeing(LAYOUT, costs, "assign")
    policy = make_policy(layout, "assign", conv=conv, direction=direction, sees_placement=True)
    seen = make_observation(layout, coarse_on(2))
    value, log_prob, _ = policy.evaluate_actions(seen, torch.zeros(1, GROUPS))  # type: ignore[arg-type]
    (value.sum() + log_prob.sum()).backward()
    for name, weight in policy.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


def test_a_wrong_convolution_is_named() -> None:
    with pytest.raises(DevicePlacementError, match=r"Unknown graph convolution 'gim'.*gin"):
        make_policy(LAYOUT, "assign", conv="gim")


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize(
    ("algorithm", "policy"),
    [(PPO, NodewisePolicy), (A2C, NodewisePolicy), (MaskablePPO, MaskableNodewisePolicy)],
)
def test_twin_runs_give_equal_weights(algorithm: Any, policy: Any, formulation: str) -> None:
    one, other = (trained(algorithm, policy, formulation) for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("costs", [False, True])
def test_weights_fit_another_model_and_other_devices(costs: bool, formulation: str) -> None:
    layout = seeing(LAYOUT, costs, formulation)
    saved = make_policy(layout, formulation).state_dict()
    larger = replace(layout, max_groups=40, max_edges=90, num_devices=5)
    make_policy(larger, formulation).load_state_dict(saved)


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_all_costs_count(formulation: str) -> None:
    layout = seeing(LAYOUT, True, formulation)
    cursor = 4 if formulation == "construct" else None
    policy = make_policy(layout, formulation)
    seen = make_observation(layout, coarse_on(2), cursor)
    expected = probabilities(policy, layout, formulation, seen)
    keys = {*STATIC_COSTS, *(["partial_schedule"] if formulation == "construct" else [])}
    assert keys == seen.keys() - make_observation(LAYOUT, coarse_on(2)).keys()
    for key in keys:
        found = probabilities(policy, layout, formulation, {**seen, key: seen[key].flip(1)})
        if key == "costs_known":
            found = probabilities(policy, layout, formulation, {**seen, key: 0 * seen[key]})
        assert (found - expected).abs().max() > 1e-5, key
