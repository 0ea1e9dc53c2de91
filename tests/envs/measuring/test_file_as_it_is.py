"""The model's file, compiled as OpenVINO does it, beside what `load_model` makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset15 as ops
import pytest

from device_placement.agents.runs.summary import file_warnings, without_slower
from device_placement.envs import OpenVINOEvaluator, make_evaluator
from device_placement.envs.evaluation import NAN, Evaluation, Measurement
from device_placement.envs.measuring.bench import Entry
from device_placement.envs.measuring.compare import (
    MIN_SAMPLES,
    compare,
    contenders,
    slower_than_file,
)
from problems import QUICK, TWO_CPUS, chain

SINGLE, FILE = "all on CPU", "file as it is, on CPU"


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a dynamic model with something to fold."""
    x = ops.parameter([-1, 4], np.float32, name="x")
    half = ops.divide(ops.constant(np.float32(1)), ops.constant(np.float32(2)))
    path = tmp_path_factory.mktemp("model") / "dynamic.xml"
    ov.save_model(ov.Model([ops.relu(ops.multiply(x, half))], [x], "dynamic"), path)
    return path


def evaluator_of(model: Any, **options: Any) -> OpenVINOEvaluator:
    return make_evaluator(model, TWO_CPUS, **QUICK | options)


@pytest.mark.parametrize("isolation", ["none", "process"])
@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_a_file_is_timed_as_it_is_with_the_same_inputs(
    dynamic: Path, isolation: str, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(dynamic.parent)
    options = {"isolation": isolation, "objective": objective}
    evaluator = evaluator_of(dynamic.name, input_shapes={"x": [2, 4]}, **options)
    found = compare(evaluator, contenders(evaluator, {}), rounds=2, warmup=1)
    evaluator.close()
    names = [name for name in found if name.startswith("file as it is")]
    assert names == [FILE, "file as it is, on CPU_F32:INFERENCE_PRECISION_HINT=f32"]
    assert [found[name].error for name in names] == ["", ""]
    assert all(len(found[name].samples_s) == 2 for name in names)


def test_nothing_is_normalised_in_it(dynamic: Path) -> None:
    evaluator = evaluator_of(dynamic, input_shapes={"x": [2, 4]})
    bench: Any = evaluator.bench
    file, loaded = (bench._build(Entry("CPU", path=path)) for path in (evaluator.file, ""))
    assert file.compiled.inputs[0].partial_shape.is_dynamic
    assert not loaded.compiled.inputs[0].partial_shape.is_dynamic
    for one, other in zip(file.outputs, loaded.outputs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-2)


def test_a_file_that_is_gone_is_an_invalid_row(tmp_path: Path) -> None:
    evaluator = evaluator_of(chain(tmp_path, length=1))
    for path in tmp_path.iterdir():
        path.unlink()
    found = compare(evaluator, contenders(evaluator, {}), rounds=1, warmup=0)
    assert found[SINGLE].valid
    assert not found[FILE].valid


def test_a_model_without_a_file_has_no_such_row(dynamic: Path) -> None:
    model = ov.Core().read_model(dynamic)
    for source, shapes in (("diamond", None), (model, {"x": [2, 4]})):
        evaluator = evaluator_of(source, input_shapes=shapes)
        assert not [one for one in contenders(evaluator, {}) if "file" in one.name]


class Given(OpenVINOEvaluator):
    """An evaluator on two devices that takes given times: of HETERO, the loaded model, the file."""

    def __init__(self, hetero_s: float, loaded_s: float) -> None:
        inner = evaluator_of("diamond")
        super().__init__(inner.model, inner.coarse, inner.devices, file="model.xml", store=None)
        self.hetero_s, self.loaded_s = hetero_s, loaded_s

    def compare(self, entries: Sequence[Entry], rounds: int, *_: Any) -> list[Measurement]:
        return [Measurement(pairs=((self._time(one), NAN),) * rounds) for one in entries]

    def _time(self, entry: Entry) -> float:
        if entry.path:
            return 1.0
        return self.hetero_s if entry.op_devices else self.loaded_s


@pytest.mark.parametrize(
    ("hetero_s", "loaded_s", "rounds", "ratio"),
    [
        (2.0, 1.9, MIN_SAMPLES, 1.9),
        (2.0, 1.9, MIN_SAMPLES - 1, None),  # too few to say
        (2.0, 1.04, MIN_SAMPLES, None),  # the cost of HETERO, or of another compile
        (1.04, 2.0, MIN_SAMPLES, None),
    ],
)
def test_a_loaded_model_that_is_slower_than_its_file_is_told(
    hetero_s: float, loaded_s: float, rounds: int, ratio: float | None
) -> None:
    given = Given(hetero_s, loaded_s)
    found = compare(given, contenders(given, {}), rounds)
    expected = {} if ratio is None else dict.fromkeys(("CPU", "CPU_F32"), (ratio, (ratio, ratio)))
    assert slower_than_file(given, found, rounds) == expected


def test_the_warning_names_device_and_ratio() -> None:
    given = Given(2.0, 1.9)
    found = compare(given, contenders(given, {}), MIN_SAMPLES)
    first, second = file_warnings(given, found, MIN_SAMPLES)
    assert first.startswith("On CPU the model as load_model() returns it takes 1.90 (1.90 - 1.90)")
    assert second.startswith("On CPU_F32 ")
    simulated = make_evaluator("diamond", evaluator="simulator")
    assert file_warnings(simulated, {}, MIN_SAMPLES) == []


def test_the_table_has_the_file_on_its_best_device_alone() -> None:
    times = {"a": 1.0, "file 1": 3.0, "file 2": 2.0}
    rows = [{"name": name, **Evaluation(time_s).to_json()} for name, time_s in times.items()]
    rows.append({"name": "file 3", **Evaluation.invalid("does not run").to_json()})
    shown = without_slower(rows, ["file 1", "file 2", "file 3"])
    assert [row["name"] for row in shown] == ["a", "file 2"]
    assert [row["name"] for row in without_slower(rows[3:], ["file 3"])] == ["file 3"]
