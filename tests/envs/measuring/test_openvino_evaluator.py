from __future__ import annotations

import json
import math

import numpy as np
import openvino as ov
import pytest

from device_placement.envs import (
    DeviceError,
    DevicePlacementError,
    Evaluation,
    MeasureConfig,
    OpenVINOEvaluator,
    SimulatedEvaluator,
    coarsen,
    load_model,
    make_evaluator,
    read_graph,
)
from device_placement.envs.evaluation import NAN
from device_placement.envs.factory import make_evaluators
from device_placement.envs.measuring.compare import compare, contenders, paired_ratio
from device_placement.envs.measuring.inputs import invented_inputs
from device_placement.envs.measuring.machine import describe_machine
from problems import QUICK, TWO_CPUS, measured


def test_a_wrong_protocol_is_refused() -> None:
    for wrong in ({"warmup": -1}, {"max_samples": 0}, {"max_seconds": 0}, {"tolerance": -1.0}):
        with pytest.raises(DevicePlacementError, match="at least"):
            MeasureConfig(**wrong)
    for name, value in (("timeout_s", 0), ("requests", -1), ("max_output_error", -1.0)):
        with pytest.raises(DevicePlacementError, match=f"Got {name}={value}; it must be"):
            MeasureConfig(**{name: value})
    for name in ("objective", "timing", "isolation"):
        with pytest.raises(DevicePlacementError, match=f"Unknown {name} 'none of these'"):
            MeasureConfig(**{name: "none of these"})


def test_evaluations_survive_json() -> None:
    for evaluation in (
        Evaluation(0.5, (0.4, 0.6), (0.4, 0.6), num_subgraphs=2, compile_s=1.0),
        Evaluation.invalid("no such op"),
    ):
        content = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
        assert Evaluation.from_json(content) == evaluation


def test_nan_in_an_info_equals_itself_and_is_still_no_number() -> None:
    assert NAN == NAN
    assert float("nan") == NAN
    assert NAN != 1.0
    assert math.isnan(NAN + 1)


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_a_placement_is_measured_and_remembered(objective: str) -> None:
    evaluator = measured("diamond", objective)
    assignment = [0, *[1] * (evaluator.coarse.num_groups - 1)]
    first = evaluator.evaluate(assignment)
    assert first.valid
    assert first.error == ""
    assert len(first.samples_s) == QUICK["max_samples"]
    assert min(first.samples_s) <= first.time_s <= max(first.samples_s)
    assert first.num_subgraphs == 2
    assert first.compile_s > 0
    again = evaluator.evaluate(assignment)
    assert again.cached
    assert again.samples_s == first.samples_s


def test_singles_are_evaluated_like_any_other() -> None:
    evaluator = measured()
    for device in (0, 1):
        single = evaluator.evaluate([device] * evaluator.coarse.num_groups)
        assert single.valid
        assert single.num_subgraphs == 1


def test_what_openvino_refuses_is_an_invalid_evaluation_with_its_message() -> None:
    evaluator = measured()
    plain = ov.Core()  # knows no CPU_F32, so OpenVINO refuses to compile for it
    broken = OpenVINOEvaluator(evaluator.model, evaluator.coarse, TWO_CPUS, core=plain, **QUICK)
    evaluation = broken.evaluate([1] * evaluator.coarse.num_groups)
    assert not evaluation.valid
    assert "CPU_F32" in evaluation.error
    assert math.isnan(evaluation.time_s)


def test_a_wrong_assignment_is_invalid_not_raised() -> None:
    evaluation = measured().evaluate([7] * measured().coarse.num_groups)
    assert "devices are numbered 0 to 1" in evaluation.error


def test_groups_of_other_devices_are_refused() -> None:
    evaluator = measured()
    with pytest.raises(DevicePlacementError, match=r"read the graph with these devices"):
        OpenVINOEvaluator(evaluator.model, evaluator.coarse, "CPU,CPU_B")
    with pytest.raises(DevicePlacementError, match=r"Unknown objective 'latncy'.*latency"):
        OpenVINOEvaluator(evaluator.model, evaluator.coarse, TWO_CPUS, objective="latncy")


def test_inputs_are_the_same_for_the_same_seed_and_fit_their_types() -> None:
    model = load_model("bert_base")
    (one,), (other,) = (invented_inputs(model, seed=3).tensors(model) for _ in range(2))
    assert [tensor.get_element_type() for tensor in one] == [ov.Type.i64] * 3
    for first, second in zip(one, other, strict=True):
        np.testing.assert_array_equal(first.data, second.data)
        assert set(np.unique(first.data)) == {0, 1}


def test_the_simulated_time_is_the_documented_formula() -> None:
    graph = read_graph(load_model("diamond"), "CPU,GPU", simulated=True)
    coarse = coarsen(graph, "none")
    evaluator = SimulatedEvaluator(coarse, "CPU,GPU")
    generator = np.random.default_rng(0)
    for _ in range(20):
        groups = generator.integers(0, 2, coarse.num_groups)
        device = groups[coarse.op_group]
        expected = 0.0
        for number in range(graph.num_ops):
            expected += evaluator.profile.op_s[number, device[number]]
        moves = {
            (int(producer), int(port), int(device[producer]), int(device[consumer])): size
            for (producer, consumer), port, size in zip(
                graph.edge_index.T, graph.edge_port, graph.edge_bytes, strict=True
            )
            if device[producer] != device[consumer] and not graph.is_constant[producer]
        }
        for (_, _, source, target), size in moves.items():
            expected += evaluator.profile.latency_s[source, target]
            expected += size / evaluator.profile.bytes_per_s[source, target]
        assert evaluator.evaluate(groups.tolist()).time_s == pytest.approx(expected, rel=1e-12)


def test_the_simulator_counts_connected_regions() -> None:
    evaluator = make_evaluator("resnet50", "CPU,GPU", evaluator="simulator")
    groups = evaluator.coarse.num_groups
    assert evaluator.evaluate([0] * groups).num_subgraphs == 1
    assert evaluator.evaluate([0] * (groups - 2) + [1] * 2).num_subgraphs == 2


def test_comparing_takes_turns_and_includes_openvinos_own_choices() -> None:
    evaluator = measured()
    groups = evaluator.coarse.num_groups
    found = {"found": [0, *[1] * (groups - 1)], "wrong": [5] * groups, "same": [0] * groups}
    entries = contenders(evaluator, found)
    results = compare(evaluator, entries, rounds=3, warmup=1)
    assert list(results) == [
        "all on CPU",
        "all on CPU_F32:INFERENCE_PRECISION_HINT=f32",
        "OpenVINO HETERO (automatic)",
        "OpenVINO AUTO",
        "found",
        "wrong",
        "same",
    ]
    assert results["same"] == results["all on CPU"]  # the same placement is measured once
    assert not results["wrong"].valid
    valid = [result for result in results.values() if result.valid]
    assert len(valid) == 6
    assert all(len(result.samples_s) == 3 for result in valid)
    ratio, (low, high) = paired_ratio(results["all on CPU"], results["all on CPU"])
    assert (ratio, low, high) == (1.0, 1.0, 1.0)
    assert math.isnan(paired_ratio(results["wrong"], results["found"])[0])


def test_evaluators_are_chosen_by_name_and_need_a_choice_of_devices() -> None:
    with pytest.raises(DevicePlacementError, match=r"Unknown evaluator 'openvno'"):
        make_evaluator("diamond", evaluator="openvno")
    with pytest.raises(DeviceError, match=r"Got one device, CPU; .* at least two"):
        make_evaluator("diamond", "CPU")
    with pytest.raises(DevicePlacementError, match="no model"):
        make_evaluators([], "auto", evaluator="openvino")


def test_the_machine_is_described_with_versions() -> None:
    machine = describe_machine()
    assert int(machine["cores"]) >= 1
    assert machine["openvino"]
