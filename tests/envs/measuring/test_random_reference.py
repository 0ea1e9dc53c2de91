from __future__ import annotations

import contextlib
import dataclasses
import math
from pathlib import Path

import openvino as ov
import openvino.opset15 as ops
import pytest

from device_placement.envs import DevicePlacementEnv, Evaluation, Placement
from device_placement.envs.measuring.bench import Job
from device_placement.envs.measuring.validation import validate_placement
from device_placement.envs.models.deciding_inputs import is_random
from input_models import FAST, measuring, mixed, random_numbers


@pytest.mark.parametrize("limit", [None, 0.01])
@pytest.mark.parametrize("isolation", ["none", "process"])
def test_placements_of_random_models_are_valid_and_unverified(
    isolation: str, limit: float | None
) -> None:
    evaluator = measuring(
        random_numbers(), verify=True, max_output_error=limit, isolation=isolation
    )
    with contextlib.closing(evaluator):
        for device in (0, 1):
            found = evaluator.evaluate([device] * evaluator.coarse.num_groups)
            assert found.valid
            assert "differ between two runs" in found.unverified
            assert math.isnan(found.output_error)
            assert math.isnan(found.output_cosine)
            assert Evaluation.from_json(found.to_json()) == found


def test_the_state_is_stored(tmp_path: Path) -> None:
    store = str(tmp_path / "store.sqlite")
    found = []
    for _ in range(2):
        evaluator = measuring(random_numbers(), verify=True, store=store)
        found.append(evaluator.evaluate([1] * evaluator.coarse.num_groups))
    assert [one.cached for one in found] == [False, True]
    assert dataclasses.replace(found[1], cached=False, run_s=0.0) == (
        dataclasses.replace(found[0], run_s=0.0)
    )


def test_models_without_random_numbers_are_verified() -> None:
    evaluator = measuring(mixed(), verify=True)
    for device in (0, 1):
        found = evaluator.evaluate([device] * evaluator.coarse.num_groups)
        assert (found.output_error, found.unverified) == (0.0, "")
    assert is_random(random_numbers())
    assert not is_random(mixed())


def test_random_numbers_in_a_body_are_seen() -> None:
    x = ops.parameter([], bool, name="x")
    bodies = []
    for _ in range(2):
        ends = (ops.constant(end) for end in (0.0, 1.0))
        drawn = ops.random_uniform(ops.constant([4]), *ends, "f64", 0, 0)
        bodies.append(ov.Model([ops.result(drawn)], []))
    choice = ops.if_op(x)
    choice.set_then_body(bodies[0])
    choice.set_else_body(bodies[1])
    chosen = choice.set_output(bodies[0].get_results()[0], bodies[1].get_results()[0])
    assert is_random(ov.Model([ops.result(chosen)], [x], "chosen"))


def test_measuring_says_so_and_still_times() -> None:
    evaluator = measuring(random_numbers())
    ops_on = [bytes([device]) * evaluator.coarse.graph.num_ops for device in (0, 1)]
    found = evaluator.bench.measure(
        Job(ops_on[1], reference=ops_on[0], verify=True, max_output_error=1e-6)
    )
    assert found.unverifiable
    assert found.pairs


def test_info_and_validation_say_that_outputs_can_not_be_judged() -> None:
    env = DevicePlacementEnv(
        random_numbers(),
        "CPU:INFERENCE_PRECISION_HINT=f32,CPU_B:INFERENCE_PRECISION_HINT=f32",
        verify=True,
        coarsening="none",
        **FAST,
    )
    env.reset(seed=0)
    *_, info = env.step([1] * env.coarse.num_groups)
    assert info["valid"]
    assert "can't be compared" in info["unverified"]
    placement = Placement.from_groups(
        env.coarse, env.evaluator.devices, [1] * env.coarse.num_groups
    )
    found = validate_placement(env.evaluator, placement)
    env.close()
    assert not found.judged
    assert not found.outputs_hold
    assert not found.holds
    assert "CAN'T BE JUDGED" in found.report()
    assert "differ between two runs" in found.report()
