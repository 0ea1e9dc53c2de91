"""Rollouts of native copies, compared step for step with those of single environments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from device_placement.agents.training.sb3_vec_env import split_infos
from device_placement.envs import (
    DevicePlacementEnv,
    DevicePlacementVectorEnv,
    SimulatedEvaluator,
    make_evaluator,
)
from device_placement.envs.evaluation import Evaluator

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
    """Equal, and of one type or its subclass; two NaNs are."""
    if isinstance(one, (tuple, list)):
        return (
            isinstance(other, type(one)) and len(one) == len(other) and all(map(same, one, other))
        )
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
