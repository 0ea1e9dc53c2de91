"""Costs as inputs: those of learned groups are those of one group with all their ops."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from device_placement.agents.policies.cost_inputs import (
    pool_pair_costs,
    read_node_costs,
    read_pair_costs,
)
from device_placement.envs import DevicePlacementEnv
from device_placement.envs.observation import GROUP_COSTS, GROUP_DEVICE_COSTS


def observed() -> dict[str, torch.Tensor]:
    """The first observation of a problem whose NPU can't run every group, as a batch of one."""
    problem: dict[str, Any] = {"evaluator": "simulator", "hardware": "laptop", "max_groups": 24}
    env = DevicePlacementEnv("bert_base", costs="profile", **problem)
    observation, _ = env.reset(seed=0)
    return {key: torch.as_tensor(array)[None] for key, array in observation.items()}


def test_a_group_that_stays_alone_keeps_its_costs() -> None:
    pairs = read_pair_costs(observed())
    assert 0 < pairs[..., 0].mean() < 1
    alone = torch.arange(pairs.shape[1])[None]
    torch.testing.assert_close(pool_pair_costs(pairs, alone), pairs, atol=1e-3, rtol=1e-3)


def test_times_of_a_learned_group_add_up_on_devices_that_run_all_of_it() -> None:
    times = np.array([[1.0, 4.0, 2.0], [3.0, 1.0, np.inf], [2.0, 2.0, 2.0]])
    runs = np.isfinite(times)
    pairs = np.zeros((1, 3, 3, len(GROUP_DEVICE_COSTS)), dtype=np.float32)
    pairs[0, :, :, 0] = runs
    pairs[0, :, :, 1] = np.log1p(np.where(runs, times, 0.0))
    found = pool_pair_costs(torch.as_tensor(pairs), torch.tensor([[0, 0, 2]]))[0].numpy()
    assert np.array_equal(found[0], found[1])
    assert found[0, :, 0].tolist() == [1, 1, 0]
    np.testing.assert_allclose(np.expm1(found[0, :, 1]), [4.0, 5.0, 0.0], rtol=1e-5)
    np.testing.assert_allclose(found[0, :, 2], [0.0, np.log(1.25), 0.0], rtol=1e-5)
    np.testing.assert_allclose(found[0, :, 3], [-np.log(1.5), np.log(1.5), 0.0], rtol=1e-5)
    np.testing.assert_allclose(found[2, :, 2:], 0.0, atol=1e-6)


def test_the_mean_over_devices_leaves_out_those_that_do_not_run_a_group() -> None:
    seen = observed()
    start = len(GROUP_COSTS)
    mean = read_node_costs(seen)[0, :, start : start + len(GROUP_DEVICE_COSTS)]
    pairs = read_pair_costs(seen)[0]
    for node, of_devices in zip(mean, pairs, strict=True):
        torch.testing.assert_close(node, of_devices[of_devices[:, 0] > 0].mean(dim=0))
