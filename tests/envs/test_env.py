from __future__ import annotations

import copy
import json
import math
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import device_placement.agents
import device_placement.envs
from device_placement.envs import DevicePlacementEnv, DevicePlacementError
from device_placement.envs.parts import COSTS
from device_placement.envs.rewards import REWARDS
from problems import QUICK, chain
from scripted import twelve_groups_evaluator

IDS = [
    f"{prefix}DevicePlacement{suffix}-v0"
    for prefix in ("", "Simulated")
    for suffix in ("", "Construct", "Refine")
]
INFO = {
    "time_s", "samples_s", "interval_s", "valid", "error", "speedup", "num_subgraphs",
    "compile_s", "cached", "cut_short", "placement", "best_time_s", "best_placement",
    "output_error", "output_cosine", "unverified", "repaired",
}  # fmt: skip


def scripted(**arguments: Any) -> DevicePlacementEnv:
    return DevicePlacementEnv(evaluator=twelve_groups_evaluator(), **arguments)


@pytest.mark.parametrize("costs", COSTS)
@pytest.mark.parametrize("name", IDS)
def test_gymnasiums_checker_passes(name: str, costs: str) -> None:
    check_env(gym.make(name, model="diamond", costs=costs, **QUICK).unwrapped)


@pytest.mark.parametrize("costs", COSTS)
@pytest.mark.parametrize("name", IDS)
def test_stable_baselines_checker_passes_but_for_its_advice_on_2d_boxes(
    name: str, costs: str
) -> None:
    from stable_baselines3.common.env_checker import check_env as check_sb3

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_sb3(gym.make(name, model="diamond", costs=costs, **QUICK).unwrapped)
    messages = [str(warning.message) for warning in caught]
    assert all("unconventional shape" in message for message in messages), messages


@pytest.mark.parametrize("name", IDS)
def test_specs_serialise(name: str) -> None:
    spec = gym.make(name, model="diamond", horizon=3, **QUICK).spec
    assert spec is not None
    assert json.loads(spec.to_json())["id"] == name
    assert spec.nondeterministic is not name.startswith("Simulated")
    again = gym.make(gym.spec(name), model="diamond", **QUICK).spec
    assert again is not None


@pytest.mark.parametrize("name", IDS)
def test_info_has_every_key_at_reset_and_at_each_step(name: str) -> None:
    env = gym.make(name, model="diamond")
    _, info = env.reset(seed=0)
    assert set(info) == INFO
    for _ in range(6):
        _, _, terminated, truncated, info = env.step(env.action_space.sample())
        assert set(info) == INFO
        assert not any(isinstance(value, np.ndarray) for value in info.values())
        if terminated or truncated:
            env.reset()


class Uncopyable(int):
    """What a deep copy should not look at."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Uncopyable:
        raise AssertionError("copied one by one")


@pytest.mark.parametrize("key", ["placement", "best_placement"])
def test_placements_in_info_are_lists_that_deep_copies_take_as_a_whole(key: str) -> None:
    _, info = scripted().reset(seed=0)
    assert isinstance(info[key], list)
    kept = type(info[key])([Uncopyable(number) for number in info[key]])
    copied = copy.deepcopy(kept)
    assert copied == kept
    copied[0] += 1
    assert copied != kept


@pytest.mark.parametrize("costs", COSTS)
@pytest.mark.parametrize("suffix", ["", "Construct", "Refine"])
def test_simulated_rollouts_repeat_for_a_seed(suffix: str, costs: str, folder: Path) -> None:
    models, rollouts = ["diamond", chain(folder)], []
    for _ in range(2):
        env = gym.make(f"SimulatedDevicePlacement{suffix}-v0", model=models, costs=costs)
        env.action_space.seed(1)
        observation, _ = env.reset(seed=5)
        rollout = [observation]
        for _ in range(80):
            observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            rollout.append({**observation, "reward": np.array(reward)})
            if terminated or truncated:
                observation, _ = env.reset()
                rollout.append(observation)
        rollouts.append(rollout)
    for one, other in zip(*rollouts, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def test_observations_are_copies() -> None:
    env = scripted()
    first, _ = env.reset(seed=0)
    kept = {key: array.copy() for key, array in first.items()}
    for array in first.values():
        array[...] = 0
    second, _ = env.reset(seed=0)
    for key, array in second.items():
        np.testing.assert_array_equal(array, kept[key])


def test_several_models_are_padded_to_the_largest_and_padding_is_ignored(folder: Path) -> None:
    env = gym.make("SimulatedDevicePlacement-v0", model=["diamond", chain(folder)]).unwrapped
    assert isinstance(env, DevicePlacementEnv)
    observation, info = env.reset(seed=0, options={"graph_id": 0})
    groups = env.coarse.num_groups
    assert groups < len(observation["node_mask"])
    assert observation["node_mask"].sum() == groups == len(info["placement"])
    assert not observation["node_features"][groups:].any()
    assert not observation["placement"][groups:].any()
    masks = env.action_masks().reshape(-1, 2)
    assert masks[groups:].tolist() == [[True, False]] * (len(masks) - groups)
    action = np.zeros(len(masks), dtype=int)
    time_s = env.step(action)[4]["time_s"]
    action[groups:] = 1
    assert env.step(action)[4]["time_s"] == time_s
    seen = {int(env.reset(seed=seed)[0]["graph_id"][0]) for seed in range(20)}
    assert seen == {0, 1}
    with pytest.raises(DevicePlacementError, match="graph_id=2"):
        env.reset(options={"graph_id": 2})


def test_vector_copies_work_and_masks_are_reached_through_wrappers() -> None:
    envs = gym.make_vec("SimulatedDevicePlacement-v0", num_envs=2, model="diamond")
    envs.reset(seed=0)
    _, rewards, *_ = envs.step(envs.action_space.sample())
    assert rewards.shape == (2,)
    env = gym.make("SimulatedDevicePlacement-v0", model="diamond")
    assert env.get_wrapper_attr("action_masks")().dtype == bool


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"formulation": "asign"}, "Unknown formulation 'asign'.*Did you mean 'assign'"),
        ({"reward": "invers"}, "Unknown reward 'invers'.*inverse"),
        ({"features": ["flps"]}, "'flps'.*flops"),
        ({"coarsening": "fuson"}, "'fuson'.*fusion"),
        ({"model": "resnet5"}, "resnet5.*Did you mean 'resnet50'"),
        ({"devices": "CPU,GPU.7"}, "Unknown device 'GPU.7'"),
        ({"devices": "CPU"}, "Got one device"),
        ({"horizon": 0}, "horizon=0"),
        ({"max_groups": 0}, "max_groups"),
        ({"render_mode": "human"}, "Unknown render mode 'human'; allowed: text, rgb_array"),
        ({"evaluator": "sim"}, "Unknown evaluator 'sim'"),
        ({"costs": "profil"}, "Unknown costs 'profil'; allowed: none, profile"),
        ({"objective": "speed"}, "Unknown objective 'speed'"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DevicePlacementError, match=message):
        DevicePlacementEnv(**{"model": "diamond", **arguments})


def test_rendering_shows_the_current_placement() -> None:
    env = gym.make("SimulatedDevicePlacement-v0", model="diamond", render_mode="text")
    env.reset(seed=0)
    env.step(np.ones(env.action_space.shape, dtype=int))
    text = env.render()
    assert isinstance(text, str)
    assert "GPU" in text
    picture = gym.make("SimulatedDevicePlacement-v0", model="diamond", render_mode="rgb_array")
    picture.reset(seed=0)
    assert np.asarray(picture.render()).shape[2] == 3
    with pytest.raises(DevicePlacementError, match="render_mode='text'"):
        scripted().render()


def test_rewards_are_what_they_say() -> None:
    values = {name: reward(0.5, 2.0, 1.0) for name, reward in REWARDS.items()}
    assert values == {
        "negative_ms": -500.0,
        "improvement_ms": 1500.0,
        "log_speedup": pytest.approx(math.log(2)),
        "log_improvement": pytest.approx(math.log(4)),
        "relative": 0.5,
        "negative_sqrt": pytest.approx(-math.sqrt(500)),
        "inverse": 2.0,
        "speedup": 2.0,
    }


def test_importing_registers_every_id() -> None:
    assert set(IDS) <= set(gym.registry)


@pytest.mark.parametrize("package", [device_placement.envs, device_placement.agents])
def test_every_public_name_is_there(package: Any) -> None:
    for name in package.__all__:
        assert getattr(package, name)
    assert set(dir(package)) == set(package.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        package.no_such_name  # noqa: B018
