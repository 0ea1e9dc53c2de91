"""The pretrained placer: what it finds with few placements, its budget, and its warnings."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from device_placement.agents.placers import make_placer
from device_placement.agents.placers.pretrained.placer import (
    Pretrained,
    PretrainedPolicy,
    UnfamiliarProblemWarning,
    distinct_samples,
)
from device_placement.agents.placers.pretrained.weights import (
    WeightsCard,
    inputs_digest,
    load_weights,
    save_weights,
)
from device_placement.agents.policies.construct import ConstructNetwork
from device_placement.envs import DevicePlacementError, generate_problem, make_evaluator
from device_placement.envs.problems.config import GeneratorConfig
from device_placement.envs.problems.seeds import VALIDATION_SEEDS
from runs import evaluator_of
from scripted import twelve_groups_evaluator

pytestmark = pytest.mark.usefixtures("one_thread")

SEEDS = VALIDATION_SEEDS[-8:]
CONFIG = GeneratorConfig(groups=(20, 60))


def test_on_unseen_problems_samples_are_better_than_greedy_and_fine_tuning_helps() -> None:
    logs = []
    for seed in SEEDS[2:6]:
        evaluator = generate_problem(seed, CONFIG)
        policy = PretrainedPolicy.load("", evaluator, "auto", 0)
        greedy_s = make_placer("greedy").place(evaluator, 10, 0).time_s
        ours = evaluator.evaluate_many(np.array([policy.greedy()]))[0]
        best = evaluator.evaluate_many(distinct_samples(policy, 32)).min()
        tuned = Pretrained().place(evaluator, 80, 0).time_s
        logs.append(np.log([ours / greedy_s, min(best, ours) / greedy_s, tuned / greedy_s]))
    ours, best, tuned = np.mean(logs, axis=0)
    assert tuned < best < 0
    assert best < ours < 0.05


def test_the_budget_is_kept_and_equal_seeds_find_equal_placements() -> None:
    evaluator = generate_problem(SEEDS[0], CONFIG)
    one, same, other = (Pretrained().place(evaluator, 50, seed) for seed in (1, 1, 2))
    assert one.evaluations == same.evaluations
    assert one.evaluations != other.evaluations
    assert len(evaluator.devices) < len(one.evaluations) <= 50
    first = PretrainedPolicy.load("", evaluator, "auto", 1).first()
    assert tuple(first) in [placement for placement, _ in one.evaluations[:9]]


@pytest.mark.parametrize("seed", SEEDS[:4])
def test_what_it_proposes_first_is_the_fastest_of_its_own_and_of_lookahead(seed: int) -> None:
    evaluator = generate_problem(seed, CONFIG)
    policy = PretrainedPolicy.load("", evaluator, "auto", 0)
    lookahead_s = make_placer("lookahead").place(evaluator, 10, 0).time_s
    own_s, first_s = evaluator.evaluate_many(np.array([policy.greedy(), policy.first()]))
    assert first_s == min(own_s, lookahead_s)


def test_it_ends_when_the_policy_has_settled() -> None:
    evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    assert len(Pretrained().place(evaluator, 10_000, 0).evaluations) <= 16


def test_it_imitates_the_fastest() -> None:
    """After fine-tuning, the greedy placement is nearer to the best that was found."""
    evaluator = generate_problem(SEEDS[1], CONFIG)
    policy = PretrainedPolicy.load("", evaluator, "auto", 0)
    drawn = policy.sample(20)
    times_s = evaluator.evaluate_many(drawn.placements)
    worst = drawn.of_rows([int(times_s.argmax())])  # so that luck can't help
    optimizer = torch.optim.Adam(policy.network.parameters(), lr=1e-2)
    before = policy.greedy()
    for _ in range(60):
        policy.imitate([worst], optimizer)
    wanted = drawn.placements[int(times_s.argmax())]
    assert (wanted == policy.greedy()).mean() > (wanted == before).mean()


@pytest.mark.parametrize(("what", "limit"), [("devices", "max_devices"), ("groups", "max_groups")])
def test_a_larger_problem_than_any_in_training_is_placed_with_a_warning(
    what: str, limit: str, tmp_path: Path
) -> None:
    network = ConstructNetwork(16, 2)
    card = WeightsCard(16, 2, "", inputs_digest(), 8, 200)
    path = tmp_path / "a.safetensors"
    evaluator = generate_problem(SEEDS[0], CONFIG)
    save_weights(network, path, card)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Pretrained(str(path)).place(evaluator, 10, 0)
    save_weights(network, path, replace(card, **{limit: 1}))
    message = f"This problem has .* {what}.*trained on up to 1"
    with pytest.warns(UnfamiliarProblemWarning, match=message):
        assert Pretrained(str(path)).place(evaluator, 10, 0).assignment


def test_the_time_of_each_device_is_measured_where_nothing_simulates(tmp_path: Path) -> None:
    with contextlib.closing(evaluator_of("diamond", tmp_path / "store.sqlite")) as evaluator:
        found = Pretrained().place(evaluator, 5, 0)
        policy = PretrainedPolicy.load("", evaluator, "auto", 0)
    assert 2 <= len(found.evaluations) <= 5  # one device may be clearly the best
    assert found.time_s > 0
    known = policy.problem.known
    assert (known.schedule, known.knows_transfers) == ("sequential", False)
    assert (known.costs.compute_s > 0).any()


def test_what_has_no_costs_is_refused() -> None:
    with pytest.raises(DevicePlacementError, match="neither measures nor has costs"):
        Pretrained().place(twelve_groups_evaluator(), 10, 0)


@pytest.mark.parametrize("name", ["local_search", "posterior_sampling"])
def test_searches_start_from_its_samples(name: str) -> None:
    evaluator = generate_problem(SEEDS[2], CONFIG)
    devices = len(evaluator.devices)
    found = make_placer(name, start="pretrained").place(evaluator, 60, 3)
    policy = PretrainedPolicy.load("", evaluator, "auto", 3)
    expected = [policy.first(), *distinct_samples(policy, 15).tolist()]
    expected = [*dict.fromkeys(map(tuple, expected))]
    first = [placement for placement, _ in found.evaluations[devices:]]
    assert first[: len(expected)] == expected
    with pytest.raises(DevicePlacementError, match=r"Unknown start 'pretraind'.*'pretrained'"):
        make_placer(name, start="pretraind")


def test_the_weights_in_the_package_see_everything() -> None:
    network, _ = load_weights()
    assert network.without == ""
