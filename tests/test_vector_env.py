from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from device_placement.agents.sb3_vec_env import split_infos
from device_placement.envs import (
    DevicePlacementEnv,
    DevicePlacementError,
    DevicePlacementVectorEnv,
    PlacementError,
    SimulatedEvaluator,
    make_evaluator,
)
from device_placement.envs.execution.evaluation import Evaluator
from device_placement.envs.execution.schedule import SCHEDULES
from device_placement.envs.rewards import REWARDS
from scripted import diamond_evaluator

COPIES = 3
SHARED = {
    "node_features", "node_mask", "edge_index", "edge_features", "edge_mask", "device_mask",
    "device_features", "graph_id",
}  # fmt: skip
FORMULATIONS = ["assign", "construct"]


@cache
def simulator(model: str = "diamond", **settings: Any) -> SimulatedEvaluator:
    evaluator = make_evaluator(model, evaluator="simulator", **settings)
    assert isinstance(evaluator, SimulatedEvaluator)
    return evaluator


def both(
    evaluators: Sequence[Evaluator], mode: AutoresetMode = AutoresetMode.NEXT_STEP, **settings: Any
) -> tuple[DevicePlacementVectorEnv, SyncVectorEnv[Any, Any]]:
    arguments = {"horizon": 4, "evaluator": evaluators} | settings
    ours = DevicePlacementVectorEnv(COPIES, autoreset_mode=mode, **arguments)
    singles = [lambda: DevicePlacementEnv(**arguments)] * COPIES
    return ours, SyncVectorEnv(singles, autoreset_mode=mode)


def same(one: Any, other: Any) -> bool:
    """Equal, and of one type; two NaNs are."""
    if isinstance(one, (tuple, list)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    return type(one) is type(other) and bool(one == other)


def check_observations(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert ours.keys() == theirs.keys()
    for key, array in theirs.items():
        assert ours[key].dtype == array.dtype
        np.testing.assert_array_equal(ours[key], array, err_msg=key)


def check_infos(ours: dict[str, Any], theirs: dict[str, Any], groups: Sequence[int]) -> None:
    """Every value of every copy that the infos are of, in the form of a single environment."""
    assert ours.keys() == theirs.keys()
    for copy, row in enumerate(split_infos(ours, groups)):
        for key, value in row.items():
            assert ours[f"_{key}"][copy] == theirs[f"_{key}"][copy]
            if ours[f"_{key}"][copy]:
                expected = theirs[key][copy]
                plain = expected.item() if isinstance(expected, np.generic) else expected
                assert same(value, plain), f"{key} of copy {copy}: {value!r}, not {plain!r}"
    if "final_info" in theirs:
        ended = theirs["_final_info"]
        for key in ("final_obs", "final_info"):
            np.testing.assert_array_equal(ours[f"_{key}"], ended)
        for copy in np.flatnonzero(ended):
            check_observations(ours["final_obs"][copy], theirs["final_obs"][copy])
        groups = [0 if one is None else one["node_mask"].sum() for one in theirs["final_obs"]]
        check_infos(ours["final_info"], theirs["final_info"], groups)


def check_masks(ours: DevicePlacementVectorEnv, theirs: SyncVectorEnv[Any, Any]) -> np.ndarray:
    masks = ours.action_masks()
    np.testing.assert_array_equal(masks, np.stack(theirs.call("action_masks")))
    assert masks.dtype == bool
    return masks


def draw(generator: np.random.Generator, masks: np.ndarray, shape: Any, devices: int) -> Any:
    """Half of the time what the masks allow, otherwise anything."""
    allowed = np.ones_like(masks) if generator.random() < 0.5 else masks
    scores = generator.random(masks.shape) * allowed
    return scores.reshape(COPIES, -1, devices).argmax(axis=2).reshape(shape)


def check_rollout(
    ours: DevicePlacementVectorEnv,
    theirs: SyncVectorEnv[Any, Any],
    episodes: int = 3,
    seed: Any = 7,
) -> set[str]:
    """Go step by step until every copy has ended some episodes; the errors that were seen."""
    generator = np.random.default_rng(0)
    ended, errors = np.zeros(COPIES), set()
    observation, infos = ours.reset(seed=seed)
    expected, theirs_infos = theirs.reset(seed=seed)
    check_observations(observation, expected)
    check_infos(infos, theirs_infos, observation["node_mask"].sum(axis=1))
    while ended.min() < episodes:
        masks = check_masks(ours, theirs)
        actions = draw(generator, masks, ours.action_space.shape, ours.layout.num_devices)
        step, other = ours.step(actions), theirs.step(actions)
        check_observations(step[0], other[0])
        for one, another in zip(step[1:4], other[1:4], strict=True):
            assert one.dtype == another.dtype
            np.testing.assert_array_equal(one, another)
        check_infos(step[4], other[4], step[0]["node_mask"].sum(axis=1))
        assert ours.observation_space.contains(step[0])
        done = step[2] | step[3]
        ended += done
        errors |= {*step[4]["error"]} | {*step[4].get("final_info", {}).get("error", ())}
        if done.any() and ours.metadata["autoreset_mode"] is AutoresetMode.DISABLED:
            check_observations(
                ours.reset(options={"reset_mask": done})[0],
                theirs.reset(options={"reset_mask": done})[0],
            )
    return errors


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("reward", REWARDS)
def test_every_reward_is_as_in_single_environments(formulation: str, reward: str) -> None:
    check_rollout(*both([simulator()], formulation=formulation, reward=reward))


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_is_as_in_single_environments(formulation: str, schedule: str) -> None:
    evaluator = simulator("resnet50", schedule=schedule, hardware="server", max_groups=12)
    check_rollout(*both([evaluator], formulation=formulation))


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("seed", [3, [5, 5, 90]])
def test_copies_draw_the_models_that_single_environments_draw(
    formulation: str, mode: AutoresetMode, seed: Any
) -> None:
    evaluators = [simulator(), simulator("resnet50", max_groups=12)]
    envs = both(evaluators, mode, formulation=formulation, features=["flops"])
    check_rollout(*envs, episodes=5, seed=seed)
    drawn = [envs[0].reset(seed=one)[0]["graph_id"] for one in range(5)]
    assert len(np.unique(drawn)) == 2


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("mode", AutoresetMode)
def test_placements_are_invalid_as_in_single_environments(
    formulation: str, mode: AutoresetMode
) -> None:
    evaluator = simulator("bert_base", hardware="laptop", max_groups=6)
    envs = both([evaluator], mode, formulation=formulation, horizon=6)
    errors = check_rollout(*envs, episodes=4)
    assert any("NPU does not support group" in error for error in errors)
    assert "" in errors


def test_memory_and_colours_make_invalid_as_in_single_environments() -> None:
    plain = simulator()
    devices = [dataclasses.replace(device, memory_bytes=4096) for device in plain.devices]
    small = dataclasses.replace(plain.profile, devices=(plain.devices[0], devices[1]))
    colour = np.array([5, -1, -1, 5])
    evaluator = SimulatedEvaluator(plain.coarse, "CPU,GPU", profile=small, colour=colour)
    errors = check_rollout(*both([evaluator], horizon=20))
    assert any("they must share one" in error for error in errors)
    assert any("The weights on GPU take" in error for error in errors)


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_workloads_are_as_in_single_environments(formulation: str) -> None:
    path = Path(__file__).parent / "workloads" / "two_towers.json"
    evaluator = simulator(str(path), schedule="max_load")
    check_rollout(*both([evaluator], formulation=formulation, horizon=10))


def test_subgraphs_that_cost_are_as_in_single_environments() -> None:
    plain = simulator()
    profile = dataclasses.replace(plain.profile, subgraph_s=np.array([3e-5, 1e-5]))
    evaluator = SimulatedEvaluator(plain.coarse, "CPU,GPU", profile=profile)
    ours, theirs = both([evaluator])
    ours.reset(seed=0), theirs.reset(seed=0)
    for actions in np.random.default_rng(0).integers(0, 2, (8, COPIES, 4)):
        np.testing.assert_array_equal(ours.step(actions)[1], theirs.step(actions)[1])


def test_an_episode_of_one_step_terminates() -> None:
    check_rollout(*both([simulator()], horizon=1), episodes=4)


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_some_copies_are_reset_out_of_turn(formulation: str) -> None:
    ours, theirs = both([simulator()], formulation=formulation)
    generator = np.random.default_rng(1)
    ours.reset(seed=0), theirs.reset(seed=0)
    for number in range(12):
        actions = generator.integers(0, 2, ours.action_space.shape)
        step, other = ours.step(actions), theirs.step(actions)
        check_observations(step[0], other[0])
        np.testing.assert_array_equal(step[1], other[1])
        if number % 3 == 1:
            mask = np.array([True, number % 2 == 0, False])
            observation, infos = ours.reset(options={"reset_mask": mask})
            expected, theirs_infos = theirs.reset(options={"reset_mask": mask})
            check_observations(observation, expected)
            check_infos(infos, theirs_infos, [4] * COPIES)


@pytest.mark.parametrize("suffix", ["", "Construct"])
def test_the_registered_ids_make_native_copies(suffix: str) -> None:
    name = f"device_placement.envs:SimulatedDevicePlacement{suffix}-v0"
    settings = {"model": ["diamond"], "devices": "CPU,NPU", "schedule": "concurrent", "horizon": 3}
    ours = gym.make_vec(name, COPIES, "vector_entry_point", **settings)
    theirs = gym.make_vec(name, COPIES, "sync", **settings)
    assert isinstance(ours, DevicePlacementVectorEnv)
    assert isinstance(gym.make_vec(name, model="diamond"), DevicePlacementVectorEnv)
    assert ours.spec is not None
    assert ours.spec.id == f"SimulatedDevicePlacement{suffix}-v0"
    assert ours.metadata["autoreset_mode"] is theirs.metadata["autoreset_mode"]
    for space in (
        "observation_space", "action_space", "single_observation_space", "single_action_space",
    ):  # fmt: skip
        assert getattr(ours, space) == getattr(theirs, space)
    assert isinstance(theirs, SyncVectorEnv)
    check_rollout(ours, theirs)
    ours.close()
    assert ours.closed


def test_other_ids_stay_as_they_are() -> None:
    name = "SimulatedDevicePlacementRefine-v0"
    assert isinstance(gym.make_vec(name, 2, model="diamond"), SyncVectorEnv)


def test_gymnasiums_vector_wrappers_take_it() -> None:
    envs = DevicePlacementVectorEnv(COPIES, "diamond", horizon=2)
    wrapped = gym.wrappers.vector.RecordEpisodeStatistics(envs)
    wrapped.reset(seed=0)
    for _ in range(2):
        _, rewards, _, _, infos = wrapped.step(wrapped.action_space.sample())
    assert infos["episode"]["l"].tolist() == [2] * COPIES
    assert rewards.shape == (COPIES,)


def test_equal_seeds_give_equal_rollouts() -> None:
    evaluators = [simulator(), simulator("resnet50", max_groups=12)]
    seen = []
    for _ in range(2):
        envs, _ = both(evaluators)
        observation, _ = envs.reset(seed=11)
        drawn = [observation["graph_id"]]
        for _ in range(20):
            drawn.append(envs.step(np.zeros(envs.action_space.shape, dtype=int))[0]["graph_id"])
        seen.append(np.concatenate(drawn))
    np.testing.assert_array_equal(*seen)


def test_models_are_chosen_for_all_copies_or_for_each() -> None:
    envs, theirs = both([simulator(), simulator("resnet50", max_groups=12)])
    options = {"graph_id": 1}
    check_observations(envs.reset(options=options)[0], theirs.reset(options=options)[0])
    observation, _ = envs.reset(options={"graph_id": [0, 1, None]})
    assert observation["graph_id"][:2, 0].tolist() == [0, 1]


def test_what_never_changes_is_shared_and_read_only() -> None:
    for evaluators in ([simulator()], [simulator(), simulator("resnet50", max_groups=12)]):
        envs, _ = both(evaluators)
        first, _ = envs.reset(seed=0)
        kept = {key: array.copy() for key, array in first.items()}
        second, *_, infos = envs.step(np.zeros(envs.action_space.shape, dtype=int))
        for key, array in second.items():
            assert (array is first[key]) is (key in SHARED)
            assert array.flags.writeable is (key not in SHARED)
        for array in (*second.values(), infos["placement"], infos["best_placement"]):
            if array.flags.writeable:
                array[...] = 0
        for _ in range(12):
            envs.step(np.ones(envs.action_space.shape, dtype=int))
        check_observations(first, kept)
        again, infos = envs.reset(seed=0)
        check_observations(again, kept)
        assert (infos["placement"] == -1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"formulation": "refine"}, "'refine'.*gym.vector.SyncVectorEnv"),
        ({"formulation": "asign"}, "Unknown formulation 'asign'"),
        ({"evaluator": "openvino"}, "'openvino'.*SyncVectorEnv"),
        ({"evaluator": diamond_evaluator()}, "SimulatedEvaluators.*SyncVectorEnv"),
        ({"render_mode": "text"}, "render_mode.*SyncVectorEnv"),
        ({"num_envs": 0}, "num_envs=0"),
        ({"horizon": 0}, "horizon=0"),
        ({"reward": "invers"}, "Did you mean 'inverse'"),
        ({"schedule": "sequental"}, "Did you mean 'sequential'"),
        ({"autoreset_mode": "NextSep"}, "Unknown autoreset mode 'NextSep'.*NextStep"),
        ({"no_such": 1}, "no_such"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DevicePlacementError, match=message):
        DevicePlacementVectorEnv(**{"model": "diamond", **arguments})


def test_wrong_resets_and_actions_are_refused() -> None:
    envs, _ = both([simulator()], AutoresetMode.DISABLED, horizon=2)
    actions = np.zeros((COPIES, 4), dtype=int)
    with pytest.raises(ResetNeeded):
        envs.step(actions)
    with pytest.raises(ResetNeeded, match="of all copies"):
        envs.reset(options={"reset_mask": np.array([True, False, True])})
    for options, message in (
        ({"reset_mask": np.zeros(COPIES, dtype=bool)}, "reset_mask"),
        ({"reset_mask": np.ones(COPIES)}, "float64"),
        ({"graph_id": 1}, "graph_id=1"),
        ({"graph_id": [0, 0]}, "2 values of graph_id"),
    ):
        with pytest.raises(DevicePlacementError, match=message):
            envs.reset(options=options)
    with pytest.raises(DevicePlacementError, match="1 values of seed"):
        envs.reset(seed=[1])
    _, infos = envs.reset(seed=0)
    with pytest.raises(PlacementError, match=r"shape \(3, 5\)"):
        envs.step(np.zeros((COPIES, 5)))
    for device in (-1, 2):
        with pytest.raises(PlacementError, match=f"Got device {device}.*0 to 1"):
            envs.step(actions + device)
    assert envs.step(actions)[4]["best_time_s"].tolist() == infos["best_time_s"].tolist()
    envs.step(actions)
    with pytest.raises(ResetNeeded, match="reset_mask"):
        envs.step(actions)
