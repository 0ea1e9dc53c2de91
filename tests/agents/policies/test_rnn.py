"""What the recurrent policy promises: one probability however it is asked for, and learning."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, PPO
from torch import Tensor

from device_placement.agents.policies.rnn import RnnPolicy
from device_placement.agents.training.reinforce import Reinforce
from device_placement.envs import DevicePlacementError
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.observation import (
    Layout,
    action_space,
    device_features,
    graph_arrays,
    observation_space,
    observe,
)
from observations import COARSE, EDGES, FEATURES, GROUPS, LAYOUT
from scripted import diamond_evaluator

TWICE = replace(LAYOUT, max_groups=2 * GROUPS, max_edges=2 * EDGES)
TINY = diamond_evaluator().coarse
ID = "device_placement.envs:SimulatedDevicePlacement-v0"


pytestmark = pytest.mark.usefixtures("one_thread")


def supporting(coarse: CoarseGraph, forbidden: dict[int, int]) -> CoarseGraph:
    """The same groups, some of which a device does not support."""
    supported = np.ones_like(coarse.supported)
    for group, device in forbidden.items():
        supported[group, device] = False
    return replace(coarse, supported=supported)


def seen(
    layout: Layout, coarse: CoarseGraph = COARSE, rows: int = 1, graph_id: int = 0
) -> dict[str, Tensor]:
    """A batch of equal rows; no placement yet."""
    features = np.random.default_rng(graph_id).normal(size=(coarse.num_groups, FEATURES))
    static = graph_arrays(coarse, features.astype(np.float32), layout, graph_id)
    devices = device_features(np.array([0.0, -0.3]), coarse, [None, None], reference=0)
    unplaced = np.full(coarse.num_groups, -1)
    one = observe(static, devices, layout, unplaced, None, log_time=0.0, step=0)
    return {key: torch.as_tensor(np.stack([array] * rows)).float() for key, array in one.items()}


def make_policy(layout: Layout = LAYOUT) -> RnnPolicy:
    """A policy with random weights, equal for all layouts."""
    policy = RnnPolicy(
        observation_space(layout),
        action_space(layout, "assign"),
        lambda _: 1e-3,
        features_extractor_kwargs={"hidden": 16},
    )
    torch.manual_seed(1)
    for weight in policy.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return policy.eval()


def log_probs(policy: RnnPolicy, batch: dict[str, Tensor], actions: Tensor) -> Tensor:
    found: Tensor = policy.evaluate_actions(batch, actions)[1]
    return found


@pytest.mark.parametrize("deterministic", [False, True])
def test_evaluating_gives_the_log_probabilities_of_choosing(deterministic: bool) -> None:
    policy, batch = make_policy(), seen(LAYOUT, supporting(COARSE, {4: 0, 7: 1}), rows=64)
    actions, values, chosen = policy(batch, deterministic)
    found = policy.evaluate_actions(batch, actions.float())
    assert len(actions.unique(dim=0)) == 1 if deterministic else chosen.std() > 0.1
    torch.testing.assert_close(found[1], chosen, atol=1e-5, rtol=0)
    torch.testing.assert_close(found[0], values)
    torch.testing.assert_close(policy.predict_values(batch), values)


def test_probabilities_of_all_placements_are_what_is_drawn() -> None:
    layout = replace(LAYOUT, max_groups=6)  # of which two are padding
    policy, rows = make_policy(layout), 20_000
    every = torch.tensor([[*devices, 0, 0] for devices in product((0, 1), repeat=4)])
    expected = log_probs(policy, seen(layout, TINY, len(every)), every).exp()
    assert expected.sum().item() == pytest.approx(1)
    assert expected.max() > 5 * expected.min()
    torch.manual_seed(7)
    drawn, _, _ = policy(seen(layout, TINY, rows))
    share = torch.bincount(drawn[:, :4] @ torch.tensor([8, 4, 2, 1]), minlength=16) / rows
    torch.testing.assert_close(share, expected, atol=0.015, rtol=0)


def test_entropies_along_what_is_drawn_are_those_of_the_policy() -> None:
    layout = replace(LAYOUT, max_groups=4)
    policy, batch = make_policy(layout), seen(layout, TINY, 16)
    every = torch.tensor(list(product((0, 1), repeat=4)))
    _, log_prob, entropy = policy.evaluate_actions(batch, every)
    assert entropy is not None
    mean = (log_prob.exp() * entropy).sum()
    torch.testing.assert_close(mean, -(log_prob.exp() * log_prob).sum())


def test_the_likeliest_device_is_taken_at_each_step() -> None:
    policy, batch = make_policy(), seen(LAYOUT)
    chosen = policy(batch, deterministic=True)[0]
    observation = {key: array[0].numpy() for key, array in batch.items()}
    predicted, _ = policy.predict(observation, deterministic=True)
    assert predicted.tolist() == chosen[0].tolist()
    each = policy.decoder.follow(policy.encode(batch), chosen)
    assert torch.equal(each.argmax(dim=2), chosen)


def test_a_device_changes_what_follows_and_nothing_before() -> None:
    policy = make_policy()
    encoded = policy.encode(seen(LAYOUT))
    actions = torch.zeros(1, GROUPS, dtype=torch.long)
    one = policy.decoder.follow(encoded, actions)
    actions[0, 5] = 1
    other = policy.decoder.follow(encoded, actions)
    changed = ((one - other).abs() > 1e-6).any(dim=2)[0]
    assert changed.tolist() == [False] * 6 + [True] * 6


def test_padding_changes_nothing() -> None:
    actions = torch.randint(2, (8, GROUPS), generator=torch.Generator().manual_seed(0))
    filled = torch.nn.functional.pad(actions, (0, GROUPS), value=1)  # is ignored
    one = make_policy().evaluate_actions(seen(LAYOUT, rows=8), actions)
    other = make_policy(TWICE).evaluate_actions(seen(TWICE, rows=8), filled)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    assert one[1].std() > 0.1


def test_a_smaller_graph_beside_a_larger_one_is_as_alone() -> None:
    layout = replace(TWICE, num_graphs=2)
    policy = make_policy(layout)
    small, large = seen(layout, TINY, 3, graph_id=0), seen(layout, COARSE, 3, graph_id=1)
    both = {key: torch.cat([large[key], small[key]]) for key in small}
    both["device_mask"][:] = 1  # of padding too
    actions, _, chosen = policy(both)
    assert not actions[:3, GROUPS:].any()
    assert not actions[3:, TINY.num_groups :].any()
    alone = torch.cat(
        [log_probs(policy, large, actions[:3]), log_probs(policy, small, actions[3:])]
    )
    torch.testing.assert_close(chosen, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(log_probs(policy, both, actions), alone, atol=1e-5, rtol=0)


def test_forbidden_devices_have_probability_0() -> None:
    policy, batch = make_policy(), seen(LAYOUT, supporting(COARSE, {0: 0, 7: 1}), rows=200)
    actions, _, _ = policy(batch)
    assert actions[:, 0].all()
    assert not actions[:, 7].any()
    assert all(0 < share < 1 for share in actions.float().mean(dim=0)[[1, 2, 3, 4]])
    actions[:, 7] = 1
    assert not log_probs(policy, batch, actions).exp().any()
    assert policy(batch, deterministic=True)[0][0, [0, 7]].tolist() == [1, 0]


def test_the_gradient_reaches_every_weight() -> None:
    policy, batch = make_policy(), seen(LAYOUT)
    actions = torch.arange(GROUPS)[None] % 2
    value, log_prob, _ = policy.evaluate_actions(batch, actions)
    (value.sum() + log_prob.sum()).backward()  # type: ignore[no-untyped-call]
    for name, weight in policy.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


def test_the_neighbours_are_seen() -> None:
    policy, one, other = make_policy(), seen(LAYOUT), seen(LAYOUT)
    other["edge_index"][:, 0, 3] = 1  # group 1 feeds group 4, and group 3 does not
    actions = torch.zeros(1, GROUPS)
    assert log_probs(policy, one, actions) != log_probs(policy, other, actions)


def trained(algorithm: Any, **options: Any) -> Any:
    """After two updates."""
    if algorithm is PPO:
        options["batch_size"] = 16
    env = gym.make(ID, model="diamond", reward="negative_sqrt")
    return algorithm(RnnPolicy, env, n_steps=16, seed=3, **options).learn(32)


@pytest.mark.parametrize("algorithm", [PPO, A2C, Reinforce])
def test_twin_runs_give_equal_weights(algorithm: Any) -> None:
    one, other = (dict(trained(algorithm).policy.state_dict()) for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert one["decoder.read.weight"].any()


@pytest.mark.parametrize("algorithm", [PPO, Reinforce])
def test_what_is_saved_predicts_the_same(algorithm: Any, tmp_path: Any) -> None:
    agent = trained(algorithm, policy_kwargs={"features_extractor_kwargs": {"hidden": 24}})
    agent.save(tmp_path / "agent.zip")
    agent.policy.save(tmp_path / "policy.pt")
    loaded = algorithm.load(tmp_path / "agent.zip", env=agent.get_env())
    alone = RnnPolicy.load(tmp_path / "policy.pt")
    observation = agent.get_env().reset()
    batch = {key: torch.as_tensor(array) for key, array in observation.items()}
    expected = agent.policy(batch, deterministic=True)
    for policy in (loaded.policy, alone):
        assert policy.features_dim == 24
        for one, other in zip(policy(batch, deterministic=True), expected, strict=True):
            assert torch.equal(one, other)
    assert loaded.learn(16, reset_num_timesteps=False).num_timesteps == 48


def test_other_formulations_are_refused() -> None:
    env = gym.make("device_placement.envs:SimulatedDevicePlacementConstruct-v0", model="diamond")
    with pytest.raises(DevicePlacementError, match="use formulation='assign'"):
        PPO(RnnPolicy, env)
    with pytest.raises(DevicePlacementError, match="use evaluate_actions"):
        make_policy().get_distribution(seen(LAYOUT))
