from __future__ import annotations

from itertools import combinations, product
from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import openvino.opset15 as ops
import pytest
from onnx import TensorProto, helper, numpy_helper

from device_placement.envs import (
    ModelError,
    Placement,
    PlacementError,
    coarsen,
    load_model,
    model_hash,
    parse_devices,
    read_graph,
)

DEVICES = "CPU,CPU_F32:INFERENCE_PRECISION_HINT=f32"


def iterated(backwards: bool = False, carried: bool = True, last: bool = False) -> ov.Model:
    """A TensorIterator; only how it is joined to its body differs."""
    x = ops.parameter([1, 6, 8], np.float32, name="x")
    piece, state = (ops.parameter([1, 1, 8], np.float32) for _ in range(2))
    body = ov.Model([ops.result(ops.tanh(ops.add(piece, state)))], [piece, state], "body")
    out = body.get_results()[0].output(0)
    loop = ops.tensor_iterator()
    loop.set_body(body)
    start, stride, end = (-1, -1, 0) if backwards else (0, 1, -1)
    loop.set_sliced_input(piece, x.output(0), start, stride, 1, end, 1)
    first = ops.constant(np.ones((1, 1, 8), np.float32)).output(0)
    if carried:
        loop.set_merged_input(state, first, out)
    else:
        loop.set_invariant_input(state, first)
    found = loop.get_iter_value(out) if last else loop.get_concatenated_slices(out, 0, 1, 1, -1, 1)
    if last:
        found = ops.tile(found, np.array([1, 6, 1])).output(0)
    return ov.Model([ops.result(ops.relu(found))], [x], "iterated")


def chosen(swapped: bool) -> ov.Model:
    """An If whose bodies take its two inputs, one way round or the other."""
    a, b = (ops.parameter([4], np.float32, name=name) for name in "ab")
    which = ops.parameter([], np.bool_, name="which")
    node = ops.if_op(which)
    for number in range(2):
        one, other = (ops.parameter([4], np.float32) for _ in range(2))
        result = ops.result(ops.subtract(one, other) if number else ops.add(one, ops.exp(other)))
        body = ov.Model([result], [one, other], "body")
        node.set_then_body(body) if number == 0 else node.set_else_body(body)
    then, other = node.get_then_body(), node.get_else_body()
    first, second = (b, a) if swapped else (a, b)
    node.set_input(first.output(0), then.get_parameters()[0], other.get_parameters()[0])
    node.set_input(second.output(0), then.get_parameters()[1], other.get_parameters()[1])
    out = node.set_output(then.get_results()[0], other.get_results()[0])
    return ov.Model([ops.result(out)], [which, a, b], "chosen")


def test_the_wiring_of_a_loop_counts() -> None:
    models = [load_model(iterated(*how)) for how in product([False, True], repeat=3)]
    hashes = [model_hash(one) for one in models]
    assert len(set(hashes)) == len(hashes)
    assert hashes[3] == model_hash(load_model(iterated(False, True, True)))
    devices = parse_devices(DEVICES)
    coarse = coarsen(read_graph(models[0], devices))
    placement = Placement.from_groups(coarse, devices, [0] * coarse.num_groups)
    for other in models[1:]:
        with pytest.raises(PlacementError, match="was made for the model"):
            placement.apply(other)


def test_the_wiring_of_a_branch_counts() -> None:
    one, other = (model_hash(load_model(chosen(swapped))) for swapped in (False, True))
    assert one != other
    assert one == model_hash(load_model(chosen(False)))


def test_the_order_of_inputs_and_outputs_counts() -> None:
    def model(order: tuple[int, ...]) -> ov.Model:
        inputs = [ops.parameter([4], np.float32, name=name) for name in "abc"]
        return ov.Model(
            [ops.result(ops.subtract(inputs[0], ops.multiply(inputs[1], inputs[2])))],
            [inputs[at] for at in order],
            "order",
        )

    hashes = [model_hash(load_model(model(order))) for order in ((0, 1, 2), (1, 0, 2), (2, 0, 1))]
    assert all(one != other for one, other in combinations(hashes, 2))


def test_a_failed_read_says_which_op_and_why(tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy")
    weights = numpy_helper.from_array(np.ones((2, 1, 3), np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", [x], [y], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)])
    model.ir_version = 8
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"Conv.*: .*rank has to be known.*\. Check that it is"):
        load_model(path)


@pytest.mark.parametrize("ports", [[0, 1], [-1, 1]])
def test_the_special_ports_of_a_loop_count(ports: list[int]) -> None:
    """Whether a body reads the number of its iteration is not in its ops."""
    assert (model_hash(counting([0, 1])) == model_hash(counting(ports))) is (ports == [0, 1])


def counting(ports: list[int]) -> ov.Model:
    """Return a model with a loop; the ports say where its body takes the iteration's number."""
    trips, condition = ops.constant(3, ov.Type.i64), ops.constant(True, ov.Type.boolean)
    x, start = ops.parameter([1, 2], np.float32), ops.constant(7, ov.Type.i64)
    number, state = ops.parameter([], np.int64), ops.parameter([1, 2], np.float32)
    result = ops.add(state, ops.convert(number, "f32"))
    again = ops.constant(True, ov.Type.boolean)
    loop = ops.loop(trips, condition)
    loop.set_function(ov.Model([result, again], [number, state], "body"))
    loop.set_special_body_ports(ports)
    loop.set_merged_input(state, x.output(0), result.output(0))
    loop.set_invariant_input(number, start.output(0))
    found = loop.get_iter_value(result.output(0), -1)
    return load_model(ov.Model([ops.result(found)], [x], "counting"))
