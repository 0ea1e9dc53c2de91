"""Observations as graphs: nothing is padded, nothing is lost, and both libraries read them."""

from __future__ import annotations

import itertools
import runpy
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from device_placement.envs import (
    DevicePlacementEnv,
    DevicePlacementError,
    GraphObservation,
    to_networkx,
)
from problems import QUICK
from scripted import simulated_diamond

RECIPE = Path(__file__).parents[2] / "docs" / "recipes" / "graph_network.py"
NAME = "device_placement.envs:SimulatedDevicePlacement{}-v0"
MODELS = {"model": ["diamond", "two_towers"], "max_groups": 8}


@pytest.mark.parametrize("costs", ["none", "profile"])
@pytest.mark.parametrize("kind", ["", "Construct", "Refine"])
def test_gymnasiums_checker_passes(kind: str, costs: str) -> None:
    env = GraphObservation(gym.make(NAME.format(kind), costs=costs, **MODELS, **QUICK))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version")
        check_env(env, skip_render_check=True)


def both(kind: str, graph_id: int) -> tuple[dict[str, Any], dict[str, Any], GraphObservation]:
    """The padded and the unpadded observation after a step."""
    env = gym.make(NAME.format(kind), costs="profile", **MODELS, **QUICK)
    padded, _ = env.reset(seed=0, options={"graph_id": graph_id})
    wrapped = GraphObservation(env)
    observation, _ = wrapped.reset(seed=0, options={"graph_id": graph_id})
    return padded, observation, wrapped


@pytest.mark.parametrize("graph_id", [0, 1])
def test_a_graph_has_what_the_padded_observation_has_and_no_padding(graph_id: int) -> None:
    padded, observation, env = both("", graph_id)
    graph, groups = observation["graph"], int(padded["node_mask"].sum())
    edges = int(padded["edge_mask"].sum())
    assert (groups == 4) == (graph_id == 0)
    assert len(graph.nodes) == groups == len(observation["device_mask"])
    assert len(graph.edges) == edges == len(graph.edge_links)
    width = padded["node_features"].shape[1]
    np.testing.assert_array_equal(graph.nodes[:, :width], padded["node_features"][:groups])
    np.testing.assert_array_equal(graph.edge_links.T, padded["edge_index"][:, :edges])
    np.testing.assert_array_equal(graph.edges[:, :2], padded["edge_features"][:edges])
    each = padded["group_device_costs"].reshape(len(padded["node_mask"]), -1)[:groups]
    np.testing.assert_array_equal(graph.nodes[:, -each.shape[1] :], each)
    np.testing.assert_array_equal(observation["devices"][:, :4], padded["device_features"])
    assert observation in env.observation_space


def test_masks_have_a_row_for_each_group_or_for_the_next_one() -> None:
    for kind, rows in (("", 4), ("Construct", 1), ("Refine", 4)):
        _, observation, env = both(kind, 0)
        masks = env.get_wrapper_attr("action_masks")().reshape(-1, 2)[:rows]
        np.testing.assert_array_equal(observation["action_mask"], masks)


def test_an_action_needs_no_padding() -> None:
    _, _, env = both("", 0)
    assert env.action_space.shape == (8,)
    *_, info = env.step([0, 1, 1, 0])
    assert info["placement"] == [0, 1, 1, 0]


@pytest.mark.parametrize("costs", ["none", "profile"])
def test_networkx_gets_devices_features_and_edges(costs: str) -> None:
    env = DevicePlacementEnv("diamond", evaluator="simulator", costs=costs)
    observation, _ = env.reset(seed=0)
    assert {*dict(to_networkx(observation).nodes(data="device")).values()} == {-1}
    graph = to_networkx(env.step([0, 1, 1, 0])[0])
    assert [device for _, device in graph.nodes(data="device")] == [0, 1, 1, 0]
    assert sorted(graph.edges) == [(0, 1), (0, 2), (1, 3), (2, 3)]
    np.testing.assert_array_equal(graph.nodes[3]["device_mask"], [1, 1])
    assert graph.edges[0, 1]["features"].shape == (2 if costs == "none" else 6,)
    assert graph.graph["step"].tolist() == [1]


def test_graphs_of_different_sizes_make_a_batch() -> None:
    from torch_geometric.data import Batch

    from device_placement.agents import to_pyg

    graphs = [to_pyg(both("", graph_id)[1]) for graph_id in (0, 1)]
    batch = Batch.from_data_list(graphs)
    assert batch.num_nodes == sum(one.num_nodes for one in graphs) == 12
    assert batch.x.shape[0] == batch.action_mask.shape[0] == batch.device_mask.shape[0]
    assert int(batch.edge_index[:, -1].max()) >= 4  # the second graph's nodes come after
    assert batch.graph_id.flatten().tolist() == [0, 1]
    plain = to_pyg(both("", 0)[0])
    assert "action_mask" not in plain
    assert plain.x.equal(graphs[0].x)


@pytest.mark.usefixtures("one_thread")
def test_a_graph_network_learns() -> None:
    """The recipe, on four groups of which all placements are known: other seeds gain 45 to 97 %."""
    evaluator = simulated_diamond()
    env = DevicePlacementEnv(evaluator=evaluator, horizon=1, reward="log_speedup", costs="profile")
    every = [evaluator.evaluate(one).time_s for one in itertools.product((0, 1), repeat=4)]
    train = runpy.run_path(str(RECIPE))["train"]
    speedups = np.array(train(GraphObservation(env), episodes=300, seed=0))
    first, last = speedups[:40].mean(), speedups[-40:].mean()
    optimum = evaluator.evaluate([0] * 4).time_s / min(every)
    assert last > first + 0.4 * (optimum - first)


def test_other_environments_are_refused() -> None:
    with pytest.raises(DevicePlacementError, match="GraphObservation wraps a DevicePlacementEnv"):
        GraphObservation(gym.make("CartPole-v1"))
