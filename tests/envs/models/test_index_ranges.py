from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset15 as ops
import pytest

from device_placement.envs import load_model
from device_placement.envs.measuring.inputs import invented_inputs
from device_placement.envs.models.deciding_inputs import deciding_inputs
from device_placement.envs.models.index_ranges import index_ranges
from input_models import constant, looped, mixed, model_of, parameter, two_rates

INF = np.inf
F32, I64, I32 = np.float32, np.int64, np.int32
Built = tuple[ov.Model, list[Any], list[Any]]  # a model; the range of its first input


def indexed(index: Callable[[Any], Any], shape: list[int], kind: Any = I64) -> ov.Model:
    """A model in which a function of the first input indexes the first axis, of size 3."""
    i, data = parameter(shape, kind, "i"), parameter([3, 4], F32, "data")
    return model_of(ops.relu(ops.gather(data, index(i), constant(0))), inputs=[i, data])


def moved(low: Any, high: Any) -> tuple[Any, Any]:
    return np.array(low, float), np.array(high, float)


OPS: dict[str, tuple[Callable[[], ov.Model], Any, Any]] = {
    "as it is": (lambda: indexed(lambda i: i, [2]), [0, 0], [2, 2]),
    "converted": (lambda: indexed(lambda i: ops.convert(i, "i64"), [2], F32), [0, 0], [2, 2]),
    "of a byte": (lambda: indexed(lambda i: ops.convert(i, "i32"), [2], np.uint8), [0, 0], [2, 2]),
    "reshaped": (
        lambda: indexed(lambda i: ops.reshape(i, constant([4]), False), [2, 2]),
        [[0, 0]] * 2,
        [[2, 2]] * 2,
    ),
    "squeezed": (
        lambda: indexed(lambda i: ops.squeeze(ops.unsqueeze(i, constant(2)), constant(0)), [1, 2]),
        [[0, 0]],
        [[2, 2]],
    ),
    "shifted up": (lambda: indexed(lambda i: ops.add(i, constant(-5)), [2]), [5, 5], [7, 7]),
    "shifted apart": (
        lambda: indexed(lambda i: ops.subtract(i, constant([1, 2])), [2]),
        [1, 2],
        [3, 4],
    ),
    "counted down": (lambda: indexed(lambda i: ops.subtract(constant(9), i), [2]), [7, 7], [9, 9]),
    "broadcast": (
        lambda: indexed(lambda i: ops.add(i, constant([[0], [2]])), [1, 2]),
        [[0, 0]],
        [[0, 0]],
    ),
    "scaled": (lambda: indexed(lambda i: ops.multiply(i, constant(2)), [2]), [0, 0], [1, 1]),
    "joined": (
        lambda: indexed(lambda i: ops.concat([constant([2]), i, constant([0])], 0), [2]),
        [0, 0],
        [2, 2],
    ),
    "one of several": (
        lambda: indexed(lambda i: ops.split(i, constant(0), 2).output(1), [4]),
        [-INF, -INF, 0, 0],
        [INF, INF, 2, 2],
    ),
    "a column": (
        lambda: indexed(lambda i: ops.gather(i, constant([1]), constant(1)), [2, 2]),
        [[-INF, 0]] * 2,
        [[INF, 2]] * 2,
    ),
    "wrapped around": (
        lambda: indexed(
            lambda i: ops.select(ops.less(i, constant(0)), ops.add(i, constant(3)), i), [2]
        ),
        [0, 0],
        [2, 2],
    ),
    "unknown": (lambda: indexed(lambda i: ops.mod(i, constant(3)), [2]), None, None),
}


def check(model: ov.Model, low: Any, high: Any, number: int = 0) -> None:
    found = index_ranges(model)[number]
    if low is None:
        assert found is None
    else:
        assert found is not None
        np.testing.assert_array_equal(found[0], np.array(low, float))
        np.testing.assert_array_equal(found[1], np.array(high, float))


@pytest.mark.parametrize("name", OPS)
def test_ranges_are_passed_back(name: str) -> None:
    build, low, high = OPS[name]
    check(build(), low, high)


def test_positions_of_large_tensors_of_small_types_are_found() -> None:
    model = indexed(
        lambda i: ops.convert(ops.gather(i, constant([70, 299]), constant(1)), "i64"),
        [1, 300],
        np.uint8,
    )
    found = index_ranges(model)[0]
    assert found is not None
    assert np.flatnonzero(np.isfinite(found[0])).tolist() == [70, 299]


def boxes(kind: str) -> tuple[ov.Model, int, Any, Any]:
    image, rois = parameter([2, 8, 6, 6], F32, "image"), parameter([3, 5], F32, "rois")
    if kind == "ROIPooling":
        pooled = ops.roi_pooling(image, rois, [2, 2], F32(1.0), "max")
    else:
        pooled = ops.psroi_pooling(image, rois, 2, 2, 1.0, 1, 1, "average")
    low, high = [0, -INF, -INF, -INF, -INF], [1, INF, INF, INF, INF]
    return model_of(ops.relu(pooled), inputs=[rois, image]), 0, [low] * 3, [high] * 3


def aligned() -> tuple[ov.Model, int, Any, Any]:
    image, rois = parameter([1, 4, 6, 6], F32, "image"), parameter([3, 4], F32, "rois")
    number = parameter([3], I64, "number")
    pooled = ops.roi_align(image, rois, number, 2, 2, 2, 1.0, "avg")
    return model_of(ops.relu(pooled), inputs=[image, rois, number]), 2, [0] * 3, [0] * 3


def elements(scatter: bool) -> tuple[ov.Model, int, Any, Any]:
    data, i = parameter([1, 4], F32, "data"), parameter([1, 4], I64, "i")
    if scatter:
        values = parameter([1, 4], F32, "values")
        done = ops.scatter_elements_update(data, i, values, constant(0))
        return model_of(ops.relu(done), inputs=[data, i, values]), 1, [[0] * 4], [[0] * 4]
    done = ops.gather_elements(data, i, 0)
    return model_of(ops.relu(done), inputs=[data, i]), 1, [[0] * 4], [[0] * 4]


def tuples(scatter: bool) -> tuple[ov.Model, int, Any, Any]:
    data, i = parameter([1, 4, 1], F32, "data"), parameter([2, 2], I64, "i")
    if scatter:
        values = parameter([2, 1], F32, "values")
        done = ops.scatter_nd_update(data, i, values)
        return model_of(ops.relu(done), inputs=[data, i, values]), 1, [[0, 0]] * 2, [[0, 3]] * 2
    done = ops.gather_nd(data, ops.reshape(i, constant([1, 2, 2]), False), 1)
    return model_of(ops.relu(done), inputs=[data, i]), 1, [[0, 0]] * 2, [[3, 0]] * 2


def rows() -> tuple[ov.Model, int, Any, Any]:
    data, i = parameter([1, 4], F32, "data"), parameter([2], I32, "i")
    values = parameter([2, 4], F32, "values")
    done = ops.scatter_update(data, i, values, constant(0))
    return model_of(ops.relu(done), inputs=[data, i, values]), 1, [0, 0], [0, 0]


def bags(number: int) -> tuple[ov.Model, int, Any, Any]:
    table, i = parameter([1, 4], F32, "table"), parameter([6], I64, "i")
    starts = parameter([3], I64, "starts")
    done = ops.embedding_bag_offsets_sum(table, i, starts)
    model = model_of(ops.relu(done), inputs=[table, i, starts])
    return model, number, *((([0] * 6,) * 2) if number == 1 else (([0, 2, 4],) * 2))


def packed() -> tuple[ov.Model, int, Any, Any]:
    table, i = parameter([1, 4], F32, "table"), parameter([2, 3], I64, "i")
    done = ops.embedding_bag_packed_sum(table, i)
    return model_of(ops.relu(done), inputs=[table, i]), 1, [[0] * 3] * 2, [[0] * 3] * 2


def segments(number: int) -> tuple[ov.Model, int, Any, Any]:
    table, i = parameter([1, 4], F32, "table"), parameter([4], I64, "i")
    ids = parameter([4], I64, "ids")
    done = ops.embedding_segments_sum(table, i, ids, constant(2))
    model = model_of(ops.relu(done), inputs=[table, i, ids])
    return model, number, *((([0] * 4,) * 2) if number == 1 else (([0, 0, 1, 1],) * 2))


def one_hot() -> tuple[ov.Model, int, Any, Any]:
    i = parameter([3], I64, "i")
    done = ops.one_hot(i, constant(1), constant(1, F32), constant(0, F32), 1)
    return model_of(ops.relu(done), inputs=[i]), 0, [0] * 3, [0] * 3


def beams() -> tuple[ov.Model, int, Any, Any]:
    names = ("steps", "parents")
    steps, parents = (parameter([3, 1, 1], F32, name) for name in names)
    done = ops.gather_tree(steps, parents, constant([3], F32), constant(9, F32))
    return model_of(ops.relu(done), inputs=[steps, parents]), 1, np.zeros((3, 1, 1)), 0


INDEXING: dict[str, Callable[[], tuple[ov.Model, int, Any, Any]]] = {
    "ROIAlign": aligned,
    "ROIPooling": lambda: boxes("ROIPooling"),
    "PSROIPooling": lambda: boxes("PSROIPooling"),
    "GatherElements": lambda: elements(False),
    "ScatterElementsUpdate": lambda: elements(True),
    "GatherND": lambda: tuples(False),
    "ScatterNDUpdate": lambda: tuples(True),
    "ScatterUpdate": rows,
    "indices of EmbeddingBagOffsetsSum": lambda: bags(1),
    "offsets of EmbeddingBagOffsetsSum": lambda: bags(2),
    "EmbeddingBagPackedSum": packed,
    "indices of EmbeddingSegmentsSum": lambda: segments(1),
    "ids of EmbeddingSegmentsSum": lambda: segments(2),
    "OneHot": one_hot,
    "GatherTree": beams,
}


@pytest.mark.parametrize("name", INDEXING)
def test_ops_that_index_limit_their_input_and_run_with_what_is_invented(name: str) -> None:
    model, number, low, high = INDEXING[name]()
    shape = tuple(model.inputs[number].get_shape())
    check(model, low, np.broadcast_to(high, shape), number)
    (sample,) = invented_inputs(model).samples
    assert (sample[number] >= np.array(low)).all()
    assert (sample[number] <= np.array(high)).all()
    ov.compile_model(model, "CPU")(invented_inputs(model).tensors(model)[0])


def test_the_bodies_of_control_flow_limit_inputs() -> None:
    condition, i = parameter([], np.bool_, "condition"), parameter([4], I32, "i")
    table = parameter([1, 5], F32, "table")
    bodies, inner = [], []
    for function in (ops.relu, ops.exp):
        pair = parameter([1, 5], F32, "inner_table"), parameter([4], I32, "inner_i")
        taken = ops.gather(function(pair[0]), pair[1], constant(0))
        bodies.append(ov.Model([ops.result(taken)], [*pair]))
        inner.append(pair)
    choice = ops.if_op(condition)
    choice.set_then_body(bodies[0])
    choice.set_else_body(bodies[1])
    choice.set_input(table.output(0), inner[0][0], inner[1][0])
    choice.set_input(i.output(0), inner[0][1], inner[1][1])
    chosen = choice.set_output(bodies[0].get_results()[0], bodies[1].get_results()[0])
    model = model_of(chosen, inputs=[condition, i, table])
    check(model, [0] * 4, [0] * 4, 1)
    assert deciding_inputs(model) == {"condition": ("If",)}


def test_the_slices_of_a_loop_limit_the_whole() -> None:
    i, table = parameter([5, 1], I64, "i"), parameter([1, 3], F32, "table")
    inner, rows = parameter([1, 1], I64, "inner"), parameter([1, 3], F32, "rows")
    row = ops.gather(rows, ops.reshape(inner, constant([1]), False), constant(0))
    body = ov.Model([ops.result(row)], [inner, rows])
    loop = ops.tensor_iterator()
    loop.set_body(body)
    loop.set_sliced_input(inner, i.output(0), 0, 1, 1, -1, 0)
    loop.set_invariant_input(rows, table.output(0))
    joined = loop.get_concatenated_slices(body.get_results()[0].output(0), 0, 1, 1, -1, 0)
    model = model_of(joined, inputs=[i, table])
    check(model, [[0]] * 5, [[0]] * 5)
    assert deciding_inputs(model) == {}


def test_values_stay_the_usual_ones_where_these_are_legal() -> None:
    assert invented_inputs(load_model("bert_base")).usual
    assert invented_inputs(mixed()).usual
    assert invented_inputs(mixed()).key == ""
    other = invented_inputs(aligned()[0])
    assert not other.usual
    assert len(other.key) == 32


def test_inputs_that_decide_what_runs_are_named() -> None:
    assert deciding_inputs(two_rates()) == {"rate": ("If",)}
    found = deciding_inputs(looped())  # the sum that ends it grows from x
    assert found == {"trips": ("Loop",), "x": ("Loop",), "limit": ("Loop",)}
    assert deciding_inputs(mixed()) == {}


def test_inputs_that_decide_sizes_are_named() -> None:
    x, shift = parameter([4], F32, "x"), parameter([4], F32, "shift")
    start, other = parameter([1], I64, "start"), parameter([4], F32, "other")
    found = ops.non_zero(ops.add(x, shift), "i64")
    cut = ops.slice(other, start, constant([4]), constant([1]), constant([0]))
    inputs = [x, shift, start, other]
    model = ov.Model([ops.result(found), ops.result(cut)], inputs, "sizes")
    assert deciding_inputs(model) == {
        "x": ("NonZero",),
        "shift": ("NonZero",),
        "start": ("Slice",),
    }
