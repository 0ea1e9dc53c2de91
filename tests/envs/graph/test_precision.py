from __future__ import annotations

import numpy as np
import openvino as ov
import openvino.opset15 as ops

from device_placement.envs import load_model, make_core
from device_placement.envs.graph.precision import layer_types, layer_types_on, weight_types


def test_weights_of_bodies_count() -> None:
    x, row = ops.parameter([4, 8], np.float32), ops.parameter([1, 8], np.float16)
    body = ov.Model([ops.result(ops.add(row, ops.constant(np.ones((1, 8), np.float16))))], [row])
    loop = ops.tensor_iterator()
    loop.set_body(body)
    loop.set_sliced_input(row, ops.convert(x, "f16").output(0), 0, 1, 1, -1, 0)
    out = loop.get_concatenated_slices(body.get_results()[0].output(0), 0, 1, 1, -1, 0)
    total = ops.add(ops.convert(out, "f32"), ops.constant(np.ones(8, np.float32)))
    model = ov.Model([ops.result(total)], [x])
    assert weight_types(model) == {"f32": 32, "f16": 16}


def test_layers_are_counted_by_precision_without_inputs_and_constants() -> None:
    core = make_core("CPU:INFERENCE_PRECISION_HINT=f32")
    found = layer_types(core.compile_model(load_model("diamond"), "CPU"))
    assert list(found) == ["f32"]
    assert not {"Input", "Output", "Const"} & set(found["f32"])
    assert sum(found["f32"].values()) >= 3


def test_nothing_is_known_of_a_device_that_can_not_run_the_model() -> None:
    assert layer_types_on(make_core("CPU"), load_model("diamond"), "CPU_MISSING") == {}
