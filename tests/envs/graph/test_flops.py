"""Op types whose FLOPs are not known, wherever in a model they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
import openvino.opset15 as ops
import pytest

from device_placement.agents.cli import main
from device_placement.envs import load_model
from device_placement.envs.graph.flops import UnknownOps, unknown_ops
from device_placement.envs.models.zoo import ZOO

UNARY = (
    *("abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "ceiling", "cos", "cosh", "erf"),
    *("exp", "floor", "is_finite", "is_inf", "is_nan", "log", "negative", "relu", "sigmoid"),
    *("sign", "sin", "sinh", "softplus", "softsign", "sqrt", "tan", "tanh", "mish", "hswish"),
)
BINARY = (
    *("add", "divide", "equal", "floor_mod", "greater", "greater_equal", "less", "less_equal"),
    *("maximum", "minimum", "mod", "multiply", "not_equal", "power", "prelu"),
    *("squared_difference", "subtract"),
)


def grid_sample() -> tuple[ov.Node, list[ov.Node]]:
    """An op of no known FLOPs, and its inputs: 48 + 32 numbers that make 16 of each channel."""
    data = ops.parameter([1, 3, 4, 4], np.float32)
    grid = ops.parameter([1, 4, 4, 2], np.float32)
    return ops.grid_sample(data, grid, {}), [data, grid]


BYTES = 4.0 * (48 + 32 + 48)


def test_element_wise_ops_are_known() -> None:
    x, y = ops.parameter([2], np.float32), ops.parameter([2], np.float32)
    flags = ops.less(x, y)
    nodes = [getattr(ops, name)(x) for name in UNARY]
    nodes += [getattr(ops, name)(x, y) for name in BINARY]
    nodes += [ops.logical_and(flags, flags), ops.logical_not(flags), ops.select(flags, x, y)]
    nodes += [ops.clamp(x, 0.0, 1.0), ops.round(x), ops.cum_sum(x, np.int32(0))]
    assert unknown_ops(ov.Model(nodes, [x, y])) == []


@pytest.mark.parametrize("name", ZOO)
def test_bundled_models_have_no_others(name: str) -> None:
    assert unknown_ops(load_model(name)) == []


def test_ops_of_no_known_flops_are_named_with_what_they_move() -> None:
    node, inputs = grid_sample()
    model = ov.Model([ops.relu(node), ops.grid_sample(*inputs, {})], inputs)
    assert unknown_ops(model) == [UnknownOps("GridSample", 2, 2 * BYTES)]


def in_a_loop(body: ov.Model) -> ov.Model:
    data, grid = (ops.parameter(list(one.shape), np.float32) for one in body.inputs)
    node = ops.tensor_iterator()
    node.set_function(body)
    parts = body.get_parameters()
    node.set_invariant_input(parts[0], data.output(0))
    node.set_sliced_input(parts[1], grid.output(0), 0, 1, 1, -1, 0)
    result = node.get_iter_value(body.get_results()[0].output(0), -1)
    return ov.Model([result], [data, grid])


def in_a_branch(body: ov.Model) -> ov.Model:
    data, grid = (ops.parameter(list(one.shape), np.float32) for one in body.inputs)
    flag, other = ops.parameter([], bool), ops.parameter([1, 3, 4, 4], np.float32)
    node = ops.if_op(flag.output(0))
    otherwise = ov.Model([ops.result(ops.abs(other))], [other])
    node.set_then_body(body)
    node.set_else_body(otherwise)
    node.set_input(data.output(0), body.get_parameters()[0], other)
    node.set_input(grid.output(0), body.get_parameters()[1], None)
    node.set_output(body.get_results()[0], otherwise.get_results()[0])
    return ov.Model([node.output(0)], [flag, data, grid])


@pytest.mark.parametrize("wrap", [in_a_loop, in_a_branch])
def test_those_in_bodies_are_named_as_well(
    wrap: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node, inputs = grid_sample()
    model = wrap(ov.Model([ops.result(node)], inputs))  # type: ignore[operator]
    assert unknown_ops(model) == [UnknownOps("GridSample", 1, BYTES)]
    path = tmp_path / "model.xml"
    ov.serialize(model, path)
    assert main(["inspect", str(path), "--devices", "CPU"]) == 0
    text = capsys.readouterr().out
    assert "FLOPs not known" in text
    assert "GridSample    1          0.001" in text


def test_a_loop_whose_trips_depend_on_the_data_is_named() -> None:
    trips, start = ops.parameter([], np.int64), ops.parameter([2], np.float32)
    x, again = ops.parameter([2], np.float32), ops.constant(True)
    y = ops.relu(x)
    for count, expected in ((trips, ["Loop"]), (ops.constant(np.int64(3)), [])):
        loop = ops.loop(count, ops.constant(True))
        body = ov.Model([ops.result(y), ops.result(again)], [x])
        loop.set_function(body)
        loop.set_special_body_ports([-1, 1])
        loop.set_merged_input(x, start.output(0), body.get_results()[0].output(0))
        last = loop.get_iter_value(body.get_results()[0].output(0), -1)
        model = ov.Model([last], [trips, start] if expected else [start])
        assert [one.op_type for one in unknown_ops(model)] == expected


def test_without_any_inspect_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "diamond", "--devices", "CPU"]) == 0
    assert "FLOPs not known" not in capsys.readouterr().out
