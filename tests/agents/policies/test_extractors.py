"""The extractor sees the graph: not its padding, not the order of its nodes."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sb3_contrib import QRDQN
from stable_baselines3 import DQN

from device_placement.agents.policies.cost_inputs import STATIC_COSTS
from device_placement.agents.policies.extractors import GraphFeaturesExtractor
from device_placement.envs.observation import (
    Layout,
    Observation,
    graph_arrays,
    observation_space,
    observe,
)
from observations import PER_GROUP_COSTS, made_up_costs
from scripted import twelve_groups_evaluator

Tensors = dict[str, torch.Tensor]
NUM_FEATURES = 5
COARSE = twelve_groups_evaluator().coarse
GROUPS, EDGES = COARSE.num_groups, COARSE.num_edges
LAYOUT = Layout(max_groups=GROUPS, max_edges=EDGES, num_features=NUM_FEATURES, num_devices=2)
PLACEMENT = np.arange(GROUPS) % 3 - 1  # some unplaced


WITH_COSTS = replace(LAYOUT, costs=True, partial=True)


@pytest.fixture
def extractor() -> GraphFeaturesExtractor:
    return make_extractor(LAYOUT)


def make_extractor(layout: Layout) -> GraphFeaturesExtractor:
    torch.manual_seed(0)
    return GraphFeaturesExtractor(observation_space(layout))


def make_observation(layout: Layout = LAYOUT, cursor: int | None = 4) -> Observation:
    features = np.random.default_rng(0).normal(size=(GROUPS, NUM_FEATURES)).astype(np.float32)
    static = graph_arrays(COARSE, features, layout, graph_id=0)
    devices = np.arange(8, dtype=np.float32).reshape(2, 4) / 8
    seen = observe(static, devices, layout, PLACEMENT, cursor, log_time=0.3, step=0)
    return {**seen, **made_up_costs(layout)}


def batch(*observations: Observation) -> Tensors:
    """As SB3 hands them over: stacked, and all float32."""
    return {
        key: torch.as_tensor(np.stack([one[key] for one in observations])).float()
        for key in observations[0]
    }


def renumbered(observation: Observation, order: NDArray[np.int64]) -> Observation:
    """The same graph, its new node i being the old node order[i]."""
    result = dict(observation)
    for key in ("node_features", "node_mask", "placement", "cursor", *PER_GROUP_COSTS):
        if key in result:
            result[key] = observation[key][order]
    result["edge_index"] = np.argsort(order)[observation["edge_index"]]
    return result


@pytest.mark.parametrize("layout", [LAYOUT, WITH_COSTS], ids=["plain", "costs"])
def test_padding_changes_nothing(layout: Layout) -> None:
    extractor = make_extractor(layout)
    padded = replace(layout, max_groups=2 * GROUPS, max_edges=2 * EDGES)
    expected = extractor(batch(make_observation(layout)))
    torch.testing.assert_close(
        extractor(batch(make_observation(padded))), expected, atol=1e-5, rtol=0
    )


def test_content_of_padding_changes_nothing(extractor: GraphFeaturesExtractor) -> None:
    padded = replace(LAYOUT, max_groups=2 * GROUPS, max_edges=2 * EDGES)
    expected = batch(make_observation(padded))
    other = {key: array.clone() for key, array in expected.items()}
    other["node_features"][:, GROUPS:] = 7.0
    other["placement"][:, GROUPS:] = 1.0
    other["edge_index"][:, :, EDGES:] = 3.0
    other["edge_features"][:, EDGES:] = 7.0
    torch.testing.assert_close(extractor(other), extractor(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", [LAYOUT, WITH_COSTS], ids=["plain", "costs"])
def test_order_of_nodes_and_edges_changes_nothing(layout: Layout) -> None:
    extractor, rng = make_extractor(layout), np.random.default_rng(1)
    observation = make_observation(layout)
    other = renumbered(observation, rng.permutation(GROUPS))
    edges = rng.permutation(EDGES)
    other["edge_index"] = other["edge_index"][:, edges]
    for key in ("edge_features", "edge_costs"):
        if key in other:
            other[key] = other[key][edges]
    expected = extractor(batch(observation))
    torch.testing.assert_close(extractor(batch(other)), expected, atol=1e-5, rtol=0)


def test_neighbours_in_a_batch_change_nothing(extractor: GraphFeaturesExtractor) -> None:
    first, second = make_observation(), make_observation(cursor=None)
    together = extractor(batch(first, second))
    apart = torch.cat([extractor(batch(first)), extractor(batch(second))])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)


INPUTS = ("node_features", "placement", "cursor", "edge_features", "device_features", "last_time")


@pytest.mark.parametrize("key", [*INPUTS, *STATIC_COSTS, "partial_schedule"])
def test_every_input_counts(key: str) -> None:
    layout = LAYOUT if key in INPUTS else WITH_COSTS
    extractor = make_extractor(layout)
    observation = batch(make_observation(layout))
    expected = extractor(observation)
    observation[key] = observation[key].roll(1, dims=1) + (key in ("last_time", "costs_known"))
    assert (extractor(observation) - expected).abs().max() > 1e-4


def test_the_direction_of_edges_counts(extractor: GraphFeaturesExtractor) -> None:
    observation = batch(make_observation())
    expected = extractor(observation)
    observation["edge_index"] = observation["edge_index"].flip(1)
    assert (extractor(observation) - expected).abs().max() > 1e-4


def test_graph_id_counts_where_there_are_several() -> None:
    layout = replace(LAYOUT, num_graphs=3)
    extractor = GraphFeaturesExtractor(observation_space(layout))
    first, second = batch(make_observation()), batch(make_observation())
    second["graph_id"] += 2
    assert extractor.num_graphs == 3
    assert (extractor(first) - extractor(second)).abs().max() > 1e-4


@pytest.mark.parametrize("layout", [LAYOUT, WITH_COSTS], ids=["plain", "costs"])
def test_gradient_reaches_every_weight(layout: Layout) -> None:
    extractor = make_extractor(layout)
    seen = batch(make_observation(layout), make_observation(layout, cursor=None))
    extractor(seen).sum().backward()
    for name, weight in extractor.named_parameters():
        assert weight.grad is not None, name
        assert torch.isfinite(weight.grad).all(), name
        assert weight.grad.abs().sum() > 0, name


def test_finite_without_edges_and_without_nodes(extractor: GraphFeaturesExtractor) -> None:
    observation = batch(make_observation(cursor=None))
    observation["edge_mask"] = torch.zeros_like(observation["edge_mask"])
    assert torch.isfinite(extractor(observation)).all()
    empty = {key: torch.zeros_like(array) for key, array in observation.items()}
    result = extractor(empty)
    assert torch.isfinite(result).all()


def test_sizes_are_as_asked() -> None:
    extractor = GraphFeaturesExtractor(
        observation_space(LAYOUT), features_dim=7, hidden=8, layers=3
    )
    assert extractor(batch(make_observation())).shape == (1, 7)
    assert extractor.features_dim == 7
    assert len(extractor.encoder.layers) == 3


@pytest.mark.parametrize("algorithm", [DQN, QRDQN])
@pytest.mark.parametrize("name", ["Construct", "Refine"])
def test_value_based_algorithms_train_with_it(algorithm: type[DQN | QRDQN], name: str) -> None:
    env = gym.make(f"device_placement.envs:SimulatedDevicePlacement{name}-v0", model="diamond")
    kwargs = {"features_extractor_class": GraphFeaturesExtractor}
    agent = algorithm(
        "MultiInputPolicy", env, learning_starts=8, buffer_size=64, policy_kwargs=kwargs, seed=0
    )
    before = torch.nn.utils.parameters_to_vector(agent.policy.parameters())
    agent.learn(32)
    assert not torch.equal(torch.nn.utils.parameters_to_vector(agent.policy.parameters()), before)
