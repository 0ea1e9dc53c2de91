"""Choice of the executor: by stated rules, for a problem and not for a placement."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset15 as ops
import pytest

from dataflow_models import towers
from device_placement.envs import Device, DevicePlacementError, make_evaluator, parse_devices
from device_placement.envs.executors.choice import choose_executor
from device_placement.envs.measuring.cache import describe_problem, describe_reference
from device_placement.envs.measuring.config import MeasureConfig
from device_placement.envs.measuring.openvino_evaluator import executor_of
from device_placement.envs.models.normalisation import normalise
from problems import QUICK, TWO_CPUS, measured
from stateful_models import DYNAMIC, STATEFUL, recurrent


@pytest.mark.parametrize(
    ("devices", "latency", "throughput"),
    [
        ("CPU", "hetero", "hetero"),
        (TWO_CPUS, "hetero", "hetero"),
        ("CPU,GPU", "dataflow", "hetero"),
        ("GPU.0,GPU.1", "dataflow", "hetero"),
        ("CPU,NPU", "dataflow", "hetero"),
        ("NPU", "hetero", "hetero"),
        ("CPU_0:CORES=0,CPU_1:CORES=1", "dataflow", "dataflow"),
        ("CPU_0:CORES=0", "hetero", "hetero"),
        ("CPU_0:CORES=0,GPU", "dataflow", "dataflow"),
        ("CPU_0:CORES=0,CPU", "dataflow", "dataflow"),
    ],
)
def test_auto_is_dataflow_where_devices_run_side_by_side(
    devices: str, latency: str, throughput: str
) -> None:
    model, parsed = towers(), parse_devices(devices)
    for objective, expected in (("latency", latency), ("throughput", throughput)):
        chosen = choose_executor("auto", model, parsed, objective)
        assert chosen.name == expected
        assert chosen.reason
        for name in ("hetero", "dataflow"):  # what was asked for
            assert choose_executor(name, model, parsed, objective).name == name


def random_model() -> ov.Model:
    x = ops.parameter([2], np.float32, name="x")
    drawn = ops.random_uniform(
        ops.constant(np.array([2])), ops.constant(np.float32(0)), ops.constant(np.float32(1)), "f32"
    )
    return ov.Model([ops.result(ops.add(x, drawn))], [x], "lottery")


SIDE_BY_SIDE = parse_devices("CPU,GPU")
OBSTACLES = {
    **dict.fromkeys(STATEFUL, "has states"),
    **dict.fromkeys(DYNAMIC, "has a dynamic shape"),
    random_model: "draws random numbers",
}


@pytest.mark.parametrize("make", OBSTACLES)
def test_what_dataflow_can_not_run_is_refused_only_if_asked_for(make: Any) -> None:
    model = normalise(make())
    assert choose_executor("hetero", model, SIDE_BY_SIDE).name == "hetero"
    chosen = choose_executor("auto", model, SIDE_BY_SIDE)
    assert chosen.name == "hetero"
    assert OBSTACLES[make] in chosen.reason
    with pytest.raises(DevicePlacementError, match=OBSTACLES[make]) as info:
        choose_executor("dataflow", model, SIDE_BY_SIDE)
    text = str(info.value)
    assert text.startswith(f"The executor 'dataflow' can't run {model.get_friendly_name()!r}: ")
    assert text.endswith("Use executor='hetero', or 'auto', which decides.")


def test_unknown_executors_are_refused_everywhere() -> None:
    unknown = "Unknown executor 'data-flow'; allowed: auto, hetero, dataflow. Did you mean"
    with pytest.raises(DevicePlacementError, match=unknown):
        MeasureConfig(executor="data-flow")
    with pytest.raises(DevicePlacementError, match=unknown):
        choose_executor("data-flow", towers(), SIDE_BY_SIDE)


def test_problems_keep_hetero_and_commands_let_auto_decide() -> None:
    from device_placement.agents.commands.config import ValidateConfig
    from device_placement.agents.runs.config import SearchConfig
    from device_placement.benchmarks.config import BenchmarkConfig

    defaults = [
        {field.name: field.default for field in dataclasses.fields(one)}["executor"]
        for one in (MeasureConfig, SearchConfig, ValidateConfig, BenchmarkConfig)
    ]
    assert defaults == ["hetero", "auto", "auto", "auto"]


def test_an_evaluator_resolves_the_executor_once() -> None:
    for executor, expected in (("hetero", "hetero"), ("dataflow", "dataflow"), ("auto", "hetero")):
        evaluator: Any = make_evaluator("diamond", TWO_CPUS, executor=executor, **QUICK)
        assert evaluator.executor.name == executor_of(evaluator) == expected
        evaluator.close()
    simulated = make_evaluator("diamond", evaluator="simulator")
    assert executor_of(simulated) == "hetero"
    with pytest.raises(DevicePlacementError, match="'dataflow' can't run"):
        make_evaluator(normalise(recurrent()), TWO_CPUS, executor="dataflow", **QUICK)


def test_the_stores_key_is_as_before_for_hetero_and_another_for_dataflow() -> None:
    ready, device = measured(), Device("CPU")
    start: Any = ready.core, "hash"
    single = describe_reference(*start, device, ready.config)
    assert single == describe_reference(*start, device, ready.config, "", "hetero")
    assert "executor" not in single
    other = describe_reference(*start, device, ready.config, "", "dataflow")
    assert other == single | {"executor": "dataflow"}
    problem: Any = *start, ready.devices, 0, ready.config, ""
    known = describe_problem(*problem, "hetero", [0, 1, 1])
    assert known == describe_problem(*problem)
    assert not {"executor", "groups"} & known.keys()
    one, two, three = (
        describe_problem(*problem, "dataflow", groups) for groups in ([0, 1], [0, 1], [0, 0])
    )
    assert one == two
    assert one != three  # whose regions are others
    assert {key: one[key] for key in known} == known


def test_executors_do_not_share_measurements(store_path: Any) -> None:
    options = QUICK | {"store": str(store_path)}
    found = {}
    for executor in ("hetero", "dataflow", "hetero", "dataflow"):
        evaluator: Any = make_evaluator("diamond", TWO_CPUS, executor=executor, **options)
        evaluation = evaluator.evaluate([0, 1, 1, 0])
        assert evaluation.valid
        assert evaluation.cached == (executor in found)
        assert found.setdefault(executor, evaluation.time_s) == evaluation.time_s
        evaluator.close()
