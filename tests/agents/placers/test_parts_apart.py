"""Placements of models with independent parts, each on devices of its own."""

from __future__ import annotations

import numpy as np
import pytest

from costed import CostsEvaluator
from costs import make_costs
from device_placement.agents.placers import make_placer
from device_placement.agents.placers.parts_apart import parts_apart
from device_placement.agents.placers.search_space import SearchSpace
from device_placement.envs import make_evaluator
from device_placement.envs.costs import FREE
from device_placement.envs.evaluation import Evaluator


def apart(evaluator: Evaluator) -> list[list[int]]:
    return parts_apart(evaluator, SearchSpace.of(evaluator))


def chains(**changes: object) -> CostsEvaluator:
    """Three chains of two groups each, on two devices."""
    tensors = {0: (1.0, [1]), 2: (1.0, [3]), 4: (1.0, [5])}
    return CostsEvaluator(make_costs([[1.0, 1.0]] * 6, tensors, **changes), "concurrent")


def test_two_models_go_to_two_devices_either_way() -> None:
    evaluator = make_evaluator(
        "resnet50+two_towers", "CPU,GPU", evaluator="simulator", max_groups=24
    )
    found = apart(evaluator)
    assert len(found) == 2
    assert (np.array(found[0]) != np.array(found[1])).all()
    producer, reader = evaluator.coarse.edge_index
    for placement in np.array(found):
        assert (placement[producer] == placement[reader]).all()
        assert set(placement.tolist()) == {0, 1}


def test_parts_are_shared_evenly_and_stay_whole() -> None:
    found = apart(chains())
    assert len(found) == 2
    for placement in found:
        assert placement[::2] == placement[1::2]
        assert sorted(np.bincount(placement).tolist()) == [2, 4]


def test_parts_of_one_colour_are_one_part() -> None:
    colour = np.array([7, FREE, 7, FREE, 7, FREE], dtype=np.int32)
    assert apart(chains(colour=colour)) == []


def test_a_device_that_lacks_an_op_gets_no_part_with_it() -> None:
    evaluator = chains()
    evaluator.costs.compute_s[3, 1] = np.inf
    found = apart(evaluator)
    assert len(found) == 1
    assert found[0][3] == 0


def test_many_parts_and_devices_have_few_placements() -> None:
    tensors = {2 * one: (1.0, [2 * one + 1]) for one in range(14)}
    evaluator = CostsEvaluator(make_costs([[1.0] * 16] * 28, tensors), "concurrent")
    found = apart(evaluator)
    assert len(found) == len({tuple(one) for one in found}) == 4
    evaluator.costs.compute_s[0, :15] = np.inf  # of the first orders none is allowed
    assert apart(evaluator) == []


@pytest.mark.parametrize("placer", ["posterior_sampling", "pretrained"])
def test_what_costs_no_moves_is_among_the_first_placements(placer: str) -> None:
    evaluator = make_evaluator(
        "resnet50+two_towers", "CPU,GPU", evaluator="simulator", max_groups=24
    )
    result = make_placer(placer).place(evaluator, budget=5, seed=0)
    assert {tuple(one) for one in apart(evaluator)} <= {one for one, _ in result.evaluations}
