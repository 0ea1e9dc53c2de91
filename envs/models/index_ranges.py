"""Ranges of index inputs: which values of a model's inputs stay inside the tensors they index.

Limits of ops such as Gather are passed back through ops that only move, convert or shift values. A
range is two arrays, the lowest and the highest allowed value of each element of a tensor; infinite
where any value will do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import openvino as ov

from device_placement.envs.arrays import Float64, Int64
from device_placement.envs.models.normalisation import bodies_of

Range = tuple[Float64, Float64]  # lowest and highest values, both of the tensor's shape
Limit = tuple[int, Any, Any]  # input port of an op; lowest and highest values there


def index_ranges(model: ov.Model) -> list[Range | None]:
    """Return the range of each of a model's inputs; None where any value will do."""
    return _ranges(model, [None] * len(model.get_results()))


def _ranges(model: ov.Model, results: Sequence[Range | None]) -> list[Range | None]:
    """Return the ranges of a model's Parameters, given those of its Results."""
    found = _Found()
    for result, known in zip(model.get_results(), results, strict=True):
        if known is not None:
            found.restrict(result.input_value(0), *known)
    for op in reversed(model.get_ordered_ops()):
        ranges = [found.get(output) for output in op.outputs()]
        for port, low, high in (*_own_limits(op), *_passed_back(op, ranges)):
            found.restrict(op.input_value(port), low, high)
    return [found.get(parameter.output(0)) for parameter in model.get_parameters()]


class _Found:
    """Ranges found so far, by output of an op."""

    def __init__(self) -> None:
        self._ranges: dict[tuple[int, int], Range] = {}

    def get(self, value: Any) -> Range | None:
        return self._ranges.get(_key(value))

    def restrict(self, value: Any, low: Any, high: Any) -> None:
        """Narrow a range; where nothing would remain, it stays as it was."""
        if value.get_partial_shape().is_dynamic:
            return
        shape = tuple(value.get_shape())
        new = [np.broadcast_to(np.asarray(limit, np.float64), shape) for limit in (low, high)]
        old = self._ranges.get(_key(value), (np.full(shape, -np.inf), np.full(shape, np.inf)))
        lowest, highest = np.maximum(old[0], new[0]), np.minimum(old[1], new[1])
        empty = lowest > highest
        self._ranges[_key(value)] = (
            np.where(empty, old[0], lowest),
            np.where(empty, old[1], highest),
        )


def _key(value: Any) -> tuple[int, int]:
    return value.get_node().get_instance_id(), value.get_index()


# The limits that ops set on their own inputs.


def _own_limits(op: Any) -> Iterator[Limit]:
    limits = _LIMITS.get(op.get_type_name())
    if limits is not None and all(_has_rank(value) for value in op.input_values()):
        yield from limits(op)


def _has_rank(value: Any) -> bool:
    return bool(value.get_partial_shape().rank.is_static)


def _size(op: Any, axis: int, port: int = 0) -> int:
    """Return how long an axis of an input is, at least."""
    return int(op.get_input_partial_shape(port)[axis].get_min_length())


def _below(port: int, size: int) -> Limit:
    return port, 0, max(size - 1, 0)


def _constant(op: Any, port: int) -> Any:
    """Return the values of a constant input; None if there is none, or it is not constant."""
    if port >= op.get_input_size():
        return None
    node = op.input_value(port).get_node()
    return node.data if node.get_type_name() == "Constant" else None


def _gather(op: Any) -> Iterator[Limit]:
    axis = _constant(op, 2)
    if axis is not None:
        yield _below(1, _size(op, int(axis.item())))


def _gather_elements(op: Any) -> Iterator[Limit]:
    yield _below(1, _size(op, op.get_attributes()["axis"]))


def _scatter(op: Any) -> Iterator[Limit]:
    axis = _constant(op, 3)
    if axis is not None:
        yield _below(1, _size(op, int(axis.item())))


def _along_last_axis(op: Any) -> Iterator[Limit]:
    """Limit indices whose last axis counts the first axes of the data, after the batch's."""
    first = op.get_attributes().get("batch_dims", 0)
    indices = op.get_input_partial_shape(1)
    if indices.is_static:
        axes = range(first, first + indices[-1].get_length())
        yield 1, 0, np.array([max(_size(op, axis) - 1, 0) for axis in axes])


def _image_numbers(op: Any) -> Iterator[Limit]:
    yield _below(2, _size(op, 0))


def _image_numbers_in_boxes(op: Any) -> Iterator[Limit]:
    """Limit the first of the five numbers of each box, which is that of its image."""
    free = np.full(4, np.inf)
    yield 1, np.append(0, -free), np.append(max(_size(op, 0) - 1, 0), free)


def _packed_bags(op: Any) -> Iterator[Limit]:
    yield _below(1, _size(op, 0))


def _bags(op: Any) -> Iterator[Limit]:
    """Limit rows of a table; the offsets rise, and share the rows evenly."""
    yield _below(1, _size(op, 0))
    yield from _rising(2, _size(op, 0, 2), _size(op, 0, 1))
    if op.get_input_size() > 3:
        yield _below(3, _size(op, 0))


def _segments(op: Any) -> Iterator[Limit]:
    yield _below(1, _size(op, 0))
    yield from _rising(2, _size(op, 0, 2), _num_segments(op))
    if op.get_input_size() > 4:
        yield _below(4, _size(op, 0))


def _segment_numbers(op: Any) -> Iterator[Limit]:
    yield from _rising(1, _size(op, 0, 1), _num_segments(op))


def _num_segments(op: Any) -> int:
    return int(op.get_output_partial_shape(0)[0].get_min_length())


def _rising(port: int, number: int, end: int) -> Iterator[Limit]:
    """Fix numbers that must not fall, spread evenly from 0 to below an end."""
    values = np.arange(number) * end // max(number, 1)
    yield port, values, values


def _one_hot(op: Any) -> Iterator[Limit]:
    depth = _constant(op, 1)
    if depth is not None:
        yield _below(0, int(depth.item()))


def _beams(op: Any) -> Iterator[Limit]:
    yield _below(1, _size(op, 2))


def _labels(op: Any) -> Iterator[Limit]:
    """Limit the labels of CTCLoss to classes that are not blank; use all logits."""
    steps, classes = _size(op, 1), _size(op, 2)
    blank = _constant(op, 4)
    last = classes - 1 if blank is None else int(blank.item())
    yield 1, steps, steps
    yield (2, 0, last - 1) if last > 0 else (2, 1, classes - 1)


def _axes(port: int) -> Callable[[Any], Iterator[Limit]]:
    def limits(op: Any) -> Iterator[Limit]:
        yield _below(port, op.get_input_partial_shape(0).rank.get_length())

    return limits


_LIMITS: dict[str, Callable[[Any], Iterator[Limit]]] = {
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _along_last_axis,
    "GatherTree": _beams,
    "ScatterElementsUpdate": _scatter,
    "ScatterNDUpdate": _along_last_axis,
    "ScatterUpdate": _scatter,
    "ROIAlign": _image_numbers,
    "ROIAlignRotated": _image_numbers,
    "ROIPooling": _image_numbers_in_boxes,
    "PSROIPooling": _image_numbers_in_boxes,
    "DeformablePSROIPooling": _image_numbers_in_boxes,
    "EmbeddingBagOffsets": _bags,
    "EmbeddingBagOffsetsSum": _bags,
    "EmbeddingBagPacked": _packed_bags,
    "EmbeddingBagPackedSum": _packed_bags,
    "EmbeddingSegmentsSum": _segments,
    "SegmentMax": _segment_numbers,
    "OneHot": _one_hot,
    "CTCLoss": _labels,
    "CumSum": _axes(1),
    "Roll": _axes(2),
}


# How the ranges of an op's outputs limit its inputs.


def _passed_back(op: Any, ranges: Sequence[Range | None]) -> Iterator[Limit]:
    if bodies := bodies_of(op):
        yield from _through_bodies(op, bodies, ranges)
    elif any(known is not None for known in ranges):
        through = _TRANSFERS.get(op.get_type_name())
        if through is not None and all(value.get_partial_shape().is_static for value in _ends(op)):
            yield from through(op, ranges)


def _ends(op: Any) -> list[Any]:
    return [*op.input_values(), *op.outputs()]


def _same(op: Any, ranges: Sequence[Range | None]) -> Iterator[Limit]:
    if ranges[0] is not None and op.get_output_element_type(0) != ov.Type.boolean:
        yield 0, *ranges[0]


def _chosen(op: Any, ranges: Sequence[Range | None]) -> Iterator[Limit]:
    """Limit the operands of which each value of the output is one."""
    first = 1 if op.get_type_name() == "Select" else 0
    for port in range(first, op.get_input_size()):
        if ranges[0] is not None:
            yield port, *_unbroadcast(ranges[0], op.get_input_shape(port))


def _arithmetic(op: Any, ranges: Sequence[Range | None]) -> Iterator[Limit]:
    """Limit the operand of a sum, difference or product whose other operand is constant."""
    for port in (0, 1):
        constant = _constant(op, 1 - port)
        if constant is not None and ranges[0] is not None:
            other = np.asarray(constant, np.float64)
            limits = _inverse(op.get_type_name(), port, *ranges[0], other)
            if limits is not None:
                yield port, *_unbroadcast(limits, op.get_input_shape(port))


def _inverse(kind: str, port: int, low: Float64, high: Float64, other: Float64) -> Range | None:
    if kind == "Add":
        return low - other, high - other
    if kind == "Subtract":
        return (low + other, high + other) if port == 0 else (other - high, other - low)
    if (other <= 0).any():
        return None
    return np.ceil(low / other), np.floor(high / other)


def _unbroadcast(known: Range, shape: Sequence[int]) -> Range:
    """Return the range of an operand that was broadcast to the range's shape."""
    low, high = known
    extra = low.ndim - len(shape)
    axes = tuple(
        axis for axis in range(low.ndim) if axis < extra or shape[axis - extra] != low.shape[axis]
    )
    lowest = low.max(axis=axes, initial=-np.inf) if axes else low
    highest = high.min(axis=axes, initial=np.inf) if axes else high
    return lowest.reshape(shape), highest.reshape(shape)


def _moved(op: Any, ranges: Sequence[Range | None]) -> Iterator[Limit]:
    """Limit each element of an input by the elements of the outputs that are copies of it."""
    data = range(op.get_input_size()) if op.get_type_name() == "Concat" else (0,)
    sizes = [int(np.prod(list(op.get_input_shape(port)), dtype=np.int64)) for port in data]
    starts = np.cumsum([0, *sizes])
    sources = _sources(op, dict(zip(data, starts.tolist(), strict=False)), int(starts[-1]))
    if sources is None:
        return
    low, high = np.full(starts[-1], -np.inf), np.full(starts[-1], np.inf)
    for source, known in zip(sources, ranges, strict=True):
        if known is not None:
            np.maximum.at(low, source.ravel(), known[0].ravel())
            np.minimum.at(high, source.ravel(), known[1].ravel())
    for port, start, size in zip(data, starts.tolist(), sizes, strict=False):
        part, shape = slice(start, start + size), tuple(op.get_input_shape(port))
        yield port, low[part].reshape(shape), high[part].reshape(shape)


BASE = 64  # every type of number holds the integers below it


def _sources(op: Any, starts: dict[int, int], total: int) -> list[Int64] | None:
    """Return for each element of the outputs the number of the input element that it copies.

    OpenVINO moves the numbers themselves, one digit at a time, as small types hold no more.

    Args:
        op: moves elements of its inputs.
        starts: the first number of each such input, by port; the other inputs are constant.
        total: how many numbers there are.

    Returns:
        None if OpenVINO can't compute the op.
    """
    sources = [np.zeros(tuple(output.get_shape()), np.int64) for output in op.outputs()]
    place = 1
    while place < max(total, 2):
        inputs = [_digits(op, port, starts, place) for port in range(op.get_input_size())]
        outputs = [ov.Tensor(one.get_element_type(), one.get_shape()) for one in op.outputs()]
        try:
            if any(tensor is None for tensor in inputs) or not op.evaluate(outputs, inputs):
                return None
        except RuntimeError:
            return None
        for source, output in zip(sources, outputs, strict=True):
            source += place * np.asarray(output.data).astype(np.int64)
        place *= BASE
    return sources


def _digits(op: Any, port: int, starts: dict[int, int], place: int) -> ov.Tensor | None:
    if port not in starts:
        constant = _constant(op, port)
        return None if constant is None else ov.Tensor(np.array(constant))
    kind = op.get_input_element_type(port)
    if kind.to_string() not in _NUMBERS:
        return None
    shape = tuple(op.get_input_shape(port))
    numbers = starts[port] + np.arange(np.prod(shape, dtype=np.int64)).reshape(shape)
    return ov.Tensor(np.asarray(numbers // place % BASE, dtype=kind.to_dtype()))


_NUMBERS = ("i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "f16", "f32", "f64")

_TRANSFERS: dict[str, Callable[[Any, Sequence[Range | None]], Iterator[Limit]]] = {
    **dict.fromkeys(("Convert", "ConvertLike", "Clamp", "Floor", "Ceiling", "Round"), _same),
    **dict.fromkeys(("Identity", "Relu"), _same),
    **dict.fromkeys(("Select", "Maximum", "Minimum"), _chosen),
    **dict.fromkeys(("Add", "Subtract", "Multiply"), _arithmetic),
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze", "Transpose", "Concat"), _moved),
    **dict.fromkeys(("Split", "VariadicSplit", "Slice", "StridedSlice", "Gather"), _moved),
    **dict.fromkeys(("Broadcast", "Tile", "Reverse", "ShuffleChannels"), _moved),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _moved),
}


def _through_bodies(
    op: Any, bodies: Sequence[ov.Model], ranges: Sequence[Range | None]
) -> Iterator[Limit]:
    """Limit the inputs of a control-flow op by what its bodies do with them."""
    for number, body in enumerate(bodies):
        inputs, outputs = descriptions(op, number)
        results: list[Range | None] = [None] * len(body.get_results())
        for one in outputs:
            if (known := ranges[one.output_index]) is not None:
                results[one.body_value_index] = _whole(one, *known)
        found = _ranges(body, results)
        for one in inputs:
            if (known := found[one.body_parameter_index]) is not None:
                yield one.input_index, *_whole(one, *known)


def descriptions(op: Any, body: int) -> tuple[Any, Any]:
    """Return how inputs and outputs of a control-flow op are joined to those of a body."""
    numbers = (body,) if op.get_type_name() == "If" else ()
    return op.get_input_descriptions(*numbers), op.get_output_descriptions(*numbers)


def _whole(description: Any, low: Float64, high: Float64) -> Any:
    """Return a range as it is, or one number for all where body and op have other slices."""
    if type(description).__name__ in ("SliceInputDescription", "ConcatOutputDescription"):
        return low.max(initial=-np.inf), high.min(initial=np.inf)
    return low, high
