"""Models whose inputs matter: indices, choices, several types; and a way to measure them."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
import openvino.opset15 as ops

from device_placement.envs import OpenVINOEvaluator, coarsen, load_model, read_graph

DEVICES = "CPU:INFERENCE_PRECISION_HINT=f32,CPU_B:INFERENCE_PRECISION_HINT=f32"
FAST: dict[str, Any] = {
    "store": None,
    "isolation": "none",
    "max_samples": 4,
    "tolerance": 1.0,
    "confirmations": 0,
}


def constant(value: Any, kind: Any = np.int64) -> Any:
    return ops.constant(np.array(value, kind))


def parameter(shape: list[int], kind: Any, name: str) -> Any:
    return ops.parameter(shape, kind, name=name)


def model_of(*outputs: Any, inputs: list[Any]) -> ov.Model:
    return load_model(ov.Model([ops.result(output) for output in outputs], inputs, "model"))


def two_rates(work: int = 8) -> ov.Model:
    """A model with one branch for a rate of 16000, which takes much longer, and one for others."""
    rate = parameter([], np.int64, "rate")
    x = parameter([32, 32], np.float32, "x")
    bodies, given = [], []
    for layers in (work, 0):
        inner = parameter([32, 32], np.float32, "inner")
        y = inner
        for _ in range(layers):
            y = ops.tanh(ops.matmul(y, constant(np.eye(32), np.float32), False, False))
        bodies.append(ov.Model([ops.result(ops.add(y, constant(layers, np.float32)))], [inner]))
        given.append(inner)
    choice = ops.if_op(ops.equal(rate, constant(16000)).output(0))
    choice.set_then_body(bodies[0])
    choice.set_else_body(bodies[1])
    choice.set_input(x.output(0), *given)
    chosen = choice.set_output(bodies[0].get_results()[0], bodies[1].get_results()[0])
    return model_of(ops.relu(chosen), inputs=[x, rate])


def looped() -> ov.Model:
    """Add 1 until the trips are done, or the sum has reached a limit."""
    trips, x = parameter([], np.int64, "trips"), parameter([2], np.float32, "x")
    limit, other = parameter([], np.float32, "limit"), parameter([2], np.float32, "other")
    inner, end = parameter([2], np.float32, "inner"), parameter([], np.float32, "end")
    more = ops.add(inner, constant(1, np.float32))
    goes_on = ops.less(ops.reduce_sum(more, constant([0]), False), end)
    body = ov.Model([ops.result(more), ops.result(goes_on)], [inner, end])
    loop = ops.loop(trips, constant(True, np.bool_))
    loop.set_function(body)
    loop.set_special_body_ports([-1, 1])
    loop.set_merged_input(inner, x.output(0), body.get_results()[0].input_value(0))
    loop.set_invariant_input(end, limit.output(0))
    counted = loop.get_iter_value(body.get_results()[0].input_value(0), -1)
    return model_of(ops.add(counted, other), inputs=[trips, x, limit, other])


def random_numbers() -> ov.Model:
    x = parameter([64], np.float32, "x")
    ends = (constant(end, np.float32) for end in (0, 1))
    drawn = ops.random_uniform(constant([64]), *ends, "f32", 0, 0)
    return model_of(ops.relu(ops.add(ops.exp(x), drawn)), inputs=[x])


def mixed() -> ov.Model:
    x, ids = parameter([2, 3], np.float32, "x"), parameter([2], np.int64, "ids")
    table = constant(np.arange(12).reshape(4, 3), np.float32)
    return model_of(ops.add(x, ops.gather(table, ids, constant(0))), inputs=[x, ids])


def measuring(model: ov.Model, **options: Any) -> OpenVINOEvaluator:
    coarse = coarsen(read_graph(model, DEVICES), "none")
    return OpenVINOEvaluator(model, coarse, DEVICES, **{**FAST, **options})
