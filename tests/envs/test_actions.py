"""Actions outside their space: a ValueError, in one environment and in many copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from device_placement.envs import DevicePlacementEnv, PlacementError
from device_placement.envs.vector_env import DevicePlacementVectorEnv

WRONG: dict[str, list[Any]] = {
    "assign": [
        [0.9, 0, 0, 0],
        np.zeros(4),
        [0] * 9,
        [0] * 3,
        [0, 0, 0, 2],
        [0, 0, 0, -1],
        0,
        [[0], [0, 0]],
        ["0", "0", "0", "0"],
        [10**30, 0, 0, 0],
        None,
        [True] * 4,
    ],
    "construct": [0.9, 2, -1, [0], 10**30, "0", None, True],
    "refine": [0.9, 8, -1, [0, 0], 10**30, None],
}


@pytest.mark.parametrize(
    ("formulation", "action"), [(name, one) for name, several in WRONG.items() for one in several]
)
def test_an_action_outside_the_space_changes_nothing(formulation: str, action: Any) -> None:
    env = DevicePlacementEnv("diamond", evaluator="simulator", formulation=formulation)
    env.reset(seed=0)
    before = env.snapshot()
    with pytest.raises(PlacementError, match=r"Got .* in an action|Got actions of shape"):
        env.step(action)
    assert env.snapshot() == before
    env.action_space.seed(0)
    env.step(env.action_space.sample())


@pytest.mark.parametrize("action", WRONG["assign"][:-1])
def test_so_it_is_for_many_copies(action: Any) -> None:
    envs = DevicePlacementVectorEnv(3, "diamond", formulation="assign")
    envs.reset(seed=0)
    right = np.zeros((3, 4), dtype=np.int64)
    with pytest.raises(PlacementError, match=r"Got .* in an action|Got actions of shape"):
        envs.step([*right[:2].tolist(), action])
    assert envs.step(right)[1].shape == (3,)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64])
def test_every_type_of_whole_numbers_will_do(dtype: Any) -> None:
    env = DevicePlacementEnv("diamond", evaluator="simulator", formulation="assign")
    env.reset(seed=0)
    assert env.step(np.array([0, 1, 0, 1], dtype=dtype))[4]["placement"] == [0, 1, 0, 1]
