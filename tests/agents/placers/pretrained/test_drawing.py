"""Placements that a network draws: alone or among others, by its probabilities, as allowed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from costed import coloured_and_small
from device_placement.agents.placers.pretrained.drawing import (
    FREE,
    Drawn,
    SeenProblem,
    draw,
    joined,
    log_probabilities,
    static_arrays,
)
from device_placement.agents.placers.search_space import SearchSpace
from device_placement.agents.policies.construct import ConstructNetwork
from device_placement.agents.pretraining.learning import see
from device_placement.envs import generate_problem
from device_placement.envs.cost_features import KnownCosts
from device_placement.envs.problems.config import GeneratorConfig

pytestmark = pytest.mark.usefixtures("one_thread")

# Without devices that are alike, between which rounding would decide.
CONFIG = GeneratorConfig(groups=(10, 30), twin_share=0.0)
EVALUATORS = [generate_problem(seed, CONFIG) for seed in range(4)]
PROBLEMS = [see(one) for one in EVALUATORS]


@pytest.fixture(scope="module")
def network() -> ConstructNetwork:
    torch.manual_seed(3)
    made = ConstructNetwork(hidden=16, layers=2)
    torch.nn.init.normal_(made.score.weight)
    torch.nn.init.zeros_(made.skip.weight)  # which would leave nothing to chance
    return made.eval()


def drawn_of(
    network: ConstructNetwork, problems: list[SeenProblem], copies: int, seed: int | None = None
) -> Drawn:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    with torch.no_grad():
        encoded = network(static_arrays(problems))
    return draw(network, problems, encoded, copies, generator)


def test_a_problem_is_placed_alike_alone_and_among_others(network: ConstructNetwork) -> None:
    together = drawn_of(network, PROBLEMS, 1).placements
    for number, problem in enumerate(PROBLEMS):
        alone = drawn_of(network, [problem], 1).placements[0]
        assert alone.tolist() == together[number, : problem.num_groups].tolist()
        assert (together[number, problem.num_groups :] == FREE).all()


def test_samples_are_fixed_by_the_seed_and_differ(network: ConstructNetwork) -> None:
    one, same, other = (drawn_of(network, PROBLEMS, 8, seed).placements for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert len({tuple(row) for row in one[:8].tolist()}) > 1


def test_every_placement_is_allowed(network: ConstructNetwork) -> None:
    drawn = drawn_of(network, PROBLEMS, 16, 0).placements
    for number, problem in enumerate(PROBLEMS):
        rows = drawn[number * 16 : (number + 1) * 16, : problem.num_groups]
        groups = np.arange(problem.num_groups)
        assert problem.coarse.supported[groups, rows].all()


def test_the_recorded_probabilities_are_those_of_the_draws(network: ConstructNetwork) -> None:
    """Of the first group, over many draws."""
    problem = PROBLEMS[0]
    drawn = drawn_of(network, [problem], 4000, 5)
    with torch.no_grad():
        encoded = network(static_arrays([problem]))
        expected = log_probabilities(network, encoded, drawn)[:1].exp()[0].numpy()
    found = np.bincount(drawn.placements[:, 0], minlength=expected.size) / 4000
    assert found == pytest.approx(expected, abs=0.03)
    assert np.count_nonzero(expected > 0.05) > 1


def test_given_devices_are_placed_and_recorded(network: ConstructNetwork) -> None:
    given = drawn_of(network, PROBLEMS, 1, 9).placements
    given[0, 3] = FREE  # the policy decides
    with torch.no_grad():
        encoded = network(static_arrays(PROBLEMS))
    found = draw(network, PROBLEMS, encoded, 1, given=given)
    real = given != FREE
    assert np.array_equal(found.placements[real], given[real])
    assert found.placements[0, 3] != FREE
    sizes = [one.num_groups for one in PROBLEMS]
    assert len(found.row) == sum(sizes)
    assert torch.bincount(found.row).tolist() == sizes


def test_rows_are_taken_out_and_joined(network: ConstructNetwork) -> None:
    drawn = drawn_of(network, PROBLEMS, 2, 0)
    parts = joined([drawn, drawn])
    assert len(parts.placements) == 2 * len(drawn.placements)
    last = len(drawn.placements) + 3
    one, other = drawn.of_rows([3]), parts.of_rows([last])
    assert torch.equal(one.device, other.device)
    assert one.device.tolist() == drawn.placements[3, : len(one.device)].tolist()
    assert set(other.row.tolist()) == {last}


def test_groups_of_a_colour_stay_together_and_memory_is_kept(network: ConstructNetwork) -> None:
    evaluator = coloured_and_small(1)
    known = KnownCosts(evaluator.costs, evaluator.schedule)
    problem = SeenProblem(evaluator.coarse, known, SearchSpace.of(evaluator))
    drawn = drawn_of(network, [problem], 64, 0).placements
    assert len({tuple(row) for row in drawn.tolist()}) > 8
    for colour in (2, 5):
        members = drawn[:, evaluator.costs.colour == colour]
        assert (members == members[:, :1]).all()
    assert all(np.isfinite(evaluator.costs.compute_s[np.arange(8), row]).all() for row in drawn)
