"""Native copies do what single environments do."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from device_placement.envs import (
    DeviceError,
    DevicePlacementEnv,
    SharedMemory,
    SimulatedEvaluator,
)
from device_placement.envs.rewards import REWARDS
from device_placement.envs.simulation.schedule import SCHEDULES
from places import HELPERS
from rollouts import (
    COPIES,
    FORMULATIONS,
    both,
    check_infos,
    check_observations,
    check_rollout,
    simulator,
)


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
    settings = {"formulation": formulation, "features": ["flops"], "costs": "profile"}
    envs = both(evaluators, mode, **settings)
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


def test_shared_memory_makes_invalid_as_in_single_environments() -> None:
    plain = simulator()
    half = int(plain.costs.group_bytes.sum() / 2)
    pool = SharedMemory(("CPU", "GPU"), half)
    shared = dataclasses.replace(plain.profile, shared_memory=(pool,))
    with pytest.raises(DeviceError, match=rf"The weights on CPU and GPU .* they share {half}"):
        check_rollout(*both([SimulatedEvaluator(plain.coarse, "CPU,GPU", profile=shared)]))
    alone = dataclasses.replace(shared, shared_memory=(SharedMemory(("GPU",), half),))
    evaluator = SimulatedEvaluator(plain.coarse, "CPU,GPU", profile=alone)
    errors = check_rollout(*both([evaluator], horizon=20))
    assert any("The weights on GPU take" in error for error in errors)
    observation, _ = DevicePlacementEnv(evaluator=evaluator).reset(seed=0)
    assert observation["device_features"][:, 2].tolist() == pytest.approx([1.0, 0.5])


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_workloads_are_as_in_single_environments(formulation: str) -> None:
    path = HELPERS / "workloads" / "two_towers.json"
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
