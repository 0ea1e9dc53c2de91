"""Placers under constraints: what they draw and move is valid or repaired."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest

from constrained import constrained_costs
from costed import CostsEvaluator
from device_placement.agents.placers import make_placer
from device_placement.agents.placers.exact.cp_sat import CpSat
from device_placement.agents.placers.pretrained.placer import UnfamiliarProblemWarning
from device_placement.agents.training.preset_placer import PresetPlacer, named_search
from device_placement.envs import DevicePlacementError, SimulatedEvaluator, make_evaluator
from device_placement.envs.constraints import first_broken
from device_placement.envs.repair.repairer import Repairer

pytestmark = pytest.mark.usefixtures("one_thread")
DEVICES = "NPU.0,NPU.1,NPU.2,NPU.3,NPU.4"
SINGLES = 5


@pytest.fixture(scope="module")
def evaluator() -> SimulatedEvaluator:
    """A model with skip connections on five chips in a row."""
    return make_evaluator("resnet50", DEVICES, evaluator="simulator", hardware="mcm", max_groups=24)


def after_singles(found: Any) -> list[tuple[tuple[int, ...], float]]:
    return [one for one in found.evaluations if len(set(one[0])) > 1]


@pytest.mark.parametrize("name", ["random", "annealing", "genetic", "pretrained"])
def test_what_placers_draw_and_move_is_valid(name: str, evaluator: SimulatedEvaluator) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnfamiliarProblemWarning)
        found = make_placer(name).place(evaluator, budget=24, seed=1)
    proposed = after_singles(found)
    assert len(proposed) > 10
    placements = np.array([one for one, _ in proposed], dtype=np.uint8)
    share = (first_broken(evaluator.costs, np.ascontiguousarray(placements.T)) == 0).mean()
    # A genetic search crosses placements, and what it crosses is not repaired.
    assert share == 1 or (name == "genetic" and share > 0)
    assert evaluator.evaluate(found.assignment).time_s == found.time_s


@pytest.mark.parametrize("name", ["greedy", "lookahead"])
def test_what_planners_construct_is_valid(name: str, evaluator: SimulatedEvaluator) -> None:
    found = make_placer(name).place(evaluator, budget=5, seed=0)
    assert found.evaluations
    assert all(math.isfinite(time_s) for _, time_s in found.evaluations)


def test_lookahead_is_as_good_as_contiguous_stages(evaluator: SimulatedEvaluator) -> None:
    found, stages = (make_placer(one).place(evaluator, 20, 0) for one in ("lookahead", "stages"))
    assert found.time_s <= stages.time_s


@pytest.mark.parametrize("seed", range(12))
def test_cp_sat_is_exact_under_constraints(seed: int) -> None:
    problem = CostsEvaluator(constrained_costs(seed, 6, 3), "pipelined")
    Repairer(problem.costs).balanced()  # compiles, which the limit of time would count
    found = CpSat(time_limit_s=60.0, workers=1).place(problem, budget=20, seed=0)
    best_s = problem.optimum()
    if math.isinf(best_s):
        assert not found.assignment
    else:
        assert found.time_s == pytest.approx(best_s, rel=1e-9)
        assert found.bound_s == pytest.approx(best_s, rel=1e-6)


def test_stages_are_repaired(evaluator: SimulatedEvaluator) -> None:
    found = make_placer("stages").place(evaluator, budget=20, seed=0)
    assert all(not np.isnan(time_s) for placement, time_s in after_singles(found))
    assert len(set(found.assignment)) == SINGLES


@pytest.mark.parametrize("repair", ["none", "fix", "sample"])
def test_presets_learn_with_repair(repair: str, evaluator: SimulatedEvaluator) -> None:
    found = PresetPlacer("ppo", repair=repair).place(evaluator, budget=60, seed=0)
    proposed = after_singles(found)
    valid = [time_s for _, time_s in proposed if not np.isnan(time_s)]
    if repair == "none":
        assert len(valid) < len(proposed) / 10
    else:
        assert len(valid) == len(proposed) > 20


def test_an_unknown_repair_is_refused() -> None:
    with pytest.raises(DevicePlacementError, match="Did you mean 'sample'"):
        named_search("ppo", repair="samples")


def test_policies_that_number_devices_refuse_more_than_they_know() -> None:
    many = make_evaluator(
        "diamond", [f"NPU.{one}" for one in range(17)], evaluator="simulator", hardware="mcm"
    )
    with pytest.raises(DevicePlacementError, match=r"17 devices.* up to 16"):
        PresetPlacer("nodewise_ppo").place(many, budget=30, seed=0)
