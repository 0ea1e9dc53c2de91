"""Gradients of pre-training: reproducible, towards faster placements; and the teacher."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from costed import coloured_and_small
from device_placement.agents.placers.search_space import SearchSpace
from device_placement.agents.policies.construct import ConstructNetwork
from device_placement.agents.pretraining.batches import Batch, batch_of
from device_placement.agents.pretraining.config import PARTS, PretrainOptions
from device_placement.agents.pretraining.learning import gradient_of, improve, see
from device_placement.envs import DevicePlacementError, generate_problem
from device_placement.envs.problems.config import GeneratorConfig
from device_placement.envs.problems.seeds import is_validation_seed

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = PretrainOptions(problems=4, samples=4, groups=20, hidden=16, layers=2, validation=4)

BATCH = Batch((11, 12, 13, 14), GeneratorConfig(groups=(10, 20)))


def network() -> ConstructNetwork:
    torch.manual_seed(0)
    return ConstructNetwork(OPTIONS.hidden, OPTIONS.layers)


def test_equal_arguments_give_equal_gradients() -> None:
    one, same, other = (gradient_of(network(), BATCH, OPTIONS, (0, stream)) for stream in (5, 5, 6))
    assert one.statistics == same.statistics
    for name, gradient in one.gradients.items():
        assert torch.equal(gradient, same.gradients[name]), name
    assert any((one.gradients[name] != other.gradients[name]).any() for name in one.gradients)


def statistics_of(imitation: float, steps: int, **changes: int) -> list[dict[str, float]]:
    """Of a short training on the same problems in each step."""
    options = replace(
        OPTIONS, samples=16, imitation=imitation, entropy=0.0, hidden_moves=0.0, **changes
    )  # type: ignore[arg-type]
    trained, found = network(), []
    optimizer = torch.optim.Adam(trained.parameters(), lr=1e-2)
    for step in range(steps):
        gradient = gradient_of(trained, BATCH, options, (0, step))
        found.append(gradient.statistics)
        for name, weight in trained.named_parameters():
            weight.grad = gradient.gradients.get(name)
        optimizer.step()
    return found


def test_reinforcement_makes_sampled_placements_faster() -> None:
    means = [one["log_speedup/mean"] for one in statistics_of(imitation=0.0, steps=32)]
    assert np.mean(means[-4:]) > np.mean(means[:4]) + 0.005


def test_imitation_makes_what_is_taught_likelier() -> None:
    found = statistics_of(imitation=1.0, steps=60, teacher_rounds=100)
    for name, factor in (("policy/cross_entropy", 0.8), ("policy/entropy", 0.8)):
        values = [one[name] for one in found]
        assert np.mean(values[-10:]) < factor * np.mean(values[:10]), name
    assert all(one["log_speedup/taught"] >= one["log_speedup/best_sample"] for one in found)


def test_the_teacher_is_never_slower_and_keeps_to_what_is_allowed() -> None:
    generator = np.random.default_rng(0)
    better = 0
    for seed in range(6):
        evaluator = generate_problem(seed)
        problem = see(evaluator)
        start = problem.space.sample(generator, 1)[0][problem.space.unit]
        found = improve(evaluator, problem.space, start, 16, generator)
        before_s, after_s = evaluator.evaluate_many(np.array([start, found]))
        assert after_s <= before_s
        better += after_s < before_s
        assert problem.coarse.supported[np.arange(problem.num_groups), found].all()
    assert better >= 4


def test_the_teacher_moves_colours_as_a_whole() -> None:
    evaluator = coloured_and_small(1)
    space = SearchSpace.of(evaluator)
    start = space.allowed.argmax(axis=1)[space.unit]
    simulated = evaluator_with_batches(evaluator)
    found = improve(simulated, space, start, 8, np.random.default_rng(0))  # type: ignore[arg-type]
    for colour in (2, 5):
        assert len(set(found[evaluator.costs.colour == colour].tolist())) == 1


class evaluator_with_batches:  # noqa: N801
    """The evaluator of costs written by hand, many placements at once."""

    def __init__(self, evaluator: object) -> None:
        self._evaluator = evaluator

    def evaluate_many(self, placements: np.ndarray) -> np.ndarray:
        found = [self._evaluator.evaluate(one) for one in placements]  # type: ignore[attr-defined]
        return np.array([one.time_s if one.valid else np.inf for one in found])


def test_moves_can_be_hidden() -> None:
    evaluator = generate_problem(3)
    seen, hidden = see(evaluator), see(evaluator, sees_moves=False)
    assert seen.known.costs.latency_s.any() or seen.known.costs.s_per_byte.any()
    assert not hidden.known.costs.latency_s.any()
    assert not hidden.known.costs.s_per_byte.any()
    assert (seen.known.knows_transfers, hidden.known.knows_transfers) == (True, False)
    assert np.array_equal(seen.known.costs.compute_s, hidden.known.costs.compute_s)


def test_every_step_has_problems_of_its_own_unless_they_are_few() -> None:
    options = PretrainOptions(problems=8)
    batches = [batch_of(options, step) for step in range(20)]
    seeds = [seed for batch in batches for seed in batch.seeds]
    assert len(set(seeds)) == len(seeds) == 160
    assert not any(map(is_validation_seed, seeds))
    assert batches[0] != batch_of(replace(options, seed=1), 0)
    few = [batch_of(replace(options, distinct=24), step) for step in range(20)]
    assert len({seed for batch in few for seed in batch.seeds}) == 24
    assert few[:3] == batches[:3] == few[3:6]


def test_problems_of_a_step_have_similar_sizes_and_all_sizes_occur() -> None:
    batches = [batch_of(PretrainOptions(groups=200), step) for step in range(200)]
    sizes = [batch.config.groups for batch in batches]
    assert all(10 <= low <= high <= 200 and high <= 1.6 * low + 2 for low, high in sizes)
    assert min(low for low, _ in sizes) == 10
    assert max(high for _, high in sizes) == 200
    devices = [batch.config.devices for batch in batches]
    assert {low for low, high in devices if low == high} == {2, 3, 4, 5, 6, 7, 8}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "Got steps=0; it must be from 1 to 100000000"),
        ({"problems": 3}, f"Got problems=3; it must be a multiple of {PARTS}"),
        ({"groups": 9}, "Got groups=9; it must be from 10 to 300"),
        ({"groups": 10**6}, "Got groups=1000000; it must be from 10 to 300"),
        ({"imitation": -0.1}, r"Got imitation=-0\.1; it must be from 0 to 1"),
        ({"learning_rate": float("nan")}, "Got learning_rate=nan"),
        ({"hidden": 10**9}, "Got hidden=1000000000; it must be from 2 to 1024"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_wrong_setting_says_what_is_allowed(changes: dict[str, float], message: str) -> None:
    with pytest.raises(DevicePlacementError, match=message):
        PretrainOptions(**changes)  # type: ignore[arg-type]
