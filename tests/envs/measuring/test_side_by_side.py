"""Devices that share out the cores: what `auto` means, and the rows beside their placements."""

from __future__ import annotations

import pytest

from device_placement.agents.runs.summary import beside_all_cores, measure_again
from device_placement.envs import make_evaluator, parse_devices
from device_placement.envs.cores import cpu_affinity
from device_placement.envs.errors import DeviceError
from device_placement.envs.evaluation import Evaluation
from device_placement.envs.measuring.compare import (
    ALL_CORES,
    contenders,
    whole_model_assignments,
)
from problems import QUICK, TWO_CPUS

needs_cores = pytest.mark.skipif(len(cpu_affinity()) < 2, reason="halves need two cores")


@needs_cores
def test_halves_own_all_cores_and_share_none() -> None:
    first, second = parse_devices("halves")
    assert [first.name, second.name] == ["CPU_0", "CPU_1"]
    cores = cpu_affinity()
    assert [*first.cores, *second.cores] == cores[: 2 * (len(cores) // 2)]


def test_one_core_can_not_be_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_placement.envs.devices.cpu_affinity", lambda: [3])
    with pytest.raises(DeviceError, match=r"may use core 3 only.*Use devices='CPU,CPU_F32"):
        parse_devices("halves")


@needs_cores
@pytest.mark.parametrize("executor", ["auto", "dataflow"])
def test_auto_means_halves_where_a_cpu_is_all_there_is(executor: str) -> None:
    evaluator = make_evaluator("diamond", "auto", executor=executor, **QUICK)
    assert all(device.cores for device in evaluator.devices)
    assert evaluator.executor.name == "dataflow"
    assert evaluator.evaluate([0, 1, 0, 1]).num_subgraphs > 1
    evaluator.close()


@needs_cores
def test_hetero_says_that_it_binds_nothing(caplog: pytest.LogCaptureFixture) -> None:
    make_evaluator("diamond", "halves", **QUICK).close()
    assert "CORES of CPU_0 and CPU_1 only sets the number of threads" in caplog.text
    caplog.clear()
    make_evaluator("diamond", "halves", executor="dataflow", **QUICK).close()
    assert not caplog.text


def test_auto_means_two_precisions_under_hetero() -> None:
    evaluator = make_evaluator("diamond", "auto", **QUICK)
    assert not any(device.cores for device in evaluator.devices)
    evaluator.close()


@needs_cores
def test_whole_models_and_all_cores_are_rows() -> None:
    evaluator = make_evaluator("diamond+diamond", "halves", executor="auto", **QUICK)
    names = [one.name for one in contenders(evaluator, {})]
    whole = whole_model_assignments(evaluator.coarse)
    assert list(whole) == [
        "diamond on CPU_0, diamond-2 on CPU_1",
        "diamond on CPU_1, diamond-2 on CPU_0",
    ]
    assert {*whole, ALL_CORES} <= {*names}
    for assignment in whole.values():
        assert evaluator.evaluate(assignment).num_subgraphs == 2
    evaluator.close()


def test_whole_models_are_rows_of_the_simulator_too() -> None:
    evaluator = make_evaluator("diamond+two_towers", "CPU,GPU", evaluator="simulator")
    found = measure_again(evaluator, {}, rounds=0)
    assert [*found] == [
        "all on CPU",
        "all on GPU",
        "diamond on CPU, two_towers on GPU",
        "diamond on GPU, two_towers on CPU",
    ]
    assert all(one.valid for one in found.values())


def test_a_single_model_has_no_such_rows() -> None:
    evaluator = make_evaluator("diamond", TWO_CPUS, **QUICK)
    assert whole_model_assignments(evaluator.coarse) == {}
    assert ALL_CORES not in [one.name for one in contenders(evaluator, {})]
    evaluator.close()


@pytest.mark.parametrize(
    ("all_cores_s", "verdict"), [(1.0, "slower than"), (3.0, "faster than"), (2.0, "as fast as")]
)
def test_a_sentence_compares_the_result_with_all_cores(all_cores_s: float, verdict: str) -> None:
    def timed(seconds: float) -> Evaluation:
        samples = tuple(seconds + 1e-3 * number for number in (-2, -1, 0, 0, 1, 2))
        return Evaluation(seconds, samples, (samples[0], samples[-1]))

    found = {ALL_CORES: timed(all_cores_s), "best": timed(2.0)}
    (sentence,) = beside_all_cores(found, "best")
    assert f"The result is {verdict} {ALL_CORES}" in sentence
    assert beside_all_cores({"best": timed(2.0)}, "best") == []
