"""Measured profiles: op times, the fit, and the command; no test depends on a clock's reading."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_placement.agents.cli import main
from device_placement.benchmarks.calibration import CalibrationConfig
from device_placement.benchmarks.calibration import main as check_calibration
from device_placement.envs import (
    Device,
    DevicePlacementError,
    HardwareProfile,
    OpenVINOEvaluator,
    coarsen,
    make_evaluator,
    measure_profile,
)
from device_placement.envs.coarsening import CoarseGraph
from device_placement.envs.execution import profiling
from device_placement.envs.execution.calibration import Agreement, calibrate
from device_placement.envs.execution.draws import draw_placements
from device_placement.envs.execution.evaluation import Evaluation
from device_placement.envs.execution.op_times import ExecutedNode, measure_op_times, share_out
from device_placement.envs.execution.simulator import SimulatedEvaluator
from graphs import layered, make_graph
from problems import QUICK, TWO_CPUS, chain, measured

FAST: dict[str, Any] = QUICK | {"max_samples": 1}


def given_costs(coarse: CoarseGraph, num_devices: int, seed: int = 0) -> HardwareProfile:
    """Random costs, of which those of transfers and subgraphs matter."""
    generator = np.random.default_rng(seed)
    graph, shape = coarse.graph, (num_devices, num_devices)
    apart = ~np.eye(num_devices, dtype=np.bool_)
    return HardwareProfile(
        name="given",
        model=graph.name,
        model_hash=graph.model_hash,
        op_names=graph.op_names,
        devices=tuple(Device(name) for name in graph.devices),
        op_s=generator.uniform(1e-4, 1e-3, (graph.num_ops, num_devices)),
        latency_s=np.where(apart, generator.uniform(1e-4, 1e-3, shape), 0.0),
        bytes_per_s=np.where(apart, generator.uniform(1e5, 1e6, shape), np.inf),
        subgraph_s=generator.uniform(1e-4, 1e-3, num_devices),
        pays_transfers=(True,) * num_devices,
    )


def predict(coarse: CoarseGraph, profile: HardwareProfile, placements: np.ndarray) -> np.ndarray:
    return SimulatedEvaluator(coarse, profile.devices, profile=profile).evaluate_many(placements)


def without_costs(profile: HardwareProfile, factors: list[float]) -> HardwareProfile:
    """The op times alone, each device's divided by a factor: what a profiler might tell."""
    return dataclasses.replace(
        profile,
        op_s=profile.op_s / factors,
        latency_s=np.zeros_like(profile.latency_s),
        bytes_per_s=np.full_like(profile.bytes_per_s, np.inf),
        subgraph_s=np.zeros_like(profile.subgraph_s),
    )


@pytest.mark.parametrize(("num_devices", "count"), [(2, 40), (3, 120)])
def test_the_fit_recovers_known_costs(num_devices: int, count: int) -> None:
    graph = layered(90, 3)
    graph = dataclasses.replace(
        graph,
        devices=tuple(f"CPU.{number}" for number in range(num_devices)),
        supported=np.ones((graph.num_ops, num_devices), dtype=np.bool_),
    )
    coarse = coarsen(graph, "none")
    true = given_costs(coarse, num_devices)
    placements = np.array(draw_placements(coarse, count, np.random.default_rng(0)))
    times_s = predict(coarse, true, placements)
    told = without_costs(true, [1.5, 0.7, 1.0][:num_devices])
    fitted = calibrate(told, coarse, placements, times_s)
    for name in ("op_s", "latency_s", "bytes_per_s", "subgraph_s"):
        np.testing.assert_allclose(getattr(fitted, name), getattr(true, name), rtol=1e-6)

    disturbed = times_s * np.where(np.arange(count) % 10 == 0, 1.4, 1.0)
    fitted = calibrate(told, coarse, placements, disturbed)
    predicted_s = predict(coarse, fitted, placements)
    np.testing.assert_allclose(predicted_s, times_s, rtol=0.02)


def test_what_costs_nothing_is_fitted_as_free() -> None:
    coarse = coarsen(layered(60, 3), "none")
    free = without_costs(given_costs(coarse, 2), [1.0, 1.0])
    placements = np.array(draw_placements(coarse, 40, np.random.default_rng(0)))
    fitted = calibrate(
        without_costs(free, [2.0, 2.0]), coarse, placements, predict(coarse, free, placements)
    )
    assert not fitted.latency_s.any()
    assert np.isinf(fitted.bytes_per_s).all()
    assert not fitted.subgraph_s.any()
    np.testing.assert_allclose(fitted.op_s, free.op_s, rtol=1e-5)


def test_a_device_that_no_placement_uses_keeps_its_op_times() -> None:
    coarse = coarsen(layered(30, 3), "none")
    true = given_costs(coarse, 2)
    alone = np.zeros((1, coarse.num_groups), dtype=np.int64)
    told = without_costs(true, [2.0, 3.0])
    fitted = calibrate(told, coarse, alone, predict(coarse, true, alone))
    np.testing.assert_array_equal(fitted.op_s[:, 1], told.op_s[:, 1])
    assert predict(coarse, fitted, alone) == pytest.approx(predict(coarse, true, alone))


def test_agreement_of_times() -> None:
    measured_s = np.array([1.0, 2.0, 3.0, 4.0])
    assert Agreement.between(measured_s[::-1], measured_s).rank_correlation == pytest.approx(-1)
    assert Agreement.between(1.1 * measured_s, measured_s).mean_error == pytest.approx(0.1)
    nothing = Agreement.between(np.array([]), np.array([]))
    assert math.isnan(nothing.mean_error)
    assert math.isnan(nothing.rank_correlation)
    assert math.isnan(Agreement.between(np.ones(4), measured_s).rank_correlation)


def node(name: str, ops: str, readers: str, time_s: float) -> ExecutedNode:
    return ExecutedNode(name, tuple(ops.split()), tuple(readers.split()), time_s)


def test_the_time_of_a_node_is_shared_out_among_its_ops_by_flops() -> None:
    # 0 feeds 2 (weights: 1), 2 feeds 3, 3 feeds 4 and 5; both end in 6.
    graph = make_graph(
        [(0, 2), (1, 2), (2, 3), (3, 4), (3, 5), (4, 6), (5, 6)],
        constant=[1],
        flops=[0.0, 5.0, 30.0, 10.0, 0.0, 0.0, 7.0],
    )
    nodes = [
        node("in", "op0", "reorder", 0.5),
        node("weights", "op1", "fused", 0.25),  # a constant: what it takes is its reader's
        node("reorder", "", "fused", 1.0),
        node("fused", "op3 elsewhere", "split", 4.0),  # op2 is not named, and went into op3
        node("split", "", "even last", 2.0),  # inserted, read by two
        node("even", "op4 op5", "last", 6.0),  # none has FLOPs
        node("last", "op6", "", 8.0),
    ]
    shared = share_out(graph, nodes)
    fused = 4.0 + 1.0 + 0.25
    expected = [0.5, 0.0, 0.75 * fused, 0.25 * fused, 3.5, 3.5, 9.0]
    assert shared.tolist() == pytest.approx(expected)
    assert shared.sum() == pytest.approx(sum(one.time_s for one in nodes))


def test_an_op_in_two_nodes_has_the_time_of_both() -> None:
    graph = make_graph([(0, 1)])
    nodes = [node("a", "op0", "b", 1.0), node("b", "op0", "c", 2.0), node("c", "op1", "", 4.0)]
    assert share_out(graph, nodes).tolist() == [3.0, 4.0]


@given(st.integers(0, 2**32 - 1))
def test_drawn_placements_differ_and_respect_what_devices_support(seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, 2, (12, 3))
    rows[np.arange(12), generator.integers(0, 3, 12)] = 1
    edges = [(op, op + 1) for op in range(11)]
    coarse = coarsen(make_graph(edges, supported=rows.tolist()), "none")
    drawn = draw_placements(coarse, 20, generator)
    assert len(set(drawn)) == len(drawn) <= 20
    for one in drawn:
        assert len(set(one)) > 1
        assert coarse.supported[np.arange(coarse.num_groups), one].all()


def test_drawn_placements_have_few_cuts_and_many_all_shares_and_a_seed() -> None:
    coarse = coarsen(make_graph([(op, op + 1) for op in range(59)]), "none")
    drawn = np.array(draw_placements(coarse, 200, np.random.default_rng(0)))
    assert (drawn == draw_placements(coarse, 200, np.random.default_rng(0))).all()
    cuts = (np.diff(drawn, axis=1) != 0).sum(axis=1)
    assert cuts.min() == 1
    assert cuts.max() > 25
    assert np.ptp(drawn.mean(axis=1)) > 0.9
    two = coarsen(make_graph([(0, 1)]), "none")
    assert sorted(draw_placements(two, 9, np.random.default_rng(0))) == [(0, 1), (1, 0)]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, HardwareProfile]:
    """A model file, and its measured profile."""
    path = chain(tmp_path_factory.mktemp("model"))
    return path, measure_profile(path, TWO_CPUS, placements=12, **FAST)


def test_a_real_model_is_profiled(real: tuple[str, HardwareProfile], tmp_path: Path) -> None:
    path, profile = real
    simulator: Any = make_evaluator(path, TWO_CPUS, evaluator="simulator", profile=profile)
    graph = simulator.coarse.graph
    assert profile.op_names == graph.op_names
    assert [str(device) for device in profile.devices] == TWO_CPUS.split(",")
    assert np.isfinite(profile.op_s).all()
    assert not profile.op_s[graph.is_constant].any()
    assert (profile.op_s.sum(axis=0) > 0).all()
    found = profile.provenance
    assert (found["kind"], found["num_fitted"], found["num_held_out"]) == ("measured", 11, 3)
    assert found["num_failed"] == 0
    assert found["held_out_mean_error"] >= 0
    assert set(found["machine"]) >= {"processor", "openvino"}
    for device, single in enumerate(found["singles"].values()):
        predicted_s = simulator.evaluate([device] * simulator.coarse.num_groups).time_s
        assert single["predicted_s"] == pytest.approx(predicted_s)
        assert single["measured_s"] > 0
    profile.save(tmp_path / "profile.json")
    loaded = HardwareProfile.load(tmp_path / "profile.json")
    np.testing.assert_array_equal(loaded.op_s, profile.op_s)
    assert loaded.provenance == json.loads(json.dumps(found))


def test_ops_that_a_device_does_not_support_have_no_time_there(
    real: tuple[str, HardwareProfile],
) -> None:
    evaluator: Any = make_evaluator(real[0], TWO_CPUS, **FAST)
    graph = evaluator.coarse.graph
    relus = np.array(graph.op_types) == "Relu"
    supported = graph.supported.copy()
    supported[relus, 1] = False
    graph = dataclasses.replace(graph, supported=supported)
    found = measure_op_times(evaluator.core, evaluator.model, graph, evaluator.devices, 1)
    np.testing.assert_array_equal(np.isnan(found), relus)
    assert np.nansum(found) > 0


class Clockless:
    """An evaluator that measures by a formula, but has a real model and real devices."""

    def __init__(self, inner: OpenVINOEvaluator, true: HardwareProfile, fails: int = 0) -> None:
        self._inner = inner
        self._simulator = SimulatedEvaluator(inner.coarse, inner.devices, profile=true)
        self._fails = fails  # the placements that fail are those with so many on device 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def evaluate(self, assignment: Any) -> Evaluation:
        if self._fails and sum(assignment) >= self._fails:
            return Evaluation.invalid("device 1 is out of order")
        return self._simulator.evaluate(assignment)


@pytest.fixture
def clockless(real: tuple[str, HardwareProfile], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What makes an evaluator without a clock; the profiler's times are made up, too."""
    evaluator: Any = make_evaluator(real[0], TWO_CPUS, **FAST)
    true = given_costs(evaluator.coarse, 2)
    true = dataclasses.replace(true, devices=evaluator.devices)

    def told(*arguments: Any) -> np.ndarray:
        return np.asarray(true.op_s[:, arguments[-1]] / 2)

    monkeypatch.setattr(profiling, "measure_op_times", told)
    return lambda **options: Clockless(evaluator, true, **options)


def test_a_profile_is_put_together_and_its_error_told(clockless: Any) -> None:
    found = profiling.profile_with(clockless(), 32, seed=1).provenance
    assert (found["num_fitted"], found["num_held_out"]) == (26, 8)
    assert found["held_out_mean_error"] == pytest.approx(0, abs=1e-6)
    assert found["held_out_rank_correlation"] == pytest.approx(1)
    assert found["op_time_factors"] == pytest.approx({"CPU": 2, "CPU_F32": 2})
    for single in found["singles"].values():
        assert single["predicted_s"] == pytest.approx(single["measured_s"])
    seen: list[int] = []
    profiling.profile_with(clockless(), 6, 1, lambda them: seen.append(len(them)) or them)
    assert seen == [8]


def test_placements_that_do_not_run_are_left_out(clockless: Any, tmp_path: Path) -> None:
    evaluator = clockless(fails=6)
    profile = profiling.profile_with(evaluator, 40, seed=0)
    found = profile.provenance
    assert found["num_failed"] > 1
    assert found["num_fitted"] + found["num_held_out"] + found["num_failed"] == 42
    assert found["singles"]["CPU_F32"]["measured_s"] is None
    assert found["held_out_mean_error"] < 0.01
    profile.save(tmp_path / "profile.json")  # where there is no time, JSON has a null
    hopeless = clockless(fails=-1)
    with pytest.raises(DevicePlacementError, match=r"No placement .* ran\. device 1 is out of or"):
        profiling.profile_with(hopeless, 8, seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"placements": 3}, "placements=3; give at least 4"),
        ({"objective": "throughput"}, "objective 'throughput'; a profile is measured with"),
        ({"devices": "CPU"}, "Got one device"),
        ({"coarsening": "fussion"}, "Did you mean 'fusion'"),
        ({"timings": "plain"}, "Unknown option of measuring 'timings'"),
    ],
)
def test_wrong_settings_are_told(change: dict[str, Any], message: str) -> None:
    settings = {"model": "diamond", "devices": TWO_CPUS, **FAST} | change
    with pytest.raises(DevicePlacementError, match=message):
        measure_profile(**settings)


def test_a_device_that_tells_no_times_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = measured("diamond")
    monkeypatch.setattr(
        "device_placement.envs.execution.op_times.share_out",
        lambda graph, nodes: np.zeros(graph.num_ops),
    )
    with pytest.raises(DevicePlacementError, match="CPU tells no time of any op of 'diamond'"):
        measure_op_times(
            evaluator.core, evaluator.model, evaluator.coarse.graph, evaluator.devices, 0
        )


WORDS = ["--timing", "plain", "--warmup", "0", "--max-samples", "1", "--isolation", "none"]


def test_the_command_writes_a_profile_that_the_simulator_takes(
    real: tuple[str, HardwareProfile], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "profile.json"
    words = ["profile", real[0], "--devices", TWO_CPUS, "--out", str(out), "--placements", "8"]
    assert main([*words, "--max-groups", "6", "--seed", "3", *WORDS, "--store", "None"]) == 0
    text = capsys.readouterr().out
    for word in ("6 groups", "predicted", "latency", "bandwidth", "held out", "mean error"):
        assert word in text
    assert HardwareProfile.load(out).provenance["seed"] == 3
    simulator = make_evaluator(real[0], TWO_CPUS, evaluator="simulator", profile=out)
    assert simulator.evaluate([0] * simulator.coarse.num_groups).time_s > 0
    assert [path.name for path in tmp_path.iterdir()] == ["profile.json"]


def test_a_target_that_can_not_be_written_is_told_before_measuring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for out in (tmp_path, tmp_path / "missing" / "profile.json"):
        assert main(["profile", "resnet50", "--out", str(out)]) == 2
        assert "give the path of a file in a folder that exists" in capsys.readouterr().err


def test_ctrl_c_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> Evaluation:
        raise KeyboardInterrupt

    monkeypatch.setattr(OpenVINOEvaluator, "evaluate", interrupted)
    out = tmp_path / "profile.json"
    out.write_text("old")
    words = ["profile", "diamond", "--devices", TWO_CPUS, "--out", str(out), *WORDS]
    assert main(words) == 130
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["profile.json"]
    assert "interrupted" in capsys.readouterr().err


def test_the_benchmark_prints_a_line_a_model(
    real: tuple[str, HardwareProfile], capsys: pytest.CaptureFixture[str]
) -> None:
    config = CalibrationConfig(
        models=(real[0],), placements=8, held_out=3, max_error=1e9, min_correlation=-1, store=None
    )
    assert check_calibration(config) in (0, 1)  # a correlation may be not known
    assert "mean error" in capsys.readouterr().out
