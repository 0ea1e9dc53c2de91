"""Measured profiles: op times, the fit, and the command; no test depends on a clock's reading."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_placement.agents.cli import main
from device_placement.agents.commands.profile import describe_profile
from device_placement.benchmarks.calibration import CalibrationConfig
from device_placement.benchmarks.calibration import main as check_calibration
from device_placement.envs import (
    DevicePlacementError,
    HardwareProfile,
    OpenVINOEvaluator,
    make_evaluator,
    measure_profile,
)
from device_placement.envs.evaluation import Evaluation
from device_placement.envs.profiling import measured_profile as profiling
from device_placement.envs.profiling.fit import MIN_FACTOR
from device_placement.envs.simulation.simulator import SimulatedEvaluator
from given_profiles import given_costs
from problems import QUICK, TWO_CPUS, chain

FAST: dict[str, Any] = QUICK | {"max_samples": 1}


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


class Clockless:
    """An evaluator that measures by a formula, but has a real model and real devices."""

    def __init__(self, inner: OpenVINOEvaluator, true: HardwareProfile, fails: int = 0) -> None:
        self._inner = inner
        schedule = profiling.FITS[inner.executor.name].schedule
        self._simulator = SimulatedEvaluator(
            inner.coarse, inner.devices, profile=true, schedule=schedule
        )
        self._fails = fails  # the placements that fail are those with so many on device 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def evaluate(self, assignment: Any) -> Evaluation:
        if self._fails and sum(assignment) >= self._fails:
            return Evaluation.invalid("device 1 is out of order")
        return self._simulator.evaluate(assignment)


@pytest.fixture
def executor() -> str:
    return "hetero"


@pytest.fixture
def clockless(
    real: tuple[str, HardwareProfile], executor: str, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """What makes an evaluator without a clock; the profiler's times are made up, too."""
    evaluator: Any = make_evaluator(real[0], TWO_CPUS, executor=executor, **FAST)
    true = given_costs(evaluator.coarse, 2)
    true = dataclasses.replace(
        true,
        devices=evaluator.devices,
        region_s=np.array([1e-4, 3e-4]),
        split_factor=np.array([1.5, 1.1]),
    )

    def told(*arguments: Any) -> np.ndarray:
        return np.asarray(true.op_s[:, arguments[4]] / 2)

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


@pytest.mark.parametrize("executor", ["dataflow"])
def test_a_profile_of_pieces_side_by_side(clockless: Any, tmp_path: Path) -> None:
    profile = profiling.profile_with(clockless(), 60, seed=1)
    found = profile.provenance
    assert (found["executor"], found["schedule"]) == ("dataflow", "dataflow")
    assert found["held_out_mean_error"] < 0.05
    assert found["held_out_rank_correlation"] > 0.95
    for single in found["singles"].values():
        assert single["predicted_s"] == pytest.approx(single["measured_s"], rel=0.02)
    text = describe_profile(profile)
    for word in ("if split", "a region", "a crossing tensor"):
        assert word in text
    profile.save(tmp_path / "profile.json")
    loaded = HardwareProfile.load(tmp_path / "profile.json")
    for name in ("region_s", "crossing_s", "split_factor"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(profile, name))


def test_a_real_model_is_profiled_in_pieces(real: tuple[str, HardwareProfile]) -> None:
    profile = measure_profile(real[0], TWO_CPUS, placements=8, executor="dataflow", **FAST)
    assert profile.provenance["executor"] == "dataflow"
    assert (profile.split_factor >= 1).all()
    assert not profile.subgraph_s.any()


def test_where_the_profiler_reads_too_little_the_single_is_shared_out(
    clockless: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = clockless()

    def told(*arguments: Any) -> np.ndarray:
        return np.where(evaluator.coarse.graph.is_constant, 0.0, 1e-9)  # next to nothing, and wrong

    monkeypatch.setattr(profiling, "measure_op_times", told)
    found = profiling.profile_with(evaluator, 32, seed=1)
    for device, single in enumerate(found.provenance["singles"].values()):
        assert single["predicted_s"] == pytest.approx(single["measured_s"], rel=0.5)
        assert found.op_s[:, device].sum() >= MIN_FACTOR * single["measured_s"]


def test_placements_that_do_not_run_are_left_out(clockless: Any, tmp_path: Path) -> None:
    evaluator = clockless(fails=6)
    profile = profiling.profile_with(evaluator, 40, seed=0)
    found = profile.provenance
    assert found["num_failed"] > 1
    assert found["num_fitted"] + found["num_held_out"] + found["num_failed"] == 42
    assert found["singles"]["CPU_F32"]["measured_s"] is None
    assert found["held_out_mean_error"] < 0.01
    (cause,) = found["failures"]
    assert (cause["cause"], cause["count"]) == ("device N is out of order", found["num_failed"])
    text = describe_profile(profile)
    assert f"{found['num_failed']} of 42 placements failed:" in text
    assert "device N is out of order" in text
    profile.save(tmp_path / "profile.json")  # where there is no time, JSON has a null
    hopeless = clockless(fails=-1)
    with pytest.raises(DevicePlacementError, match=r"10 of 10 .* 10: device N is out of or"):
        profiling.profile_with(hopeless, 8, seed=0)
    mostly = clockless(fails=2)
    with pytest.raises(
        DevicePlacementError, match=r"too many to fit costs\. Their number by cause"
    ):
        profiling.profile_with(mostly, 40, seed=0)


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
    assert main([*words, *WORDS, "--executor", "dataflow", "--store", "None"]) == 0
    assert f"--profile {out} --schedule dataflow" in capsys.readouterr().out


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


@pytest.mark.parametrize("way", ["hetero", "dataflow"])
def test_the_benchmark_prints_a_line_a_model(
    way: str, real: tuple[str, HardwareProfile], capsys: pytest.CaptureFixture[str]
) -> None:
    config = CalibrationConfig(
        models=(real[0],),
        executor=way,
        placements=8,
        held_out=3,
        max_error=1e9,
        min_correlation=-1,
        store=None,
    )
    assert check_calibration(config) in (0, 1)  # a correlation may be not known
    assert "mean error" in capsys.readouterr().out


def test_devices_that_are_alike_have_equal_op_times(tmp_path: Path) -> None:
    profile = measure_profile(chain(tmp_path, 4), "CPU,CPU_B", placements=4, **FAST)
    ratio = profile.op_s[:, 0] / np.where(profile.op_s[:, 1] > 0, profile.op_s[:, 1], 1.0)
    assert np.ptp(ratio[ratio > 0]) < 1e-9  # their singles differ, and nothing else


def test_a_profile_is_fitted_to_those_that_were_measured(tmp_path: Path) -> None:
    def some(placements: Any) -> Any:
        return placements[: 2 + 4]

    profile = measure_profile(chain(tmp_path, 4), TWO_CPUS, placements=8, progress=some, **FAST)
    found = profile.provenance
    assert (found["num_fitted"], found["num_held_out"]) == (2 + 3, 1)


def test_times_are_fitted_whatever_the_outputs_are(tmp_path: Path) -> None:
    devices = "CPU,CPU_F32:INFERENCE_PRECISION_HINT=f32"  # alike where there is no bf16
    strict = FAST | {"reference": "CPU_F32", "max_output_error": 0.0}
    profile = measure_profile(chain(tmp_path), devices, placements=6, **strict)
    assert profile.provenance["num_failed"] == 0
