"""Algorithms by name: made, saved, loaded, repeated, masked."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from device_placement.agents.policies.nodewise import NodewiseExtractor
from device_placement.agents.presets import PRESETS, preset
from device_placement.agents.training.algorithms import (
    ALGORITHMS,
    POLICIES,
    greedy_assignment,
    load_algorithm,
    make_algorithm,
)
from device_placement.envs.env import DevicePlacementEnv
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.evaluation import BaseEvaluator
from device_placement.envs.graph.features import FEATURE_BLOCKS
from device_placement.envs.observation import FORMULATIONS
from device_placement.envs.parts import COSTS
from device_placement.envs.rewards import REWARDS
from planted import plant
from scripted import diamond_evaluator, simulated_diamond, twelve_groups_evaluator

EVERY = [(name, formulation) for name, one in PRESETS.items() for formulation in one.formulations]
# With costs and without, unless a preset always sees them.
SEEN = [(*one, costs) for one in EVERY for costs in COSTS if costs >= preset(*one).costs]


pytestmark = pytest.mark.usefixtures("one_thread")


def make_env(
    formulation: str, evaluator: BaseEvaluator | None = None, costs: str = "none"
) -> DevicePlacementEnv:
    usual = diamond_evaluator if costs == "none" else simulated_diamond
    return DevicePlacementEnv(
        evaluator=evaluator or usual(), formulation=formulation, horizon=4, costs=costs
    )


def weights(algorithm: BaseAlgorithm) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(algorithm.policy.parameters())


def trained(name: str, formulation: str, seed: int, costs: str = "none") -> BaseAlgorithm:
    """After two updates, so that the second one's rollout is of weights that were learned."""
    env = make_env(formulation, costs=costs)
    algorithm = make_algorithm(name, env, formulation=formulation, seed=seed)
    assert isinstance(algorithm, OnPolicyAlgorithm)
    return algorithm.learn(2 * algorithm.n_steps)


once_trained = functools.cache(trained)  # for tests that leave it as it is


@pytest.mark.parametrize(("name", "formulation"), EVERY)
def test_presets_name_what_there_is(name: str, formulation: str) -> None:
    chosen = preset(name, formulation)
    assert chosen.formulation == formulation
    assert chosen.reward in REWARDS
    assert chosen.costs in COSTS
    assert set(chosen.features) <= set(FEATURE_BLOCKS)
    assert PRESETS[name].algorithm in ALGORITHMS
    assert PRESETS[name].policy in POLICIES
    assert PRESETS[name].source
    assert PRESETS[name].differs


@pytest.mark.parametrize(("name", "formulation"), [("pp0", "assign"), ("ppo", "asign")])
def test_unknown_names(name: str, formulation: str) -> None:
    with pytest.raises(DevicePlacementError, match=r"Did you mean '(ppo|assign)'"):
        preset(name, formulation)
    with pytest.raises(DevicePlacementError, match=r"Did you mean '(ppo|assign)'"):
        make_algorithm(name, make_env("assign"), formulation=formulation, seed=0)


@pytest.mark.parametrize("value", ["two", -1, 10**15])
def test_values_that_nothing_can_be_made_with(value: object) -> None:
    with pytest.raises(
        DevicePlacementError, match=f"can't be made with extractor.hidden={value!r}"
    ):
        make_algorithm("ppo", make_env("assign"), overrides={"extractor.hidden": value})


def test_load_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(DevicePlacementError, match="Unknown preset 'dqn'; allowed: ppo, a2c"):
        load_algorithm("dqn", tmp_path / "policy.zip", make_env("assign"))


def test_overrides_win() -> None:
    env = make_env("assign")
    overrides = {"learning_rate": 0.5, "n_steps": 7}
    algorithm = make_algorithm("a2c", env, formulation="assign", seed=0, overrides=overrides)
    assert isinstance(algorithm, A2C)
    assert algorithm.learning_rate == 0.5
    assert algorithm.n_steps == 7
    overrides = {"extractor.hidden": 8, "extractor.conv": "sage"}
    algorithm = make_algorithm("nodewise_ppo", env, seed=0, overrides=overrides)
    assert isinstance(algorithm.policy.features_extractor, NodewiseExtractor)
    assert algorithm.policy.features_extractor.head.mix.in_features == 8


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("nodewise_ppo", "lerning_rate"),
        ("nodewise_ppo", "extractor.hiden"),
        ("nodewise_ppo", "seed"),
        ("rnn", "extractor.conv"),  # of the other policies' extractors
    ],
)
def test_a_wrong_override_is_named(name: str, setting: str) -> None:
    with pytest.raises(DevicePlacementError, match=f"Unknown setting '{setting}'.*learning_rate"):
        make_algorithm(name, make_env("assign"), overrides={setting: 1})


def test_updates_of_construct_are_whole_episodes() -> None:
    evaluator = twelve_groups_evaluator()
    env = make_env("construct", evaluator)
    episodes = preset("ppo", "construct").episodes
    algorithm = make_algorithm("ppo", env, formulation="construct", seed=0)
    assert isinstance(algorithm, PPO)
    assert algorithm.n_steps == algorithm.batch_size == 12 * episodes["n_steps"]


@pytest.mark.parametrize(("name", "formulation", "costs"), SEEN)
def test_save_and_load(name: str, formulation: str, costs: str, tmp_path: Path) -> None:
    algorithm, env = once_trained(name, formulation, 0, costs), make_env(formulation, costs=costs)
    algorithm.save(tmp_path / "policy.zip")
    loaded = load_algorithm(name, tmp_path / "policy.zip", env, formulation=formulation)
    assert torch.equal(weights(loaded), weights(algorithm))
    assert greedy_assignment(loaded, env) == greedy_assignment(algorithm, env)
    loaded.learn(10)  # and it goes on


@pytest.mark.parametrize(("name", "formulation", "costs"), SEEN)
def test_twins_learn_alike(name: str, formulation: str, costs: str) -> None:
    first = once_trained(name, formulation, 0, costs)
    twin, other = (trained(name, formulation, seed, costs) for seed in (0, 1))
    assert torch.equal(weights(first), weights(twin))
    assert not torch.equal(weights(first), weights(other))


def test_no_code_of_a_file_runs(tmp_path: Path) -> None:
    env = make_env("assign")
    algorithm = make_algorithm("rnn", env, seed=0)
    algorithm.save(tmp_path / "policy.zip")
    plant(tmp_path / "policy.zip", "data", tmp_path / "planted")
    loaded = load_algorithm("rnn", tmp_path / "policy.zip", env)
    assert torch.equal(weights(loaded), weights(algorithm))
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_maskable_ppo_never_takes_a_masked_action(formulation: str) -> None:
    evaluator = diamond_evaluator()
    supported = np.array([[1, 0], [1, 1], [1, 0], [1, 1]], dtype=np.bool_)
    evaluator.coarse = replace(evaluator.coarse, supported=supported)
    env = make_env(formulation, evaluator)
    algorithm = make_algorithm("maskable_ppo", env, formulation=formulation, seed=0)
    assert isinstance(algorithm, MaskablePPO)
    observation, _ = env.reset(seed=0)
    for _ in range(50):
        action, _ = algorithm.predict(observation, action_masks=env.action_masks())
        observation, _, terminated, truncated, info = env.step(action)
        assert not info["error"]
        if terminated or truncated:
            observation, _ = env.reset()
    assert evaluator.evaluate(greedy_assignment(algorithm, env)).valid


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("name", ["ppo", "maskable_ppo"])
def test_greedy_assignment_through_wrappers(name: str, formulation: str) -> None:
    env = make_env(formulation)
    algorithm = make_algorithm(name, env, formulation=formulation, seed=0)
    wrapped = gym.wrappers.TimeLimit(env, max_episode_steps=100)
    placement = greedy_assignment(algorithm, wrapped)
    assert placement == greedy_assignment(algorithm, env)
    assert len(placement) == env.coarse.num_groups
    assert set(placement) <= {0, 1}
