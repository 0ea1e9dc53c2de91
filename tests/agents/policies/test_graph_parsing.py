"""What HSDAG's learned grouping promises."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, PPO
from torch import Tensor
from torch.nn import functional

from device_placement.agents.policies.cost_inputs import STATIC_COSTS
from device_placement.agents.policies.graph_parsing import (
    SHARPNESS,
    GroupingExtractor,
    ParsingLayer,
    _normal,
)
from device_placement.agents.policies.policies import GraphParsingPolicy
from device_placement.envs import DevicePlacementError
from device_placement.envs.observation import Layout, action_space, observation_space
from observations import EDGES, GROUPS, LAYOUT, coarse_on, make_observation, trained

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_edges_that_score_too_little_are_not_kept() -> None:
    seen = make_observation(LAYOUT, coarse_on(2))
    numbers = [
        len(set(learned_groups(parsing_policy(LAYOUT, min_score=least).eval(), seen)))
        for least in (0.0, 0.5, 1.1)
    ]
    assert numbers[0] < numbers[1] < numbers[2] == GROUPS


def test_scores_begin_with_the_likeness_of_the_ends() -> None:
    torch.manual_seed(0)
    nodes = functional.layer_norm(torch.randn(4, 16), (16,))
    edges = torch.tensor([[0, 1, 2], [1, 2, 3]])
    cosine = functional.cosine_similarity(nodes[edges[0]], nodes[edges[1]])
    scores = ParsingLayer(16, similarity=0.25)(nodes, edges)
    torch.testing.assert_close(scores, torch.sigmoid(SHARPNESS * (cosine - 0.25)))


def test_what_all_nodes_have_in_common_changes_nothing() -> None:
    state, mask = torch.randn(2, 5, 8), torch.tensor([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]]).bool()
    other = state + torch.randn(2, 1, 8)
    torch.testing.assert_close(_normal(state, mask)[mask], _normal(other, mask)[mask])


@torch.no_grad()
def test_an_episode_goes_on_as_if_begun_anew() -> None:
    policy = parsing_policy(LAYOUT).eval()
    seen = make_observation(LAYOUT, coarse_on(2))
    extractor = policy.features_extractor
    assert isinstance(extractor, GroupingExtractor)

    def at(step: float) -> Tensor:
        seen["step"] = torch.full((1, 1), step)
        return extractor(seen)

    kept = [at(step) for step in (0.0, 1.0, 2.0, 1.0)]
    extractor._last = None
    assert torch.equal(at(2.0), kept[2])
    assert torch.equal(kept[3], kept[1])
    extractor.head.read.weight.mul_(2.0)  # weights that the encoder does not know of
    assert not torch.equal(at(2.0), kept[2])


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


@pytest.mark.parametrize("change", ["padding", "order", "device"])
@pytest.mark.parametrize("costs", [False, True])
def test_nothing_that_does_not_matter_changes_a_logit(change: str, costs: bool) -> None:
    layout, coarse, order = replace(LAYOUT, costs=costs), coarse_on(2), np.arange(GROUPS)

    def logits() -> Tensor:
        policy = parsing_policy(layout).eval()
        seen = make_observation(layout, coarse, order=order)
        found: Any = policy.get_distribution(seen)  # type: ignore[arg-type]
        return torch.as_tensor(found.each.logits[0, :GROUPS, :2].detach())

    expected = logits()
    if change == "padding":
        layout = replace(layout, max_groups=2 * GROUPS, max_edges=2 * EDGES)
    elif change == "order":
        order = np.random.default_rng(3).permutation(GROUPS)
    else:
        layout, coarse = replace(layout, num_devices=3), coarse_on(3)
    assert expected.std() > 0.05
    torch.testing.assert_close(logits(), expected[order], atol=1e-4, rtol=0)


def test_costs_count() -> None:
    layout = replace(LAYOUT, costs=True)
    policy, seen = parsing_policy(layout).eval(), make_observation(layout, coarse_on(2))
    extractor = policy.features_extractor
    expected = extractor(seen)
    for key in STATIC_COSTS:
        changed = 0 * seen[key] if key == "costs_known" else seen[key].flip(1)
        assert (extractor({**seen, key: changed}) - expected).abs().max() > 1e-4, key


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


def test_saved_policies_find_the_extractor_where_it_was() -> None:
    name = b"cdevice_placement.agents.policies.graph_parsing\nGroupingExtractor\n."
    assert pickle.loads(name) is GroupingExtractor


@pytest.mark.parametrize("algorithm", [PPO, A2C])
def test_parsing_trains_and_twins_are_equal(algorithm: Any) -> None:
    one, other = (trained(algorithm, GraphParsingPolicy, "assign") for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_parsing_needs_whole_placements() -> None:
    with pytest.raises(DevicePlacementError, match="use formulation='assign'"):
        trained(PPO, GraphParsingPolicy, "construct")
    with pytest.raises(DevicePlacementError, match="Got passes=0"):
        parsing_policy(LAYOUT, passes=0)
