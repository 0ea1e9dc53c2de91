from __future__ import annotations

import dataclasses
import json
import math
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from problems import measured
from scripted import ScriptedEvaluator, twelve_groups_evaluator

import device_placement.agents
import device_placement.envs
from device_placement.envs import (
    DeviceError,
    DevicePlacementEnv,
    DevicePlacementError,
    Evaluation,
    PlacementError,
)
from device_placement.envs.baseline import PENALTY_FACTOR
from device_placement.envs.rewards import REWARDS

IDS = [
    f"{prefix}DevicePlacement{suffix}-v0"
    for prefix in ("", "Simulated")
    for suffix in ("", "Construct", "Refine")
]
INFO = {
    "time_s", "samples_s", "interval_s", "valid", "error", "speedup", "num_subgraphs",
    "compile_s", "cached", "placement", "best_time_s", "best_placement", "output_error",
}  # fmt: skip


class Picky(ScriptedEvaluator):
    """Refuses every placement in which group 1 is on device 1 and group 0 is not."""

    def evaluate(self, assignment: Any) -> Evaluation:
        if assignment[1] == 1 and assignment[0] == 0:
            return Evaluation.invalid("group 1 does not run there")
        return super().evaluate(assignment)


def scripted(**arguments: Any) -> DevicePlacementEnv:
    return DevicePlacementEnv(evaluator=twelve_groups_evaluator(), **arguments)


@pytest.mark.parametrize("name", IDS)
def test_gymnasiums_checker_passes(name: str) -> None:
    check_env(gym.make(name, model="diamond").unwrapped)


@pytest.mark.parametrize("name", IDS)
def test_stable_baselines_checker_passes_but_for_its_advice_on_2d_boxes(name: str) -> None:
    from stable_baselines3.common.env_checker import check_env as check_sb3

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_sb3(gym.make(name, model="diamond").unwrapped)
    messages = [str(warning.message) for warning in caught]
    assert all("unconventional shape" in message for message in messages), messages


@pytest.mark.parametrize("name", IDS)
def test_specs_serialise(name: str) -> None:
    spec = gym.make(name, model="diamond", horizon=3).spec
    assert spec is not None
    assert json.loads(spec.to_json())["id"] == name
    assert spec.nondeterministic is not name.startswith("Simulated")
    again = gym.make(gym.spec(name)).spec
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


@pytest.mark.parametrize("suffix", ["", "Construct", "Refine"])
def test_simulated_rollouts_repeat_for_a_seed(suffix: str) -> None:
    rollouts = []
    for _ in range(2):
        env = gym.make(f"SimulatedDevicePlacement{suffix}-v0", model=["diamond", "resnet50"])
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


def test_assign_proposes_whole_placements_until_the_horizon() -> None:
    env = scripted(horizon=3)
    observation, info = env.reset(seed=0)
    assert observation["placement"][:, -1].all()
    assert info["placement"] == [-1] * 12
    assert not info["valid"]
    assert math.isnan(info["time_s"])
    action = np.arange(12) % 2
    ends = []
    for _ in range(3):
        observation, reward, terminated, truncated, info = env.step(action)
        ends.append((terminated, truncated))
        assert reward == pytest.approx(-1e3 * info["time_s"])
    assert ends == [(False, False), (False, False), (False, True)]
    assert info["placement"] == action.tolist()
    assert observation["placement"].argmax(axis=1).tolist() == action.tolist()
    assert info["speedup"] == pytest.approx(env.baseline().reference_s / info["time_s"])
    assert observation["last_time"][0] == pytest.approx(-math.log(info["speedup"]), rel=1e-5)


def test_assign_with_a_horizon_of_one_terminates() -> None:
    env = scripted(horizon=1)
    env.reset(seed=0)
    assert env.step(np.zeros(12, dtype=int))[2:4] == (True, False)


def test_construct_places_group_after_group() -> None:
    env = scripted(formulation="construct")
    observation, _ = env.reset(seed=0)
    for group in range(12):
        assert observation["cursor"].nonzero()[0].tolist() == [group]
        assert observation["placement"][:, -1].sum() == 12 - group
        observation, reward, terminated, truncated, info = env.step(group % 2)
        assert (terminated, truncated) == (group == 11, False)
        if group < 11:
            assert reward == 0.0
            assert math.isnan(info["time_s"])
    assert info["placement"] == [0, 1] * 6
    assert reward == pytest.approx(-1e3 * info["time_s"])
    assert not observation["cursor"].any()


def test_refine_moves_one_group_and_rewards_the_time_saved() -> None:
    env = scripted(formulation="refine", horizon=4)
    _, info = env.reset(seed=0)
    assert info["placement"] == [0] * 12
    before = info["time_s"]
    total = 0.0
    for action in (2 * 3 + 1, 2 * 3 + 1, 2 * 7 + 1, 2 * 3):
        _, reward, terminated, truncated, info = env.step(action)
        total += reward
    assert info["placement"] == [int(group == 7) for group in range(12)]
    assert total == pytest.approx(1e3 * (before - info["time_s"]))
    assert (terminated, truncated) == (False, True)


def test_refine_starts_from_a_given_placement(tmp_path: Path) -> None:
    evaluator = measured()
    groups = evaluator.coarse.num_groups
    env = DevicePlacementEnv(evaluator=evaluator)
    env.reset(seed=0)
    path = tmp_path / "start.json"
    env.placement([1] * groups).save(path)
    refine = DevicePlacementEnv(evaluator=evaluator, formulation="refine", start=str(path))
    _, info = refine.reset(seed=0)
    assert info["placement"] == [1] * groups
    other = DevicePlacementEnv(evaluator=measured("resnet50"), formulation="refine", start=path)
    with pytest.raises(PlacementError, match="made for the model 'diamond'"):
        other.reset()


def test_an_invalid_placement_costs_twice_the_slowest_single_and_ends_nothing() -> None:
    inner = twelve_groups_evaluator()
    env = DevicePlacementEnv(evaluator=Picky(inner.coarse, inner.devices, inner.time_s))
    env.reset(seed=0)
    action = np.zeros(12, dtype=int)
    action[1] = 1
    _, reward, terminated, truncated, info = env.step(action)
    slowest = max(inner.evaluate([device] * 12).time_s for device in (0, 1))
    assert reward == pytest.approx(-1e3 * PENALTY_FACTOR * slowest)
    assert (terminated, truncated, info["valid"]) == (False, False, False)
    assert info["error"] == "group 1 does not run there"
    assert math.isnan(info["speedup"])


def test_refine_undoes_an_invalid_move() -> None:
    inner = twelve_groups_evaluator()
    evaluator = Picky(inner.coarse, inner.devices, inner.time_s)
    env = DevicePlacementEnv(evaluator=evaluator, formulation="refine")
    first, start = env.reset(seed=0)
    observation, reward, _, _, info = env.step(2 * 1 + 1)
    assert reward == pytest.approx(1e3 * (start["time_s"] - env.baseline().penalty_s))
    assert info["placement"] == [0] * 12
    np.testing.assert_array_equal(observation["placement"], first["placement"])
    _, reward, *_ = env.step(0)
    assert reward == 0.0  # compared with the placement that stands, not with the penalty


def test_the_best_of_the_lifetime_is_kept_singles_included() -> None:
    env = scripted()
    _, info = env.reset(seed=0)
    singles = [env.evaluator.evaluate([device] * 12).time_s for device in (0, 1)]
    assert info["best_time_s"] == min(singles)
    best = env.evaluator.ranked()[0]  # type: ignore[attr-defined]
    env.step(np.array(best[1]))
    *_, info = env.step(np.array([0] * 12))
    assert (info["best_time_s"], info["best_placement"]) == best
    env.reset()
    assert env.placement().to_groups(env.coarse) == tuple(best[1])


def masked(support: list[list[bool]], formulation: str) -> DevicePlacementEnv:
    inner = twelve_groups_evaluator()
    supported = np.ones((12, 2), dtype=bool)
    supported[: len(support)] = support
    coarse = dataclasses.replace(inner.coarse, supported=supported)
    evaluator = ScriptedEvaluator(coarse, inner.devices, inner.time_s)
    return DevicePlacementEnv(evaluator=evaluator, formulation=formulation)


@pytest.mark.parametrize("formulation", ["assign", "refine"])
def test_masks_follow_support_and_a_dead_end_unmasks_everything(formulation: str) -> None:
    env = masked([[True, False], [False, False]], formulation)
    masks = env.action_masks().reshape(12, 2)
    assert masks[0].tolist() == [True, False]
    assert masks[1:].all()


def test_construct_masks_the_group_at_the_cursor() -> None:
    env = masked([[True, False], [False, False]], "construct")
    with pytest.raises(DeviceError, match="No device runs all of"):
        env.reset()
    env = masked([[True, False]], "construct")
    env.reset(seed=0)
    assert env.action_masks().tolist() == [True, False]
    env.step(0)
    assert env.action_masks().tolist() == [True, True]


def test_a_masked_choice_is_an_invalid_evaluation() -> None:
    env = masked([[True, False]], "assign")
    env.reset(seed=0)
    *_, info = env.step(np.ones(12, dtype=int))
    assert not info["valid"]
    assert "does not support group 0" in info["error"]


def test_several_models_are_padded_to_the_largest_and_padding_is_ignored() -> None:
    env = gym.make("SimulatedDevicePlacement-v0", model=["diamond", "resnet50"]).unwrapped
    assert isinstance(env, DevicePlacementEnv)
    observation, info = env.reset(seed=0, options={"graph_id": 0})
    groups = env.coarse.num_groups
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
        "inverse": 2.0,
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
