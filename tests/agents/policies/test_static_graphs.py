"""A graph is encoded once however many rows hold it, and again once anything changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from device_placement.agents.policies.cost_inputs import STATIC_COSTS
from device_placement.agents.policies.gnn import distinct_graphs
from observations import GROUPS, LAYOUT, coarse_on, make_observation, make_policy, probabilities

pytestmark = pytest.mark.usefixtures("one_thread")


def test_rows_of_one_graph_are_one() -> None:
    one = make_observation(LAYOUT, coarse_on(2))
    batch = {key: torch.cat([array] * 5) for key, array in one.items()}
    static, graph = distinct_graphs(batch)
    assert len(static["node_features"]) == 1
    assert graph.tolist() == [0] * 5
    batch["node_features"][3, 0] += 1  # the same number, but not the same graph
    static, graph = distinct_graphs(batch)
    assert len(static["node_features"]) == 5
    assert graph.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("key", STATIC_COSTS)
def test_graphs_with_other_costs_are_told_apart(key: str) -> None:
    layout = replace(LAYOUT, costs=True)
    one = make_observation(layout, coarse_on(2))
    batch = {key: torch.cat([array] * 3) for key, array in one.items()}
    assert len(distinct_graphs(batch)[0][key]) == 1
    batch[key][1] += 1
    assert len(distinct_graphs(batch)[0][key]) == 3


def test_rows_of_several_graphs_are_told_apart() -> None:
    one, other = make_observation(LAYOUT, coarse_on(2)), make_observation(LAYOUT, coarse_on(2))
    other["graph_id"] += 1
    other["node_features"] += 1
    batch = {key: torch.cat([other[key], one[key], other[key]]) for key in one}
    static, graph = distinct_graphs(batch)
    assert graph.tolist() == [1, 0, 1]
    torch.testing.assert_close(static["node_features"][graph], batch["node_features"])


def test_what_is_remembered_of_a_graph_is_of_this_graph_and_these_weights() -> None:
    policy = make_policy(LAYOUT, "assign")
    seen = make_observation(LAYOUT, coarse_on(2))
    with torch.no_grad():
        one = probabilities(policy, LAYOUT, "assign", seen)
        assert torch.equal(probabilities(policy, LAYOUT, "assign", seen), one)
        seen["node_features"][:, :GROUPS] *= -1  # in place
        other = probabilities(policy, LAYOUT, "assign", seen)
        assert not torch.allclose(other, one)
        weights = torch.nn.utils.parameters_to_vector(policy.parameters())
        torch.nn.utils.vector_to_parameters(1.5 * weights, policy.parameters())
        assert not torch.allclose(probabilities(policy, LAYOUT, "assign", seen), other)
        policy.load_state_dict(make_policy(LAYOUT, "assign").state_dict())
        torch.testing.assert_close(probabilities(policy, LAYOUT, "assign", seen), other)


def test_what_is_remembered_ends_with_an_update() -> None:
    policy = make_policy(LAYOUT, "assign")
    seen = make_observation(LAYOUT, coarse_on(2))
    with torch.no_grad():
        before = probabilities(policy, LAYOUT, "assign", seen)
    _, log_prob, _ = policy.evaluate_actions(seen, torch.zeros(1, GROUPS))  # type: ignore[arg-type]
    log_prob.sum().backward()
    policy.optimizer.step()
    with torch.no_grad():
        assert not torch.allclose(probabilities(policy, LAYOUT, "assign", seen), before)
