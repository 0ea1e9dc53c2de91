"""Copies on many problems: each does what an environment of its problem does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from costed import CostsEvaluator
from costs import random_costs
from device_placement.envs import (
    DevicePlacementEnv,
    DevicePlacementError,
    PlacementError,
    ProblemVectorEnv,
    SimulatedEvaluator,
    generate_problem,
    make_evaluator,
)

SIZES = {"max_groups": 16, "max_devices": 4, "max_edges": 40}


def problems() -> list[SimulatedEvaluator]:
    """Three problems of other sizes, machines and schedules."""
    return [
        make_evaluator("diamond", "CPU,GPU", evaluator="simulator"),
        make_evaluator(
            "two_towers",
            "CPU,GPU,NPU",
            evaluator="simulator",
            hardware="laptop",
            schedule="dataflow",
            max_groups=9,
        ),
        make_evaluator(
            "resnet50",
            "CPU,GPU.0,GPU.1,GPU.2",
            evaluator="simulator",
            hardware="server",
            schedule="max_load",
            max_groups=12,
        ),
    ]


def endless() -> Iterator[SimulatedEvaluator]:
    while True:
        yield from problems()


def test_copies_do_what_single_environments_do() -> None:
    envs = ProblemVectorEnv(4, endless(), copies_per_problem=2, **SIZES)
    observations, infos = envs.reset(seed=0)
    assert envs.observation_space.contains(observations)
    generator, ended = np.random.default_rng(0), np.zeros(4, dtype=np.bool_)
    singles: list[Any] = [None] * 4
    seen: set[str] = set()

    def begin(copy: int) -> dict[str, np.ndarray]:
        settings = {"formulation": "construct", "costs": "profile", "reward": "log_speedup"}
        evaluator = envs.evaluators[copy // 2]
        singles[copy] = DevicePlacementEnv(evaluator=evaluator, **settings)
        seen.add(evaluator.coarse.graph.name)
        return singles[copy].reset()[0]

    expected = [begin(copy) for copy in range(4)]
    for _ in range(60):
        for copy in range(4):
            check_copy(observations, expected[copy], copy)
        masks = envs.action_masks()
        for copy, single in enumerate(singles):
            own = single.action_masks()
            if not ended[copy]:
                np.testing.assert_array_equal(masks[copy, : own.size], own)
        actions = np.where(masks, generator.random(masks.shape), -1.0).argmax(axis=1)
        observations, rewards, terminated, truncated, infos = envs.step(actions)
        assert envs.observation_space.contains(observations)
        assert not truncated.any()
        for copy, single in enumerate(singles):
            if ended[copy]:
                expected[copy] = begin(copy)
                assert rewards[copy] == 0.0
                continue
            expected[copy], reward, done, _, info = single.step(actions[copy])
            assert rewards[copy] == pytest.approx(reward)
            assert terminated[copy] == done
            assert infos["_time_s"][copy] == done
            np.testing.assert_equal(infos["time_s"][copy], info["time_s"])
            assert infos["valid"][copy] == info["valid"]
        ended = terminated
    assert len(seen) == 3


def check_copy(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], copy: int) -> None:
    """The observation of a copy begins with that of an environment, and the rest is padding."""
    groups, devices = theirs["device_mask"].shape
    for key, array in theirs.items():
        row = ours[key][copy]
        if key == "group_device_costs":
            array = array.reshape(groups, devices, -1)
            row = row.reshape(SIZES["max_groups"], SIZES["max_devices"], -1)
        if key == "graph_id":
            continue
        if key == "placement":  # the last slot is for groups without a device
            np.testing.assert_array_equal(row[: len(array), -1], array[:, -1])
            row, array = row[:, :-1], array[:, :-1]
        part = tuple(slice(size) for size in array.shape)
        np.testing.assert_array_equal(row[part], array, err_msg=key)
        rest = np.ones(row.shape, dtype=np.bool_)
        rest[part] = False
        if key == "device_mask":  # padding of groups allows device 0 only
            rest[:, 0] = False
        assert not row[rest].any(), key


def test_generated_problems_fit_and_repeat() -> None:
    rollouts = []
    for _ in range(2):
        envs = ProblemVectorEnv(6, map(generate_problem, range(100)), copies_per_problem=3)
        envs.reset()
        rewards = []
        for step in range(400):
            masks = envs.action_masks()
            scores = np.random.default_rng(step).random(masks.shape)
            rewards.append(envs.step(np.where(masks, scores, -1.0).argmax(axis=1))[1])
        rollouts.append(np.array(rewards))
    np.testing.assert_array_equal(*rollouts)
    assert (rollouts[0] != 0).any()


def test_constant_arrays_are_shared_and_kept() -> None:
    envs = ProblemVectorEnv(2, problems(), copies_per_problem=2, **SIZES)
    first, _ = envs.reset()
    kept = {key: array.copy() for key, array in first.items()}
    second = envs.step([0, 1])[0]
    assert second["node_features"] is first["node_features"]
    assert not second["group_costs"].flags.writeable
    for _ in range(5):  # the diamond has four groups
        last = envs.step([0, 0])[0]
    assert last["node_features"] is not first["node_features"]
    for key, array in kept.items():
        np.testing.assert_array_equal(first[key], array)


def test_a_sequence_begins_again_and_a_generator_goes_on() -> None:
    envs = ProblemVectorEnv(1, problems(), **SIZES)
    assert [envs.reset()[1]["problem"][0] for _ in range(2)] == ["diamond", "diamond"]
    envs = ProblemVectorEnv(1, endless(), **SIZES)
    assert [envs.reset()[1]["problem"][0] for _ in range(2)] == ["diamond", "two_towers"]


def test_without_autoreset_copies_wait_for_each_other() -> None:
    envs = ProblemVectorEnv(
        2, [*problems()[:2], *problems()[:2]], autoreset_mode="Disabled", **SIZES
    )
    envs.reset()
    ends, times = [], []
    for _ in range(9):
        *_, terminated, _, infos = envs.step([0, 0])
        ends.append(terminated.tolist())
        times.append(infos["_time_s"].tolist())
    assert ends == times
    assert ends == [[step == 3, step == 8] for step in range(9)]
    assert [one.coarse.num_groups for one in envs.evaluators] == [4, 9]
    with pytest.raises(ResetNeeded):
        envs.step([0, 0])
    envs.reset()
    envs.step([0, 0])


def test_a_device_that_the_problem_lacks_is_invalid() -> None:
    envs = ProblemVectorEnv(1, problems(), **SIZES)
    envs.reset()
    assert envs.action_masks().tolist() == [[True, True, False, False]]
    for _ in range(4):
        _, rewards, terminated, _, infos = envs.step([3])
    assert terminated.all()
    assert not infos["valid"].any()
    assert rewards[0] < -0.6  # twice the slowest single


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(DevicePlacementError, match="3 copies and 2 copies per problem"):
        ProblemVectorEnv(3, problems(), copies_per_problem=2)
    with pytest.raises(DevicePlacementError, match="autoreset mode 'SameStep'"):
        ProblemVectorEnv(1, problems(), autoreset_mode="SameStep")
    with pytest.raises(DevicePlacementError, match="Unknown reward 'speed'"):
        ProblemVectorEnv(1, problems(), reward="speed")
    envs = ProblemVectorEnv(1, problems())
    with pytest.raises(ResetNeeded):
        envs.step([0])
    envs.reset()
    with pytest.raises(PlacementError, match="8 in an action; allowed are 0 to 7"):
        envs.step([8])


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"max_groups": 5}, "6 groups.*max_groups=6 or more"),
        ({"max_devices": 2}, "3 devices.*max_devices=3 or more"),
        ({"max_edges": 1}, "edges.*max_edges="),
    ],
)
def test_a_problem_that_does_not_fit_is_refused(sizes: dict[str, int], message: str) -> None:
    evaluator: Any = CostsEvaluator(random_costs(np.random.default_rng(0), 6, 3))
    with pytest.raises(DevicePlacementError, match=message):
        ProblemVectorEnv(1, [evaluator], **SIZES | sizes).reset()
