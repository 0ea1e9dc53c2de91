from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset15 as ops
import pytest
from onnx import TensorProto, helper, numpy_helper

from device_placement.envs import (
    DevicePlacementError,
    Placement,
    coarsen,
    load_model,
    make_core,
    model_hash,
    parse_devices,
    read_graph,
)

DEVICES = "CPU:INFERENCE_PRECISION_HINT=f32,CPU_B:INFERENCE_PRECISION_HINT=f32"
SEVEN_BITS = 63  # of larger weights, pairs of products overflow on CPUs without VNNI
HEAVY = ("Convolution", "FullyConnected", "MatMul")


def stored(shape: tuple[int, ...], kind: Any = ov.Type.i8) -> Any:
    low, high = (-8, 8) if kind in (ov.Type.i4, ov.Type.nf4) else (0, 15)
    low, high = (-SEVEN_BITS, SEVEN_BITS) if kind == ov.Type.i8 else (low, high)
    numbers = np.random.default_rng(0).integers(low, high, shape)
    return ops.constant(numbers.astype(np.int8 if low < 0 else np.uint8), dtype=kind)


def scaled(weights: Any, zero_point: float | None = None) -> Any:
    real = ops.convert(weights, "f32")
    if zero_point is not None:
        real = ops.subtract(real, ops.constant(np.float32(zero_point)))
    return ops.multiply(real, ops.constant(np.float32(0.01)))


def rounded(node: Any, low: float = 0.0, high: float = 6.0) -> Any:
    ends = [ops.constant(np.float32(value)) for value in (low, high, low, high)]
    return ops.fake_quantize(node, *ends, 256)


def convolutions(shared: bool = False) -> ov.Model:
    """As NNCF writes int8: Convert and Multiply behind weights, FakeQuantize behind ops."""
    x = ops.parameter([1, 16, 16, 16], np.float32, name="x")
    node, weights = rounded(x, -2, 2), scaled(stored((16, 16, 3, 3)))
    for _ in range(3):
        own = weights if shared else scaled(stored((16, 16, 3, 3)))
        node = ops.convolution(node, own, [1, 1], [1, 1], [1, 1], [1, 1])
        node = rounded(ops.relu(node))
    return ov.Model([ops.result(node)], [x], "int8")


def products(kind: Any = ov.Type.u4, groups: int = 1) -> ov.Model:
    """As NNCF writes int4: a zero point, and groups of inputs with scales of their own."""
    x = ops.parameter([1, 64], np.float32, name="x")
    node = x
    for _ in range(2):
        weights = scaled(stored((64, groups, 64 // groups), kind), 8)
        weights = ops.reshape(weights, ops.constant(np.array([64, 64])), False)
        node = ops.tanh(ops.matmul(node, weights, False, True))
    return ov.Model([ops.result(node)], [x], "int4")


def fake_quantised() -> ov.Model:
    x = ops.parameter([1, 16, 16, 16], np.float32, name="x")
    weights = np.random.default_rng(0).standard_normal((16, 16, 3, 3)).astype(np.float32)
    kernel = rounded(ops.constant(weights), -2, 2)
    node = ops.convolution(rounded(x, -2, 2), kernel, [1, 1], [1, 1], [1, 1], [1, 1])
    return ov.Model([ops.result(rounded(ops.relu(node)))], [x], "fake")


def onnx_model(nodes: list[Any], constants: dict[str, Any]) -> ov.Model:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16, 8, 8]) for name in "xy"]
    initial = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "onnx", ends[:1], ends[1:], initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)])
    model.ir_version = 8
    return ov.Core().read_model(model.SerializeToString(), b"")


WEIGHTS = np.random.default_rng(0).integers(-SEVEN_BITS, SEVEN_BITS, (16, 16, 3, 3)).astype(np.int8)
SCALE, ZERO, ZERO_U8 = np.float32(0.02), np.int8(0), np.uint8(128)


def qdq() -> ov.Model:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "u"], ["a"]),
        helper.make_node("DequantizeLinear", ["a", "s", "u"], ["b"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["c"]),
        helper.make_node("Conv", ["b", "c"], ["y"], pads=[1, 1, 1, 1]),
    ]
    return onnx_model(nodes, {"s": SCALE, "u": ZERO_U8, "z": ZERO, "w": WEIGHTS})


def qlinear() -> ov.Model:
    inputs = ["a", "s", "u", "w", "s", "z", "s", "u"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "u"], ["a"]),
        helper.make_node("QLinearConv", inputs, ["b"], pads=[1, 1, 1, 1]),
        helper.make_node("DequantizeLinear", ["b", "s", "u"], ["y"]),
    ]
    return onnx_model(nodes, {"s": SCALE, "u": ZERO_U8, "z": ZERO, "w": WEIGHTS})


MODELS: dict[str, Callable[[], ov.Model]] = {
    "int8": convolutions,
    "int4": products,
    "int4 in groups": lambda: products(groups=4),
    "signed int4": lambda: products(ov.Type.i4),
    "FakeQuantize": fake_quantised,
    "QDQ": qdq,
    "QLinear": qlinear,
}


def precisions(model: ov.Model) -> Counter[str]:
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    runtime = ov.Core().compile_model(model, "CPU", config).get_runtime_model()
    nodes = [op.get_rt_info() for op in runtime.get_ordered_ops()]
    return Counter(
        node["runtimePrecision"].astype(str)
        for node in nodes
        if node["layerType"].astype(str) in HEAVY
    )


def weight_bytes(model: ov.Model, kinds: tuple[str, ...] = ("i8", "u8", "i4", "u4")) -> int:
    constants = [op for op in model.get_ops() if op.get_type_name() == "Constant"]
    several = [op for op in constants if op.get_element_type().to_string() in kinds]
    return sum(op.get_byte_size() for op in several if op.get_byte_size() > 8)


@pytest.mark.parametrize("name", MODELS)
def test_a_loaded_model_computes_in_the_precision_of_its_file(name: str) -> None:
    raw = MODELS[name]()
    loaded = load_model(raw)
    assert precisions(loaded) == precisions(raw)
    assert weight_bytes(loaded) == weight_bytes(raw)
    value = np.random.default_rng(0).standard_normal(list(raw.inputs[0].shape), dtype=np.float32)
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    first, second = (ov.Core().compile_model(one, "CPU", config)(value)[0] for one in (raw, loaded))
    np.testing.assert_allclose(second, first, rtol=1e-5, atol=1e-5)
    again = load_model(loaded)
    assert model_hash(again) == model_hash(loaded) == model_hash(load_model(MODELS[name]()))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("method", ["fusion", "none"])
def test_chains_stay_with_the_op_that_reads_them(name: str, method: str) -> None:
    model, devices = load_model(MODELS[name]()), parse_devices(DEVICES)
    core = make_core(devices)
    coarse = coarsen(read_graph(model, devices, core), method)
    graph = coarse.graph
    producer, consumer = graph.edge_index
    inside = graph.is_constant[producer]
    assert (coarse.op_group[producer] == coarse.op_group[consumer])[inside].all()
    assert not graph.flops[graph.is_constant].any()
    value = np.random.default_rng(0).standard_normal(list(model.inputs[0].shape), dtype=np.float32)
    alone = core.compile_model(model, devices[0].name)(value)[0]
    assignment = [group % 2 for group in range(coarse.num_groups)]
    placement = Placement.from_groups(coarse, devices, assignment)
    split = core.compile_model(placement.apply(model), placement.hetero_name)(value)[0]
    assert np.linalg.norm(split - alone) <= 0.05 * np.linalg.norm(alone)


def test_consumers_of_one_chain_get_one_each() -> None:
    raw = convolutions(shared=True)
    loaded = load_model(raw)
    assert weight_bytes(loaded) == 3 * weight_bytes(raw)
    assert precisions(loaded) == precisions(raw)


def test_weights_in_the_body_of_a_loop_stay_quantised() -> None:
    x = ops.parameter([4, 64], np.float32, name="x")
    row = ops.parameter([1, 64], np.float32)
    body = ov.Model([ops.result(ops.matmul(row, scaled(stored((64, 64))), False, True))], [row])
    loop = ops.tensor_iterator()
    loop.set_body(body)
    loop.set_sliced_input(row, x.output(0), 0, 1, 1, -1, 0)
    out = loop.get_concatenated_slices(body.get_results()[0].output(0), 0, 1, 1, -1, 0)
    loaded = load_model(ov.Model([ops.result(out)], [x], "loop"))
    inner = next(op for op in loaded.get_ops() if op.get_type_name() == "TensorIterator")
    assert weight_bytes(inner.get_function()) == 64 * 64


def test_the_file_is_left_as_it_is() -> None:
    raw = convolutions()
    before = [op.get_type_name() for op in raw.get_ordered_ops()]
    load_model(raw)
    assert [op.get_type_name() for op in raw.get_ordered_ops()] == before
    with pytest.raises(DevicePlacementError):
        load_model(raw, input_shapes=[[1, 3]])
