"""Native copies as their users meet them: ids, wrappers, seeds, options, errors."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from device_placement.envs import DevicePlacementError, DevicePlacementVectorEnv, PlacementError
from rollouts import COPIES, SHARED, both, check_observations, check_rollout, simulator
from scripted import diamond_evaluator


@pytest.mark.parametrize("suffix", ["", "Construct"])
def test_the_registered_ids_make_native_copies(suffix: str) -> None:
    name = f"device_placement.envs:SimulatedDevicePlacement{suffix}-v0"
    settings = {"model": ["diamond"], "devices": "CPU,NPU", "schedule": "dataflow", "horizon": 3}
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
        ({"evaluator": diamond_evaluator()}, "only a SimulatedEvaluator.*SyncVectorEnv"),
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
        with pytest.raises(PlacementError, match=f"Got {device} in an action; allowed are 0 to 1"):
            envs.step(actions + device)
    assert envs.step(actions)[4]["best_time_s"].tolist() == infos["best_time_s"].tolist()
    envs.step(actions)
    with pytest.raises(ResetNeeded, match="reset_mask"):
        envs.step(actions)
