from __future__ import annotations

import math
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset15 as ops
import pytest

from device_placement.envs import OpenVINOEvaluator, coarsen, load_model, read_graph
from device_placement.envs.measuring.inputs import invented_inputs
from device_placement.envs.measuring.program import build_program
from device_placement.envs.measuring.verification import output_difference

DEVICES = "CPU:INFERENCE_PRECISION_HINT=f32,CPU_B:INFERENCE_PRECISION_HINT=f32"
OPTIONS: dict[str, Any] = {
    "store": None,
    "isolation": "none",
    "max_samples": 4,
    "tolerance": 1.0,
    "confirmations": 0,
}


def converted(kind: ov.Type) -> ov.Model:
    x = ops.parameter([2, 7], kind, name="x")
    return ov.Model([ops.result(ops.relu(ops.convert(x, "f32")))], [x], "converted")


def masked() -> ov.Model:
    """Scores of which the negative ones become minus infinity, as in a language model."""
    x = ops.parameter([2, 8], np.float32, name="scores")
    lowest = ops.constant(np.float32(-np.inf))
    scores = ops.select(ops.less(x, ops.constant(np.float32(0))), lowest, x)
    return ov.Model([ops.result(scores), ops.result(ops.relu(x))], [x], "masked")


def labelled() -> ov.Model:
    x = ops.parameter([1, 3], np.float32, name="x")
    best = ops.topk(x, ops.constant(np.int64(1)), 1, "max", "value").output(1)
    names = ov.op.Constant(ov.Tensor(["cat", "dog", "bird"]))
    label = ops.gather(names, best, ops.constant(np.int64(0)))
    return ov.Model([ops.result(label), ops.result(ops.softmax(x, 1))], [x], "labelled")


KINDS = [ov.Type.f32, ov.Type.f16, ov.Type.bf16, ov.Type.f8e4m3, ov.Type.f8e5m2, ov.Type.u4]
KINDS += [ov.Type.i4, ov.Type.i8, ov.Type.u8, ov.Type.i64, ov.Type.boolean]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_inputs_have_the_type_of_their_port(kind: ov.Type) -> None:
    model = load_model(converted(kind))
    ((tensor,),), ((again,),) = (invented_inputs(model).tensors(model) for _ in range(2))
    assert tensor.get_element_type() == kind
    assert list(tensor.shape) == [2, 7]
    assert tensor.data.tobytes() == again.data.tobytes()
    values = build_program(ov.Core(), model, "CPU").outputs[0]
    assert np.isfinite(values).all()
    assert 0 < np.count_nonzero(values) < values.size


@pytest.mark.parametrize("build", [masked, labelled])
def test_outputs_that_are_no_finite_numbers_are_verified(build: Any) -> None:
    model = load_model(build())
    coarse = coarsen(read_graph(model, DEVICES), "none")
    evaluator = OpenVINOEvaluator(model, coarse, DEVICES, max_output_error=0.1, **OPTIONS)
    found = evaluator.evaluate([1] * coarse.num_groups)
    assert (found.error, found.output_error) == ("", 0.0)
    assert found.output_cosine == pytest.approx(1.0)


def test_outputs_in_bf16_are_read_as_numbers() -> None:
    x = ops.parameter([4], np.float32, name="x")
    model = load_model(ov.Model([ops.result(ops.convert(ops.abs(x), "bf16"))], [x], "bf16"))
    program = build_program(ov.Core(), model, "CPU")
    expected = np.abs(program.samples[0][0].data)
    np.testing.assert_allclose(program.outputs[0], expected, rtol=2**-7)


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("output", "expected", "error"),
    [
        ([1.0, NAN], [1.0, NAN], 0.0),
        ([3.0, 4.0, INF], [3.0, 4.0, INF], 0.0),
        ([3.0, 5.0, INF], [3.0, 4.0, INF], 0.2),
        ([3.0, 4.0, -INF], [3.0, 4.0, INF], INF),
        ([3.0, NAN], [3.0, 4.0], INF),
        ([3.0, 4.0], [3.0, NAN], INF),
        (["cat"], ["cat"], 0.0),
        (["cat"], ["dog"], INF),
        ([True, False], [True, False], 0.0),
        ([2, 0], [1, 0], 1.0),
    ],
)
def test_differences_of_outputs(output: list[Any], expected: list[Any], error: float) -> None:
    assert output_difference([np.array(output)], [np.array(expected)])[0] == pytest.approx(error)
