"""The command `replay`, of problems that are simulated and that are measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import openvino as ov
import pytest

from device_placement.agents.cli import main
from device_placement.benchmarks.runner import benchmark
from device_placement.benchmarks.suite.problems import open_problem, opened, problems_of
from device_placement.benchmarks.suite.replay import ReplayConfig, replay
from device_placement.benchmarks.suite.results import append_rows, read_lines, read_rows
from device_placement.benchmarks.suite.suites import MEASURED, SUITES, Problem, Suite
from device_placement.envs import DevicePlacementError, save_inputs
from device_placement.envs.devices import FURTHER_CPU
from device_placement.envs.measuring.openvino_evaluator import as_measuring
from device_placement.envs.models.loading import save_model
from input_models import DEVICES, mixed
from problems import FLUSHING, fading
from tiny_benchmark import OWN, config_of, lines_of, rows_of

pytestmark = pytest.mark.usefixtures("tiny_suite")


def test_replay_flags_what_does_not_reproduce(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark(config_of(tmp_path, ["random", OWN + "broken"], seeds=2)) == 0
    assert main(["replay", str(tmp_path)]) == 0
    assert "4 of 4 rows reproduce" in capsys.readouterr().out
    assert main(["replay", str(tmp_path)]) == 0  # nothing is left to do
    assert len(read_lines(str(tmp_path / "replay.csv"))) == 4
    (first, *others) = read_rows(str(tmp_path / "runs.csv"))
    (tmp_path / "runs.csv").unlink()
    (tmp_path / "replay.csv").unlink()
    better = {"time_s": first.time_s / 2, "interval_s": (first.time_s / 2,) * 2}
    wrong = dataclasses.replace(others[0], assignment=(9,) * 4)
    append_rows(
        str(tmp_path / "runs.csv"), [dataclasses.replace(first, **better), wrong, *others[1:]]
    )
    assert main(["replay", str(tmp_path)]) == 1
    output = capsys.readouterr()
    assert "2 of 4 rows reproduce" in output.out
    assert f"random, seed 0, on diamond: {2 * first.speedup:.9g}x the best" in output.err
    assert "devices are numbered 0 to" in output.err
    with pytest.raises(DevicePlacementError, match="no runs in"):
        replay(ReplayConfig(str(tmp_path / "none")))


def near_f32(model: str, properties: str) -> Problem:
    """A small problem of limited errors, its first device with some properties."""
    return dataclasses.replace(
        problems_of("local_accuracy")["resnet50 here, outputs near f32"],
        model=model,
        devices=f"CPU:{properties},{FURTHER_CPU}",
    )


def off_by_bf16(folder: Path) -> Problem:
    """On a CPU that computes in bf16."""
    del folder
    if "BF16" not in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU does not compute in bf16")
    return near_f32("diamond", "INFERENCE_PRECISION_HINT=bf16")


def off_by_flushing(folder: Path) -> Problem:
    """On any CPU that can take numbers next to 0 as 0."""
    if FLUSHING not in ov.Core().get_property("CPU", "SUPPORTED_PROPERTIES"):
        pytest.skip("this CPU plugin has no setting for denormal numbers")
    return near_f32(fading(folder), f"{FLUSHING}=YES;INFERENCE_PRECISION_HINT=f32")


def test_a_limit_of_errors_needs_devices_that_differ() -> None:
    with pytest.raises(DevicePlacementError, match="needs a CPU that computes in bf16"):
        open_problem(near_f32("diamond", "INFERENCE_PRECISION_HINT=f32"))


def test_a_problem_is_measured_with_its_inputs(tmp_path: Path) -> None:
    save_model(mixed(), tmp_path / "model.xml")
    save_inputs(tmp_path / "inputs.npz", [{"x": np.ones((2, 3), np.float32), "ids": [3, 0]}] * 2)
    model, inputs = str(tmp_path / "model.xml"), str(tmp_path / "inputs.npz")
    problem = Problem(model, devices=DEVICES, evaluator=MEASURED, inputs=inputs)
    with opened(problem) as evaluator:
        assert len(as_measuring(evaluator).samples.samples) == 2
    assert Problem(**dataclasses.asdict(problem)) == problem


@pytest.mark.parametrize("make_problem", [off_by_bf16, off_by_flushing])
def test_a_measured_problem_keeps_its_outputs_near(
    make_problem: Callable[[Path], Problem], tmp_path: Path
) -> None:
    problem = make_problem(tmp_path)
    near = {"near": Suite("measured here", {"off": problem}, budget=6)}
    quick: dict[str, Any] = {"max_samples": 2, "confirmations": 0, "seeds": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cast(dict[str, Suite], SUITES), "near", near["near"])
        config = dataclasses.replace(config_of(tmp_path, ["random"], **quick), suite="near")
        assert benchmark(config) == 0
    (row,) = rows_of(tmp_path).values()
    assert not row.failure
    assert row.devices == problem.devices
    assert row.interval_s[0] <= row.time_s <= row.interval_s[1]
    (trace,) = tmp_path.rglob("random-0.jsonl.gz")
    found = [one["evaluation"] for one in lines_of(trace)]
    valid = [one for one in found if not one["error"]]
    assert 1 <= len(valid) <= len(found) == row.evaluations
    assert all(one["output_error"] is not None for one in valid)
    assert any("outputs" in one["error"] for one in found if one["error"])  # some are too far off
    assert main(["replay", str(tmp_path), "--rounds", "3"]) in (0, 1)  # so small a model is noisy
    (line,) = read_lines(str(tmp_path / "replay.csv"))
    assert not line["failure"]
    assert float(line["speedup"]) > 0
