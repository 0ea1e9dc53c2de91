"""Which way wins: a placement only if it beats each of OpenVINO's own by more than the noise."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from device_placement.agents.optimizing import confirm as confirming
from device_placement.agents.optimizing.confirm import FOUND, OPENVINO, confirm
from device_placement.envs import make_evaluator
from device_placement.envs.evaluation import Evaluation
from optimized import MIXED, as_it_is, timed
from problems import QUICK, measured


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, Evaluation]:
    """What a comparison of contenders gives, by name; a second by default."""
    times: dict[str, Evaluation] = {}

    def compare(_: Any, entries: Any, *__: Any, **___: Any) -> dict[str, Evaluation]:
        return {one.name: times.get(one.name, timed(1.0)) for one in entries}

    monkeypatch.setattr(confirming, "compare", compare)
    return times


def test_a_placement_that_beats_all_others_wins(clock: dict[str, Evaluation]) -> None:
    clock[FOUND] = timed(0.8)
    found = confirm(measured(), as_it_is(measured()), [MIXED], rounds=9)
    assert (found.winner, found.how, found.assignment) == (FOUND, "hetero", MIXED)
    assert found.device_name == found.plain_device == "HETERO:CPU,CPU_F32"
    assert found.found
    ratio, (low, high) = found.gains["OpenVINO AUTO"]
    assert low <= ratio == pytest.approx(1.25)
    assert high < 1.3


@pytest.mark.parametrize("time_s", [0.998, 1.0, 1.2])
def test_one_within_the_noise_of_another_does_not(
    clock: dict[str, Evaluation], time_s: float
) -> None:
    samples = timed(time_s, spread=0.02).samples_s[::-1]  # otherwise than those of the others
    clock[FOUND] = dataclasses.replace(timed(time_s), samples_s=samples)
    found = confirm(measured(), as_it_is(measured()), [MIXED], rounds=9)
    assert (found.winner, found.how, found.device_name) == ("all on CPU", OPENVINO, "CPU")
    assert not found.found
    clock["OpenVINO AUTO"] = timed(0.9)
    found = confirm(measured(), as_it_is(measured()), [MIXED], rounds=9)
    assert (found.winner, found.device_name) == ("OpenVINO AUTO", "AUTO:CPU,CPU_F32")
    assert not found.assignment


def test_one_that_does_not_run_does_not_win(clock: dict[str, Evaluation]) -> None:
    clock[FOUND] = Evaluation.invalid("it fell over")
    clock["all on CPU"] = timed(0.9)
    found = confirm(measured(), as_it_is(measured(), CPU=0.9), [MIXED], rounds=9)
    assert (found.how, found.device_name, set(found.assignment)) == (OPENVINO, "CPU", {0})


def test_of_equal_ways_the_simplest_is_used(clock: dict[str, Evaluation]) -> None:
    faster = dataclasses.replace(timed(0.999), samples_s=timed(0.999, 0.02).samples_s[::-1])
    clock["OpenVINO HETERO (automatic)"] = faster
    found = confirm(measured(), as_it_is(measured()), [MIXED], rounds=9)
    assert (found.how, found.device_name) == (OPENVINO, "CPU")


def test_without_a_placement_what_was_measured_decides() -> None:
    found = confirm(measured(), as_it_is(measured(), AUTO=0.5), [], rounds=9)
    assert (found.winner, found.how) == ("OpenVINO AUTO", OPENVINO)


def test_a_device_with_cores_of_its_own_is_bound_to_them() -> None:
    options: Any = QUICK | {"executor": "dataflow"}
    evaluator = make_evaluator("diamond", "CPU_0:CORES=0,CPU_F32", **options)
    found = confirm(evaluator, as_it_is(evaluator, AUTO=0.7), [], rounds=9)
    assert (found.how, found.device_name) == (OPENVINO, "AUTO:CPU,CPU_F32")
    equal = confirm(evaluator, as_it_is(evaluator), [], rounds=9)  # without them it is simpler
    assert equal.device_name == "AUTO:CPU,CPU_F32"
    own = confirm(evaluator, as_it_is(evaluator, CORES=0.7), [], rounds=9)
    assert (own.how, set(own.assignment)) == ("dataflow", {0})
    assert own.plain_device == "CPU_0"  # C++ has no such executor
    hetero = confirm(evaluator, as_it_is(evaluator, HETERO=0.7), [], rounds=9)
    assert (hetero.how, hetero.device_name) == (OPENVINO, "HETERO:CPU_0,CPU_F32")
