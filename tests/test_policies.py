"""What the policies promise: of size, order and number of devices; of masks and of seeds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO
from stable_baselines3 import A2C, PPO
from torch import Tensor

from device_placement.agents.gnn import CONVS, DIRECTIONS, distinct_graphs
from device_placement.agents.grouping import GroupingExtractor
from device_placement.agents.policies import (
    GraphParsingPolicy,
    MaskableNodewisePolicy,
    NodewisePolicy,
)
from device_placement.envs import DevicePlacementError
from device_placement.envs.coarsening import CoarseGraph
from device_placement.envs.observation import (
    FORMULATIONS,
    Layout,
    Observation,
    action_space,
    device_features,
    graph_arrays,
    observation_space,
    observe,
)
from scripted import twelve_groups_evaluator

COARSE = twelve_groups_evaluator().coarse
GROUPS, EDGES, FEATURES = COARSE.num_groups, COARSE.num_edges, 5
LAYOUT = Layout(max_groups=GROUPS, max_edges=EDGES, num_features=FEATURES, num_devices=2)
NAMES = {
    "assign": "SimulatedDevicePlacement-v0",
    "construct": "SimulatedDevicePlacementConstruct-v0",
    "refine": "SimulatedDevicePlacementRefine-v0",
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def coarse_on(num_devices: int, forbidden: dict[int, list[int]] | None = None) -> CoarseGraph:
    """The twelve groups on two devices and others that nothing runs on."""
    supported = np.zeros((GROUPS, num_devices), dtype=np.bool_)
    supported[:, :2] = True
    for group, devices in (forbidden or {}).items():
        supported[group, devices] = False
    graph = replace(COARSE.graph, supported=supported, devices=("CPU",) * num_devices)
    return replace(COARSE, graph=graph, supported=supported)


def make_observation(
    layout: Layout,
    coarse: CoarseGraph,
    cursor: int | None = None,
    order: NDArray[np.int64] | None = None,
) -> dict[str, Tensor]:
    """A batch of one, of the twelve groups; order[i] is the old number of the new node i."""
    order = np.arange(GROUPS) if order is None else order
    features = np.random.default_rng(0).normal(size=(GROUPS, FEATURES)).astype(np.float32)
    static = graph_arrays(coarse, features, layout, graph_id=0)
    logs = np.array([0.0, -0.3, np.nan])[: layout.num_devices]
    devices = device_features(logs, coarse, [None] * layout.num_devices, reference=0)
    placement = np.arange(GROUPS) % 3 - 1  # some unplaced
    seen: Observation = observe(static, devices, layout, placement, cursor, log_time=0.3, step=2)
    for key in ("node_features", "node_mask", "placement", "cursor", "device_mask"):
        seen[key][:GROUPS] = seen[key][:GROUPS][order]
    seen["edge_index"][:, :EDGES] = np.argsort(order)[seen["edge_index"][:, :EDGES]]
    return {key: torch.as_tensor(array)[None].float() for key, array in seen.items()}


def make_policy(layout: Layout, formulation: str, **options: Any) -> NodewisePolicy:
    """A policy with random weights, those of the head among them; equal for all layouts."""
    torch.manual_seed(0)
    policy = NodewisePolicy(
        observation_space(layout),
        action_space(layout, formulation),
        lambda _: 1e-3,
        features_extractor_kwargs={"hidden": 16, **options},
    )
    torch.manual_seed(1)
    for weight in policy.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return policy.eval()


def probabilities(
    policy: NodewisePolicy, layout: Layout, formulation: str, seen: dict[str, Tensor]
) -> Tensor:
    """Of each device for each real group; (1, num_devices) in ``construct``."""
    found: Any = policy.get_distribution(seen)  # type: ignore[arg-type]
    each = found.each if formulation == "assign" else found.distribution
    rows: Tensor = each.probs.reshape(-1, layout.num_devices)
    return rows[:GROUPS]


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("change", ["padding", "order", "device"])
def test_nothing_that_does_not_matter_changes_a_probability(change: str, formulation: str) -> None:
    cursor = 4 if formulation == "construct" else None
    expected = probabilities(
        make_policy(LAYOUT, formulation, sees_placement=True),
        LAYOUT,
        formulation,
        make_observation(LAYOUT, coarse_on(2), cursor),
    )
    layout, coarse, order = LAYOUT, coarse_on(2), np.arange(GROUPS)
    if change == "padding":
        layout = replace(LAYOUT, max_groups=2 * GROUPS, max_edges=2 * EDGES)
    elif change == "order":
        order = np.random.default_rng(3).permutation(GROUPS)
    else:
        layout, coarse = replace(LAYOUT, num_devices=3), coarse_on(3)
    found = probabilities(
        make_policy(layout, formulation, sees_placement=True),
        layout,
        formulation,
        make_observation(layout, coarse, cursor, order),
    )
    if formulation != "construct":
        expected = expected[order]
    assert expected.std() > 0.02 * expected.mean()  # the policy has an opinion
    torch.testing.assert_close(found[:, :2], expected, atol=1e-5, rtol=0)
    assert not found[:, 2:].any()


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_masked_actions_have_probability_0(formulation: str) -> None:
    coarse = coarse_on(2, {4: [0], 7: [1]})
    cursor = 4 if formulation == "construct" else None
    policy = make_policy(LAYOUT, formulation)
    found = probabilities(policy, LAYOUT, formulation, make_observation(LAYOUT, coarse, cursor))
    if formulation == "construct":
        assert found.tolist() == [[0, 1]]
        return
    zeros = {(group, device) for group, device in (found == 0).nonzero().tolist()}
    assert zeros == {(4, 0), (7, 1)}
    torch.testing.assert_close(found.sum(), torch.tensor(12.0 if formulation == "assign" else 1.0))


def test_refine_never_moves_padding() -> None:
    layout = replace(LAYOUT, max_groups=2 * GROUPS)
    found: Any = make_policy(layout, "refine").get_distribution(
        make_observation(layout, coarse_on(2))  # type: ignore[arg-type]
    )
    assert not found.distribution.probs[0, 2 * GROUPS :].any()


@pytest.mark.parametrize("conv", CONVS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_convolution_learns_from_every_weight(conv: str, direction: str) -> None:
    policy = make_policy(LAYOUT, "assign", conv=conv, direction=direction, sees_placement=True)
    seen = make_observation(LAYOUT, coarse_on(2))
    value, log_prob, _ = policy.evaluate_actions(seen, torch.zeros(1, GROUPS))  # type: ignore[arg-type]
    (value.sum() + log_prob.sum()).backward()
    for name, weight in policy.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


def test_a_wrong_convolution_is_named() -> None:
    with pytest.raises(DevicePlacementError, match=r"Unknown graph convolution 'gim'.*gin"):
        make_policy(LAYOUT, "assign", conv="gim")


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


def trained(algorithm: Any, policy: Any, formulation: str, **options: Any) -> dict[str, Tensor]:
    """The weights after two updates."""
    env = gym.make(f"device_placement.envs:{NAMES[formulation]}", model="diamond")
    if algorithm is not A2C:
        options = {"batch_size": 16, **options}
    agent = algorithm(policy, env, n_steps=16, seed=3, **options).learn(32)
    return dict(agent.policy.state_dict())


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize(
    ("algorithm", "policy"),
    [(PPO, NodewisePolicy), (A2C, NodewisePolicy), (MaskablePPO, MaskableNodewisePolicy)],
)
def test_twin_runs_give_equal_weights(algorithm: Any, policy: Any, formulation: str) -> None:
    one, other = (trained(algorithm, policy, formulation) for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_weights_fit_another_model_and_other_devices() -> None:
    saved = make_policy(LAYOUT, "assign").state_dict()
    larger = replace(LAYOUT, max_groups=40, max_edges=90, num_devices=5)
    make_policy(larger, "assign").load_state_dict(saved)


def parsing_policy(layout: Layout, **options: Any) -> GraphParsingPolicy:
    torch.manual_seed(0)
    policy = GraphParsingPolicy(
        observation_space(layout),
        action_space(layout, "assign"),
        lambda _: 1e-3,
        features_extractor_kwargs={"hidden": 16, **options},
    )
    torch.manual_seed(1)
    for weight in policy.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return policy


def learned_groups(policy: GraphParsingPolicy, seen: dict[str, Tensor]) -> list[int]:
    """The first group of each one's learned group."""
    found: Any = policy.get_distribution(seen)  # type: ignore[arg-type]
    return list(found.leader[0, :GROUPS].tolist())


@pytest.mark.parametrize("options", [{}, {"convex": True}])
def test_a_learned_group_has_one_device_and_counts_once(options: dict[str, Any]) -> None:
    policy = parsing_policy(LAYOUT, **options).eval()
    batch = {
        key: array.repeat(64, *[1] * (array.dim() - 1))
        for key, array in make_observation(LAYOUT, coarse_on(2)).items()
    }
    torch.manual_seed(5)
    actions, _, log_prob = policy(batch)
    leaders = learned_groups(policy, batch)
    assert 1 < len(set(leaders)) < GROUPS
    assert torch.equal(actions, actions[:, leaders])
    found: Any = policy.get_distribution(batch)  # type: ignore[arg-type]
    each = found.each.log_prob(actions)
    torch.testing.assert_close(log_prob, each[:, sorted(set(leaders))].sum(dim=1))
    drawn = {tuple(row) for row in actions.tolist()}
    assert len(drawn) > 1


def test_another_pass_joins_learned_groups() -> None:
    seen = make_observation(LAYOUT, coarse_on(2))
    once = learned_groups(parsing_policy(LAYOUT).eval(), seen)
    twice = learned_groups(parsing_policy(LAYOUT, passes=2).eval(), seen)
    assert len(set(twice)) < len(set(once))


def test_groups_without_a_common_device_stay_alone() -> None:
    policy = parsing_policy(LAYOUT).eval()
    leaders = learned_groups(policy, make_observation(LAYOUT, coarse_on(2)))
    one, other = next((lead, group) for group, lead in enumerate(leaders) if lead != group)
    apart = coarse_on(2, {one: [0], other: [1]})
    seen = make_observation(LAYOUT, apart)
    assert learned_groups(policy, seen)[other] == other
    action, *_ = policy(seen)
    assert action[0, [one, other]].tolist() == [1, 0]


def test_padding_makes_no_learned_group() -> None:
    layout = replace(LAYOUT, max_groups=2 * GROUPS, max_edges=2 * EDGES)
    counts = []
    for each in (LAYOUT, layout):
        policy = parsing_policy(each).eval()
        learned_groups(policy, make_observation(each, coarse_on(2)))
        extractor = policy.features_extractor
        assert isinstance(extractor, GroupingExtractor)
        counts.append(extractor.num_groups)
    assert counts[0] == counts[1]


def test_the_state_moves_with_the_steps_of_an_episode() -> None:
    policy = parsing_policy(LAYOUT).eval()
    first = make_observation(LAYOUT, coarse_on(2))
    logits = []
    for step in range(3):
        first["step"] = torch.full((1, 1), float(step))
        found: Any = policy.get_distribution(first)  # type: ignore[arg-type]
        logits.append(found.each.logits)
    assert not torch.allclose(logits[0], logits[1])
    assert not torch.allclose(logits[1], logits[2])
    still = parsing_policy(LAYOUT, moves_state=False).eval()
    found = still.get_distribution(first)  # type: ignore[arg-type]
    torch.testing.assert_close(found.each.logits, logits[0])


def test_the_groups_of_the_rollout_are_kept_in_training() -> None:
    policy = parsing_policy(LAYOUT)
    seen = make_observation(LAYOUT, coarse_on(2))
    before = learned_groups(policy.eval(), seen)
    for weight in policy.features_extractor.parameters():
        torch.nn.init.normal_(weight, std=1.0)
    assert learned_groups(policy.train(), seen) == before
    assert learned_groups(policy.eval(), seen) != before


def test_the_gradient_reaches_the_scores() -> None:
    policy = parsing_policy(LAYOUT, passes=2)
    seen = make_observation(LAYOUT, coarse_on(2))
    action, *_ = policy.eval()(seen)
    _, log_prob, _ = policy.train().evaluate_actions(seen, action)  # type: ignore[arg-type]
    log_prob.sum().backward()
    for name, weight in policy.named_parameters():
        if "parsers" in name and not name.endswith("3.bias"):
            assert weight.grad is not None, name
            assert weight.grad.abs().sum() > 0, name


@pytest.mark.parametrize("algorithm", [PPO, A2C])
def test_parsing_trains_and_twins_are_equal(algorithm: Any) -> None:
    one, other = (trained(algorithm, GraphParsingPolicy, "assign") for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_parsing_needs_whole_placements() -> None:
    with pytest.raises(DevicePlacementError, match="use formulation='assign'"):
        trained(PPO, GraphParsingPolicy, "construct")
    with pytest.raises(DevicePlacementError, match="Got passes=0"):
        parsing_policy(LAYOUT, passes=0)
