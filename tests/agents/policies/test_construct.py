"""What the construct network promises: of devices, padding and hidden inputs; where it begins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO

from device_placement.agents.placers import make_placer
from device_placement.agents.placers.pretrained.drawing import draw, static_arrays
from device_placement.agents.policies.construct import (
    HIDDEN_INPUTS,
    ConstructNetwork,
    Encoded,
    usable_devices,
)
from device_placement.agents.policies.cost_inputs import NUM_PARTIAL, STATIC_COSTS
from device_placement.agents.policies.distributions import MASKED
from device_placement.agents.policies.policies import ConstructPolicy, MaskableConstructPolicy
from device_placement.agents.pretraining.learning import see
from device_placement.envs import DevicePlacementError, generate_problem
from device_placement.envs.observation import (
    GROUP_DEVICE_COSTS,
    action_space,
    observation_space,
)
from observations import LAYOUT, NAMES, coarse_on, make_observation, seeing

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL: dict[str, Any] = {"hidden": 16, "layers": 2}


def random_network(**options: Any) -> ConstructNetwork:
    """A network with random weights, those of the head among them."""
    torch.manual_seed(0)
    network = ConstructNetwork(**{**SMALL, **options})
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return network.eval()


def logits(network: ConstructNetwork, static: dict[str, Any], partial: Any, group: int) -> Any:
    """Of the devices for a group of the first problem."""
    with torch.no_grad():
        encoded: Encoded = network(static)
        allowed = static["device_mask"][:1, group].bool()
        found, _ = network.head(
            encoded.common[:1, group], encoded.pairs[:1, group], encoded.skip[:1], partial, allowed
        )
    return found[0]


def observed(layout: Any, num_devices: int = 2) -> dict[str, torch.Tensor]:
    return make_observation(seeing(layout, True, "construct"), coarse_on(num_devices), cursor=4)


def test_renumbering_devices_renumbers_logits_and_nothing_else() -> None:
    network, seen = random_network(), observed(LAYOUT)
    expected = logits(network, seen, seen["partial_schedule"], 4)
    swapped = {key: array.clone() for key, array in seen.items()}
    pairs = seen["group_device_costs"].reshape(1, -1, 2, len(GROUP_DEVICE_COSTS)).flip(2)
    swapped["group_device_costs"] = pairs.reshape(seen["group_device_costs"].shape)
    for key in ("device_costs", "partial_schedule"):
        swapped[key] = seen[key].flip(1)
    swapped["device_mask"] = seen["device_mask"].flip(2)
    found = logits(network, swapped, swapped["partial_schedule"], 4)
    assert abs(expected[0] - expected[1]) > 0.01
    torch.testing.assert_close(found.flip(0), expected)


def test_padding_and_further_devices_change_nothing() -> None:
    network, seen = random_network(), observed(LAYOUT)
    expected = logits(network, seen, seen["partial_schedule"], 4)
    larger = replace(LAYOUT, max_groups=20, max_edges=40, num_devices=3)
    padded = observed(larger, 3)
    found = logits(network, padded, padded["partial_schedule"], 4)
    torch.testing.assert_close(found[:2], expected)
    assert found[2] == MASKED


@pytest.mark.parametrize("without", HIDDEN_INPUTS)
def test_what_is_hidden_has_no_influence_and_the_rest_has(without: str) -> None:
    network, seen = random_network(without=without), observed(LAYOUT)
    partial = seen["partial_schedule"]
    expected = logits(network, seen, partial, 4)
    other = {**seen, **{key: 0.5 * seen[key] for key in STATIC_COSTS}}
    assert torch.equal(logits(network, other, partial, 4), expected) == (without == "costs")
    same = torch.equal(logits(network, seen, 0.5 * partial, 4), expected)
    assert same == (without == "partial_schedule")


def test_an_unknown_hidden_input_is_named() -> None:
    with pytest.raises(DevicePlacementError, match=r"Unknown hidden input 'cost'.*'costs'"):
        ConstructNetwork(without="cost")


def test_every_weight_learns() -> None:
    network, seen = random_network(), observed(LAYOUT)
    encoded: Encoded = network(seen)
    allowed = torch.ones(1, 2, dtype=torch.bool)
    found, _ = network.head(
        encoded.common[:, 4], encoded.pairs[:, 4], encoded.skip, seen["partial_schedule"], allowed
    )
    (found[0, 0] - found[0, 1]).backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        if name != "score.bias":  # the same for all devices
            assert weight.grad.abs().sum() > 0, name


def test_an_untrained_network_is_close_to_greedy() -> None:
    torch.manual_seed(0)
    network = ConstructNetwork()
    ratios = []
    for seed in range(20):
        evaluator = generate_problem(seed)
        problems = [see(evaluator)]
        with torch.no_grad():
            encoded = network(static_arrays(problems))
        placement = draw(network, problems, encoded, 1).placements
        greedy_s = make_placer("greedy").place(evaluator, 10, 0).time_s
        single_s = make_placer("single").place(evaluator, 10, 0).time_s
        ratios.append([evaluator.evaluate_many(placement)[0] / greedy_s, single_s / greedy_s])
    ours, singles = np.exp(np.log(ratios).mean(axis=0))
    assert ours < 1.1 < singles


def test_full_devices_are_left_out_unless_all_are() -> None:
    masks = torch.tensor([[True, True, False], [True, True, False]])
    partial = torch.zeros(2, 3, NUM_PARTIAL)
    partial[0, 1:, 0] = 1.0  # the weights fit
    found = usable_devices(masks, partial)
    assert found.tolist() == [[False, True, False], [True, True, False]]


@pytest.mark.parametrize("formulation", ["assign", "refine"])
def test_another_formulation_is_refused(formulation: str) -> None:
    layout = seeing(LAYOUT, True, formulation)
    with pytest.raises(DevicePlacementError, match=f"Got formulation='{formulation}'.*construct"):
        ConstructPolicy(
            observation_space(layout), action_space(layout, formulation), lambda _: 1e-3
        )


def test_costs_are_needed() -> None:
    layout = seeing(LAYOUT, False, "construct")
    with pytest.raises(DevicePlacementError, match=r"costs='none'.*costs='profile'"):
        ConstructPolicy(
            observation_space(layout), action_space(layout, "construct"), lambda _: 1e-3
        )


@pytest.mark.parametrize(
    ("algorithm", "policy"), [(PPO, ConstructPolicy), (MaskablePPO, MaskableConstructPolicy)]
)
def test_off_the_shelf_algorithms_train_it(algorithm: Any, policy: Any) -> None:
    name = f"device_placement.envs:{NAMES['construct']}"
    env = gym.make(name, model="diamond", costs="profile")
    options = {"features_extractor_kwargs": SMALL}
    agent = algorithm(policy, env, n_steps=16, batch_size=16, policy_kwargs=options, seed=0)
    before = {name: one.clone() for name, one in agent.policy.named_parameters()}
    agent.learn(32)
    changed = [name for name, one in agent.policy.named_parameters() if (one != before[name]).any()]
    assert any("skip" in name for name in changed)
    assert any("read_pair" in name for name in changed)


def test_the_policy_draws_what_the_network_says() -> None:
    layout = seeing(LAYOUT, True, "construct")
    torch.manual_seed(0)
    policy = ConstructPolicy(
        observation_space(layout),
        action_space(layout, "construct"),
        lambda _: 1e-3,
        features_extractor_kwargs=SMALL,
    )
    network: Any = policy.features_extractor.network
    network.load_state_dict(random_network().state_dict())
    seen = observed(LAYOUT)
    seen["partial_schedule"][..., 0] = 1.0
    distribution: Any = policy.get_distribution(seen)  # type: ignore[arg-type]
    expected = logits(random_network(), seen, seen["partial_schedule"], 4)
    torch.testing.assert_close(distribution.distribution.probs[0], expected.softmax(0))
